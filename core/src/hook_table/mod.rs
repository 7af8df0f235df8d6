//! The hook table: what a node offers to remote memory access (paper, section 3.2).
//!
//! ```text
//!  header: incarnation, number of hooks, checksum | entry | entry | ...
//! ```
//!
//! A hook is a part of a registered region, offered for one purpose with exactly the rights that this purpose needs.
//! The table describes; rights are enforced by the network card (or the memory management unit), not by the table.
//! A node writes its table once, before it is sealed; a new table means a new incarnation.

mod layout;
mod reader;
mod writer;

pub use layout::{HOOK_HEADER_WORDS, MAX_HOOKS, hook_table_words};
pub use reader::{HookTable, hook_count};
pub use writer::write_hook_table;

use crate::progress_box::Slot;
use crate::transport::{RegionKey, RemoteSlice, Rights};

/// What a hook is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Purpose {
    /// A Progress Box, to be read.
    Monitoring = 1,
    /// State Boxes, to be read.
    Recovery = 2,
    /// Claim words of the State Boxes, to be read and changed by compare-and-swap.
    Claim = 3,
    /// Memory that a repair may write.
    Repair = 4,
}

impl Purpose {
    /// The name shown to people.
    pub const fn name(self) -> &'static str {
        match self {
            Purpose::Monitoring => "monitoring",
            Purpose::Recovery => "recovery",
            Purpose::Claim => "claim",
            Purpose::Repair => "repair",
        }
    }
}

/// What must hold at the node before a repair hook may be written: `word & mask == value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The word to look at, counted from the start of the hook.
    pub offset: u64,
    /// Which of its bits count.
    pub mask: u64,
    /// What they must be.
    pub value: u64,
}

/// One entry of the hook table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Number of the hook, unique on the node.
    pub id: u32,
    /// What it is for.
    pub purpose: Purpose,
    /// What remote operations may do.
    pub rights: Rights,
    /// The memory.
    pub memory: RemoteSlice,
    /// The entity that it belongs to; `None` for the node as a whole.
    pub entity: Option<Slot>,
    /// What a repair must find before it writes.
    pub guard: Option<Guard>,
}

impl Hook {
    /// A hook on the whole of a region of `words` words, without guard, for the node as a whole.
    pub fn whole_region(id: u32, purpose: Purpose, rights: Rights, key: RegionKey, words: usize) -> Self {
        let memory = RemoteSlice { key, offset: 0, words: words as u64 };
        Hook { id, purpose, rights, memory, entity: None, guard: None }
    }
}
