//! How wide the wheel's buckets are and how many there are, chosen from what came out.
//!
//! Two numbers matter. The width should be a fraction of the mean spacing of events, so that a bucket mostly holds one
//! event and needs no sorting; empty buckets cost next to nothing, thanks to the bitmap. The number of buckets should
//! let a turn reach as far ahead as events are scheduled, or else they go through the far heap first; but the heads
//! must stay in the cache. Only the past is looked at, so the choice is the same for the same history.

/// Shape of the wheel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    /// A bucket is `2^shift` nanoseconds wide.
    pub(super) shift: u32,
    /// Number of buckets, a power of two.
    pub(super) buckets: usize,
}

impl Geometry {
    /// About a microsecond, and a quarter of a millisecond for a turn; the first tuning corrects it.
    pub(super) const START: Geometry = Geometry { shift: 10, buckets: 256 };
}

/// A bucket is this fraction of the spacing, as a power of two.
const FINER_THAN_SPACING: u32 = 1;
/// More buckets than this for each pending event are a waste of cache.
const BUCKETS_PER_EVENT: usize = 16;
const MIN_BUCKETS: usize = 256;
const MAX_BUCKETS: usize = 1 << 20;
/// When the buckets are as many as they may be, they get wider than the spacing asks for by at most this power of two.
const MAX_WIDENING: u32 = 4;
/// Large, because a queue of many events has long windows, and each of them with too few buckets is slow.
const GROWTH: usize = 64;
const MIN_WINDOW: u64 = 2048;
/// Wider than this no bucket needs to be: a turn of the smallest wheel is then longer than the clock runs.
const MAX_SHIFT: u32 = 56;

/// Counts over a window of events, and decides at its end.
#[derive(Debug)]
pub(super) struct Tuner {
    remaining: u64,
    window: u64,
    start: u64,
    far: u64,
    widening: u32,
}

impl Tuner {
    pub(super) fn new() -> Self {
        Tuner { remaining: MIN_WINDOW, window: MIN_WINDOW, start: 0, far: 0, widening: 0 }
    }

    /// An event came out. True at the end of the window.
    #[inline]
    pub(super) fn count_event(&mut self) -> bool {
        self.remaining -= 1;
        self.remaining == 0
    }

    /// An event was scheduled beyond the wheel.
    #[inline]
    pub(super) fn count_far(&mut self) {
        self.far += 1;
    }

    /// Begins a window long enough to pay for a rebuild at its end.
    pub(super) fn restart(&mut self, now: u64, live: usize, geometry: Geometry) {
        self.window = MIN_WINDOW.max(live as u64 / 2).max(geometry.buckets as u64 / 4);
        self.remaining = self.window;
        self.start = now;
        self.far = 0;
    }

    /// At the end of a window: a better geometry, if there is one worth a rebuild.
    pub(super) fn tune(&mut self, now: u64, live: usize, current: Geometry) -> Option<Geometry> {
        let spacing = (now - self.start) / self.window;
        let far_share_is = |percent: u64| self.far * 100 > self.window * percent;
        let most = (live * BUCKETS_PER_EVENT).next_power_of_two().clamp(MIN_BUCKETS, MAX_BUCKETS);

        let mut buckets = current.buckets;
        if far_share_is(5) && buckets < most {
            buckets = (buckets * GROWTH).min(most);
        } else if far_share_is(20) && self.widening < MAX_WIDENING {
            self.widening += 1;
        } else if buckets > 4 * most {
            buckets = most;
        }
        // Ties only: no width is better than another.
        let wanted = spacing.checked_ilog2().map_or(current.shift, |log2| log2.saturating_sub(FINER_THAN_SPACING));
        let wanted = (wanted + self.widening).min(MAX_SHIFT);
        // A factor of two up or down is noise, unless we asked for it.
        let shift = if wanted.abs_diff(current.shift) > 1 || self.widening > 0 { wanted } else { current.shift };

        let better = Geometry { shift, buckets };
        if better == current {
            self.restart(now, live, current);
            return None;
        }
        Some(better)
    }
}
