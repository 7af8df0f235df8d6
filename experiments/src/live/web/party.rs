//! Who takes part in takeovers: their numbers, as claim words have them, and what they are called.

/// Takers of node A's sessions.
pub const TAKERS: [u32; 2] = [1, 3];
/// The nodes that may carry them on: B, C, and so on.
pub const HEIRS: [u32; 4] = [2, 5, 6, 7];
/// The worker of a pair that carries them on, at node B.
pub const WORKER_OF_HEIR: u32 = 4;
/// Whoever takes node B's over in turn.
pub const TAKER_OF_HEIR: u32 = 101;

/// What the heir of that place is called: B for the first.
pub const fn letter(heir: usize) -> char {
    (b'B' + heir as u8) as char
}

/// What a party is called.
pub fn name(party: u32) -> String {
    let heir = HEIRS.iter().position(|number| *number == party).map(letter);
    match (heir, party) {
        (Some(letter), _) => format!("node {letter}"),
        (None, WORKER_OF_HEIR) => format!("node {}'s worker", letter(0)),
        (None, _) => format!("party {party}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_anothers_number_or_name() {
        let all = TAKERS.into_iter().chain(HEIRS).chain([WORKER_OF_HEIR, TAKER_OF_HEIR]);
        let names: std::collections::BTreeSet<String> = all.clone().map(name).collect();
        assert_eq!(names.len(), all.count());
        assert!(names.contains("node E") && names.contains("node B's worker"), "{names:?}");
    }
}
