//! The network between a monitor and its node: random delays, random losses.

use backdoor_core::Nanos;
use backdoor_transports::sim_nic::{Leg, Path, Transit};
use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::mode::Traffic;
use crate::dist::Dist;

/// Draws each message's delay, and whether it is lost, from a stream of its own.
#[derive(Debug)]
pub struct RandomPath {
    delay: Dist,
    loss: f64,
    rng: Xoshiro256PlusPlus,
    traffic: Traffic,
}

impl RandomPath {
    /// `delay` each way, whatever the size; a fraction `loss` of the messages never arrives.
    pub fn new(delay: Dist, loss: f64, rng: Xoshiro256PlusPlus) -> Self {
        RandomPath { delay, loss, rng, traffic: Traffic::default() }
    }

    /// What was sent so far, lost or not.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }
}

impl Path for RandomPath {
    fn one_way(&mut self, leg: Leg, _: Nanos, words: u64) -> Transit {
        match leg {
            Leg::ToNode => self.traffic.to_node += 1,
            Leg::FromNode => self.traffic.from_node += 1,
        }
        self.traffic.words += words;
        if self.loss > 0.0 && self.rng.random::<f64>() < self.loss {
            return Transit::Lost;
        }
        Transit::ArrivesAfter(self.delay.sample(&mut self.rng))
    }
}
