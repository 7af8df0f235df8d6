//! Output that a client was promised, in pieces that can be made again.

use serde::{Deserialize, Serialize};

use super::content;
use super::request::MAX_CONTENT_BYTES;

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Promised {
    Text(String),
    Content { seed: u64, at: u64, length: u64 },
}

impl Promised {
    /// Bytes of output.
    pub(super) fn length(&self) -> u64 {
        match self {
            Promised::Text(text) => text.len() as u64,
            Promised::Content { length, .. } => *length,
        }
    }

    /// Most bytes that it takes in a state.
    pub(super) fn state_bytes(&self) -> usize {
        const NAMES_AND_NUMBERS: usize = 112;
        let escaped = |byte: u8| match byte {
            b'\r' | b'\n' | b'"' | b'\\' => 2,
            0..=0x1f => 6,
            _ => 1,
        };
        match self {
            Promised::Text(text) => text.bytes().map(escaped).sum::<usize>() + r#"{"Text":""},"#.len(),
            Promised::Content { .. } => NAMES_AND_NUMBERS,
        }
    }

    /// Whether anybody can have asked for it.
    pub(super) fn is_possible(&self) -> bool {
        match self {
            Promised::Text(_) => true,
            Promised::Content { at, length, .. } => at.checked_add(*length).is_some_and(|end| end <= MAX_CONTENT_BYTES),
        }
    }

    /// Makes the part that begins at byte `from` and is as long as `into`. It must be within the piece.
    pub(super) fn write(&self, from: u64, into: &mut [u8]) {
        match self {
            Promised::Text(text) => into.copy_from_slice(&text.as_bytes()[from as usize..][..into.len()]),
            Promised::Content { seed, at, .. } => content::fill(*seed, at + from, into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_piece_takes_more_of_a_state_than_it_is_taken_for() {
        let text = Promised::Text((0..=127).map(char::from).chain("é€".chars()).collect());
        let content = Promised::Content { seed: u64::MAX, at: u64::MAX, length: u64::MAX };
        for promised in [text, content] {
            // With the comma before the next one.
            let bytes = serde_json::to_vec(&promised).unwrap().len() + 1;
            assert!(bytes <= promised.state_bytes(), "{bytes} of {promised:?}");
        }
    }

    #[test]
    fn any_part_is_as_in_the_whole() {
        for promised in [Promised::Text("to be or not".into()), Promised::Content { seed: 5, at: 70, length: 12 }] {
            let mut whole = [0; 12];
            promised.write(0, &mut whole);
            let mut part = [0; 3];
            promised.write(9, &mut part);
            assert_eq!(part, whole[9..]);
        }
    }
}
