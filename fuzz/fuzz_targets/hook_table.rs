//! Arbitrary memory as a hook table.
#![no_main]

use backdoor_core::hook_table::{HookTable, MAX_HOOKS};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let words: Vec<u64> = bytes.chunks_exact(8).map(bytemuck::pod_read_unaligned).collect();
    if let Ok(table) = HookTable::read(&words) {
        assert!(table.hooks.len() <= MAX_HOOKS);
        for hook in table.hooks {
            assert!(hook.memory.offset.checked_add(hook.memory.words).is_some());
        }
    }
});
