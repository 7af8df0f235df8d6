//! The states that the worker commits and that whoever reads them out can check.

use backdoor_sim::streams::{StreamKey, Streams};
use rand::Rng;

/// Smallest state of a session: its client and its number.
pub const MIN_STATE_BYTES: usize = 16;

/// The state of a client's session after its `request`th request: what the worker commits and the clients expect.
pub fn content(seed: u64, client: u64, request: u64, bytes: usize) -> Vec<u8> {
    let key = StreamKey { seed, experiment: "live-state", point: "", replication: request };
    let mut content = vec![0; bytes.max(MIN_STATE_BYTES)];
    content[..8].copy_from_slice(&client.to_le_bytes());
    content[8..16].copy_from_slice(&request.to_le_bytes());
    Streams::new(key).indexed("client", client).fill_bytes(&mut content[MIN_STATE_BYTES..]);
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_differ_in_everything_they_depend_on() {
        let state = content(1, 2, 3, 64);
        assert_eq!(state, content(1, 2, 3, 64));
        for other in [content(2, 2, 3, 64), content(1, 3, 3, 64), content(1, 2, 4, 64)] {
            assert_ne!(state[MIN_STATE_BYTES..], other[MIN_STATE_BYTES..]);
        }
    }
}
