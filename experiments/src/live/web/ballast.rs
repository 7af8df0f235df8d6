//! Bytes that a session's state carries along for their size alone, so that it can be as large as an experiment asks.
//!
//! They are written anew with each commit, and follow from how far the session has got. Whoever carries it on makes them
//! again and compares: an extraction that lost, mixed up or kept old bytes would show.

use serde::{Deserialize, Serialize};

use super::content;
use super::state::WebError;

/// Most bytes of it.
pub const MAX_BALLAST_BYTES: usize = 256 << 10;

/// So many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Ballast(usize);

impl Ballast {
    /// No more than [`MAX_BALLAST_BYTES`].
    pub(super) fn new(bytes: usize) -> Self {
        Ballast(bytes.min(MAX_BALLAST_BYTES))
    }

    pub(super) const fn bytes(self) -> usize {
        self.0
    }

    pub(super) const fn is_none(&self) -> bool {
        self.0 == 0
    }

    /// Writes it behind a state that has got to `place`.
    pub(super) fn append(self, place: u64, to: &mut Vec<u8>) {
        let from = to.len();
        to.resize(from + self.0, 0);
        content::fill(place, 0, &mut to[from..]);
    }

    /// What stands before it in `bytes`, of a state that has got to `place`.
    pub(super) fn split_off(self, place: u64, bytes: &[u8]) -> Result<&[u8], WebError> {
        let wrong = |what: &str| WebError::State(what.into());
        if self.0 > MAX_BALLAST_BYTES {
            return Err(wrong("more ballast than there may be"));
        }
        let from = bytes.len().checked_sub(self.0).ok_or_else(|| wrong("its ballast is not whole"))?;
        let (before, ballast) = bytes.split_at(from);
        let mut expected = Vec::new();
        self.append(place, &mut expected);
        if ballast == expected { Ok(before) } else { Err(wrong("its ballast is not what was committed")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_whole_or_refused() {
        for bytes in [0, 1, 4096] {
            let ballast = Ballast::new(bytes);
            let mut written = b"before".to_vec();
            ballast.append(7, &mut written);
            assert_eq!(written.len(), 6 + bytes);
            assert_eq!(ballast.split_off(7, &written), Ok(&b"before"[..]));
            if bytes > 0 {
                assert!(ballast.split_off(8, &written).is_err(), "of another commit");
                assert!(ballast.split_off(7, &written[..bytes - 1]).is_err(), "cut off");
                *written.last_mut().unwrap() ^= 1;
                assert!(ballast.split_off(7, &written).is_err(), "damaged");
            }
        }
        assert!(Ballast(usize::MAX).split_off(7, b"before").is_err());
    }
}
