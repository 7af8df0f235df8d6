//! The decision of a takeover: from which byte on a TCP connection is played again, and what of its input is there.

use std::ops::Range;

use super::sequence::{offset_near, sequence_at};
use super::tcp::{TcpBirth, TcpState};
use crate::units::Nanos;

/// What the kernel that had the connection says of it, as told by whoever holds its socket. Numbers are the kernel's own:
/// TCP sequence numbers.
///
/// It must be asked after the fence. Before it, the kernel goes on acknowledging input that it then alone has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelQueues<'a> {
    /// Number of the first byte of output that the client has not acknowledged.
    pub acknowledged: u32,
    /// Number of the first byte of output that was never sent: the client can't have it.
    pub sent: u32,
    /// Number of the first byte of input that was not acknowledged to the client.
    pub received: u32,
    /// Input before `received` that may not have been acted upon: what nobody has taken out of the socket, and what is known
    /// of the input before that.
    pub unread: &'a [u8],
    /// Whether the client has said that no input comes any more.
    pub ended: bool,
}

/// What is known of the input between what was acted upon and what was acknowledged to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// This is all of it.
    Exact {
        /// Input after [`TcpState::consumed`], for the receive queue.
        refill: &'a [u8],
        /// Whether none comes after it.
        ended: bool,
    },
    /// Nobody holds the socket, or saw what passed. If there was any, its bytes are lost, and the connection with them: the client sends what
    /// comes after them, and resets the connection or waits for ever. If there was none, all is well.
    UnreadUnknown,
}

/// How to make the connection anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume<'a> {
    /// The connection's birth, with the timestamp to begin with: the heir's own state starts from it.
    pub birth: TcpBirth,
    /// Offset of the first byte of output to be played again; the client has acknowledged all before it.
    pub replay_from: u64,
    /// Offset after the last byte that the client can have. What comes after it is sent as usual.
    pub replay_until: u64,
    /// Offset after the last byte promised.
    pub intent: u64,
    /// Offset of the first byte of input that was not acted upon.
    pub consumed: u64,
    /// What there is of it.
    pub input: Input<'a>,
}

impl<'a> Resume<'a> {
    /// Output that is needed to make the connection.
    pub fn replay(&self) -> Range<u64> {
        self.replay_from..self.intent
    }

    /// Number of the first byte of output to be played again.
    pub fn send_sequence(&self) -> u32 {
        sequence_at(self.birth.send_base, self.replay_from)
    }

    /// Number of the first byte of input that was not acted upon: where the receive queue begins, before it is refilled.
    pub fn receive_sequence(&self) -> u32 {
        sequence_at(self.birth.receive_base, self.consumed)
    }

    /// Input for the receive queue.
    pub fn refill(&self) -> &'a [u8] {
        match self.input {
            Input::Exact { refill, .. } => refill,
            Input::UnreadUnknown => &[],
        }
    }
}

/// Why a connection can't be carried on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ResumeError {
    /// The service took input out of its socket, died before it committed what came of it, and nobody kept it.
    #[error("{bytes} bytes of input were read and not acted upon: nobody has them any more")]
    InputLost {
        /// How many.
        bytes: u64,
    },
    /// Socket and state are not of the same connection, or one of them is damaged.
    #[error("the state and the kernel's socket contradict each other: {0}")]
    Contradiction(&'static str),
}

/// Decides it, from the last committed `state` and what is known of the kernel's `queues`, at `wall_clock` (since 1970).
///
/// Without queues, output is played again from what the state says was acknowledged, which may be too low: the client drops
/// what it has, and its first acknowledgement says how far that is.
pub fn resume<'a>(
    state: &TcpState<'_>,
    queues: Option<KernelQueues<'a>>,
    wall_clock: Nanos,
) -> Result<Resume<'a>, ResumeError> {
    let TcpState { birth, intent, consumed, acknowledged, input_ended, .. } = *state;
    let birth = TcpBirth { timestamp: birth.timestamp.map(|timestamp| timestamp.resumed(wall_clock)), ..birth };
    let unknown = Resume {
        birth,
        replay_from: acknowledged,
        replay_until: intent,
        intent,
        consumed,
        input: Input::UnreadUnknown,
    };
    let Some(KernelQueues { acknowledged: una, sent, received, unread, ended }) = queues else {
        return Ok(unknown);
    };
    let contradiction = ResumeError::Contradiction;
    // An heir's socket begins one byte early (`host`: `tcp::recreate`), and says so until the client has answered.
    let begin = sequence_at(birth.send_base, acknowledged);
    let una = if una.wrapping_add(1) == begin { begin } else { una };
    let (replay_from, replay_until) = (state.output_at(una)?, state.output_at(sent)?);
    if replay_until > intent {
        return Err(contradiction("more output was sent than was promised"));
    }
    if replay_from < acknowledged || replay_from > replay_until {
        return Err(contradiction("output was acknowledged that was not sent, or is not any more"));
    }
    let received = state.input_at(received)?;
    let first = received.checked_sub(unread.len() as u64).ok_or(contradiction("more input unread than received"))?;
    if received < consumed {
        return Err(contradiction("more input was acted upon than received"));
    }
    let lost = ResumeError::InputLost { bytes: first.wrapping_sub(consumed) };
    let acted_upon = consumed.checked_sub(first).ok_or(lost)?;
    // No more than `unread` has, for `received` is not before `consumed`.
    let refill = &unread[acted_upon as usize..];
    let input = Input::Exact { refill, ended: ended || input_ended };
    Ok(Resume { replay_from, replay_until, input, ..unknown })
}

/// The state beside what a kernel says.
impl TcpState<'_> {
    /// Offset of the byte of output that has this number.
    pub(super) fn output_at(&self, number: u32) -> Result<u64, ResumeError> {
        let offset = offset_near(self.birth.send_base, number, self.intent);
        offset.ok_or(ResumeError::Contradiction("output before the connection began"))
    }

    /// Offset of the byte of input that has this number.
    pub(super) fn input_at(&self, number: u32) -> Result<u64, ResumeError> {
        let offset = offset_near(self.birth.receive_base, number, self.consumed);
        offset.ok_or(ResumeError::Contradiction("input before the connection began"))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::tcp::Output;
    use super::super::tcp::tests::birth;
    use super::*;
    use proptest::prelude::*;

    const NOW: Nanos = Nanos::from_secs(200);

    fn state(intent: u64, consumed: u64, acknowledged: u64) -> TcpState<'static> {
        TcpState { intent, consumed, acknowledged, ..TcpState::new(birth(), Output::Regenerated) }
    }

    /// What a kernel says whose streams have these offsets.
    fn queues<'u>(state: &TcpState<'_>, output: Range<u64>, received: u64, unread: &'u [u8]) -> KernelQueues<'u> {
        KernelQueues {
            acknowledged: sequence_at(state.birth.send_base, output.start),
            sent: sequence_at(state.birth.send_base, output.end),
            received: sequence_at(state.birth.receive_base, received),
            unread,
            ended: false,
        }
    }

    #[test]
    fn without_the_socket_all_that_may_be_missing_is_played_and_the_gap_is_named() {
        let state = state(5_000, 70, 1_200);
        let resume = resume(&state, None, NOW).unwrap();
        assert_eq!((resume.replay(), resume.replay_until, resume.consumed), (1_200..5_000, 5_000, 70));
        assert_eq!((resume.send_sequence(), resume.receive_sequence()), (1_000 + 1_200, 2_000 + 70));
        assert_eq!((resume.input, resume.refill()), (Input::UnreadUnknown, &[][..]));
        let timestamp = resume.birth.timestamp.unwrap();
        assert_eq!(timestamp, birth().timestamp.unwrap().resumed(NOW));
        assert_eq!(timestamp.value, 500 + 100_000 + 3_600_000);
    }

    #[test]
    fn the_socket_tells_exactly() {
        let state = state(5_000, 70, 1_200);
        let kernel = queues(&state, 4_000..4_600, 75, b"6789abcde");
        let resume = resume(&state, Some(kernel), NOW).unwrap();
        assert_eq!((resume.replay(), resume.replay_until), (4_000..5_000, 4_600));
        // Four of the nine were acted upon.
        assert_eq!(resume.input, Input::Exact { refill: b"abcde", ended: false });
    }

    #[test]
    fn input_that_was_read_and_not_acted_upon_is_lost_and_said_to_be() {
        let state = state(0, 70, 0);
        let lost = resume(&state, Some(queues(&state, 0..0, 100, b"the last ten")), NOW);
        assert_eq!(lost, Err(ResumeError::InputLost { bytes: 18 }));
        assert!(lost.unwrap_err().to_string().starts_with("18 bytes of input"));
    }

    #[test]
    fn a_socket_of_another_connection_is_refused() {
        let state = state(5_000, 70, 1_200);
        let backwards = Range { start: 4_001, end: 4_000 };
        for (output, received, unread) in [
            (4_000..5_001, 70, &b""[..]),
            (1_198..4_000, 70, b""),
            (backwards, 70, b""),
            (4_000..4_000, 69, b""),
            (4_000..4_000, 70, &[0; 71]),
        ] {
            let refused = resume(&state, Some(queues(&state, output, received, unread)), NOW);
            assert!(matches!(refused, Err(ResumeError::Contradiction(_))), "{refused:?}");
        }
        let kernel = KernelQueues { acknowledged: 998, ..queues(&state, 0..0, 70, b"") };
        let young = self::state(0, 70, 0);
        assert!(resume(&young, Some(kernel), NOW).is_err(), "before the first byte");
    }

    #[test]
    fn an_heir_that_its_client_has_not_answered_is_carried_on_in_turn() {
        for acknowledged in [0, 1_200] {
            let state = state(5_000, 70, acknowledged);
            let early = state.birth.send_base + acknowledged as u32 - 1;
            let kernel = KernelQueues { acknowledged: early, ..queues(&state, 0..5_000, 70, b"") };
            assert_eq!(resume(&state, Some(kernel), NOW).unwrap().replay(), acknowledged..5_000);
        }
    }

    #[test]
    fn the_end_of_the_input_is_known_if_the_kernel_or_the_state_knows_it() {
        let state = state(0, 2, 0);
        let kernel = queues(&state, 0..0, 4, b"cd");
        let ended = resume(&state, Some(KernelQueues { ended: true, ..kernel }), NOW).unwrap();
        assert_eq!(ended.input, Input::Exact { refill: b"cd", ended: true });
        let again = TcpState { input_ended: true, ..state };
        assert_eq!(resume(&again, Some(kernel), NOW).unwrap().input, ended.input);
        assert_eq!(resume(&again, None, NOW).unwrap().input, Input::UnreadUnknown);
    }

    proptest! {
        /// Streams of any length, numbers that wrap: what is decided is what happened.
        #[test]
        fn offsets_are_right_however_long_the_stream(
            send_base: u32, receive_base: u32,
            acknowledged in 0u64..1 << 40, on_the_way in 0u64..1 << 30, unsent in 0u64..1 << 20, before in 0u64..1 << 20,
            consumed in 0u64..1 << 40, done in 0usize..50, unread in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let birth = TcpBirth { send_base, receive_base, ..birth() };
            let sent = acknowledged + on_the_way;
            let state = TcpState { birth, ..state(sent + unsent, consumed, acknowledged.saturating_sub(before)) };
            let done = done.min(unread.len()).min(consumed as usize);
            let received = consumed - done as u64 + unread.len() as u64;
            let resume = resume(&state, Some(queues(&state, acknowledged..sent, received, &unread)), NOW).unwrap();
            prop_assert_eq!((resume.replay_from, resume.replay_until), (acknowledged, sent));
            prop_assert_eq!(resume.refill(), &unread[done..]);
            prop_assert_eq!(
                resume.receive_sequence().wrapping_add(resume.refill().len() as u32),
                sequence_at(receive_base, received)
            );
        }
    }
}
