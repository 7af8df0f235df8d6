//! Where each word of a hook table lies. Nothing else knows an offset.

use crate::format::Identity;

pub(super) const IDENTITY: Identity = Identity { what: "hook table", magic: *b"BDHOOKS1", version: 2 };

/// Words of the header.
pub const HOOK_HEADER_WORDS: usize = 8;
/// Words of one entry.
pub(super) const HOOK_ENTRY_WORDS: usize = 8;
/// Most hooks of one node; a reader refuses more.
pub const MAX_HOOKS: usize = 1024;

/// Header words. The free half of the version word holds the number of hooks.
pub(super) mod header {
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const VERSION: usize = 1;
    pub(crate) const INCARNATION: usize = 2;
    /// Checksum of the header's words before it and of all entries.
    pub(crate) const CHECK: usize = 3;
}

/// Entry words.
pub(super) mod entry {
    /// Id in the low half; purpose, rights and "has a guard" above, a byte each.
    pub(crate) const KIND: usize = 0;
    /// Region key in the low half, entity slot in the high half; `u32::MAX` for none.
    pub(crate) const KEY_AND_ENTITY: usize = 1;
    pub(crate) const OFFSET: usize = 2;
    pub(crate) const WORDS: usize = 3;
    pub(crate) const GUARD_OFFSET: usize = 4;
    pub(crate) const GUARD_MASK: usize = 5;
    pub(crate) const GUARD_VALUE: usize = 6;
}

const _: () = {
    assert!(header::CHECK < HOOK_HEADER_WORDS);
    assert!(entry::GUARD_VALUE < HOOK_ENTRY_WORDS);
};

/// Words of a table of `hooks` hooks.
pub const fn hook_table_words(hooks: usize) -> usize {
    HOOK_HEADER_WORDS + hooks * HOOK_ENTRY_WORDS
}
