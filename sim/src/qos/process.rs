//! The heartbeat process: sent every η, lost or delayed, and seen in the order of arrival.

use std::collections::VecDeque;

use backdoor_core::Nanos;
use backdoor_core::detector::Heartbeat;
use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::delay::Delay;
use super::setting::Setting;

/// Heartbeats of a sender that lives for ever: number `i` is sent at `i`·η, from 1 on.
///
/// A heartbeat that arrives after a later one, or with it, is stale and tells no detector anything. It is known to be
/// stale as soon as the later one is sent; so those under way are always in the order of number and of arrival.
#[derive(Clone, Debug)]
pub struct Process<'a> {
    period: Nanos,
    loss: f64,
    delay: &'a Delay,
    next: u64,
    under_way: VecDeque<Heartbeat>,
}

impl<'a> Process<'a> {
    /// Before anything was sent.
    pub fn new(setting: &'a Setting) -> Self {
        Process {
            period: setting.period,
            loss: setting.loss,
            delay: &setting.delay,
            next: 1,
            under_way: VecDeque::new(),
        }
    }

    /// How many heartbeats were sent.
    #[inline]
    pub fn sent(&self) -> u64 {
        self.next - 1
    }

    /// When the last one was sent.
    #[inline]
    pub fn last_sent_at(&self) -> Nanos {
        self.period * self.sent()
    }

    /// Sends the next heartbeat.
    #[inline]
    pub fn send(&mut self, rng: &mut Xoshiro256PlusPlus) {
        let lost = self.loss > 0.0 && rng.random::<f64>() < self.loss;
        let delay = if lost { None } else { Some(self.delay.sample(rng)) };
        self.send_with(delay);
    }

    /// Sends the next heartbeat with a given fate: its delay, or lost.
    #[inline]
    pub fn send_with(&mut self, delay: Option<Nanos>) {
        if let Some(delay) = delay {
            let heartbeat = Heartbeat { number: self.next, at: self.period * self.next + delay };
            while self.under_way.back().is_some_and(|last| last.at >= heartbeat.at) {
                self.under_way.pop_back();
            }
            self.under_way.push_back(heartbeat);
        }
        self.next += 1;
    }

    /// The next arrival before the next heartbeat is sent.
    #[inline]
    pub fn arrival(&mut self) -> Option<Heartbeat> {
        let before = self.period * self.next;
        self.under_way.front().filter(|heartbeat| heartbeat.at < before)?;
        self.under_way.pop_front()
    }

    /// The next arrival if nothing more is sent.
    #[inline]
    pub fn last_arrival(&mut self) -> Option<Heartbeat> {
        self.under_way.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::super::setting::{DetectorKind, Setting};
    use super::*;
    use crate::streams::{StreamKey, Streams};
    use backdoor_core::detector::Newest;

    /// Against the plain way: all arrivals sorted, the stale ones filtered out.
    #[test]
    fn arrivals_are_the_news_in_order_of_arrival() {
        let delay = Delay::Law("exp:35ms".parse().unwrap());
        let period = Nanos::from_millis(10);
        let detector = DetectorKind::Deadline { timeout: period };
        let setting = Setting { detector, period, loss: 0.2, delay, poll: None };
        let streams = Streams::new(StreamKey { seed: 1, experiment: "qos", point: "process", replication: 0 });
        let (mut rng, mut same) = (streams.stream("heartbeats"), streams.stream("heartbeats"));
        let mut process = Process::new(&setting);
        let mut found = Vec::new();
        for _ in 0..5_000 {
            process.send(&mut rng);
            found.extend(std::iter::from_fn(|| process.arrival()));
        }
        assert_eq!(process.last_sent_at(), period * 5_000);
        found.extend(std::iter::from_fn(|| process.last_arrival()));
        let mut all = Vec::new();
        for number in 1..=5_000 {
            if same.random::<f64>() >= 0.2 {
                all.push(Heartbeat { number, at: period * number + setting.delay.sample(&mut same) });
            }
        }
        all.sort_by_key(|heartbeat| (heartbeat.at, u64::MAX - heartbeat.number));
        let mut newest = Newest::default();
        all.retain(|heartbeat| newest.is_news(heartbeat.number));
        assert!(all.len() < 2_500, "most were overtaken");
        assert_eq!(found, all);
    }
}
