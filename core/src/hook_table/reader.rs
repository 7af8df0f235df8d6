//! Reading a hook table out of the copy that a READ brought.

use super::layout::{HOOK_ENTRY_WORDS, HOOK_HEADER_WORDS, IDENTITY, MAX_HOOKS, entry, header, hook_table_words};
use super::{Guard, Hook, Purpose};
use crate::checksum::checksum_of;
use crate::format::FormatError;
use crate::progress_box::{MAX_ENTITIES, Slot};
use crate::transport::{RegionKey, RemoteSlice, Rights};
use crate::words::unpack;

/// A checked hook table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookTable {
    /// Which start of the node the table belongs to.
    pub incarnation: u64,
    /// The hooks.
    pub hooks: Vec<Hook>,
}

/// How many hooks the table says it has, from a copy of its header alone: how much to READ next.
pub fn hook_count(words: &[u64]) -> Result<usize, FormatError> {
    let count = IDENTITY.check(words, HOOK_HEADER_WORDS)? as usize;
    if count > MAX_HOOKS { Err(IDENTITY.impossible("number of hooks", count as u64)) } else { Ok(count) }
}

impl HookTable {
    /// Reads and checks a whole table. `words` may be longer than the table.
    pub fn read(words: &[u64]) -> Result<Self, FormatError> {
        let count = hook_count(words)?;
        let need = hook_table_words(count);
        let words = words.get(..need).ok_or(FormatError::Truncated { what: IDENTITY.what, have: words.len(), need })?;
        let mut unchecked = words.to_vec();
        unchecked[header::CHECK] = 0;
        if words[header::CHECK] != checksum_of(&unchecked) {
            return Err(IDENTITY.checksum());
        }
        let hooks = words[HOOK_HEADER_WORDS..].chunks_exact(HOOK_ENTRY_WORDS).map(decode).collect::<Result<_, _>>()?;
        Ok(HookTable { incarnation: words[header::INCARNATION], hooks })
    }

    /// The first hook for `purpose`.
    pub fn find(&self, purpose: Purpose) -> Option<&Hook> {
        self.hooks.iter().find(|hook| hook.purpose == purpose)
    }
}

fn decode(words: &[u64]) -> Result<Hook, FormatError> {
    let (id, kind) = unpack(words[entry::KIND]);
    let [purpose, rights, guarded, _] = kind.to_le_bytes();
    let purpose = match purpose {
        1 => Purpose::Monitoring,
        2 => Purpose::Recovery,
        3 => Purpose::Claim,
        4 => Purpose::Repair,
        other => return Err(IDENTITY.impossible("purpose", u64::from(other))),
    };
    let rights = Rights::from_bits(rights).ok_or(IDENTITY.impossible("rights", u64::from(rights)))?;
    let (key, entity) = unpack(words[entry::KEY_AND_ENTITY]);
    let entity = match entity {
        u32::MAX => None,
        slot if (slot as usize) < MAX_ENTITIES => Some(Slot(slot)),
        slot => return Err(IDENTITY.impossible("entity", u64::from(slot))),
    };
    let (offset, length) = (words[entry::OFFSET], words[entry::WORDS]);
    if offset.checked_add(length).is_none_or(|end| end > 1 << 48) {
        return Err(IDENTITY.impossible("length", length));
    }
    let guard = (guarded != 0).then(|| Guard {
        offset: words[entry::GUARD_OFFSET],
        mask: words[entry::GUARD_MASK],
        value: words[entry::GUARD_VALUE],
    });
    if let Some(guard) = guard
        && guard.offset >= length
    {
        return Err(IDENTITY.impossible("guard offset", guard.offset));
    }
    let memory = RemoteSlice { key: RegionKey(key), offset, words: length };
    Ok(Hook { id, purpose, rights, memory, entity, guard })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::hook_table::write_hook_table;
    use crate::words::{copy_of, zeroed};
    use proptest::prelude::*;

    fn table() -> (Vec<Hook>, Vec<u64>) {
        let mut repair = Hook::whole_region(3, Purpose::Repair, Rights::WRITE, RegionKey(9), 16);
        repair.entity = Some(Slot(4));
        repair.guard = Some(Guard { offset: 15, mask: 0xff, value: 2 });
        let hooks = vec![
            Hook::whole_region(1, Purpose::Monitoring, Rights::READ, RegionKey(7), 4096),
            Hook::whole_region(2, Purpose::Claim, Rights::READ | Rights::COMPARE_SWAP, RegionKey(8), 64),
            repair,
        ];
        let memory = zeroed(hook_table_words(hooks.len()) + 5);
        write_hook_table(&memory, 11, &hooks).unwrap();
        (hooks, copy_of(&memory))
    }

    #[test]
    fn a_table_comes_back() {
        let (hooks, words) = table();
        let read = HookTable::read(&words).unwrap();
        assert_eq!(read, HookTable { incarnation: 11, hooks });
        assert_eq!(read.find(Purpose::Claim).map(|hook| hook.id), Some(2));
        assert_eq!(read.find(Purpose::Recovery), None);
    }

    #[test]
    fn a_truncated_table_is_refused() {
        let (_, words) = table();
        for length in 0..hook_table_words(3) {
            assert!(HookTable::read(&words[..length]).is_err(), "{length} words");
        }
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_noticed(word in 0..hook_table_words(3), bit in 0..64) {
            let (_, mut words) = table();
            words[word] ^= 1u64 << bit;
            prop_assert!(HookTable::read(&words).is_err());
        }

        #[test]
        fn arbitrary_memory_never_panics(words in proptest::collection::vec(any::<u64>(), 0..64)) {
            let _ = HookTable::read(&words);
        }

        #[test]
        fn arbitrary_entries_never_panic(words in proptest::collection::vec(any::<u64>(), HOOK_ENTRY_WORDS)) {
            let _ = decode(&words);
        }
    }
}
