//! All memory of a node that others may reach: made when the agent starts, never more, never less.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use backdoor_core::hook_table::{Hook, Purpose, hook_table_words, write_hook_table};
use backdoor_core::progress_box::{Geometry, ProgressBox};
use backdoor_core::transport::{RegionKey, Rights};
use backdoor_transports::shm::{MapError, ReadOnlyWords, SealedMemory, SharedWords};

use super::{AgentConfig, AgentError, gauges};
use crate::protocol::{CLAIMS, HOOK_TABLE, PROGRESS_BOX, Region, STATE_BOXES};

const CLAIM_RIGHTS: Rights = Rights::from_bits(Rights::READ.bits() | Rights::COMPARE_SWAP.bits()).unwrap();

/// One region, and the two descriptors that are handed out for it.
struct Shared {
    key: RegionKey,
    rights: Rights,
    memory: SealedMemory,
    read_only: OwnedFd,
}

impl Shared {
    fn create(key: RegionKey, name: &str, words: usize, rights: Rights) -> Result<Self, MapError> {
        let memory = SealedMemory::create(name, words)?;
        let read_only = memory.read_only_fd()?;
        Ok(Shared { key, rights, memory, read_only })
    }

    fn offer(&self, writable: bool) -> (Region, BorrowedFd<'_>) {
        let fd = if writable { self.memory.writable_fd() } else { self.read_only.as_fd() };
        (Region::new(self.key, self.memory.words(), self.rights, writable), fd)
    }
}

/// The regions of a node.
pub(super) struct NodeMemory {
    hook_table: Shared,
    progress: Shared,
    states: Shared,
    claims: Shared,
}

/// What the agent itself works on.
pub(super) struct Mapped {
    pub(super) progress_words: SharedWords,
    pub(super) progress: ProgressBox<SharedWords>,
    pub(super) states: SharedWords,
    /// Claim words are changed by remote operations only, so not even the agent can write them.
    pub(super) claims: ReadOnlyWords,
}

impl NodeMemory {
    /// Makes all regions, an empty Progress Box, and the hook table that names them.
    pub(super) fn create(config: &AgentConfig, incarnation: u64) -> Result<(Self, Mapped), AgentError> {
        let impossible = |error: backdoor_core::FormatError| AgentError::Config(error.to_string());
        let geometry = Geometry::new(config.capacity, gauges::GAUGE_SLOTS + config.queues).map_err(impossible)?;
        let progress = Shared::create(PROGRESS_BOX, "backdoor-progress", geometry.total_words(), Rights::READ)?;
        let states = Shared::create(STATE_BOXES, "backdoor-states", config.state_words, Rights::READ)?;
        let claims = Shared::create(CLAIMS, "backdoor-claims", config.claims, CLAIM_RIGHTS)?;
        let hooks = [(Purpose::Monitoring, &progress), (Purpose::Recovery, &states), (Purpose::Claim, &claims)].map(
            |(purpose, shared)| {
                Hook::whole_region(purpose as u32, purpose, shared.rights, shared.key, shared.memory.words())
            },
        );
        let hook_table = Shared::create(HOOK_TABLE, "backdoor-hooks", hook_table_words(hooks.len()), Rights::READ)?;
        let progress_words = progress.memory.map()?;
        let mapped = Mapped {
            progress: ProgressBox::format(progress_words.clone(), geometry, incarnation).map_err(impossible)?,
            progress_words,
            states: states.memory.map()?,
            claims: ReadOnlyWords::open(claims.read_only.as_fd(), config.claims)?,
        };
        // Last: whoever finds hooks finds what they name.
        write_hook_table(&hook_table.memory.map()?, incarnation, &hooks).map_err(impossible)?;
        Ok((NodeMemory { hook_table, progress, states, claims }, mapped))
    }

    /// What a monitor gets: everything to read, claims to change.
    pub(super) fn for_monitor(&self) -> (Vec<Region>, Vec<BorrowedFd<'_>>) {
        [self.hook_table.offer(false), self.progress.offer(false), self.states.offer(false), self.claims.offer(true)]
            .into_iter()
            .unzip()
    }

    /// What an application gets: its counters and State Boxes to write, claims to look at.
    pub(super) fn for_application(&self) -> (Vec<Region>, Vec<BorrowedFd<'_>>) {
        [self.progress.offer(true), self.states.offer(true), self.claims.offer(false)].into_iter().unzip()
    }

    /// What a network card gets to know, for monitors on other machines: the same as a monitor here, and no more.
    #[cfg(feature = "verbs")]
    pub(super) fn for_cards(&self) -> Result<Vec<(RegionKey, SharedWords, Rights)>, MapError> {
        let regions = [&self.hook_table, &self.progress, &self.states, &self.claims];
        // A card reaches memory through a mapping of its own, by which claims can be changed.
        regions.into_iter().map(|shared| Ok((shared.key, shared.memory.map()?, shared.rights))).collect()
    }
}
