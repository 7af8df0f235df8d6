//! What a second thread brings, when threads run independent replications as the studies do.
//!
//! Rounds with one thread and with two take turns. By the clock, two threads do twice the work of one if they have a core
//! each; whoever else uses the machine makes it less. By their own time (that during which they had a core), what is
//! measured is whether they get into each other's way: caches, memory, locks.

use std::thread;
use std::time::Instant;

use crate::thread_time;

/// Work per time with two threads, to that with one; medians.
pub(crate) struct Scaling {
    pub(crate) wall: f64,
    pub(crate) own: f64,
}

const REPLICATIONS: u64 = 4;

pub(crate) fn scaling(rounds: usize, replication: fn(u64) -> u64) -> Scaling {
    let (mut wall, mut own) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (one_wall, one_own) = run(1, replication);
        let (two_wall, two_own) = run(2, replication);
        wall.push(2.0 * one_wall / two_wall);
        own.push(2.0 * one_own / two_own);
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Scaling { wall: median(wall), own: median(own) }
}

/// Each of so many threads runs the same number of replications; time by the clock, and own time of a thread.
fn run(threads: u64, replication: fn(u64) -> u64) -> (f64, f64) {
    let start = Instant::now();
    let work = |thread: u64| {
        let start = thread_time();
        (0..REPLICATIONS).for_each(|number| {
            std::hint::black_box(replication(thread * REPLICATIONS + number));
        });
        thread_time() - start
    };
    let own: f64 = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        running.into_iter().map(|thread| thread.join().expect("a replication does not panic")).sum()
    });
    (start.elapsed().as_secs_f64(), own / threads as f64)
}
