//! Is what was read out of a failed worker what its clients know?

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::clients::Knowledge;
use crate::live::notice::{RecoveredState, Recovery, to_hex};
use crate::live::parts::{content, session_name};

/// What the states of one run's sessions are made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct States {
    /// Differs from run to run, so that no state left over from another run passes for one of this.
    pub(super) seed: u64,
    pub(super) bytes: usize,
}

/// What an extraction brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// States of sessions that had to be recovered, as far as there are any.
    pub(super) recovered: u64,
    /// Those that are what the client knows, byte for byte.
    pub(super) right: u64,
}

/// Compares the states of `clients`, the numbers of those whose sessions failed, with what they know.
pub(super) fn verify(
    states: States,
    recovery: &Recovery,
    clients: impl Iterator<Item = u64>,
    known: &[Arc<Knowledge>],
) -> Verdict {
    let mut verdict = Verdict::default();
    for client in clients {
        let name = session_name(client);
        let mut found = recovery.states.iter().filter(|state| state.entity.name == name && state.error.is_none());
        // Two states of one client would leave open which is the right one.
        if let (Some(state), None) = (found.next(), found.next()) {
            verdict.recovered += 1;
            let knowledge = known.get(client as usize);
            verdict.right += u64::from(knowledge.is_some_and(|known| is_right(states, state, client, known)));
        }
    }
    verdict
}

fn is_right(states: States, state: &RecoveredState, client: u64, known: &Knowledge) -> bool {
    // The first commit is that of the new session, before any request.
    let Some(request) = state.sequence.checked_sub(1) else { return false };
    let acknowledged = known.acknowledged.load(Ordering::Acquire);
    let sent = known.sent.load(Ordering::Acquire);
    let expected = to_hex(&content(states.seed, client, request, states.bytes));
    (acknowledged..=sent).contains(&request)
        && !known.wrong_answer.load(Ordering::Acquire)
        && state.state_hex == expected
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::notice::Entity;
    use backdoor_core::Nanos;
    use backdoor_core::progress_box::{EntityRecord, FailureLevel, Slot};

    fn state(states: States, client: u64, request: u64) -> RecoveredState {
        let record = EntityRecord::new(&session_name(client), FailureLevel::Session, Nanos(1));
        RecoveredState {
            entity: Entity::new(Slot(0), &record),
            sequence: request + 1,
            state_hex: to_hex(&content(states.seed, client, request, states.bytes)),
            error: None,
        }
    }

    fn judged(change: impl FnOnce(States, &mut Recovery)) -> Verdict {
        let states = States { seed: 1, bytes: 1024 };
        let known = Arc::new(Knowledge::default());
        known.acknowledged.store(6, Ordering::Relaxed);
        known.sent.store(7, Ordering::Relaxed);
        let mut recovery = Recovery { states: vec![state(states, 0, 6)], ..Recovery::default() };
        change(states, &mut recovery);
        verify(states, &recovery, 0..1, &[known])
    }

    #[test]
    fn only_what_the_client_knows_is_right() {
        let right = Verdict { recovered: 1, right: 1 };
        let wrong = Verdict { recovered: 1, right: 0 };
        assert_eq!(judged(|_, _| {}), right);
        assert_eq!(judged(|states, r| r.states[0] = state(states, 0, 7)), right, "committed, not yet answered");
        assert_eq!(judged(|states, r| r.states[0] = state(states, 0, 5)), wrong, "an answer was given for more");
        assert_eq!(judged(|states, r| r.states[0] = state(states, 0, 8)), wrong, "nobody asked for that");
        assert_eq!(judged(|_, r| r.states[0].state_hex.replace_range(2000.., "00")), wrong);
        assert_eq!(judged(|_, r| r.states[0].error = Some("torn".into())), Verdict::default());
        assert_eq!(judged(|_, r| r.states.push(r.states[0].clone())), Verdict::default());
        assert_eq!(judged(|_, r| r.states.clear()), Verdict::default());
    }
}
