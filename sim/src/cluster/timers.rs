//! Detectors as they are mostly built: a heartbeat that is taken in restarts a timer, and a timer that goes off accuses.
//!
//! Time is that of the observer's own machine when it gets to do something, not that of arrival. So whoever stood still
//! finds its timers expired when it goes on, before it has taken in what came meanwhile: all that an observer which does
//! not doubt itself can make of its own overload is the failure of others (Dadgar, Phillips and Currey, *Lifeguard*,
//! arXiv 1707.00788, section 3).

use backdoor_core::Nanos;
use backdoor_core::detector::{Detector, Heartbeat};
use backdoor_core::progress_box::{EntityRecord, EntityState};

use super::observe::{Life, NodeObservation};
use super::replay::Suspicion;

impl NodeObservation {
    /// What such an observer would have suspected: by life, in order of time. Who says that it is idle has no timer.
    ///
    /// `make` makes a life's detector; or none, and it is suspected of nothing.
    pub fn by_timers<D: Detector>(&self, make: impl Fn(&EntityRecord, Nanos) -> Option<D>) -> Vec<Vec<Suspicion>> {
        let of = |life: &Life| {
            let start = self.taken[life.first as usize - 1].at;
            make(&life.record, start).map_or(Vec::new(), |detector| self.timer(life, start, detector))
        };
        self.lives.iter().map(of).collect()
    }

    fn timer<D: Detector>(&self, life: &Life, start: Nanos, mut detector: D) -> Vec<Suspicion> {
        let mut found = Vec::new();
        let (mut since, mut is_active) = (start, life.word.state() == EntityState::Active);
        let mut suspected_from: Option<Nanos> = None;
        for seen in life.changes.iter().filter(|change| change.moved) {
            let at = self.taken[seen.sample as usize].at;
            if is_active && detector.fresh_until() < at {
                suspected_from.get_or_insert(detector.fresh_until().max(since));
            }
            detector.progressed(Heartbeat { number: seen.word.count(), at });
            is_active = seen.word.state() == EntityState::Active;
            let is_fresh = !is_active || detector.fresh_until() >= at;
            if let Some(from) = suspected_from.take_if(|_| is_fresh) {
                found.push(Suspicion { since, from, to: at });
            } else if !is_fresh {
                suspected_from.get_or_insert(at);
            }
            since = at;
        }
        let end = (life.end as usize).checked_sub(1).map_or(start, |last| self.taken[last].at);
        if is_active && detector.fresh_until() < end {
            suspected_from.get_or_insert(detector.fresh_until().max(since));
        }
        found.extend(suspected_from.map(|from| Suspicion { since, from, to: Nanos::MAX }));
        found
    }
}
