//! Writing a hook table, once per incarnation of a node.

use super::layout::{HOOK_ENTRY_WORDS, IDENTITY, MAX_HOOKS, entry, header, hook_table_words};
use super::{HOOK_HEADER_WORDS, Hook};
use crate::checksum::checksum_of;
use crate::format::FormatError;
use crate::words::{AtomicU64, Ordering, pack};

/// Writes a table of `hooks` into the front of `memory`.
pub fn write_hook_table(memory: &[AtomicU64], incarnation: u64, hooks: &[Hook]) -> Result<(), FormatError> {
    if hooks.len() > MAX_HOOKS {
        return Err(IDENTITY.impossible("number of hooks", hooks.len() as u64));
    }
    let need = hook_table_words(hooks.len());
    if memory.len() < need {
        return Err(FormatError::Truncated { what: IDENTITY.what, have: memory.len(), need });
    }
    let mut words = vec![0; need];
    words[header::MAGIC] = IDENTITY.magic_word();
    words[header::VERSION] = IDENTITY.version_word(hooks.len() as u32);
    words[header::INCARNATION] = incarnation;
    for (hook, words) in hooks.iter().zip(words[HOOK_HEADER_WORDS..].chunks_exact_mut(HOOK_ENTRY_WORDS)) {
        encode(hook, words);
    }
    words[header::CHECK] = checksum_of(&words);
    // The magic word goes last: a reader refuses the memory until the table is whole.
    memory[header::MAGIC].store(0, Ordering::Relaxed);
    for (word, value) in memory.iter().zip(&words).skip(1) {
        word.store(*value, Ordering::Relaxed);
    }
    memory[header::MAGIC].store(words[header::MAGIC], Ordering::Release);
    Ok(())
}

fn encode(hook: &Hook, words: &mut [u64]) {
    let kind = u32::from_le_bytes([hook.purpose as u8, hook.rights.bits(), u8::from(hook.guard.is_some()), 0]);
    words[entry::KIND] = pack(hook.id, kind);
    words[entry::KEY_AND_ENTITY] = pack(hook.memory.key.0, hook.entity.map_or(u32::MAX, |slot| slot.0));
    words[entry::OFFSET] = hook.memory.offset;
    words[entry::WORDS] = hook.memory.words;
    if let Some(guard) = hook.guard {
        words[entry::GUARD_OFFSET] = guard.offset;
        words[entry::GUARD_MASK] = guard.mask;
        words[entry::GUARD_VALUE] = guard.value;
    }
}
