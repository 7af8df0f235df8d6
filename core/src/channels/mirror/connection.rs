//! One connection: both directions, as far as they matter.

use super::input::Input;
use super::{MirrorError, Mirrored, Segment};

/// What is known of a connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) input: Input,
    /// Numbers of the first bytes of input and output, if the handshake was seen.
    bases: Option<(u32, u32)>,
    /// Number of the first byte of output that the client has not acknowledged.
    acknowledged: Option<u32>,
    /// Number of the first byte of output that has not passed.
    sent: u32,
    /// Something passed unseen, and what it said is not known from another packet.
    missed: bool,
    /// Closed by the node, or broken off.
    pub(super) over: bool,
    /// When a packet passed, by their number.
    pub(super) heard: u64,
}

impl Connection {
    /// As the node tells of it first.
    pub(super) fn of(segment: &Segment<'_>, acknowledges: u32) -> Self {
        let begins = segment.sequence.wrapping_add(1);
        Connection {
            input: Input::from(acknowledges),
            bases: segment.syn.then_some((acknowledges, begins)),
            acknowledged: None,
            sent: segment.sequence,
            missed: false,
            over: false,
            heard: 0,
        }
    }

    /// Whether this answer of the node's in a handshake is about another connection between the same addresses.
    pub(super) fn is_succeeded_by(&self, segment: &Segment<'_>, acknowledges: u32) -> bool {
        segment.syn && self.bases != Some((acknowledges, segment.sequence.wrapping_add(1)))
    }

    /// Of packets, some passed unseen.
    pub(super) fn missed(&mut self) {
        self.missed = true;
    }

    pub(super) fn client_says(&mut self, segment: &Segment<'_>, room: usize) {
        if segment.rst {
            // What is meant for another connection, or made up, has another number (RFC 5961, section 3.2).
            self.over |= segment.sequence == self.input.received();
            return;
        }
        if segment.syn {
            return;
        }
        match segment.acknowledges {
            // The client has output that never passed, or makes it up.
            Some(acknowledges) if is_after(acknowledges, self.sent) => self.missed = true,
            Some(acknowledges) if self.acknowledged.is_none_or(|known| is_after(acknowledges, known)) => {
                self.acknowledged = Some(acknowledges);
            }
            _ => {}
        }
        // Cut short, it says nothing of what comes after it.
        let is_whole = segment.payload.len() == segment.length as usize;
        self.input.sent(segment.sequence, segment.payload, segment.fin && is_whole, room);
    }

    pub(super) fn node_says(&mut self, segment: &Segment<'_>, room: usize) {
        self.over |= segment.rst | segment.fin;
        let Some(acknowledges) = segment.acknowledges.filter(|_| !segment.rst) else { return };
        let begin = segment.sequence.wrapping_add(u32::from(segment.syn));
        let after = begin.wrapping_add(segment.length);
        // What is sent again tells nothing of what was sent last.
        if !is_after(self.sent, after) {
            self.sent = after;
            self.missed = false;
        }
        self.input.acknowledge(acknowledges, room);
    }

    /// Where it stands, with the input from number `consumed` on.
    pub(super) fn queues(&self, consumed: u32) -> Result<Mirrored, MirrorError> {
        if self.over {
            return Err(MirrorError::Over);
        }
        if self.missed {
            return Err(MirrorError::Missed);
        }
        if self.input.contradicts() {
            return Err(MirrorError::Contradiction);
        }
        let unread = self.input.since(consumed).ok_or(MirrorError::Gap)?;
        let acknowledged = self.acknowledged.ok_or(MirrorError::ClientUnheard)?;
        let received = self.input.received();
        Ok(Mirrored { acknowledged, sent: self.sent, received, ended: self.input.ended(), unread })
    }
}

/// Whether number `a` comes after `b`, of two that are less than 2 GiB apart (RFC 9293, section 3.4).
fn is_after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}
