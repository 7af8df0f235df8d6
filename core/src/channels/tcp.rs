//! A TCP connection: how it began, and how far it has come.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::bytes::{Reader, Writer};
use super::error::ChannelError;
use super::payload::ChannelId;
use crate::units::Nanos;

/// By how much an heir's timestamps may jump ahead of what the clocks of the two machines tell, so that they move
/// forward though its clock be behind by as much.
///
/// It is this long for another reason, too. The client's first acknowledgement echoes a timestamp of the failed node, and
/// an heir's kernel takes the difference for a round trip, by which it then waits before it repairs a loss. Linux ignores
/// differences of more than 2³¹ µs (36 minutes; `tcp_rtt_tsopt_us`), which nothing but a jump brings about. Forward by
/// less than 2³¹ ms is in order for the client (RFC 7323, section 5).
pub const CLOCK_MARGIN: Nanos = Nanos::from_secs(3600);

/// The same for timestamps that count microseconds, of which 2³¹ are 36 minutes.
const CLOCK_MARGIN_IN_MICROS: Nanos = Nanos::from_secs(10);

/// How far both sides' windows are shifted (RFC 7323, section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WindowScales {
    /// Of the windows that the peer announces; 0 to 14.
    pub send: u8,
    /// Of the windows that are announced to the peer; 0 to 14.
    pub receive: u8,
}

/// The connection's timestamp clock (RFC 7323, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcpTimestamp {
    /// Its value, as Linux tells it: the lowest bit says whether it counts microseconds (1) or milliseconds (0).
    pub value: u32,
    /// Wall clock at that moment, since 1970: the only clock that two machines share.
    pub at: Nanos,
}

impl TcpTimestamp {
    /// The value that an heir begins with when its wall clock says `now`: later than any that the failed node sent,
    /// provided that the heir's clock is behind that node's by no more than [`CLOCK_MARGIN`] (10 s if the connection counts
    /// microseconds).
    pub fn resumed(self, now: Nanos) -> TcpTimestamp {
        const IN_MICROS: u32 = 1;
        let (tick_nanos, margin) =
            if self.value & IN_MICROS == 1 { (1_000, CLOCK_MARGIN_IN_MICROS) } else { (1_000_000, CLOCK_MARGIN) };
        // Wraps as the clock itself does.
        let ticks = (now - self.at + margin).0 / tick_nanos;
        let value = self.value.wrapping_add(ticks as u32) & !IN_MICROS | self.value & IN_MICROS;
        TcpTimestamp { value, at: now }
    }
}

/// What it takes to make the connection anew: fixed right after the handshake, and told by the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcpBirth {
    /// This side's address: that of the service.
    pub local: SocketAddrV4,
    /// The client's address.
    pub peer: SocketAddrV4,
    /// Sequence number of the first byte of output.
    pub send_base: u32,
    /// Sequence number of the first byte of input.
    pub receive_base: u32,
    /// Largest segment that the peer takes, in bytes.
    pub mss: u16,
    /// How windows are shifted, if they are.
    pub window_scales: Option<WindowScales>,
    /// Whether both sides agreed on selective acknowledgements (RFC 2018).
    pub selective_acknowledgements: bool,
    /// The timestamp clock, if both sides agreed on timestamps.
    pub timestamp: Option<TcpTimestamp>,
    /// Size of the kernel's send buffer in bytes, pinned so that it doesn't grow: about as much output can be on its way.
    pub send_buffer: u32,
}

/// Where output comes from that the client asks for again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Output<'a> {
    /// From here: the last bytes before [`intent`](TcpState::intent), no fewer than may be unacknowledged.
    Retained(&'a [u8]),
    /// The application computes it anew, as a file server does.
    Regenerated,
}

/// A TCP connection as its service commits it. Offsets count the bytes of a direction since the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcpState<'a> {
    /// How it began.
    pub birth: TcpBirth,
    /// Output promised: committed before any of it is sent.
    pub intent: u64,
    /// Input acted upon: what came of it is in the application's state.
    pub consumed: u64,
    /// Output that the client had acknowledged when this was written, or less. Nobody ever needs what comes before it.
    pub acknowledged: u64,
    /// Whether the client has said that no input comes any more.
    pub input_ended: bool,
    /// Output from `acknowledged` to `intent`.
    pub output: Output<'a>,
}

/// Which optional parts there are.
mod flag {
    pub(super) const WINDOW_SCALES: u8 = 1;
    pub(super) const SELECTIVE_ACKNOWLEDGEMENTS: u8 = 2;
    pub(super) const TIMESTAMP: u8 = 4;
    pub(super) const REGENERATED: u8 = 8;
    pub(super) const INPUT_ENDED: u8 = 16;
    pub(super) const ALL: u8 = 31;
}

/// Bytes before the retained output.
pub(super) const FIXED_BYTES: usize = 2 * 6 + 2 * 4 + 2 + 3 + 4 + 8 + 4 + 3 * 8;
const MAX_WINDOW_SCALE: u8 = 14;

impl<'a> TcpState<'a> {
    /// Of a connection right after its handshake, nothing sent and nothing acted upon.
    pub fn new(birth: TcpBirth, output: Output<'a>) -> Self {
        TcpState { birth, intent: 0, consumed: 0, acknowledged: 0, input_ended: false, output }
    }

    /// Whether the numbers fit together; if not, why.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let TcpBirth { local, peer, mss, window_scales, send_buffer, .. } = self.birth;
        let unscaled = WindowScales { send: 0, receive: 0 };
        let WindowScales { send, receive } = window_scales.unwrap_or(unscaled);
        if local.port() == 0 || peer.port() == 0 || local.ip().is_unspecified() || peer.ip().is_unspecified() {
            return Err("an address of the connection is none");
        }
        if mss == 0 || send_buffer == 0 {
            return Err("a segment or send buffer of 0 bytes");
        }
        if send.max(receive) > MAX_WINDOW_SCALE {
            return Err("a window scale above 14");
        }
        if self.acknowledged > self.intent {
            return Err("more output acknowledged than was promised");
        }
        match self.output {
            Output::Retained(bytes) if bytes.len() as u64 > self.intent => {
                Err("more output retained than was promised")
            }
            Output::Retained(bytes) if (bytes.len() as u64) < self.intent - self.acknowledged => {
                Err("output that may be asked for again is not retained")
            }
            _ => Ok(()),
        }
    }

    pub(super) fn encoded_len(&self) -> usize {
        FIXED_BYTES + self.retained().len()
    }

    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        let birth = &self.birth;
        let bit = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let flags = bit(birth.window_scales.is_some(), flag::WINDOW_SCALES)
            | bit(birth.selective_acknowledgements, flag::SELECTIVE_ACKNOWLEDGEMENTS)
            | bit(birth.timestamp.is_some(), flag::TIMESTAMP)
            | bit(matches!(self.output, Output::Regenerated), flag::REGENERATED)
            | bit(self.input_ended, flag::INPUT_ENDED);
        let WindowScales { send, receive } = birth.window_scales.unwrap_or(WindowScales { send: 0, receive: 0 });
        let TcpTimestamp { value, at } = birth.timestamp.unwrap_or(TcpTimestamp { value: 0, at: Nanos::ZERO });
        let mut fixed = Writer::<FIXED_BYTES>::new();
        fixed
            .put(birth.local.ip().octets())
            .put(birth.local.port().to_le_bytes())
            .put(birth.peer.ip().octets())
            .put(birth.peer.port().to_le_bytes())
            .put(birth.send_base.to_le_bytes())
            .put(birth.receive_base.to_le_bytes())
            .put(birth.mss.to_le_bytes())
            .put([flags, send, receive])
            .put(value.to_le_bytes())
            .put(at.0.to_le_bytes())
            .put(birth.send_buffer.to_le_bytes())
            .put(self.intent.to_le_bytes())
            .put(self.consumed.to_le_bytes())
            .put(self.acknowledged.to_le_bytes());
        into.extend(fixed.done());
        into.extend(self.retained());
    }

    pub(super) fn decode(id: ChannelId, body: &'a [u8]) -> Result<Self, ChannelError> {
        let inconsistent = |why| ChannelError::Inconsistent { id, why };
        let mut reader = Reader::new(body, "TCP channel");
        let mut addresses = [SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0); 2];
        for address in &mut addresses {
            let ip = Ipv4Addr::from(reader.array::<4>()?);
            *address = SocketAddrV4::new(ip, reader.u16()?);
        }
        let [local, peer] = addresses;
        let (send_base, receive_base, mss) = (reader.u32()?, reader.u32()?, reader.u16()?);
        let flags = reader.u8()?;
        let scales = WindowScales { send: reader.u8()?, receive: reader.u8()? };
        let timestamp = TcpTimestamp { value: reader.u32()?, at: Nanos(reader.u64()?) };
        let send_buffer = reader.u32()?;
        let (intent, consumed, acknowledged) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let retained = reader.rest();
        let has = |flag: u8| flags & flag != 0;
        if flags & !flag::ALL != 0 {
            return Err(inconsistent("a flag that no writer sets"));
        }
        if !has(flag::WINDOW_SCALES) && (scales.send, scales.receive) != (0, 0)
            || !has(flag::TIMESTAMP) && (timestamp.value, timestamp.at) != (0, Nanos::ZERO)
        {
            return Err(inconsistent("an option that was not agreed on"));
        }
        if has(flag::REGENERATED) && !retained.is_empty() {
            return Err(inconsistent("output is both retained and regenerated"));
        }
        let state = TcpState {
            birth: TcpBirth {
                local,
                peer,
                send_base,
                receive_base,
                mss,
                window_scales: has(flag::WINDOW_SCALES).then_some(scales),
                selective_acknowledgements: has(flag::SELECTIVE_ACKNOWLEDGEMENTS),
                timestamp: has(flag::TIMESTAMP).then_some(timestamp),
                send_buffer,
            },
            intent,
            consumed,
            acknowledged,
            input_ended: has(flag::INPUT_ENDED),
            output: if has(flag::REGENERATED) { Output::Regenerated } else { Output::Retained(retained) },
        };
        state.check().map(|()| state).map_err(inconsistent)
    }

    fn retained(&self) -> &'a [u8] {
        match self.output {
            Output::Retained(bytes) => bytes,
            Output::Regenerated => &[],
        }
    }
}

#[cfg(all(test, not(loom)))]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in crate::channels) fn birth() -> TcpBirth {
        TcpBirth {
            local: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 80),
            peer: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 9), 40_000),
            send_base: 1_000,
            receive_base: 2_000,
            mss: 1_448,
            window_scales: Some(WindowScales { send: 7, receive: 9 }),
            selective_acknowledgements: true,
            timestamp: Some(TcpTimestamp { value: 500, at: Nanos::from_secs(100) }),
            send_buffer: 87_040,
        }
    }

    #[test]
    fn numbers_that_contradict_each_other_are_refused() {
        let good = TcpState { intent: 10, acknowledged: 7, ..TcpState::new(birth(), Output::Retained(b"789")) };
        assert_eq!(good.check(), Ok(()));
        assert_eq!(TcpState { output: Output::Regenerated, ..good }.check(), Ok(()));
        let no_port = SocketAddrV4::new(*good.birth.local.ip(), 0);
        let too_far = Some(WindowScales { send: 15, receive: 0 });
        for (bad, why) in [
            (TcpState { acknowledged: 11, ..good }, "more output acknowledged than was promised"),
            (TcpState { output: Output::Retained(&[0; 11]), ..good }, "more output retained than was promised"),
            (
                TcpState { output: Output::Retained(b"89"), ..good },
                "output that may be asked for again is not retained",
            ),
            (
                TcpState { birth: TcpBirth { local: no_port, ..good.birth }, ..good },
                "an address of the connection is none",
            ),
            (TcpState { birth: TcpBirth { mss: 0, ..good.birth }, ..good }, "a segment or send buffer of 0 bytes"),
            (TcpState { birth: TcpBirth { window_scales: too_far, ..good.birth }, ..good }, "a window scale above 14"),
        ] {
            assert_eq!(bad.check(), Err(why));
            let mut body = Vec::new();
            bad.encode(&mut body);
            let id = ChannelId(3);
            assert_eq!(TcpState::decode(id, &body), Err(ChannelError::Inconsistent { id, why }));
        }
    }

    #[test]
    fn the_fixed_part_is_as_long_as_it_says() {
        let mut body = Vec::new();
        let state = TcpState::new(birth(), Output::Regenerated);
        state.encode(&mut body);
        assert_eq!(body.len(), FIXED_BYTES);
        let channels = [(ChannelId(0), crate::channels::Channel::Tcp(state))];
        let encoded_len = crate::channels::encoded_len;
        assert_eq!(encoded_len(7, &channels), encoded_len(7, &[]) + crate::channels::TCP_CHANNEL_BYTES);
    }

    proptest! {
        /// Whatever the failed node sent last, the heir's first value is later, as the client compares them.
        #[test]
        fn timestamps_move_forward(value: u32, lived_ms in 0u64..1 << 40, behind_ms in 0u64..3_599_000, pause_ms in 0u64..60_000) {
            let in_micros = value & 1 == 1;
            let behind_ms = if in_micros { behind_ms % 9_000 } else { behind_ms };
            let at = Nanos::from_secs(1_700_000_000);
            let ticks = if in_micros { lived_ms * 1_000 } else { lived_ms };
            let last_sent = value.wrapping_add(ticks as u32);
            let now = at + Nanos::from_millis(lived_ms + pause_ms) - Nanos::from_millis(behind_ms);
            let resumed = TcpTimestamp { value, at }.resumed(now);
            prop_assert!((resumed.value.wrapping_sub(last_sent) as i32) > 0);
            prop_assert_eq!((resumed.value & 1, resumed.at), (value & 1, now));
        }
    }
}
