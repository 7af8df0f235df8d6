//! The node's clock: the part of evidence time in which the node's operating system demonstrably ran.
//!
//! The monitor doubts itself before it doubts a node: silence counts only while it watched. This is the same doubt one
//! level further down. A process that waits for a processor is silent and has not failed; but while it waits, so do the
//! timers that advance the operating system's counters, on the same run queue. So silence is measured in what these
//! counters have advanced meanwhile, and an entity is accused when *others had their turns and it took none*:
//!
//! ```text
//!   evidence time   |----|----|----|----|----|----|----|----|   polls
//!   os counters      +1   +1   .    .    +1   .    .    +1      an overloaded stretch in the middle
//!   node's clock    |----|----|         |----|         |----|   4 periods, not 8
//! ```
//!
//! A step of a counter with period *p* vouches for *p* of time, and an eighth more, for timers are late a little. Counters
//! that are suspected don't vouch; of the others the mean counts. What they vouch for beyond the time that has passed is
//! kept for the next sample, up to two periods or samples, because a READ may just miss a step.
//!
//! The clock never runs slower than [`SLOWEST`] of evidence time, so that what died on a node that hardly runs is found
//! late and not never. A node that does not run at all is another matter: its own counters have deadlines, too. Forged
//! counters can make the clock run as fast as evidence time, and no faster. Where whoever keeps the counters is known to have
//! ended, they say nothing of the node any more, and from then on the clock is the monitor's.

use crate::Nanos;
use crate::progress_box::{Liveness, Slot};

/// The node's clock runs at least at one part in so many of evidence time.
pub const SLOWEST: u64 = 16;

/// Points of the past that are kept; when there are more, every other one is dropped, so the past gets coarser with age.
const HISTORY: usize = 256;

/// A counter that advances by a clock.
#[derive(Clone, Copy, Debug)]
struct Ticker {
    slot: Slot,
    /// What a step vouches for.
    worth: Nanos,
    count: u64,
    /// Vouched for and not used yet.
    credit: Nanos,
}

/// How much of evidence time the node did not demonstrably run, from counters that advance by a clock.
#[derive(Clone, Debug, Default)]
pub struct NodeClock {
    tickers: Vec<Ticker>,
    /// Evidence time of the last sample.
    time: Nanos,
    /// Evidence time so far in which the node did not demonstrably run.
    stalled: Nanos,
    /// `stalled` as of some samples, by their evidence time.
    history: Vec<(Nanos, Nanos)>,
    /// Nobody advances the counters any more.
    keeper_ended: bool,
}

impl NodeClock {
    /// Takes the counter in `slot` into account, which stands at `count` and advances every `period`; not if it has none.
    /// The slot's last counter is forgotten.
    pub fn follow(&mut self, slot: Slot, period: Nanos, count: u64) {
        self.forget(slot);
        if period > Nanos::ZERO {
            self.tickers.push(Ticker { slot, worth: period + period / 8, count, credit: Nanos::ZERO });
        }
    }

    /// What is in `slot` counts no more.
    pub fn forget(&mut self, slot: Slot) {
        self.tickers.retain(|ticker| ticker.slot != slot);
    }

    /// Whoever keeps the counters has ended: they don't vouch any more, and nobody's silence is excused by theirs. What they
    /// excused before stays so.
    pub fn keeper_ended(&mut self) {
        self.keeper_ended = true;
    }

    /// Takes in a sample that ended at `end`. `counts` tells where the counter in a slot stands; `None` if it is not to be
    /// trusted.
    pub fn sample(&mut self, end: Nanos, counts: impl Fn(Slot) -> Option<u64>) {
        let elapsed = end - self.time;
        self.time = self.time.max(end);
        if self.keeper_ended || self.tickers.is_empty() || elapsed == Nanos::ZERO {
            return;
        }
        let (mut ran, mut trusted) = (Nanos::ZERO, 0);
        for ticker in &mut self.tickers {
            let Some(count) = counts(ticker.slot) else {
                ticker.credit = Nanos::ZERO;
                continue;
            };
            let steps = Liveness::steps(ticker.count, count);
            let credit = ticker.credit + ticker.worth * steps;
            let used = credit.min(elapsed);
            ticker.count = count;
            ticker.credit = (credit - used).min(ticker.worth.max(elapsed) * 2);
            ran += used;
            trusted += 1;
        }
        let ran = Nanos(ran.0.checked_div(trusted).unwrap_or(0)).max(elapsed / SLOWEST);
        self.stalled += elapsed - ran;
        if self.history.len() >= HISTORY {
            let mut number = 0;
            self.history.retain(|_| {
                number += 1;
                number % 2 == 1
            });
        }
        self.history.push((end, self.stalled));
    }

    /// How much of the evidence time from `since` to the last sample the node did not demonstrably run. Where the past is
    /// coarse, somewhat more rather than less; but never more than the [slowest](SLOWEST) clock leaves.
    pub fn stalled_since(&self, since: Nanos) -> Nanos {
        let later = self.history.partition_point(|(at, _)| *at <= since);
        let before = later.checked_sub(1).map_or(Nanos::ZERO, |at| self.history[at].1);
        let elapsed = self.time - since;
        (self.stalled - before).min(elapsed - elapsed / SLOWEST)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Nanos = Nanos::from_millis(1);

    /// A clock that follows one counter with a period of 1 ms, polled every millisecond.
    fn polled(steps: &[u64]) -> NodeClock {
        let mut clock = NodeClock::default();
        clock.follow(Slot(0), MS, 0);
        let mut count = 0;
        for (sample, steps) in (1..).zip(steps) {
            count += steps;
            clock.sample(MS * sample, |_| Some(count));
        }
        clock
    }

    #[test]
    fn a_node_that_ticks_is_not_stalled() {
        assert_eq!(polled(&[1; 50]).stalled_since(Nanos::ZERO), Nanos::ZERO);
        // READs that see a step a little late, or two at once.
        let stalled = polled(&[1, 0, 2, 1, 0, 2, 0, 2, 1, 1]).stalled_since(Nanos::ZERO);
        assert!(stalled <= MS, "{stalled}");
    }

    #[test]
    fn a_node_that_ticks_half_the_time_is_stalled_for_the_other_half() {
        let stalled = polled(&[1, 0].repeat(40)).stalled_since(MS * 40);
        assert!(stalled > MS * 16 && stalled < MS * 20, "{stalled}: less an eighth of each tick");
    }

    #[test]
    fn a_node_that_stands_still_is_stalled_but_for_the_slowest_rate() {
        let steps = [vec![1; 10], vec![0; 160]].concat();
        let clock = polled(&steps);
        // What was vouched for by an eighth of ten steps is used first.
        let stalled = clock.stalled_since(MS * 10);
        assert!(stalled <= MS * 150 && stalled > MS * 147, "{stalled}");
        assert_eq!(clock.stalled_since(MS * 170), Nanos::ZERO);
    }

    #[test]
    fn a_suspected_counter_does_not_vouch_and_does_not_stall() {
        let mut clock = NodeClock::default();
        clock.follow(Slot(0), MS, 0);
        clock.follow(Slot(1), MS, 0);
        for sample in 1..=40 {
            let hung = if sample <= 20 { Some(0) } else { None };
            clock.sample(MS * sample, |slot| if slot == Slot(0) { Some(sample) } else { hung });
        }
        assert_eq!(clock.stalled_since(MS * 20), Nanos::ZERO);
        assert_eq!(clock.stalled_since(Nanos::ZERO), MS * 10, "half a vote against it while it was trusted");
        clock.forget(Slot(0));
        clock.forget(Slot(1));
        clock.sample(MS * 100, |_| None);
        assert_eq!(clock.stalled_since(MS * 40), Nanos::ZERO, "without counters the clock is the monitor's");
    }

    #[test]
    fn a_long_silence_is_excused_for_no_more_than_the_slowest_clock_leaves() {
        let clock = polled(&[vec![1; 10], vec![0; 6000]].concat());
        for since in [10, 1000, 4000, 5900].map(|at| MS * at) {
            let (elapsed, stalled) = (MS * 6010 - since, clock.stalled_since(since));
            let most = elapsed - elapsed / SLOWEST;
            assert!(stalled <= most && stalled + MS * 2 > most, "{stalled} since {since}, at most {most}");
        }
    }

    #[test]
    fn counters_that_nobody_keeps_excuse_nobody() {
        let mut clock = polled(&[vec![1; 10], vec![0; 16]].concat());
        let before = clock.stalled_since(MS * 10);
        assert!(before > MS * 10, "{before}");
        clock.keeper_ended();
        for sample in 27..=60 {
            clock.sample(MS * sample, |_| Some(10));
        }
        assert_eq!(clock.stalled_since(MS * 10), before, "what was excused stays so");
        assert_eq!(clock.stalled_since(MS * 26), Nanos::ZERO);
    }

    #[test]
    fn slow_ticks_are_credited_between_polls() {
        let mut clock = NodeClock::default();
        clock.follow(Slot(0), MS * 10, 0);
        for sample in 1..=200 {
            clock.sample(MS * sample, |_| Some(sample / 10));
        }
        assert!(clock.stalled_since(MS * 20) < MS, "{}", clock.stalled_since(MS * 20));
    }

    proptest! {
        /// Whatever the counters do: never more than what has passed, less the slowest rate; and additive up to the
        /// coarseness of the past, which errs on the excusing side.
        #[test]
        fn stalls_are_bounded_and_grow(steps in prop::collection::vec((1u64..5_000, any::<u64>()), 1..700), at in 0usize..700) {
            let mut clock = NodeClock::default();
            clock.follow(Slot(3), Nanos(1_000), 7);
            let (mut now, mut exact) = (Nanos::ZERO, vec![(Nanos::ZERO, Nanos::ZERO)]);
            for (elapsed, count) in steps {
                now += Nanos(elapsed);
                let count = if count % 3 == 0 { None } else { Some(count >> 2) };
                clock.sample(now, |_| count);
                exact.push((now, clock.stalled));
            }
            let (since, before) = exact[at.min(exact.len() - 1)];
            let stalled = clock.stalled_since(since);
            let rounding = Nanos(now.0.min(700));
            prop_assert!(stalled + rounding >= clock.stalled - before, "at least what it was");
            prop_assert!(stalled <= (now - since) - (now - since) / SLOWEST, "the slowest clock runs, however long ago");
            prop_assert!(clock.stalled <= now - now / SLOWEST + rounding, "rounding aside");
            prop_assert!(clock.history.len() <= HISTORY);
        }
    }
}
