//! Arbitrary memory as a Progress Box: header, directory, names.
#![no_main]

use backdoor_core::progress_box::{ENTRY_WORDS, Header, MAX_NAME_BYTES, read_directory};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let words: Vec<u64> = bytes.chunks_exact(8).map(bytemuck::pod_read_unaligned).collect();
    if let Ok(header) = Header::read(&words) {
        assert!(header.directory_used <= header.geometry.capacity());
        assert!(header.geometry.total_words() < 1 << 21);
    }
    let mut entries = 0;
    for (_, entry) in read_directory(&words) {
        entries += 1;
        if let Ok(Some(record)) = entry {
            assert!(record.name.as_str().len() <= MAX_NAME_BYTES);
            assert!(record.dependencies().count() <= 4);
        }
    }
    assert_eq!(entries, words.len() / ENTRY_WORDS);
});
