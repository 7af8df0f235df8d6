//! Every knob of the fault injector, in one place.

use std::ops::Range;

/// What can be done to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The operation goes to the node with a key that nobody has, so that the transport itself refuses it. It is not
    /// executed, nor is what was posted behind it.
    Refused,
    /// The operation ends as `Unreachable`. It may have been executed, as when the answer is lost.
    Unreachable,
    /// The operation ends as `LocalFault`. It may have been executed.
    LocalFault,
    /// Bits of the data that a READ brought are flipped; it ends well. No effect on other operations.
    CorruptRead,
    /// A READ brings what an earlier READ of the same words brought (the first time: what it really brings); it ends
    /// well. Under a schedule this is memory replayed by an attacker, or a node that seems to hang and doesn't. No
    /// effect on other operations.
    StaleRead,
}

/// A fault at set operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduledFault {
    /// Which operations, counted from 0 in the order of posting. `5..6` is one, `5..u64::MAX` all from then on.
    pub operations: Range<u64>,
    /// What happens to them.
    pub fault: Fault,
}

/// What a [`FaultInjector`](super::FaultInjector) does. Probabilities are per operation unless the name says otherwise;
/// an operation meets at most one fault. The default does nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultOptions {
    /// Same seed and same operations: same faults.
    pub seed: u64,
    /// Probability of [`Fault::Refused`].
    pub refused_probability: f64,
    /// Probability of [`Fault::Unreachable`].
    pub unreachable_probability: f64,
    /// Probability of [`Fault::LocalFault`].
    pub local_fault_probability: f64,
    /// Probability of [`Fault::CorruptRead`].
    pub corrupt_read_probability: f64,
    /// Bits flipped in a corrupt READ; the same bit may be hit twice.
    pub corrupt_bits: u32,
    /// Probability of [`Fault::StaleRead`].
    pub stale_read_probability: f64,
    /// Distinct remote slices whose data is remembered for stale READs; further ones are read as they are.
    pub remembered_slices: usize,
    /// Probability, per batch, that it is not taken because the queue is "full".
    pub refused_post_probability: f64,
    /// Faults at set operations; they take precedence over chance, the first that fits over later ones.
    pub schedule: Vec<ScheduledFault>,
}

impl Default for FaultOptions {
    fn default() -> Self {
        FaultOptions {
            seed: 0,
            refused_probability: 0.0,
            unreachable_probability: 0.0,
            local_fault_probability: 0.0,
            corrupt_read_probability: 0.0,
            corrupt_bits: 1,
            stale_read_probability: 0.0,
            remembered_slices: 1024,
            refused_post_probability: 0.0,
            schedule: Vec::new(),
        }
    }
}

/// Options that make no sense.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum FaultOptionsError {
    /// Not a probability.
    #[error("{name} is {value}, must be a probability between 0 and 1")]
    NoProbability {
        /// The option.
        name: &'static str,
        /// Its value.
        value: f64,
    },
    /// The faults of one operation exclude each other.
    #[error("the probabilities of the faults of one operation add up to {sum}, which is more than 1")]
    MoreThanOne {
        /// Their sum.
        sum: f64,
    },
}

impl FaultOptions {
    /// Refuses what is no probability.
    pub fn validate(&self) -> Result<(), FaultOptionsError> {
        let per_operation = self.chances().map(|(name, value, _)| (name, value));
        let post = ("refused_post_probability", self.refused_post_probability);
        for (name, value) in per_operation.into_iter().chain([post]) {
            if !(0.0..=1.0).contains(&value) {
                return Err(FaultOptionsError::NoProbability { name, value });
            }
        }
        let sum: f64 = per_operation.iter().map(|(_, value)| value).sum();
        // Decimal fractions that add up to one may exceed it by their rounding.
        if sum > 1.0 + 1e-9 { Err(FaultOptionsError::MoreThanOne { sum }) } else { Ok(()) }
    }

    /// The fault of operation `number`, where `draw` is uniform in [0, 1).
    pub(super) fn fault(&self, number: u64, draw: f64) -> Option<Fault> {
        if let Some(scheduled) = self.schedule.iter().find(|scheduled| scheduled.operations.contains(&number)) {
            return Some(scheduled.fault);
        }
        let mut below = 0.0;
        self.chances().into_iter().find_map(|(_, probability, fault)| {
            below += probability;
            (draw < below).then_some(fault)
        })
    }

    /// Whether a READ can be stale, so that data must be remembered.
    pub(super) fn may_be_stale(&self) -> bool {
        self.stale_read_probability > 0.0 || self.schedule.iter().any(|entry| entry.fault == Fault::StaleRead)
    }

    fn chances(&self) -> [(&'static str, f64, Fault); 5] {
        [
            ("refused_probability", self.refused_probability, Fault::Refused),
            ("unreachable_probability", self.unreachable_probability, Fault::Unreachable),
            ("local_fault_probability", self.local_fault_probability, Fault::LocalFault),
            ("corrupt_read_probability", self.corrupt_read_probability, Fault::CorruptRead),
            ("stale_read_probability", self.stale_read_probability, Fault::StaleRead),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_probability_is_refused() {
        for value in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            let options = FaultOptions { unreachable_probability: value, ..FaultOptions::default() };
            assert!(matches!(options.validate(), Err(FaultOptionsError::NoProbability { .. })), "{value}");
            let options = FaultOptions { refused_post_probability: value, ..FaultOptions::default() };
            assert!(matches!(options.validate(), Err(FaultOptionsError::NoProbability { .. })), "{value}");
        }
        let options =
            FaultOptions { refused_probability: 0.6, unreachable_probability: 0.6, ..FaultOptions::default() };
        assert!(matches!(options.validate(), Err(FaultOptionsError::MoreThanOne { .. })));
    }

    #[test]
    fn the_schedule_goes_before_chance() {
        let schedule = vec![ScheduledFault { operations: 5..7, fault: Fault::StaleRead }];
        let options = FaultOptions { refused_probability: 0.5, schedule, ..FaultOptions::default() };
        assert_eq!(options.fault(5, 0.1), Some(Fault::StaleRead));
        assert_eq!(options.fault(7, 0.1), Some(Fault::Refused));
        assert_eq!(options.fault(7, 0.5), None);
    }
}
