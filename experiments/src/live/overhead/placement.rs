//! Which processor a client shares with the thread that serves it.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// If `pinned`, keeps the calling thread on the processor of the client with that number: the same in every process that may
/// use the same processors.
pub(super) fn place(client: usize, pinned: bool) -> io::Result<()> {
    if !pinned {
        return Ok(());
    }
    let allowed = sched_getaffinity(None)?;
    let mut allowed = (0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor)).cycle();
    let mut one = CpuSet::new();
    if let Some(processor) = allowed.nth(client) {
        one.set(processor);
        sched_setaffinity(None, &one)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_go_round_the_processors() {
        let on = |client| {
            let pinned = std::thread::spawn(move || {
                place(client, true).unwrap();
                sched_getaffinity(None).unwrap()
            });
            let set = pinned.join().unwrap();
            (0..CpuSet::MAX_CPU).filter(|processor| set.is_set(*processor)).collect::<Vec<_>>()
        };
        let all = sched_getaffinity(None).unwrap().count() as usize;
        let mut used: Vec<_> = (0..all).map(on).collect();
        assert_eq!(on(all), used[0], "and round again");
        used.dedup();
        assert!(used.len() == all && used.iter().all(|processors| processors.len() == 1), "{used:?}");
    }
}
