//! One end of a link to another process: what it may send, what it acknowledges, and what comes in. No I/O.
//!
//! ```text
//!   this end                                                        the other
//!   push ─> state() ─ committed ─> committed() ─> to_send ─────────> arrives ─ acts ─> committed
//!                                                     acknowledged <──────────────────── acknowledgement
//! ```
//!
//! Nothing leaves an end before it is committed: neither a message, nor that a message was received. So whatever one end
//! knows of the other is in the other's State Box, and stays there whoever dies. When a connection begins, both ends
//! [greet](IpcEnd::greet) with what is committed; each sends what the other is missing, and drops by its number what
//! comes twice.
//!
//! # When both ends are carried on
//! Their State Boxes are read one after the other, behind a fence, and both processes may run on meanwhile. The two are of
//! one moment all the same, if *both sessions were claimed before the first of them was read*. A commit that looks at its
//! claim word after that is refused; so each session publishes one late commit at most, which had looked before. Nothing
//! that such a commit lets out can be in a commit of the other end, for that would have to begin later. Without this
//! order an end may be read that knows more of the other than was read of that: a message that both have forgotten, or
//! that one has not sent. [`IpcEnd::greeted`] notices it, and says so, rather than serve on.

use super::ipc::{Arrival, IpcState, LinkId, Outbox};

/// What an end says first over a new connection: what is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Greeting {
    /// Which link.
    pub link: LinkId,
    /// Messages that it has acted upon.
    pub received: u64,
    /// Messages that it has ever sent.
    pub sent: u64,
}

/// Why the two ends don't fit together. Nothing of the link is changed by what is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum LinkError {
    /// Two different links.
    #[error("the other end is one of link {theirs}, this one of link {ours}")]
    OtherLink {
        /// This end's.
        ours: LinkId,
        /// The other's.
        theirs: LinkId,
    },
    /// The other end knows more of this one than this one itself.
    #[error("the other end has received {received} messages, and {sent} were sent")]
    NeverSent {
        /// What it has received, as it says.
        received: u64,
        /// What was sent.
        sent: u64,
    },
    /// This end knows more of the other than that itself.
    #[error("{received} messages were received, and the other end says that it has sent {sent}")]
    NotRemembered {
        /// What was received here.
        received: u64,
        /// What it has sent, as it says.
        sent: u64,
    },
    /// The other end needs messages that it has acknowledged before.
    #[error("the other end is missing message {missing}, and they are kept from message {kept} on")]
    NotKept {
        /// The first that it is missing.
        missing: u64,
        /// The first that is kept.
        kept: u64,
    },
    /// A message is left out.
    #[error("message {number} came, and message {expected} is the next")]
    LeftOut {
        /// The one that came.
        number: u64,
        /// The one that was to come.
        expected: u64,
    },
    /// The connection has not begun with a greeting.
    #[error("the other end has not said which link it is of")]
    NotGreeted,
}

/// One end of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpcEnd {
    link: LinkId,
    /// Messages acted upon, and messages taken for sending, committed or not.
    received: u64,
    outbox: Outbox,
    committed: Committed,
    /// The last message that was ever on its way: the other end may have had it over an earlier connection, and
    /// acknowledge it over this one.
    on_its_way: u64,
    connection: Option<Connection>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Committed {
    received: u64,
    sent: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Connection {
    /// The last message that the other end has, or that is on its way there; `None` until it has greeted.
    sent: Option<u64>,
    /// How many messages the other end knows to be received.
    told: u64,
}

impl IpcEnd {
    /// Of a link that is new.
    pub fn new(link: LinkId) -> Self {
        let committed = Committed { received: 0, sent: 0 };
        IpcEnd { link, received: 0, outbox: Outbox::new(), committed, on_its_way: 0, connection: None }
    }

    /// Of a link that is carried on. The state is to be in a State Box of this end's before it greets anybody.
    pub fn resume(state: &IpcState<'_>) -> Self {
        let IpcState { link, received, unacknowledged } = *state;
        let committed = Committed { received, sent: unacknowledged.last() };
        let (outbox, on_its_way) = (Outbox::resume(unacknowledged), unacknowledged.last());
        IpcEnd { link, received, outbox, committed, on_its_way, connection: None }
    }

    /// Which link.
    pub fn link(&self) -> LinkId {
        self.link
    }

    /// What is to be committed.
    pub fn state(&self) -> IpcState<'_> {
        IpcState { link: self.link, received: self.received, unacknowledged: self.outbox.messages() }
    }

    /// Bytes of messages that the other end has not acknowledged, as they are committed.
    pub fn outbox_bytes(&self) -> usize {
        self.outbox.bytes()
    }

    /// Takes a message, to be sent once it is committed. Answers its number.
    pub fn push(&mut self, message: &[u8]) -> u64 {
        self.outbox.push(message)
    }

    /// What [`state`](Self::state) says is in the State Box, with what came of the messages received.
    pub fn committed(&mut self) {
        self.committed = Committed { received: self.received, sent: self.outbox.messages().last() };
    }

    /// A connection begins: what to say over it first.
    pub fn greet(&mut self) -> Greeting {
        let Committed { received, sent } = self.committed;
        self.connection = Some(Connection { sent: None, told: received });
        Greeting { link: self.link, received, sent }
    }

    /// The other end has greeted.
    ///
    /// # Errors
    /// The states of the two ends contradict each other; nothing can be sent over this connection.
    pub fn greeted(&mut self, by: Greeting) -> Result<(), LinkError> {
        let connection = self.connection.as_mut().ok_or(LinkError::NotGreeted)?;
        if by.link != self.link {
            return Err(LinkError::OtherLink { ours: self.link, theirs: by.link });
        }
        let Committed { received, sent } = self.committed;
        if by.received > sent {
            return Err(LinkError::NeverSent { received: by.received, sent });
        }
        if by.sent < received {
            return Err(LinkError::NotRemembered { received, sent: by.sent });
        }
        let messages = self.outbox.messages();
        let before = messages.last() - messages.len();
        if by.received < before {
            return Err(LinkError::NotKept { missing: by.received + 1, kept: before + 1 });
        }
        self.outbox.acknowledge(by.received);
        connection.sent = Some(by.received);
        Ok(())
    }

    /// The connection is gone. Nothing is sent until another begins.
    pub fn disconnected(&mut self) {
        self.connection = None;
    }

    /// Messages to be sent now, each with its number, in their order.
    pub fn to_send(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let sent = self.connection.and_then(|connection| connection.sent).unwrap_or(u64::MAX);
        let committed = self.committed.sent;
        self.outbox.messages().after(sent).take_while(move |(number, _)| *number <= committed)
    }

    /// All messages up to `number` are on their way.
    pub fn sent(&mut self, number: u64) {
        if let Some(Connection { sent: Some(sent), .. }) = &mut self.connection {
            *sent = number.max(*sent);
            self.on_its_way = number.max(self.on_its_way);
        }
    }

    /// What to acknowledge now, if there is anything new.
    pub fn acknowledgement(&self) -> Option<u64> {
        let connection = self.connection.filter(|connection| connection.sent.is_some())?;
        (self.committed.received > connection.told).then_some(self.committed.received)
    }

    /// The other end is being told that messages up to `number` are received.
    pub fn told(&mut self, number: u64) {
        if let Some(connection) = &mut self.connection {
            connection.told = number.max(connection.told);
        }
    }

    /// A message has come. [`New`](Arrival::New): act upon it, and then [commit](Self::state).
    ///
    /// # Errors
    /// One that can't come now. Connections keep messages in order, so a gap is the other end's fault.
    pub fn arrives(&mut self, number: u64) -> Result<Arrival, LinkError> {
        if self.connection.is_none_or(|connection| connection.sent.is_none()) {
            return Err(LinkError::NotGreeted);
        }
        let arrival = IpcState::arrival(self.received, number);
        match arrival {
            Arrival::New => self.received = number,
            Arrival::Again => {}
            Arrival::Early => return Err(LinkError::LeftOut { number, expected: self.received + 1 }),
        }
        Ok(arrival)
    }

    /// The other end has committed what came of the messages up to `number`.
    ///
    /// # Errors
    /// They were not sent.
    pub fn acknowledged(&mut self, number: u64) -> Result<(), LinkError> {
        let connection = self.connection.as_mut().filter(|connection| connection.sent.is_some());
        let connection = connection.ok_or(LinkError::NotGreeted)?;
        if number > self.on_its_way {
            return Err(LinkError::NeverSent { received: number, sent: self.on_its_way });
        }
        connection.sent = connection.sent.max(Some(number));
        self.outbox.acknowledge(number);
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const LINK: LinkId = LinkId(9);

    fn met() -> (IpcEnd, IpcEnd) {
        let (mut one, mut other) = (IpcEnd::new(LINK), IpcEnd::new(LINK));
        meet(&mut one, &mut other).unwrap();
        (one, other)
    }

    fn meet(one: &mut IpcEnd, other: &mut IpcEnd) -> Result<(), LinkError> {
        let (greeting, answer) = (one.greet(), other.greet());
        one.greeted(answer)?;
        other.greeted(greeting)
    }

    fn sends(end: &IpcEnd) -> Vec<u64> {
        end.to_send().map(|(number, _)| number).collect()
    }

    #[test]
    fn nothing_leaves_before_it_is_committed() {
        let (mut one, mut other) = met();
        one.push(b"one");
        assert!(sends(&one).is_empty());
        one.committed();
        assert_eq!(sends(&one), [1]);
        one.sent(1);
        assert!(sends(&one).is_empty(), "once");
        assert_eq!(other.arrives(1), Ok(Arrival::New));
        assert_eq!(other.acknowledgement(), None);
        other.committed();
        assert_eq!(other.acknowledgement(), Some(1));
        other.told(1);
        assert_eq!(other.acknowledgement(), None, "once");
        assert_eq!(one.acknowledged(2), Err(LinkError::NeverSent { received: 2, sent: 1 }));
        assert_eq!(one.acknowledged(1), Ok(()));
        assert_eq!(one.outbox_bytes(), 0);
    }

    #[test]
    fn what_was_acted_upon_and_not_committed_comes_again_and_is_told_by_its_number() {
        let (mut one, mut other) = met();
        one.push(b"one");
        one.committed();
        one.sent(1);
        assert_eq!(other.arrives(1), Ok(Arrival::New));
        // Its commit is refused meanwhile, and the connection breaks.
        meet(&mut one, &mut other).unwrap();
        assert_eq!(sends(&one), [1]);
        assert_eq!(other.arrives(1), Ok(Arrival::Again));
        assert_eq!(other.arrives(3), Err(LinkError::LeftOut { number: 3, expected: 2 }));
    }

    #[test]
    fn what_came_over_an_earlier_connection_is_acknowledged_over_this_one() {
        let (mut one, mut other) = met();
        one.push(b"one");
        one.push(b"two");
        one.committed();
        one.sent(1);
        assert_eq!(other.arrives(1), Ok(Arrival::New));
        meet(&mut one, &mut other).unwrap();
        other.committed();
        assert_eq!(other.acknowledgement(), Some(1));
        assert_eq!(one.acknowledged(2), Err(LinkError::NeverSent { received: 2, sent: 1 }));
        assert_eq!((one.acknowledged(1), sends(&one)), (Ok(()), vec![2]));
    }

    #[test]
    fn without_a_greeting_nothing_is_sent_or_believed() {
        let mut one = IpcEnd::new(LINK);
        one.push(b"one");
        one.committed();
        one.greet();
        assert!(sends(&one).is_empty());
        assert_eq!(one.acknowledgement(), None);
        assert_eq!(one.arrives(1), Err(LinkError::NotGreeted));
        assert_eq!(one.acknowledged(0), Err(LinkError::NotGreeted));
        let greeting = Greeting { link: LinkId(8), received: 0, sent: 0 };
        assert_eq!(one.greeted(greeting), Err(LinkError::OtherLink { ours: LINK, theirs: LinkId(8) }));
        one.disconnected();
        assert_eq!(one.greeted(greeting), Err(LinkError::NotGreeted));
    }

    /// State Boxes that were read in the wrong order: the one of the end that answers before, the other's after it was
    /// answered.
    #[test]
    fn ends_of_different_moments_are_told_apart() {
        let (mut front, mut worker) = met();
        let before = worker.clone();
        front.push(b"request");
        front.committed();
        front.sent(1);
        worker.arrives(1).unwrap();
        worker.push(b"reply");
        worker.committed();
        let early_front = front.clone();
        front.acknowledged(1).unwrap();
        assert_eq!(
            meet(&mut front.clone(), &mut before.clone()),
            Err(LinkError::NotKept { missing: 1, kept: 2 }),
            "a request that both have forgotten"
        );
        worker.sent(1);
        front.arrives(1).unwrap();
        front.committed();
        let refused = meet(&mut front.clone(), &mut before.clone());
        assert_eq!(refused, Err(LinkError::NotRemembered { received: 1, sent: 0 }));
        let refused = meet(&mut before.clone(), &mut front.clone());
        assert_eq!(refused, Err(LinkError::NeverSent { received: 1, sent: 0 }), "the other end notices it, too");
        worker.acknowledged(1).unwrap();
        let refused = meet(&mut early_front.clone(), &mut worker);
        assert!(matches!(refused, Err(LinkError::NotKept { .. })), "a reply that both have forgotten: {refused:?}");
    }
}
