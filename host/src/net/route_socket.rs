//! A request over rtnetlink, and the kernel's answer to it.
//!
//! Of an answer nothing is decoded but what was asked for: a kernel that is newer than this code tells of links what
//! nobody here has heard of.

use std::os::fd::OwnedFd;
use std::time::Duration;

use netlink_packet_core::{
    ErrorBuffer, NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// The kernel answers before `send` returns. This is for a kernel that could not: better an error than a wait for ever.
const PATIENCE: Duration = Duration::from_secs(5);

/// The kernel makes no datagram longer than this (`NLMSG_GOODSIZE`, and what a link with many functions needs).
const MAX_ANSWER_BYTES: usize = 32 << 10;

/// Messages in a datagram begin at multiples of this.
const ALIGNMENT: usize = 4;

/// Why there was no answer, or which.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The kernel said no, or could not be asked.
    Errno(Errno),
    /// What it said is no answer.
    Answer(String),
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Refusal::Errno(errno)
    }
}

/// A netlink socket to the routing part of the kernel, for one request at a time.
#[derive(Debug)]
pub(super) struct RouteSocket {
    socket: OwnedFd,
    sequence: u32,
    answer: Vec<u8>,
}

impl RouteSocket {
    /// In the namespace of the calling thread, to which it belongs from then on.
    pub(super) fn open() -> Result<Self, Errno> {
        // No protocol is NETLINK_ROUTE.
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        // Connected to the kernel, it takes nothing from other processes.
        rustix::net::connect(&socket, &SocketAddrNetlink::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(RouteSocket { socket, sequence: 0, answer: vec![0; MAX_ANSWER_BYTES] })
    }

    /// Sends `request` and returns when the kernel has confirmed that it is done. Answers the payload of the message that
    /// came before the confirmation; empty if there was none.
    pub(super) fn ask(&mut self, request: RouteNetlinkMessage, flags: u16) -> Result<Vec<u8>, Refusal> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        retry_on_intr(|| rustix::net::send(&self.socket, &bytes, SendFlags::empty()))?;
        let mut told = Vec::new();
        loop {
            let received =
                retry_on_intr(|| rustix::net::recv(&self.socket, self.answer.as_mut_slice(), RecvFlags::TRUNC));
            let (_, length) = received?;
            let datagram =
                self.answer.get(..length).ok_or_else(|| Refusal::Answer(format!("it has {length} bytes")))?;
            if take_in(datagram, self.sequence, &mut told)? {
                return Ok(told);
            }
        }
    }
}

/// Whether `datagram` holds the confirmation of request number `sequence`. What else it says to it goes into `told`. What
/// is left of earlier requests is skipped.
fn take_in(mut datagram: &[u8], sequence: u32, told: &mut Vec<u8>) -> Result<bool, Refusal> {
    while !datagram.is_empty() {
        let message = NetlinkBuffer::new_checked(datagram).map_err(|error| Refusal::Answer(error.to_string()))?;
        if message.sequence_number() == sequence {
            if message.message_type() == NLMSG_ERROR {
                let confirmation = ErrorBuffer::new_checked(message.payload());
                let code = confirmation.map_err(|error| Refusal::Answer(error.to_string()))?.code();
                return match code {
                    None => Ok(true),
                    Some(code) => Err(Errno::from_raw_os_error(code.get().wrapping_neg()).into()),
                };
            }
            *told = message.payload().to_vec();
        }
        let length = (message.length() as usize).next_multiple_of(ALIGNMENT);
        datagram = datagram.get(length..).unwrap_or_default();
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of so many bytes: type, sequence number, payload.
    fn message(kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let length = 16 + payload.len();
        let mut bytes = (length as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes.resize(length.next_multiple_of(ALIGNMENT), 0);
        bytes
    }

    fn confirmation(sequence: u32, code: i32) -> Vec<u8> {
        message(NLMSG_ERROR, sequence, &[code.to_ne_bytes().as_slice(), &[0; 16]].concat())
    }

    #[test]
    fn only_the_answer_to_this_request_counts() {
        let mut told = Vec::new();
        let earlier = [message(16, 6, b"earlier"), confirmation(6, -17)].concat();
        assert!(matches!(take_in(&earlier, 7, &mut told), Ok(false)));
        assert!(told.is_empty());
        let answer = [earlier, message(16, 7, b"odd"), confirmation(7, 0)].concat();
        assert!(matches!(take_in(&answer, 7, &mut told), Ok(true)));
        assert_eq!(told, b"odd");
    }

    #[test]
    fn a_refusal_is_the_systems_error() {
        let answer = confirmation(7, -Errno::NODEV.raw_os_error());
        let Err(Refusal::Errno(errno)) = take_in(&answer, 7, &mut Vec::new()) else { panic!("it was refused") };
        assert_eq!(errno, Errno::NODEV);
    }

    #[test]
    fn what_is_cut_off_is_no_answer() {
        let answer = confirmation(7, 0);
        for length in 1..answer.len() {
            let result = take_in(&answer[..length], 7, &mut Vec::new());
            assert!(matches!(result, Err(Refusal::Answer(_))), "{length} bytes: {result:?}");
        }
        let short = message(NLMSG_ERROR, 7, &[0; 2]);
        assert!(matches!(take_in(&short, 7, &mut Vec::new()), Err(Refusal::Answer(_))));
    }
}
