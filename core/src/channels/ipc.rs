//! A channel of messages to another process: each is acted upon once, whichever of the two ends is carried on elsewhere.
//!
//! Messages of a direction are numbered from 1. A sender commits a message before it sends it, and keeps it until the
//! other process acknowledges it, which that does when it has committed what came of it. When either end was carried on,
//! both tell each other what they have received; what is missing is sent again, and what comes twice is told by its number.

use std::fmt;

use super::bytes::Reader;
use super::error::ChannelError;
use super::payload::ChannelId;

/// What both ends call their channel: the same at both, and drawn at random, so that it is no other's on any node. By it
/// the ends find each other again where they are carried on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A channel to another process, as its service commits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpcState<'a> {
    /// What it is called at both ends.
    pub link: LinkId,
    /// Number of the last message acted upon: what came of it is in the application's state.
    pub received: u64,
    /// What the other process has not acknowledged, and with it how many were sent.
    pub unacknowledged: Messages<'a>,
}

/// What a message that comes in is, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arrival {
    /// The next one: act upon it.
    New,
    /// Acted upon already: only acknowledge it again.
    Again,
    /// Some before it are missing.
    Early,
}

impl<'a> IpcState<'a> {
    /// What the message `number` is to who has acted upon `received` messages.
    pub const fn arrival(received: u64, number: u64) -> Arrival {
        match number.checked_sub(received) {
            None | Some(0) => Arrival::Again,
            Some(1) => Arrival::New,
            Some(_) => Arrival::Early,
        }
    }

    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.unacknowledged.count > self.unacknowledged.last {
            return Err("more messages unacknowledged than were sent");
        }
        Ok(())
    }

    pub(super) fn encoded_len(&self) -> usize {
        4 * 8 + self.unacknowledged.bytes.len()
    }

    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        let Messages { last, count, bytes } = self.unacknowledged;
        for number in [self.link.0, self.received, last, count] {
            into.extend(number.to_le_bytes());
        }
        into.extend(bytes);
    }

    pub(super) fn decode(id: ChannelId, body: &'a [u8]) -> Result<Self, ChannelError> {
        let mut reader = Reader::new(body, "IPC channel");
        let link = LinkId(reader.u64()?);
        let (received, last, count) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let bytes = reader.rest();
        // As many as there are bytes, whatever it says.
        for _ in 0..count {
            let length = reader.u32()?;
            reader.take(u64::from(length))?;
        }
        reader.end()?;
        let state = IpcState { link, received, unacknowledged: Messages { last, count, bytes } };
        state.check().map(|()| state).map_err(|why| ChannelError::Inconsistent { id, why })
    }
}

/// Messages in the order of their numbers, which follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Messages<'a> {
    /// Number of the last one; of the last one ever, if there are none.
    last: u64,
    count: u64,
    /// Each with its length before it. Checked: as many as `count`.
    bytes: &'a [u8],
}

impl<'a> Messages<'a> {
    /// Number of the last message that was ever sent; 0 if none was.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether everything was acknowledged.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Each with its number.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &'a [u8])> + use<'a> {
        let mut left = self.bytes;
        let before = self.last - self.count;
        (1..=self.count).map_while(move |nth| {
            let (length, after) = left.split_first_chunk()?;
            let (message, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            left = after;
            Some((before + nth, message))
        })
    }

    /// What the other process needs that has received messages up to `received`. The others need not be sent again.
    pub fn after(&self, received: u64) -> impl Iterator<Item = (u64, &'a [u8])> + use<'a> {
        self.iter().filter(move |(number, _)| *number > received)
    }
}

/// What a sender keeps: the messages that the other process has not acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbox {
    last: u64,
    count: u64,
    bytes: Vec<u8>,
}

impl Outbox {
    /// Nothing was sent yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// That of a channel that is carried on.
    pub fn resume(messages: Messages<'_>) -> Self {
        Outbox { last: messages.last, count: messages.count, bytes: messages.bytes.to_vec() }
    }

    /// Takes a message; answers its number. Commit before it is sent.
    ///
    /// # Panics
    /// If the message has 4 GiB or more.
    pub fn push(&mut self, message: &[u8]) -> u64 {
        let length = u32::try_from(message.len()).expect("a message of less than 4 GiB");
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend(message);
        self.count += 1;
        self.last += 1;
        self.last
    }

    /// The other process has acted upon all messages up to `number`, and has committed that. Answers whether that can be.
    pub fn acknowledge(&mut self, number: u64) -> bool {
        if number > self.last {
            return false;
        }
        let keep = self.last - number;
        while self.count > keep {
            let Some((length, _)) = self.bytes.split_first_chunk() else { break };
            self.bytes.drain(..4 + u32::from_le_bytes(*length) as usize);
            self.count -= 1;
        }
        true
    }

    /// Bytes of the messages, each with its length before it.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// What is committed of it.
    pub fn messages(&self) -> Messages<'_> {
        Messages { last: self.last, count: self.count, bytes: &self.bytes }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LINK: LinkId = LinkId(0x5eed);

    #[test]
    fn a_message_is_acted_upon_once() {
        assert_eq!(IpcState::arrival(4, 5), Arrival::New);
        assert_eq!(IpcState::arrival(4, 4), Arrival::Again);
        assert_eq!(IpcState::arrival(4, 0), Arrival::Again);
        assert_eq!(IpcState::arrival(4, 8), Arrival::Early);
    }

    #[test]
    fn what_was_never_sent_is_not_acknowledged() {
        let mut outbox = Outbox::new();
        outbox.push(b"one");
        assert!(!outbox.acknowledge(2));
        assert_eq!(outbox.messages().len(), 1);
        assert!(outbox.acknowledge(1) && outbox.messages().is_empty());
        assert!(outbox.acknowledge(0), "late, and no news");
        assert_eq!((outbox.push(b"two"), outbox.messages().last()), (2, 2));
    }

    #[test]
    fn more_messages_than_bytes_are_refused() {
        let mut body = Vec::new();
        for number in [LINK.0, 0u64, u64::MAX, u64::MAX] {
            body.extend(number.to_le_bytes());
        }
        let refused = IpcState::decode(ChannelId(1), &body);
        assert!(matches!(refused, Err(ChannelError::Truncated { .. })), "{refused:?}");
        let mut outbox = Outbox::new();
        outbox.push(b"one");
        let state = IpcState { link: LINK, received: 0, unacknowledged: Messages { last: 0, ..outbox.messages() } };
        body.clear();
        state.encode(&mut body);
        let why = "more messages unacknowledged than were sent";
        assert_eq!(IpcState::decode(ChannelId(1), &body), Err(ChannelError::Inconsistent { id: ChannelId(1), why }));
    }

    proptest! {
        /// Two processes with channels that lose everything whenever one end is carried on: each message is acted upon
        /// once and in order.
        #[test]
        fn nothing_is_lost_nor_done_twice(steps in proptest::collection::vec(0u8..5, 0..200)) {
            let mut outbox = Outbox::new();
            let mut under_way: Vec<(u64, Vec<u8>)> = Vec::new();
            let mut acted = Vec::new();
            let mut sent = 0u64;
            for step in steps {
                match step {
                    0 => {
                        sent += 1;
                        let number = outbox.push(&sent.to_le_bytes());
                        under_way.push((number, sent.to_le_bytes().to_vec()));
                    }
                    1 if !under_way.is_empty() => {
                        let (number, message) = under_way.remove(0);
                        match IpcState::arrival(acted.len() as u64, number) {
                            Arrival::New => acted.push(message),
                            Arrival::Again => {}
                            Arrival::Early => prop_assert!(false, "in order, and from the first missing one"),
                        }
                    }
                    2 => prop_assert!(outbox.acknowledge(acted.len() as u64)),
                    3 => {
                        // The sender is carried on from its committed state.
                        let mut body = Vec::new();
                        IpcState { link: LINK, received: 0, unacknowledged: outbox.messages() }.encode(&mut body);
                        outbox = Outbox::resume(IpcState::decode(ChannelId(0), &body).unwrap().unacknowledged);
                        let again = outbox.messages().after(acted.len() as u64);
                        under_way = again.map(|(number, message)| (number, message.to_vec())).collect();
                    }
                    _ => {
                        let again = outbox.messages().iter();
                        under_way = again.map(|(number, message)| (number, message.to_vec())).collect();
                    }
                }
            }
            let all: Vec<Vec<u8>> = (1..=sent).map(|number| number.to_le_bytes().to_vec()).collect();
            prop_assert_eq!(&acted[..], &all[..acted.len()]);
            let rest = outbox.messages().after(acted.len() as u64).map(|(_, message)| message.to_vec());
            acted.extend(rest);
            prop_assert_eq!(acted, all);
        }
    }
}
