//! What an agent sent: regions and their descriptors, which must match.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use backdoor_core::transport::{RegionKey, Rights};

use crate::protocol::Region;

/// Most words of one region; more is nonsense, not memory.
const MAX_WORDS: u64 = 1 << 40;

/// Regions with their descriptors.
pub(crate) struct Received {
    regions: Vec<(Region, OwnedFd)>,
}

impl Received {
    /// Fails, with the reason, unless there is one descriptor for each region.
    pub(crate) fn new(regions: &[Region], descriptors: Vec<OwnedFd>) -> Result<Self, String> {
        if regions.len() != descriptors.len() {
            return Err(format!("it described {} regions and sent {}", regions.len(), descriptors.len()));
        }
        if let Some(region) = regions.iter().find(|r| r.words > MAX_WORDS || Rights::from_bits(r.rights).is_none()) {
            return Err(format!("it sent an impossible region: {region:?}"));
        }
        Ok(Received { regions: regions.iter().copied().zip(descriptors).collect() })
    }

    /// Descriptor and length of a region that must be there.
    pub(crate) fn get(&self, key: RegionKey) -> Result<(BorrowedFd<'_>, usize), String> {
        let found = self.regions.iter().find(|(region, _)| region.key == key.0);
        let (region, fd) = found.ok_or_else(|| format!("it sent no region {}", key.0))?;
        Ok((fd.as_fd(), region.words as usize))
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Region, BorrowedFd<'_>)> {
        self.regions.iter().map(|(region, fd)| (region, fd.as_fd()))
    }
}
