//! The payload as a whole.

use super::bytes::{Reader, Writer};
use super::error::ChannelError;
use super::ipc::IpcState;
use super::tcp::{self, TcpState};

const MAGIC: [u8; 8] = *b"BDSESSN1";
const VERSION: u32 = 2;
/// Magic, version, number of channels, length of the application's state.
const HEADER_BYTES: usize = 8 + 4 + 4 + 8;
/// Kind, id, length.
const CHANNEL_HEADER_BYTES: usize = 4 + 4 + 8;
/// Bytes of a payload that a connection to a client takes, beside the output that is retained.
pub const TCP_CHANNEL_BYTES: usize = CHANNEL_HEADER_BYTES + tcp::FIXED_BYTES;
/// Most channels of a session.
pub const MAX_CHANNELS: usize = 1024;

/// What a session calls one of its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u32);

/// One channel's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel<'a> {
    /// To a client.
    Tcp(TcpState<'a>),
    /// To another process.
    Ipc(IpcState<'a>),
}

mod kind {
    pub(super) const TCP: u32 = 1;
    pub(super) const IPC: u32 = 2;
}

impl<'a> Channel<'a> {
    const fn kind(&self) -> u32 {
        match self {
            Channel::Tcp(_) => kind::TCP,
            Channel::Ipc(_) => kind::IPC,
        }
    }

    fn check(&self) -> Result<(), &'static str> {
        match self {
            Channel::Tcp(tcp) => tcp.check(),
            Channel::Ipc(ipc) => ipc.check(),
        }
    }

    fn encoded_len(&self) -> usize {
        match self {
            Channel::Tcp(tcp) => tcp.encoded_len(),
            Channel::Ipc(ipc) => ipc.encoded_len(),
        }
    }

    fn encode(&self, into: &mut Vec<u8>) {
        match self {
            Channel::Tcp(tcp) => tcp.encode(into),
            Channel::Ipc(ipc) => ipc.encode(into),
        }
    }

    fn read(reader: &mut Reader<'a>) -> Result<(ChannelId, Self), ChannelError> {
        let (kind, id, length) = (reader.u32()?, ChannelId(reader.u32()?), reader.u64()?);
        let body = reader.take(length)?;
        let channel = match kind {
            kind::TCP => Channel::Tcp(TcpState::decode(id, body)?),
            kind::IPC => Channel::Ipc(IpcState::decode(id, body)?),
            kind => return Err(ChannelError::UnknownKind { id, kind }),
        };
        Ok((id, channel))
    }
}

/// Bytes of a payload: what a State Box must have room for.
pub fn encoded_len(application: usize, channels: &[(ChannelId, Channel<'_>)]) -> usize {
    let bodies: usize = channels.iter().map(|(_, channel)| CHANNEL_HEADER_BYTES + channel.encoded_len()).sum();
    HEADER_BYTES + application + bodies
}

/// A checked view on a session's payload, without a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionPayload<'a> {
    application: &'a [u8],
    count: u32,
    /// Checked: that many channels and nothing else.
    channels: &'a [u8],
}

impl<'a> SessionPayload<'a> {
    /// Writes a payload into `into`, in place of what is there. Ids of channels must ascend. What is refused here would be
    /// refused by the reader; `into` is then empty.
    pub fn encode(
        application: &[u8],
        channels: &[(ChannelId, Channel<'_>)],
        into: &mut Vec<u8>,
    ) -> Result<(), ChannelError> {
        into.clear();
        let count = u32::try_from(channels.len()).unwrap_or(u32::MAX);
        check_count(count)?;
        let mut before = None;
        for (id, channel) in channels {
            check_order(before.replace(*id), *id)?;
            channel.check().map_err(|why| ChannelError::Inconsistent { id: *id, why })?;
        }
        into.reserve(encoded_len(application.len(), channels));
        let mut header = Writer::<HEADER_BYTES>::new();
        header
            .put(MAGIC)
            .put(VERSION.to_le_bytes())
            .put(count.to_le_bytes())
            .put((application.len() as u64).to_le_bytes());
        into.extend(header.done());
        into.extend(application);
        for (id, channel) in channels {
            let mut header = Writer::<CHANNEL_HEADER_BYTES>::new();
            header
                .put(channel.kind().to_le_bytes())
                .put(id.0.to_le_bytes())
                .put((channel.encoded_len() as u64).to_le_bytes());
            into.extend(header.done());
            channel.encode(into);
        }
        Ok(())
    }

    /// Checks all of it.
    pub fn decode(payload: &'a [u8]) -> Result<Self, ChannelError> {
        let mut reader = Reader::new(payload, "session payload");
        let magic = reader.array()?;
        if magic != MAGIC {
            return Err(ChannelError::WrongMagic { found: u64::from_le_bytes(magic) });
        }
        let found = reader.u32()?;
        if found != VERSION {
            return Err(ChannelError::WrongVersion { found, expected: VERSION });
        }
        let (count, length) = (reader.u32()?, reader.u64()?);
        check_count(count)?;
        let application = reader.take(length)?;
        let channels = reader.rest();
        let mut before = None;
        for _ in 0..count {
            let (id, _) = Channel::read(&mut reader)?;
            check_order(before.replace(id), id)?;
        }
        reader.end()?;
        Ok(SessionPayload { application, count, channels })
    }

    /// Whether a payload can be carried on; for [`Seen::of`](crate::takeover::Seen::of). An application that has more to
    /// say about its own state asks [`decode`](Self::decode) itself.
    pub fn check(payload: &[u8]) -> Result<(), &'static str> {
        SessionPayload::decode(payload).map(|_| ()).map_err(ChannelError::reason)
    }

    /// The application's state.
    pub fn application(&self) -> &'a [u8] {
        self.application
    }

    /// All channels, by ascending id.
    pub fn channels(&self) -> Channels<'a> {
        Channels { reader: Reader::new(self.channels, "session payload"), left: self.count }
    }

    /// One channel.
    pub fn channel(&self, id: ChannelId) -> Option<Channel<'a>> {
        self.channels().find(|(found, _)| *found == id).map(|(_, channel)| channel)
    }
}

/// Channels of a payload that was checked.
#[derive(Clone, Debug)]
pub struct Channels<'a> {
    reader: Reader<'a>,
    left: u32,
}

impl<'a> Iterator for Channels<'a> {
    type Item = (ChannelId, Channel<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Channel::read(&mut self.reader).ok()
    }
}

fn check_count(found: u32) -> Result<(), ChannelError> {
    if found as usize > MAX_CHANNELS {
        return Err(ChannelError::TooManyChannels { found });
    }
    Ok(())
}

fn check_order(before: Option<ChannelId>, id: ChannelId) -> Result<(), ChannelError> {
    match before {
        Some(before) if before >= id => Err(ChannelError::OutOfOrder { id, before }),
        _ => Ok(()),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::ipc::{LinkId, Outbox};
    use super::super::tcp::tests::birth;
    use super::super::tcp::{Output, TcpBirth, TcpTimestamp, WindowScales};
    use super::*;
    use crate::takeover::{BoxError, Seen};
    use crate::units::Nanos;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, SocketAddrV4};

    /// A TCP channel with these numbers of output and its own retained bytes.
    #[derive(Clone, Debug)]
    struct OwnTcp {
        state: TcpState<'static>,
        retained: Option<Vec<u8>>,
    }

    impl OwnTcp {
        fn state(&self) -> TcpState<'_> {
            let output = self.retained.as_deref().map_or(Output::Regenerated, Output::Retained);
            TcpState { output, ..self.state }
        }
    }

    fn any_address() -> impl Strategy<Value = SocketAddrV4> {
        (1u32.., 1u16..).prop_map(|(ip, port)| SocketAddrV4::new(Ipv4Addr::from(ip), port))
    }

    fn any_birth() -> impl Strategy<Value = TcpBirth> {
        let scales =
            proptest::option::of((0u8..=14, 0u8..=14).prop_map(|(send, receive)| WindowScales { send, receive }));
        let timestamp = proptest::option::of(
            (any::<u32>(), any::<u64>()).prop_map(|(value, at)| TcpTimestamp { value, at: Nanos(at) }),
        );
        let ends = (any_address(), any_address(), any::<u32>(), any::<u32>());
        (ends, 1u16.., scales, any::<bool>(), timestamp, 1u32..).prop_map(
            |((local, peer, send_base, receive_base), mss, window_scales, sack, timestamp, send_buffer)| TcpBirth {
                local,
                peer,
                send_base,
                receive_base,
                mss,
                window_scales,
                selective_acknowledgements: sack,
                timestamp,
                send_buffer,
            },
        )
    }

    fn any_tcp() -> impl Strategy<Value = OwnTcp> {
        let retained = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40));
        (any_birth(), any::<u32>(), any::<u64>(), 0u64..40, any::<bool>(), retained).prop_map(
            |(birth, before, consumed, unacknowledged, input_ended, retained)| {
                let kept = retained.as_ref().map_or(u64::from(before), |bytes| bytes.len() as u64);
                let intent = u64::from(before) + kept;
                let acknowledged = intent - unacknowledged.min(kept);
                let new = TcpState::new(birth, Output::Regenerated);
                OwnTcp { state: TcpState { intent, consumed, acknowledged, input_ended, ..new }, retained }
            },
        )
    }

    fn any_outbox() -> impl Strategy<Value = Outbox> {
        (proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..6), 0u64..4).prop_map(
            |(messages, acknowledged)| {
                let mut outbox = Outbox::new();
                messages.iter().for_each(|message| {
                    outbox.push(message);
                });
                outbox.acknowledge(acknowledged);
                outbox
            },
        )
    }

    fn sample() -> Vec<u8> {
        let tcp = TcpState { intent: 3, consumed: 9, ..TcpState::new(birth(), Output::Retained(b"abc")) };
        let mut outbox = Outbox::new();
        outbox.push(b"message");
        let ipc = IpcState { link: LinkId(7), received: 2, unacknowledged: outbox.messages() };
        let channels = [(ChannelId(0), Channel::Tcp(tcp)), (ChannelId(5), Channel::Ipc(ipc))];
        let mut payload = b"left over".to_vec();
        SessionPayload::encode(b"state", &channels, &mut payload).unwrap();
        assert_eq!(payload.len(), encoded_len(5, &channels));
        payload
    }

    #[test]
    fn other_versions_and_other_bytes_are_named() {
        let mut payload = sample();
        assert_eq!(SessionPayload::check(&payload), Ok(()));
        payload[8] = 3;
        let error = SessionPayload::decode(&payload).unwrap_err();
        assert_eq!(error.to_string(), "session payload: format version 3, this program reads version 2");
        payload[0] = 0;
        assert!(matches!(SessionPayload::decode(&payload), Err(ChannelError::WrongMagic { .. })));
        assert_eq!(SessionPayload::check(b"balance = 7"), Err("the state is no session payload"));
    }

    #[test]
    fn channels_have_ids_of_their_own() {
        let outbox = Outbox::new();
        let ipc = Channel::Ipc(IpcState { link: LinkId(7), received: 0, unacknowledged: outbox.messages() });
        let mut into = Vec::new();
        for (first, second) in [(4, 4), (5, 4)] {
            let channels = [(ChannelId(first), ipc), (ChannelId(second), ipc)];
            let error = SessionPayload::encode(b"", &channels, &mut into).unwrap_err();
            assert_eq!(error, ChannelError::OutOfOrder { id: ChannelId(second), before: ChannelId(first) });
            assert!(into.is_empty());
        }
        let channels = [(ChannelId(4), ipc), (ChannelId(5), ipc)];
        SessionPayload::encode(b"", &channels, &mut into).unwrap();
        let second = HEADER_BYTES + CHANNEL_HEADER_BYTES + 32;
        into[second + 4] = 4;
        assert_eq!(
            SessionPayload::decode(&into),
            Err(ChannelError::OutOfOrder { id: ChannelId(4), before: ChannelId(4) })
        );
        into[second] = 9;
        into[second + 4] = 5;
        assert_eq!(SessionPayload::decode(&into), Err(ChannelError::UnknownKind { id: ChannelId(5), kind: 9 }));
        let too_many: Vec<_> = (0..=MAX_CHANNELS as u32).map(|id| (ChannelId(id), ipc)).collect();
        let error = SessionPayload::encode(b"", &too_many, &mut into).unwrap_err();
        assert_eq!(error, ChannelError::TooManyChannels { found: 1025 });
    }

    #[test]
    fn a_taker_looks_through_this() {
        let payload = sample();
        let of = |payload: &[u8]| {
            let committed = crate::state_box::Committed { sequence: 5, payload };
            let state = crate::recovery::SessionState { session: 7, incarnation: 2, unclaimed: 0, committed };
            Seen::of(&state, SessionPayload::check)
        };
        assert!(of(&payload).is_ok());
        assert_eq!(of(&payload[1..]), Err(BoxError::Channels("the state is no session payload")));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            application in proptest::collection::vec(any::<u8>(), 0..60),
            tcp in proptest::collection::vec(any_tcp(), 0..3),
            outboxes in proptest::collection::vec((any_outbox(), any::<u64>()), 0..3),
        ) {
            let ipc = outboxes.iter().map(|(outbox, received)| {
                Channel::Ipc(IpcState { link: LinkId(7), received: *received, unacknowledged: outbox.messages() })
            });
            let channels: Vec<_> = tcp.iter().map(|own| Channel::Tcp(own.state())).chain(ipc).collect();
            let channels: Vec<_> = (0..).step_by(3).map(ChannelId).zip(channels).collect();
            let mut payload = Vec::new();
            SessionPayload::encode(&application, &channels, &mut payload).unwrap();
            let read = SessionPayload::decode(&payload).unwrap();
            prop_assert_eq!(read.application(), &application[..]);
            prop_assert_eq!(read.channels().collect::<Vec<_>>(), channels);
            for length in 0..payload.len() {
                prop_assert!(SessionPayload::decode(&payload[..length]).is_err(), "cut at {}", length);
            }
            payload.push(0);
            prop_assert!(SessionPayload::decode(&payload).is_err(), "one byte too many");
        }

        #[test]
        fn what_is_read_can_be_written_again(at in 0usize..1000, byte: u8) {
            let mut payload = sample();
            let at = at % payload.len();
            payload[at] = byte;
            if let Ok(read) = SessionPayload::decode(&payload) {
                let channels: Vec<_> = read.channels().collect();
                let mut again = Vec::new();
                SessionPayload::encode(read.application(), &channels, &mut again).unwrap();
                prop_assert_eq!(again, payload);
            }
        }

        #[test]
        fn arbitrary_bytes_are_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..300), with_header: bool) {
            let mut bytes = bytes;
            if with_header && bytes.len() > 24 {
                bytes[..8].copy_from_slice(&MAGIC);
                bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
                bytes[13..24].fill(0);
            }
            if let Ok(read) = SessionPayload::decode(&bytes) {
                prop_assert!(read.channels().count() <= MAX_CHANNELS);
            }
        }
    }
}
