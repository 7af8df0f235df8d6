//! Places for so many at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many there are, and how many are taken.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    taken: AtomicUsize,
}

/// One that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Places>);

impl Places {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Places { most, taken: AtomicUsize::new(0) })
    }

    /// Takes one; `None` if none is left.
    pub(super) fn take(self: &Arc<Self>) -> Option<Place> {
        let before = self.taken.fetch_add(1, Ordering::AcqRel);
        // One too many is given back at once.
        let place = Place(Arc::clone(self));
        (before < self.most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_left_to_the_next_one() {
        let places = Places::new(2);
        let (one, other) = (places.take(), places.take());
        assert!(one.is_some() && other.is_some());
        assert!(places.take().is_none() && places.take().is_none());
        drop(one);
        let again = places.take();
        assert!(again.is_some() && places.take().is_none());
    }
}
