//! The decision of a restart in place: where a new process goes on with a connection that lives, for its socket outlived the
//! process that had it.

use std::ops::Range;

use super::resume::ResumeError;
use super::tcp::TcpState;

/// Where a connection's socket stands whose process has ended, in the kernel's own numbers: TCP sequence numbers. Nobody
/// writes to it or reads from it meanwhile, so neither of them moves, whatever its client sends or acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptSocket {
    /// Number of the byte of output that is written next; the kernel has all before it, sent or not.
    pub written: u32,
    /// Number of the first byte of input that nobody has taken out of the socket.
    pub first_unread: u32,
}

/// How to go on with the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoOn {
    /// Output, by offsets, that was promised and never written: what is to be written first.
    pub unwritten: Range<u64>,
    /// Bytes of input that the process had taken out of the socket and not acted upon: what comes before all that is in it.
    pub taken: u64,
}

/// Decides it, from the last committed `state` and the `socket`.
///
/// # Errors
/// [`ResumeError`]: the session can't go on.
pub fn go_on(state: &TcpState<'_>, socket: KeptSocket) -> Result<GoOn, ResumeError> {
    let contradiction = ResumeError::Contradiction;
    let written = state.output_at(socket.written)?;
    if written > state.intent {
        return Err(contradiction("more output was written than was promised"));
    }
    if written < state.acknowledged {
        return Err(contradiction("output was acknowledged that was not written"));
    }
    let first_unread = state.input_at(socket.first_unread)?;
    let taken = first_unread.checked_sub(state.consumed);
    let taken = taken.ok_or(contradiction("input was acted upon that is in the socket still"))?;
    Ok(GoOn { unwritten: written..state.intent, taken })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::sequence::sequence_at;
    use super::super::tcp::tests::birth;
    use super::super::tcp::{Output, TcpBirth};
    use super::*;
    use proptest::prelude::*;

    fn state(intent: u64, consumed: u64, acknowledged: u64) -> TcpState<'static> {
        TcpState { intent, consumed, acknowledged, ..TcpState::new(birth(), Output::Regenerated) }
    }

    fn socket(state: &TcpState<'_>, written: u64, first_unread: u64) -> KeptSocket {
        KeptSocket {
            written: sequence_at(state.birth.send_base, written),
            first_unread: sequence_at(state.birth.receive_base, first_unread),
        }
    }

    #[test]
    fn what_was_promised_and_not_written_is_written_and_what_was_taken_out_comes_first() {
        let state = state(5_000, 70, 1_200);
        let found = go_on(&state, socket(&state, 4_990, 78)).unwrap();
        assert_eq!(found, GoOn { unwritten: 4_990..5_000, taken: 8 });
        let found = go_on(&state, socket(&state, 5_000, 70)).unwrap();
        assert_eq!(found, GoOn { unwritten: 5_000..5_000, taken: 0 }, "nothing was under way");
    }

    #[test]
    fn a_socket_that_can_not_be_the_sessions_is_refused() {
        let state = state(5_000, 70, 1_200);
        for (written, first_unread) in [(5_001, 70), (1_199, 70), (5_000, 69)] {
            let refused = go_on(&state, socket(&state, written, first_unread));
            assert!(matches!(refused, Err(ResumeError::Contradiction(_))), "{refused:?}");
        }
    }

    proptest! {
        #[test]
        fn offsets_are_right_however_long_the_stream(
            send_base: u32, receive_base: u32, acknowledged in 0u64..1 << 40, under_way in 0u64..1 << 30,
            unwritten in 0u64..1 << 20, consumed in 0u64..1 << 40, taken in 0u64..1 << 20,
        ) {
            let written = acknowledged + under_way;
            let birth = TcpBirth { send_base, receive_base, ..birth() };
            let state = TcpState { birth, ..state(written + unwritten, consumed, acknowledged) };
            let found = go_on(&state, socket(&state, written, consumed + taken)).unwrap();
            prop_assert_eq!(found, GoOn { unwritten: written..written + unwritten, taken });
        }
    }
}
