//! What is believed of a State Box that was read, and when two looks at it were at the same session.

use crate::recovery::{SessionState, StateError};

/// What a READ of a session's State Box showed, checked by itself: header and version are whole, the session is the one
/// that the directory names. The payload is the driver's to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seen {
    /// Session number.
    pub session: u64,
    /// Incarnation of its State Box.
    pub incarnation: u64,
    /// Value of its claim word while unclaimed.
    pub unclaimed: u64,
    /// Number of the committed version.
    pub sequence: u64,
}

/// Why what was read of a State Box can't be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BoxError {
    /// No whole version of this session could be had.
    #[error(transparent)]
    State(#[from] StateError),
    /// The channels' states in it contradict one another, or the application's.
    #[error("the session's channel states are inconsistent: {0}")]
    Channels(&'static str),
    /// The memory now holds another session, or another use of it.
    #[error("the session that was to be taken over has ended")]
    Ended,
    /// The version is older than one that was seen before: memory that was played back, or damaged.
    #[error("version {found} was read, after version {before}")]
    OlderThanBefore {
        /// The version seen before.
        before: u64,
        /// The version found.
        found: u64,
    },
}

impl Seen {
    /// Looks at an extracted state. `channels` says whether its channels' states fit together, which only the service's
    /// own format can tell: sequence numbers within their windows, no input consumed that was never received, as many
    /// channels as the application's state speaks of.
    pub fn of(
        state: &SessionState<'_>,
        channels: impl FnOnce(&[u8]) -> Result<(), &'static str>,
    ) -> Result<Self, BoxError> {
        channels(state.committed.payload).map_err(BoxError::Channels)?;
        let SessionState { session, incarnation, unclaimed, committed } = *state;
        Ok(Seen { session, incarnation, unclaimed, sequence: committed.sequence })
    }

    /// Whether a later look showed the same session, no older than here.
    pub fn goes_on_as(&self, later: &Seen) -> Result<(), BoxError> {
        let identity = |seen: &Seen| (seen.session, seen.incarnation, seen.unclaimed);
        if identity(self) != identity(later) {
            return Err(BoxError::Ended);
        }
        if later.sequence < self.sequence {
            return Err(BoxError::OlderThanBefore { before: self.sequence, found: later.sequence });
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::state_box::Committed;

    const SEEN: Seen = Seen { session: 7, incarnation: 2, unclaimed: 0, sequence: 5 };

    #[test]
    fn another_session_or_an_older_version_is_not_taken() {
        assert_eq!(SEEN.goes_on_as(&Seen { sequence: 6, ..SEEN }), Ok(()));
        assert_eq!(SEEN.goes_on_as(&SEEN), Ok(()));
        for other in [Seen { session: 8, ..SEEN }, Seen { incarnation: 3, ..SEEN }, Seen { unclaimed: 1, ..SEEN }] {
            assert_eq!(SEEN.goes_on_as(&other), Err(BoxError::Ended));
        }
        let older = SEEN.goes_on_as(&Seen { sequence: 4, ..SEEN });
        assert_eq!(older, Err(BoxError::OlderThanBefore { before: 5, found: 4 }));
    }

    #[test]
    fn channels_are_judged_by_their_service() {
        let committed = Committed { sequence: 5, payload: b"intent 3, consumed 4" };
        let state = SessionState { session: 7, incarnation: 2, unclaimed: 0, committed };
        assert_eq!(Seen::of(&state, |_| Ok(())), Ok(SEEN));
        let refused = Seen::of(&state, |payload| if payload.len() == 20 { Err("gap") } else { Ok(()) });
        assert_eq!(refused, Err(BoxError::Channels("gap")));
    }
}
