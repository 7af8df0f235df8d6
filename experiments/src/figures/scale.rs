//! From values to positions: ranges, the strip for zeros of a logarithmic axis, clipping.

use super::canvas::At;
use super::model::{Axis, Panel, Scale};

/// Height (or width) of the strip for zeros.
const STRIP: f64 = 13.0;

/// What an axis must show.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Extent {
    pub(super) low: f64,
    pub(super) high: f64,
    /// There are zeros on a logarithmic axis.
    pub(super) zero: bool,
}

impl Extent {
    /// The extent of values on an axis; a fixed range wins, but zeros are shown all the same.
    pub(super) fn of(axis: &Axis, values: impl Iterator<Item = f64>) -> Extent {
        let log = axis.scale == Scale::Log;
        let mut extent = Extent { low: f64::INFINITY, high: f64::NEG_INFINITY, zero: false };
        for value in values.filter(|value| value.is_finite()) {
            if log && value <= 0.0 {
                extent.zero |= value == 0.0;
            } else {
                extent.low = extent.low.min(value);
                extent.high = extent.high.max(value);
            }
        }
        if let Some((low, high)) = axis.range
            && low < high
            && (low > 0.0 || !log)
        {
            (extent.low, extent.high) = (low, high);
            return extent;
        }
        if extent.low > extent.high {
            (extent.low, extent.high) = if log { (0.1, 1.0) } else { (0.0, 1.0) };
        }
        if log { extent.widened() } else { extent.padded() }
    }

    /// Both together.
    pub(super) fn union(self, other: Extent) -> Extent {
        Extent { low: self.low.min(other.low), high: self.high.max(other.high), zero: self.zero || other.zero }
    }

    /// At least a factor of two, and a thirtieth of room on both sides.
    fn widened(self) -> Extent {
        let (low, high) = (self.low.log10(), self.high.log10());
        let lack = (2f64.log10() - (high - low)).max(0.0) / 2.0;
        let room = lack + (high - low + 2.0 * lack) / 30.0;
        // Within what floats hold: the ends of the axis must stay above zero and finite.
        let power = |exponent: f64| 10f64.powf(exponent.clamp(-300.0, 300.0));
        Extent { low: power(low - room), high: power(high + room), ..self }
    }

    /// A linear axis starts at zero unless the values are far from it; otherwise a twentieth of room on both sides.
    fn padded(self) -> Extent {
        let Extent { mut low, mut high, .. } = self;
        if low == high {
            let room = if low == 0.0 { 1.0 } else { low.abs() * 0.5 };
            (low, high) = (low - room, high + room);
        }
        let room = (high - low) * 0.05;
        let near = |end: f64, other: f64| end >= 0.0 && end < other * 0.5;
        let new_low = if near(self.low, self.high) { 0.0 } else { low - room };
        let new_high = if near(-self.high, -self.low) { 0.0 } else { high + room };
        Extent { low: new_low, high: new_high, ..self }
    }
}

/// The values of a panel that its axes must show: all x, all y with their intervals, and the rules.
pub(super) fn values(panel: &Panel) -> (Vec<f64>, Vec<f64>) {
    let (mut xs, mut ys) = (Vec::new(), Vec::new());
    for point in panel.series.iter().flat_map(|series| &series.points) {
        xs.push(point.x);
        ys.extend([Some(point.y), point.low, point.high].into_iter().flatten());
    }
    for rule in &panel.rules {
        if rule.vertical { xs.push(rule.at) } else { ys.push(rule.at) }
    }
    (xs, ys)
}

/// An axis laid out on the sheet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Map {
    pub(super) extent: Extent,
    scale: Scale,
    /// Position of the low end without the strip, and of the high end.
    from: f64,
    to: f64,
    /// Middle of the strip for zeros.
    pub(super) zero_at: Option<f64>,
}

impl Map {
    /// Lays an axis between two positions; on a vertical axis `start`, the low end, is the larger one.
    pub(super) fn new(axis: &Axis, extent: Extent, start: f64, end: f64) -> Self {
        let toward = (end - start).signum();
        let zero_at = extent.zero.then_some(start + toward * STRIP / 2.0);
        let from = if extent.zero { start + toward * STRIP } else { start };
        Map { extent, scale: axis.scale, from, to: end, zero_at }
    }

    /// Position of a value, perhaps beyond the ends; `None` for what can't be shown.
    pub(super) fn position(&self, value: f64) -> Option<f64> {
        if !value.is_finite() {
            return None;
        }
        let part = match self.scale {
            Scale::Log if value == 0.0 => return self.zero_at,
            Scale::Log if value < 0.0 => return None,
            Scale::Log => (value.ln() - self.extent.low.ln()) / (self.extent.high.ln() - self.extent.low.ln()),
            Scale::Linear => (value - self.extent.low) / (self.extent.high - self.extent.low),
        };
        Some(self.from + (self.to - self.from) * part)
    }

    /// Position of a value that is on the axis.
    pub(super) fn visible(&self, value: f64) -> Option<f64> {
        self.position(value).filter(|position| self.is_zero(value) || self.contains(*position))
    }

    /// Whether the value stands in the strip for zeros.
    pub(super) fn is_zero(&self, value: f64) -> bool {
        value == 0.0 && self.zero_at.is_some()
    }

    /// Position of a value, or of the nearer end; zeros and below at the low end or in their strip.
    pub(super) fn clamped(&self, value: f64) -> f64 {
        let (low, high) = self.ends();
        match self.position(value) {
            Some(position) if self.is_zero(value) => position,
            Some(position) => position.clamp(low, high),
            None if value > 0.0 => self.to,
            None => self.from,
        }
    }

    /// Where the part above the strip begins: the axis is broken there.
    pub(super) fn break_at(&self) -> Option<f64> {
        self.zero_at.map(|_| self.from)
    }

    /// The ends without the strip, in rising order of position.
    pub(super) fn ends(&self) -> (f64, f64) {
        (self.from.min(self.to), self.from.max(self.to))
    }

    fn contains(&self, position: f64) -> bool {
        let (low, high) = self.ends();
        (low - 0.01..=high + 0.01).contains(&position)
    }
}

/// The part of a straight line inside a box (Liang and Barsky).
pub(super) fn clip(a: At, b: At, x: (f64, f64), y: (f64, f64)) -> Option<(At, At)> {
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let (mut enter, mut leave) = (0.0f64, 1.0f64);
    for (step, room) in [(-dx, a.0 - x.0), (dx, x.1 - a.0), (-dy, a.1 - y.0), (dy, y.1 - a.1)] {
        if step == 0.0 {
            if room < 0.0 {
                return None;
            }
        } else if step < 0.0 {
            enter = enter.max(room / step);
        } else {
            leave = leave.min(room / step);
        }
    }
    let at = |part: f64| (a.0 + dx * part, a.1 + dy * part);
    (enter <= leave).then(|| (at(enter), at(leave)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_of_a_log_axis_get_a_strip() {
        let axis = Axis::log("x");
        let extent = Extent::of(&axis, [0.0, 1e-6, 3e-3].into_iter());
        assert!(extent.zero);
        assert!(extent.low < 1e-6 && extent.low > 5e-7 && extent.high > 3e-3 && extent.high < 6e-3, "{extent:?}");
        let map = Map::new(&axis, extent, 200.0, 0.0);
        assert_eq!(map.position(0.0), Some(200.0 - STRIP / 2.0));
        assert_eq!(map.position(extent.low), Some(200.0 - STRIP));
        assert_eq!(map.position(-1.0), None);
        assert_eq!(map.position(f64::NAN), None);
        assert!(map.is_zero(0.0) && !map.is_zero(1e-6));
    }

    #[test]
    fn linear_axes_start_at_zero_unless_far_from_it() {
        let extent = |values: &[f64]| Extent::of(&Axis::linear("x"), values.iter().copied());
        assert_eq!(extent(&[1.0, 10.0]).low, 0.0);
        assert!(extent(&[90.0, 100.0]).low > 80.0);
        assert!(extent(&[5.0, 5.0]).low < 5.0);
        assert_eq!(extent(&[]), Extent { low: 0.0, high: 1.05, zero: false });
    }

    #[test]
    fn lines_are_cut_at_the_frame() {
        let (x, y) = ((0.0, 10.0), (0.0, 10.0));
        assert_eq!(clip((-5.0, 5.0), (15.0, 5.0), x, y), Some(((0.0, 5.0), (10.0, 5.0))));
        assert_eq!(clip((-5.0, 20.0), (15.0, 20.0), x, y), None);
    }
}
