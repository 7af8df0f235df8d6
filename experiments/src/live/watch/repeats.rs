//! What is not said again and again.

use backdoor_core::Nanos;

use crate::live::notice::What;

/// How often a lasting fault of the memory is reported.
const REPEAT_EVERY: Nanos = Nanos::from_secs(10);

/// What is wrong with a node's memory is found again at every attempt to attach; said now and then, it is said enough.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    last: Option<(What, Nanos)>,
}

impl Repeats {
    /// Whether it is to be said, at this time.
    pub(super) fn is_news(&mut self, what: &What, at: Nanos) -> bool {
        match what {
            What::BadMemory { .. } | What::NoProgressBox => match &self.last {
                Some((last, said)) if last == what && at < *said + REPEAT_EVERY => false,
                _ => {
                    self.last = Some((what.clone(), at));
                    true
                }
            },
            What::Attached { .. } => {
                self.last = None;
                true
            }
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lasting_fault_of_the_memory_is_reported_now_and_then() {
        let bad = |error: &str| What::BadMemory { error: error.into() };
        let mut repeats = Repeats::default();
        let mut told = |what: What, second| repeats.is_news(&what, Nanos::from_secs(second));
        assert!(told(bad("version 7"), 1));
        assert!(!told(bad("version 7"), 2));
        assert!(told(bad("torn"), 3));
        assert!(!told(bad("torn"), 12) && told(bad("torn"), 13));
        assert!(told(What::Attached { incarnation: 1, capacity: 2 }, 14));
        assert!(told(bad("torn"), 15), "it was well in between");
    }
}
