//! The suite proves nothing unless it can fail: transports with one flaw each, and the case that must notice it.

mod support;

use backdoor_core::transport::{
    BufferId, ChannelState, Completion, Done, Operation, PostError, RemoteSlice, Rights, Transport, TransportError,
    WorkRequest,
};
use backdoor_transports::conformance::{self, RegionSetup};
use support::{Channel, SimArm, Wrapped};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    ReversesCompletions,
    CompletesTwice,
    LosesFailures,
    CallsEverythingDone,
    StaysOpen,
    PostsOneByOne,
    ShowsBusyBuffers,
    KeepsReleasedBuffers,
    MissesOffsets,
    LiesAboutSwaps,
    TearsWords,
    CallsUnreachableFlushed,
    CallsRefusedUnreachable,
    CallsBoundsRefused,
    ForgetsToReopen,
    HasNoDepth,
}

struct Flawed {
    inner: Channel,
    flaw: Flaw,
    reads: Vec<BufferId>,
}

impl Wrapped for Flawed {
    fn wrap(_: Channel) -> Self {
        unreachable!("every flawed transport names its flaw")
    }
    fn channel_inside(&mut self) -> &mut Channel {
        &mut self.inner
    }
}

impl Transport for Flawed {
    fn allocate(&mut self, words: usize) -> Result<BufferId, PostError> {
        self.inner.allocate(words)
    }
    fn release(&mut self, buffer: BufferId) -> Result<(), PostError> {
        if self.flaw == Flaw::KeepsReleasedBuffers { Ok(()) } else { self.inner.release(buffer) }
    }
    fn buffer(&self, buffer: BufferId) -> Result<&[u64], PostError> {
        let words = self.inner.buffer(buffer);
        if self.flaw == Flaw::ShowsBusyBuffers { words.or(Ok(&[])) } else { words }
    }
    fn buffer_mut(&mut self, buffer: BufferId) -> Result<&mut [u64], PostError> {
        self.inner.buffer_mut(buffer)
    }

    fn post(&mut self, batch: &[WorkRequest]) -> Result<(), PostError> {
        let mut batch = batch.to_vec();
        for request in &mut batch {
            if let Operation::Read { from, into } = &mut request.operation {
                self.reads.push(into.buffer);
                if self.flaw == Flaw::MissesOffsets && from.offset > 0 && from.words == 5 {
                    *from = RemoteSlice { offset: from.offset - 1, ..*from };
                }
            }
        }
        match self.flaw {
            Flaw::PostsOneByOne => batch.chunks(1).try_for_each(|one| self.inner.post(one)),
            Flaw::HasNoDepth => self.inner.post(&batch).or(Ok(())),
            _ => self.inner.post(&batch),
        }
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        let before = completions.len();
        self.inner.poll(completions);
        let mut new = completions.split_off(before);
        match self.flaw {
            Flaw::ReversesCompletions => new.reverse(),
            Flaw::CompletesTwice => new = new.iter().flat_map(|completion| [*completion; 2]).collect(),
            Flaw::LosesFailures => new.retain(|completion| completion.result.is_ok()),
            Flaw::CallsEverythingDone => {
                new.iter_mut().for_each(|completion| completion.result = completion.result.or(Ok(Done::Read)));
            }
            Flaw::TearsWords if !new.is_empty() => {
                for buffer in self.reads.drain(..) {
                    let Some(word) = self.inner.buffer_mut(buffer).ok().and_then(|words| words.last_mut()) else {
                        continue;
                    };
                    *word = *word >> 32 << 32;
                }
            }
            _ => {}
        }
        for completion in &mut new {
            completion.result = match (self.flaw, completion.result) {
                (Flaw::LiesAboutSwaps, Ok(Done::CompareSwapped { .. })) => Ok(Done::CompareSwapped { previous: 0 }),
                (Flaw::CallsUnreachableFlushed, Err(TransportError::Unreachable)) => Err(TransportError::Flushed),
                (Flaw::CallsRefusedUnreachable, Err(TransportError::Refused)) => Err(TransportError::Unreachable),
                (Flaw::CallsBoundsRefused, Err(TransportError::OutOfBounds)) => Err(TransportError::Refused),
                (_, result) => result,
            };
        }
        completions.append(&mut new);
    }

    fn channel(&self) -> ChannelState {
        if self.flaw == Flaw::StaysOpen { ChannelState::Open } else { self.inner.channel() }
    }
    fn reopen(&mut self) {
        if self.flaw != Flaw::ForgetsToReopen {
            self.inner.reopen();
        }
    }
}

/// The names of the cases that fail.
fn failures<W: Wrapped>(arm: &SimArm<W>) -> Vec<&'static str> {
    conformance::run(arm).failures().map(|(name, _)| name).collect()
}

/// One line per flaw: how to make it, and a case that must notice.
macro_rules! flaws {
    ($($flaw:ident => $noticed_by:literal,)*) => {
        [$((
            stringify!($flaw),
            SimArm { setup: |region| region, wrap: |inner| Flawed { inner, flaw: Flaw::$flaw, reads: Vec::new() } },
            $noticed_by,
        )),*]
    };
}

#[test]
fn every_flaw_of_a_transport_is_noticed() {
    let flaws: [(&str, SimArm<Flawed>, &str); 16] = flaws![
        ReversesCompletions => "work before an error is done, work behind it is flushed or done",
        CompletesTwice => "a READ brings what is there",
        LosesFailures => "a key that nobody has is refused",
        CallsEverythingDone => "a READ without the right is refused",
        StaysOpen => "a broken channel takes nothing until it is reopened",
        PostsOneByOne => "a batch with one impossible operation is not taken at all",
        ShowsBusyBuffers => "a buffer with work under way is out of reach",
        KeepsReleasedBuffers => "a released buffer is gone, also after others were made",
        MissesOffsets => "READs keep to their offsets and lengths, at both ends",
        LiesAboutSwaps => "a compare-and-swap that finds what it expects stores",
        TearsWords => "words are never torn",
        CallsUnreachableFlushed => "a cut link ends in Unreachable, within a bound",
        CallsRefusedUnreachable => "a WRITE without the right is refused and stores nothing",
        CallsBoundsRefused => "a READ out of bounds fails",
        ForgetsToReopen => "buffers survive an error and a reopening",
        HasNoDepth => "a full queue takes no batch, and is free again once polled",
    ];
    for (flaw, arm, noticed_by) in flaws {
        let failed = failures(&arm);
        assert!(failed.contains(&noticed_by), "{flaw} was not noticed by '{noticed_by}', only by {failed:?}");
    }
}

#[test]
fn a_node_that_ignores_rights_is_noticed() {
    let arm: SimArm<Channel> =
        SimArm { setup: |region| RegionSetup { rights: Rights::from_bits(7).unwrap(), ..region }, wrap: |inner| inner };
    assert_eq!(
        failures(&arm),
        [
            "a READ without the right is refused",
            "a WRITE without the right is refused and stores nothing",
            "a compare-and-swap without the right is refused",
        ]
    );
}

#[test]
fn a_node_that_ignores_bounds_is_noticed() {
    let arm: SimArm<Channel> =
        SimArm { setup: |region| RegionSetup { words: region.words + 8, ..region }, wrap: |inner| inner };
    let failed = failures(&arm);
    for case in [
        "a READ out of bounds fails",
        "a WRITE out of bounds fails and stores nothing",
        "a compare-and-swap out of bounds fails",
    ] {
        assert!(failed.contains(&case), "not noticed by '{case}', only by {failed:?}");
    }
}

#[test]
fn a_panic_fails_its_case_and_not_the_suite() {
    let arm: SimArm<Channel> = SimArm { setup: |region| region, wrap: |_| panic!("no such device") };
    let report = conformance::run(&arm);
    assert_eq!(report.failures().count(), report.outcomes.len());
    assert!(report.failures().all(|(_, why)| why == "panicked: no such device"));
}
