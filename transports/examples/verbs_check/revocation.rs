//! What a region taken back while READs go on looks like to the reader.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use backdoor_core::transport::{
    ChannelState, Completion, LocalSlice, Operation, RemoteSlice, Rights, Transport, TransportError, WorkId,
    WorkRequest,
};
use backdoor_core::words::Ordering;
use backdoor_transports::verbs::{Device, VerbsConfig, VerbsTransport};

use super::Outcome;
use super::node::{Node, key};

const ROUNDS: u64 = 20;
const WORDS: usize = 512;
/// Nothing here takes as long.
const LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn check(device: &Device) -> Outcome {
    let node = Node::new(device, &[(WORDS, Rights::READ)])?;
    let mut transport = node.connect(VerbsConfig::default())?;
    let buffer = transport.allocate(WORDS)?;
    let from = RemoteSlice { key: key(0), offset: 0, words: WORDS as u64 };
    let operation = Operation::Read { from, into: LocalSlice::start_of(buffer) };
    let begin = Instant::now();
    let (mut reads, mut late, mut refused, mut unanswered) = (0u64, 0u64, 0, 0);
    let (mut took, mut noticed) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // When taking the region back began and had been done, in nanoseconds since the start; 0 before.
        let (asked, done, failed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| -> Outcome {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_micros(5_000 + 700 * round));
                asked.store(begin.elapsed().as_nanos() as u64, Ordering::Release);
                node.revoke(0);
                done.store(begin.elapsed().as_nanos() as u64, Ordering::Release);
            });
            let error = loop {
                let revoked = done.load(Ordering::Acquire);
                transport.post(&[WorkRequest { id: WorkId(reads), operation }])?;
                match finish(&mut transport)?.result {
                    Ok(_) => {
                        reads += 1;
                        late += u64::from(revoked > 0);
                    }
                    Err(error) => break error,
                }
            };
            failed.store(true, Ordering::Release);
            let now = begin.elapsed().as_nanos() as u64;
            match error {
                TransportError::Refused => refused += 1,
                // Taken back between two packets of one answer.
                TransportError::Unreachable => unanswered += 1,
                _ => return Err(format!("the READ that failed ended as: {error}").into()),
            }
            while done.load(Ordering::Acquire) == 0 {
                std::thread::sleep(Duration::from_micros(50));
            }
            let asked = asked.load(Ordering::Acquire);
            took.push((done.load(Ordering::Acquire) - asked) as f64 / 1e3);
            noticed.push(now.saturating_sub(asked) as f64 / 1e3);
            Ok(())
        })?;
        // Whoever connects anew does not get it either.
        reopen(&mut transport)?;
        transport.post(&[WorkRequest { id: WorkId(reads), operation }])?;
        if finish(&mut transport)?.result != Err(TransportError::Refused) {
            return Err("a READ over a new connection was not refused".into());
        }
        node.restore(0, Rights::READ)?;
        reopen(&mut transport)?;
    }
    println!("reads {reads} READs");
    println!("ended_refused {refused} READs");
    println!("ended_unanswered {unanswered} READs");
    println!("reads_after_revocation {late} READs");
    println!("revocation_median {:.0} us", median(&mut took));
    println!("noticed_median {:.0} us", median(&mut noticed));
    if late > 0 {
        Err(format!("{late} READs succeeded that began after the region had been taken back").into())
    } else {
        Ok(())
    }
}

fn reopen(transport: &mut VerbsTransport) -> Outcome {
    transport.reopen();
    let since = Instant::now();
    while transport.channel() != ChannelState::Open {
        transport.poll(&mut Vec::new());
        if transport.channel() == ChannelState::Broken || since.elapsed() > LIMIT {
            return Err(format!("the channel does not open again: {:?}", transport.why_broken()).into());
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}

fn finish(transport: &mut impl Transport) -> Result<Completion, String> {
    let since = Instant::now();
    let mut completions = Vec::new();
    while completions.is_empty() {
        transport.poll(&mut completions);
        if since.elapsed() > LIMIT {
            return Err("a READ never completed".into());
        }
    }
    Ok(completions[0])
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
