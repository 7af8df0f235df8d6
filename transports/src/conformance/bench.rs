//! What the cases share: a rig with known contents, and what holds for every operation whatever the case.

use std::fmt::Debug;

use backdoor_core::transport::{
    BufferId, ChannelState, Completion, Done, LocalSlice, Operation, PostError, RegionKey, RemoteSlice, Rights,
    Transport, TransportError, WorkId, WorkRequest,
};

use super::{Arm, Capabilities, RegionSetup, Rig};

/// Steps that the suite goes on polling, to see a completion too many.
const EXTRA_STEPS: usize = 20;

/// Why a case failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

pub(super) type Verdict = Result<(), Failure>;

/// Fails unless both are equal.
pub(super) fn expect<T: PartialEq + Debug>(what: &str, found: T, expected: T) -> Verdict {
    if found == expected {
        return Ok(());
    }
    let shorten = |value: &T| format!("{value:?}").chars().take(300).collect::<String>();
    Err(Failure(format!("{what}: found {}, expected {}", shorten(&found), shorten(&expected))))
}

/// Fails unless `holds`.
pub(super) fn ensure(holds: bool, what: &str) -> Verdict {
    if holds { Ok(()) } else { Err(Failure(what.into())) }
}

/// What region `region` holds in word `word` at first.
pub(super) fn content(region: usize, word: usize) -> u64 {
    0xa5_0000_0000 | (region as u64 + 1) << 24 | word as u64
}

pub(super) type Ending = Result<Done, TransportError>;

/// A rig in use.
pub(super) struct Bench<R> {
    pub(super) rig: R,
    pub(super) capabilities: Capabilities,
    lengths: Vec<usize>,
    next_id: u64,
    /// Work that was taken and has not come back, in order.
    awaited: Vec<WorkId>,
}

impl<R: Rig> Bench<R> {
    pub(super) fn new<A: Arm<Rig = R>>(arm: &A, regions: &[(usize, Rights)]) -> Self {
        let setups: Vec<_> =
            regions.iter().map(|(words, rights)| RegionSetup { words: *words, rights: *rights }).collect();
        let mut rig = arm.set_up(&setups);
        for (region, (words, _)) in regions.iter().enumerate() {
            (0..*words).for_each(|word| rig.cpu_store(region, word, content(region, word)));
        }
        let lengths = regions.iter().map(|(words, _)| *words).collect();
        Bench { rig, capabilities: arm.capabilities(), lengths, next_id: 1000, awaited: Vec::new() }
    }

    pub(super) fn transport(&mut self) -> &mut R::T {
        self.rig.transport()
    }

    pub(super) fn slice(&self, region: usize, offset: u64, words: u64) -> RemoteSlice {
        RemoteSlice { key: self.rig.key(region), offset, words }
    }

    /// A key that no region has, and that was not given out by mistake either.
    pub(super) fn unknown_key(&self) -> RegionKey {
        let taken = |key| (0..self.lengths.len()).any(|region| self.rig.key(region) == key);
        (0..u32::MAX)
            .rev()
            .map(|number| RegionKey(number ^ 0x5a5a))
            .find(|key| !taken(*key))
            .expect("few keys are taken")
    }

    pub(super) fn allocate(&mut self, words: usize) -> Result<BufferId, Failure> {
        self.transport().allocate(words).map_err(|error| Failure(format!("allocate {words} words: {error}")))
    }

    /// A buffer with these words.
    pub(super) fn filled(&mut self, words: &[u64]) -> Result<BufferId, Failure> {
        let buffer = self.allocate(words.len())?;
        let memory = self.transport().buffer_mut(buffer).map_err(|error| Failure(format!("fill a buffer: {error}")))?;
        memory.copy_from_slice(words);
        Ok(buffer)
    }

    /// What a buffer holds.
    pub(super) fn words(&mut self, buffer: BufferId) -> Result<Vec<u64>, Failure> {
        match self.transport().buffer(buffer) {
            Ok(words) => Ok(words.to_vec()),
            Err(error) => Err(Failure(format!("look at a buffer: {error}"))),
        }
    }

    /// Posts a batch under fresh numbers.
    pub(super) fn try_post(&mut self, operations: &[Operation]) -> Result<(), PostError> {
        let first = self.next_id;
        let requests: Vec<_> = (first..)
            .zip(operations)
            .map(|(id, operation)| WorkRequest { id: WorkId(id), operation: *operation })
            .collect();
        self.next_id += operations.len() as u64;
        self.transport().post(&requests)?;
        self.awaited.extend(requests.iter().map(|request| request.id));
        Ok(())
    }

    pub(super) fn post(&mut self, operations: &[Operation]) -> Verdict {
        self.try_post(operations).map_err(|error| Failure(format!("post {} operations: {error}", operations.len())))
    }

    /// Waits for all work under way, within the bound of the rig's patience. Checks that everything comes back once, in
    /// order, and nothing else.
    pub(super) fn finish(&mut self) -> Result<Vec<Ending>, Failure> {
        let mut completions: Vec<Completion> = Vec::new();
        for _ in 0..self.rig.patience() {
            if completions.len() >= self.awaited.len() {
                break;
            }
            self.rig.step(&mut completions);
        }
        for _ in 0..EXTRA_STEPS {
            self.rig.step(&mut completions);
        }
        let ids: Vec<_> = completions.iter().map(|completion| completion.id).collect();
        expect(
            "operations that completed, each once and in the order of posting",
            ids,
            std::mem::take(&mut self.awaited),
        )?;
        Ok(completions.iter().map(|completion| completion.result).collect())
    }

    /// Posts a batch and waits for it.
    pub(super) fn perform(&mut self, operations: &[Operation]) -> Result<Vec<Ending>, Failure> {
        self.post(operations)?;
        self.finish()
    }

    /// One operation, which must end like that.
    pub(super) fn perform_one(&mut self, operation: Operation, ending: Ending) -> Verdict {
        let endings = self.perform(&[operation])?;
        expect(&format!("ending of {operation:?}"), endings, vec![ending])
    }

    /// One operation that the node must not execute; the channel is usable again afterwards.
    pub(super) fn perform_refused(&mut self, operation: Operation, error: TransportError) -> Verdict {
        let endings = self.perform(&[operation])?;
        let found = endings.first().copied();
        let either = matches!(found, Some(Err(TransportError::Refused | TransportError::OutOfBounds)));
        if self.capabilities.tells_out_of_bounds || !either {
            expect(&format!("ending of {operation:?}"), found, Some(Err(error)))?;
        }
        self.mend()
    }

    /// After an error: checks the channel's state, and opens it anew if it is broken.
    pub(super) fn mend(&mut self) -> Verdict {
        let broken = self.transport().channel() == ChannelState::Broken;
        expect("whether the error broke the channel", broken, self.capabilities.breaks_on_error)?;
        if broken { self.reopen() } else { Ok(()) }
    }

    /// Opens the channel anew, and waits until it is.
    pub(super) fn reopen(&mut self) -> Verdict {
        self.transport().reopen();
        let mut completions = Vec::new();
        for _ in 0..self.rig.patience() {
            match self.transport().channel() {
                ChannelState::Open => break,
                ChannelState::Opening => self.rig.step(&mut completions),
                ChannelState::Broken => return Err(Failure("reopen: the channel is broken again".into())),
            }
        }
        expect("state after reopen", self.transport().channel(), ChannelState::Open)?;
        expect("completions out of nowhere during reopen", completions, Vec::new())
    }

    /// The node's processor finds every word of a region as it was at first.
    pub(super) fn expect_untouched(&mut self, region: usize) -> Verdict {
        (0..self.lengths[region]).try_for_each(|word| {
            let found = self.rig.cpu_load(region, word);
            expect(&format!("word {word} of region {region} at the node"), found, content(region, word))
        })
    }
}

/// READ into the front of a buffer.
pub(super) fn read(from: RemoteSlice, buffer: BufferId) -> Operation {
    Operation::Read { from, into: LocalSlice::start_of(buffer) }
}

/// WRITE from the front of a buffer.
pub(super) fn write(buffer: BufferId, to: RemoteSlice) -> Operation {
    Operation::Write { from: LocalSlice::start_of(buffer), to }
}

/// Compare-and-swap of the first word of a slice.
pub(super) fn swap(at: RemoteSlice, expected: u64, new: u64) -> Operation {
    Operation::CompareSwap { key: at.key, offset: at.offset, expected, new }
}

pub(super) const DONE_READ: Ending = Ok(Done::Read);
pub(super) const DONE_WRITE: Ending = Ok(Done::Written);

/// A compare-and-swap that found this value.
pub(super) fn found(previous: u64) -> Ending {
    Ok(Done::CompareSwapped { previous })
}
