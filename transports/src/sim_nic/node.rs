//! The passive side: memory of a node, and the network card that serves it without the node's processor.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use backdoor_core::transport::{RegionKey, Rights, TransportError};
use backdoor_core::words::AtomicU64;

/// Why a region could not be registered or taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// [`SimNode::seal`] was called.
    #[error("the node is sealed: regions can be neither added nor removed")]
    Sealed,
    /// No such region.
    #[error("no region has key {0:?}")]
    UnknownKey(RegionKey),
    /// The node has no power, and with it no memory.
    #[error("the node has no power")]
    PoweredOff,
    /// Every key was given out; a key is never used twice.
    #[error("the network card has given out its last key")]
    NoKeyLeft,
}

#[derive(Debug)]
struct Region {
    memory: Arc<[AtomicU64]>,
    rights: Rights,
}

#[derive(Debug)]
struct Inner {
    first_key: u32,
    /// By key, from `first_key` on; `None` once deregistered.
    regions: Vec<Option<Region>>,
    sealed: bool,
    powered: bool,
    nic_works: bool,
    link_up: bool,
    /// Counts the card's resets. A connection of an earlier life is unknown to the card.
    nic_life: u32,
}

/// A node's memory and network card. Clones are handles on the same node.
///
/// The card goes on serving while the node's processor hangs or its operating system has crashed: that is the idea of
/// the whole system. Software NICs that die with the kernel are modelled by [`SimNode::fail_nic`] at the crash.
///
/// Whatever is done here takes effect at the virtual time up to which the channels were advanced.
#[derive(Clone, Debug)]
pub struct SimNode {
    inner: Rc<RefCell<Inner>>,
}

impl Default for SimNode {
    fn default() -> Self {
        SimNode::new()
    }
}

impl SimNode {
    /// A node with nothing registered, powered and connected.
    pub fn new() -> Self {
        SimNode::with_first_key(RegionKey(0x1000))
    }

    /// As [`SimNode::new`]; keys count up from `first`. Give nodes of one cluster different ones, so that a key
    /// presented to the wrong node is refused rather than answered.
    pub fn with_first_key(first: RegionKey) -> Self {
        let inner = Inner {
            first_key: first.0,
            regions: Vec::new(),
            sealed: false,
            powered: true,
            nic_works: true,
            link_up: true,
            nic_life: 0,
        };
        SimNode { inner: Rc::new(RefCell::new(inner)) }
    }

    /// Makes `memory` reachable with `rights`. The same memory may be registered more than once, with other rights.
    pub fn register(
        &self,
        memory: impl Into<Arc<[AtomicU64]>>,
        rights: Rights,
    ) -> Result<RegionKey, RegistrationError> {
        let mut inner = self.inner.borrow_mut();
        inner.may_change()?;
        let key = u32::try_from(inner.regions.len()).ok().and_then(|index| inner.first_key.checked_add(index));
        // The last number stays free, so that there is always a key that nobody has.
        let key = key.filter(|key| *key != u32::MAX).ok_or(RegistrationError::NoKeyLeft)?;
        inner.regions.push(Some(Region { memory: memory.into(), rights }));
        Ok(RegionKey(key))
    }

    /// Takes a region back. Operations that arrive later, and the rest of those that are being executed, are refused.
    pub fn deregister(&self, key: RegionKey) -> Result<(), RegistrationError> {
        let mut inner = self.inner.borrow_mut();
        inner.may_change()?;
        let index = inner.index(key).ok_or(RegistrationError::UnknownKey(key))?;
        match inner.regions[index].take() {
            Some(_) => Ok(()),
            None => Err(RegistrationError::UnknownKey(key)),
        }
    }

    /// From now on regions can be neither added nor removed, whoever asks. Only [`SimNode::power_on`] lifts it.
    pub fn seal(&self) {
        self.inner.borrow_mut().sealed = true;
    }

    /// Whether [`SimNode::seal`] was called.
    pub fn is_sealed(&self) -> bool {
        self.inner.borrow().sealed
    }

    /// The network card fails: nothing is served, and its connections are lost. Memory stays.
    pub fn fail_nic(&self) {
        self.inner.borrow_mut().nic_works = false;
    }

    /// The card works again after a reset. Regions are as before; connections must be opened anew.
    pub fn restore_nic(&self) {
        let mut inner = self.inner.borrow_mut();
        if !inner.nic_works {
            inner.nic_works = true;
            inner.nic_life += 1;
        }
    }

    /// The node's link goes down: messages both ways are lost. Connections survive if it returns before the other end
    /// gives up.
    pub fn cut_link(&self) {
        self.inner.borrow_mut().link_up = false;
    }

    /// The node's link is up again.
    pub fn restore_link(&self) {
        self.inner.borrow_mut().link_up = true;
    }

    /// Power is lost, and with it the regions and connections. (The caller may hold on to the memory: a real one would
    /// be gone.)
    pub fn power_off(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.powered = false;
        inner.regions.iter_mut().for_each(|region| *region = None);
    }

    /// The node starts: nothing registered, not sealed, no connections. Keys of its earlier life stay unknown.
    pub fn power_on(&self) {
        let mut inner = self.inner.borrow_mut();
        if !inner.powered {
            inner.powered = true;
            inner.nic_works = true;
            inner.sealed = false;
            inner.nic_life += 1;
        }
    }

    /// Whether a message from outside would reach a working network card.
    pub fn is_reachable(&self) -> bool {
        let inner = self.inner.borrow();
        inner.powered && inner.nic_works && inner.link_up
    }

    /// The card's present life, if it can be reached.
    pub(super) fn answering_life(&self) -> Option<u32> {
        let inner = self.inner.borrow();
        (inner.powered && inner.nic_works && inner.link_up).then_some(inner.nic_life)
    }

    pub(super) fn nic_life(&self) -> u32 {
        self.inner.borrow().nic_life
    }

    /// Gives `words` words from `offset` of a region to `work`, or says why not. The whole range is checked although
    /// only `part` of it, counted from `offset`, is handed over: an operation must not begin that can't end.
    pub(super) fn with_words<R>(
        &self,
        access: Access,
        part: std::ops::Range<u64>,
        work: impl FnOnce(&[AtomicU64]) -> R,
    ) -> Result<R, TransportError> {
        let inner = self.inner.borrow();
        let region = inner.index(access.key).and_then(|index| inner.regions[index].as_ref());
        let region = region.filter(|region| region.rights.allow(access.needs)).ok_or(TransportError::Refused)?;
        let end = access.offset.checked_add(access.words).filter(|end| *end <= region.memory.len() as u64);
        if end.is_none() {
            return Err(TransportError::OutOfBounds);
        }
        // Both ends lie within the region's length, which is a usize.
        let words = &region.memory[(access.offset + part.start) as usize..(access.offset + part.end) as usize];
        Ok(work(words))
    }
}

/// What an operation wants from a region.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    pub(super) key: RegionKey,
    pub(super) offset: u64,
    pub(super) words: u64,
    pub(super) needs: Rights,
}

impl Inner {
    fn may_change(&self) -> Result<(), RegistrationError> {
        if !self.powered {
            Err(RegistrationError::PoweredOff)
        } else if self.sealed {
            Err(RegistrationError::Sealed)
        } else {
            Ok(())
        }
    }

    fn index(&self, key: RegionKey) -> Option<usize> {
        let index = key.0.checked_sub(self.first_key)? as usize;
        (index < self.regions.len()).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backdoor_core::words::zeroed;

    #[test]
    fn a_sealed_node_neither_adds_nor_removes() {
        let node = SimNode::new();
        let key = node.register(zeroed(8), Rights::READ).unwrap();
        node.seal();
        assert_eq!(node.register(zeroed(8), Rights::READ), Err(RegistrationError::Sealed));
        assert_eq!(node.deregister(key), Err(RegistrationError::Sealed));
        node.power_off();
        node.power_on();
        assert!(!node.is_sealed());
        assert_eq!(node.deregister(key), Err(RegistrationError::UnknownKey(key)));
    }

    #[test]
    fn keys_are_never_used_twice() {
        let node = SimNode::with_first_key(RegionKey(u32::MAX - 2));
        let first = node.register(zeroed(1), Rights::READ).unwrap();
        node.deregister(first).unwrap();
        assert_eq!(node.deregister(first), Err(RegistrationError::UnknownKey(first)));
        assert_eq!(node.register(zeroed(1), Rights::READ), Ok(RegionKey(u32::MAX - 1)));
        assert_eq!(node.register(zeroed(1), Rights::READ), Err(RegistrationError::NoKeyLeft));
    }
}
