//! Queue pairs: one end of a reliable connection. One of the three modules of this backend with unsafe code.

use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use sideway::ibverbs::AccessFlags;
use sideway::ibverbs::address::{AddressHandleAttribute, Gid};
use sideway::ibverbs::completion::GenericCompletionQueue;
use sideway::ibverbs::device_context::Mtu;
use sideway::ibverbs::queue_pair::{
    GenericQueuePair, PostSendError, PostSendGuard, QueuePair, QueuePairAttribute, QueuePairState, SendOperationFlags,
    SetScatterGatherEntry, WorkRequestFlags,
};

use super::address::{Endpoint, Link};
use super::device::Device;
use super::error::{VerbsError, call};
use super::settings::RetrySettings;

/// Numbers of queue pairs and packets have 24 bits.
const BITS_24: u32 = (1 << 24) - 1;
/// Completions polled at once: a poll allocates room for as many, and this much is quick to allocate.
const POLL_BATCH: NonZeroU32 = NonZeroU32::new(16).unwrap();
/// More READs at once than this bring no more, and cost the card memory.
const READS_AT_ONCE: u8 = 16;

/// The monitored node's end: it serves, and can start nothing itself. Dropping it closes the connection.
#[derive(Debug)]
pub struct PassiveQueuePair {
    end: End,
}

impl PassiveQueuePair {
    /// A queue pair that waits to be told who its peer is.
    pub fn create(device: &Device) -> Result<Self, VerbsError> {
        let mut access = AccessFlags::RemoteRead | AccessFlags::RemoteWrite;
        if device.has_compare_swap() {
            access |= AccessFlags::RemoteAtomic;
        }
        Ok(PassiveQueuePair { end: End::create(device, 1, access)? })
    }

    /// What its peer must know.
    pub fn endpoint(&self) -> Endpoint {
        self.end.endpoint()
    }

    /// Connects it to its peer. Ready to receive is all that serving takes.
    pub fn connect(&mut self, peer: &Endpoint) -> Result<(), VerbsError> {
        self.end.ready_to_receive(peer)
    }
}

/// The monitor's end.
#[derive(Debug)]
pub(super) struct ActiveQueuePair {
    end: End,
}

/// One request, as the card gets it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) id: u64,
    pub(super) kind: PieceKind,
    /// Key and address of our own memory.
    pub(super) local: (u32, u64),
    /// Bytes; 0 for no memory at all.
    pub(super) length: u32,
    /// Key and address of the node's memory.
    pub(super) remote: (u32, u64),
    /// Whether its success is reported. A failure always is.
    pub(super) signalled: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum PieceKind {
    Read,
    Write,
    CompareSwap { expected: u64, new: u64 },
}

impl ActiveQueuePair {
    /// A queue pair for `depth` requests under way.
    pub(super) fn create(device: &Device, depth: usize) -> Result<Self, VerbsError> {
        let most = device.max_depth();
        if depth == 0 || depth > most {
            return Err(VerbsError::Depth { asked: depth, most });
        }
        // The peer may do nothing to this machine.
        Ok(ActiveQueuePair { end: End::create(device, depth as u32, AccessFlags::none())? })
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        self.end.endpoint()
    }

    pub(super) fn connect(&mut self, peer: &Endpoint, retry: RetrySettings) -> Result<(), VerbsError> {
        self.end.ready_to_receive(peer)?;
        self.end.ready_to_send(peer, retry)
    }

    /// Posts requests, in order, with one call.
    ///
    /// # Safety
    /// The local memory of each stays registered, and nobody else accesses it, until the request's completion was polled
    /// or the queue pair was [destroyed](Self::destroy). An error leaves open which were posted.
    pub(super) unsafe fn post(&mut self, pieces: impl Iterator<Item = Piece>) -> Result<(), PostSendError> {
        let has_compare_swap = self.end.device.has_compare_swap();
        let Some(queues) = &mut self.end.queues else { return Err(unsupported()) };
        let mut guard = queues.pair.start_post_send();
        for piece in pieces {
            // The driver has no function for what a queue pair was not made for, and the library would call it.
            if matches!(piece.kind, PieceKind::CompareSwap { .. }) && !has_compare_swap {
                return Err(unsupported());
            }
            let mut flags = WorkRequestFlags::none();
            if piece.signalled {
                flags |= WorkRequestFlags::Signaled;
            }
            // A card may execute what changes memory before it has executed a READ that was posted earlier (InfiniBand
            // Architecture Specification, volume 1, section 10.8.3.3), unless told to wait.
            if !matches!(piece.kind, PieceKind::Read) {
                flags |= WorkRequestFlags::Fence;
            }
            let request = guard.construct_wr(piece.id, flags);
            let (rkey, address) = piece.remote;
            let request = match piece.kind {
                PieceKind::Read => request.setup_read(rkey, address),
                PieceKind::Write => request.setup_write(rkey, address),
                PieceKind::CompareSwap { expected, new } => {
                    request.setup_atomic_compare_swap(rkey, address, expected, new)
                }
            };
            let (lkey, address) = piece.local;
            // SAFETY: as this function's caller promises; no words need no memory.
            unsafe {
                match piece.length {
                    0 => request.setup_sge_list(&[]),
                    length => request.setup_sge(lkey, address, length),
                }
            }
        }
        guard.post()
    }

    /// The numbers and statuses of requests that were reported, in order; answers whether there were any.
    pub(super) fn poll(&self, mut reported: impl FnMut(u64, u32)) -> bool {
        let Some(queues) = &self.end.queues else { return false };
        // An error other than "empty" leaves nothing to be done here: the requests' own deadline will pass.
        let Ok(poller) = queues.completions.start_poll() else { return false };
        poller.for_each(|completion| reported(completion.wr_id(), completion.status()));
        true
    }

    /// Ends it, as dropping it does; answers whether the system has destroyed it, so that its card can't write into
    /// anything any more.
    pub(super) fn destroy(mut self) -> bool {
        self.end.destroy()
    }
}

fn unsupported() -> PostSendError {
    PostSendError::InvalidWorkRequest(std::io::ErrorKind::Unsupported.into())
}

/// What both ends have in common.
#[derive(Debug)]
struct End {
    /// `None` once destroyed.
    queues: Option<Queues>,
    device: Device,
    number: u32,
    first_packet: u32,
}

#[derive(Debug)]
struct Queues {
    pair: GenericQueuePair,
    completions: GenericCompletionQueue,
}

impl Drop for End {
    fn drop(&mut self) {
        self.destroy();
    }
}

/// Drops something of the library's; answers whether the system has destroyed it. If not, which is so when the card was
/// taken away, the library panics: of two at once, while everything is cleared away, the program would die, and with it
/// what an agent keeps for others.
fn destroyed<T>(something: T) -> bool {
    catch_unwind(AssertUnwindSafe(|| drop(something))).is_ok()
}

impl End {
    fn destroy(&mut self) -> bool {
        let Some(Queues { pair, completions }) = self.queues.take() else { return true };
        let is_gone = destroyed(pair);
        destroyed(completions);
        is_gone
    }

    fn create(device: &Device, depth: u32, access: AccessFlags) -> Result<Self, VerbsError> {
        let inner = device.inner();
        // Not `build_ex`: with Soft-RoCE (rdma-core 44), polling an empty queue of that kind never returns.
        let completions = inner.context.create_cq_builder().setup_cqe(depth + 1).build();
        let mut completions = completions.map_err(call("make a completion queue"))?;
        if let Some(completions) = Arc::get_mut(&mut completions) {
            completions.setup_poll_batch(POLL_BATCH);
        }
        let completions = GenericCompletionQueue::from(completions);
        // The newer calls allocate nothing for each request; not every card's driver has them.
        let mut builder = inner.domain.create_qp_builder();
        builder.setup_max_send_wr(depth).setup_max_recv_wr(1);
        builder.setup_send_cq(completions.clone()).setup_recv_cq(completions.clone());
        let mut operations = SendOperationFlags::Read | SendOperationFlags::Write;
        if device.has_compare_swap() {
            operations |= SendOperationFlags::AtomicCompareAndSwap;
        }
        builder.setup_send_ops_flags(operations);
        let pair = match builder.build_ex() {
            Ok(pair) => GenericQueuePair::from(pair),
            Err(_) => builder.build().map_err(call("make a queue pair"))?.into(),
        };
        let mut attributes = QueuePairAttribute::new();
        attributes.setup_state(QueuePairState::Init).setup_pkey_index(0).setup_port(inner.port.number);
        attributes.setup_access_flags(access);
        let mut random = [0; 4];
        // Where the kernel has no random numbers yet, 0 is as good: a first packet number is no secret.
        let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::NONBLOCK);
        let first_packet = u32::from_ne_bytes(random) & BITS_24;
        let number = pair.qp_number();
        let mut end = End { queues: Some(Queues { pair, completions }), device: device.clone(), number, first_packet };
        end.modify(&attributes, "initialise a queue pair")?;
        Ok(end)
    }

    fn modify(&mut self, attributes: &QueuePairAttribute, doing: &'static str) -> Result<(), VerbsError> {
        let Some(queues) = &mut self.queues else { return Ok(()) };
        queues.pair.modify(attributes).map_err(call(doing))
    }

    fn endpoint(&self) -> Endpoint {
        let port = self.device.inner().port;
        Endpoint {
            link: port.link,
            gid: port.gid,
            lid: port.lid,
            mtu: mtu_bytes(port.mtu),
            queue_pair: self.number,
            first_packet: self.first_packet,
            reads: self.device.inner().limits.reads_served.min(READS_AT_ONCE),
        }
    }

    fn ready_to_receive(&mut self, peer: &Endpoint) -> Result<(), VerbsError> {
        let port = self.device.inner().port;
        if peer.link != port.link {
            return Err(VerbsError::OtherLink { ours: port.link, theirs: peer.link });
        }
        if peer.queue_pair > BITS_24 || peer.first_packet > BITS_24 || peer.reads == 0 {
            return Err(VerbsError::Nonsense(format!("{peer:?}")));
        }
        let theirs = mtu_of(peer.mtu).ok_or_else(|| VerbsError::Nonsense(format!("an MTU of {}", peer.mtu)))?;
        let mut address = AddressHandleAttribute::new();
        address.setup_port(port.number).setup_dest_lid(peer.lid);
        // Within an InfiniBand subnet the local identifier is enough.
        if port.link == Link::Ethernet || peer.gid[..8] != port.gid[..8] {
            address.setup_grh(&Gid { raw: peer.gid }, 0, port.gid_index, 64, 0);
        }
        let mut attributes = QueuePairAttribute::new();
        attributes
            .setup_state(QueuePairState::ReadyToReceive)
            .setup_address_vector(&address)
            .setup_path_mtu(theirs.min(port.mtu))
            .setup_dest_qp_num(peer.queue_pair)
            .setup_rq_psn(peer.first_packet)
            .setup_max_dest_read_atomic(self.endpoint().reads)
            .setup_min_rnr_timer(12);
        self.modify(&attributes, "connect a queue pair to its peer")
    }

    fn ready_to_send(&mut self, peer: &Endpoint, retry: RetrySettings) -> Result<(), VerbsError> {
        let reads = peer.reads.min(self.device.inner().limits.reads_issued).clamp(1, READS_AT_ONCE);
        let mut attributes = QueuePairAttribute::new();
        attributes
            .setup_state(QueuePairState::ReadyToSend)
            .setup_timeout(retry.timeout())
            .setup_retry_cnt(retry.retries())
            // "Receiver not ready" is about messages that need a posted receive; nothing here does.
            .setup_rnr_retry(0)
            .setup_sq_psn(self.first_packet)
            .setup_max_read_atomic(reads);
        self.modify(&attributes, "make a queue pair ready to send")
    }
}

fn mtu_bytes(mtu: Mtu) -> u16 {
    128 << (mtu as u16)
}

fn mtu_of(bytes: u16) -> Option<Mtu> {
    [Mtu::Mtu256, Mtu::Mtu512, Mtu::Mtu1024, Mtu::Mtu2048, Mtu::Mtu4096]
        .into_iter()
        .find(|mtu| mtu_bytes(*mtu) == bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mtus_are_bytes() {
        for bytes in [256, 512, 1024, 2048, 4096] {
            assert_eq!(mtu_of(bytes).map(mtu_bytes), Some(bytes));
        }
        assert_eq!(mtu_of(1500), None);
    }

    #[test]
    fn what_the_system_does_not_destroy_ends_no_program() {
        struct Stuck(std::rc::Rc<()>, Part);
        struct Part;
        impl Drop for Stuck {
            fn drop(&mut self) {
                panic!("the card is gone: {:p}", self.0);
            }
        }
        impl Drop for Part {
            fn drop(&mut self) {
                assert!(std::thread::panicking());
            }
        }
        let held = std::rc::Rc::new(());
        assert!(!destroyed(Stuck(held.clone(), Part)));
        assert_eq!(std::rc::Rc::strong_count(&held), 1, "what it holds is let go");
        assert!(destroyed(held));
    }
}
