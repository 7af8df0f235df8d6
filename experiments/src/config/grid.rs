//! All combinations of several axes, in a stated order.

/// A cartesian product of named axes. The last axis varies fastest, as in nested loops written in that order.
///
/// The grid knows lengths, not values: the values stay in the config, typed, and are looked up by [`GridPoint::at`].
/// The index of a point is part of its random streams and of the journal, so the order is a promise: adding an axis
/// of length one changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grid {
    axes: Vec<(String, usize)>,
}

/// One combination: an index into the grid, and one into each axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GridPoint<'a> {
    /// Position in the grid's order, from 0.
    pub index: usize,
    grid: &'a Grid,
}

impl Grid {
    /// A grid without axes: one point.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an axis that varies faster than all before.
    ///
    /// # Panics
    /// When the axis is already there.
    pub fn axis(mut self, name: impl Into<String>, len: usize) -> Self {
        let name = name.into();
        assert!(self.axes.iter().all(|(known, _)| *known != name), "axis '{name}' twice");
        self.axes.push((name, len));
        self
    }

    /// Number of combinations.
    pub fn len(&self) -> usize {
        // Saturating: what is too many to count is too many to run, and a config's reader says so.
        self.axes.iter().fold(1, |all: usize, (_, len)| all.saturating_mul(*len))
    }

    /// Whether some axis is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names of the axes, slowest first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.axes.iter().map(|(name, _)| name.as_str())
    }

    /// The point at an index.
    ///
    /// # Panics
    /// When the index is not below [`Grid::len`].
    pub fn point(&self, index: usize) -> GridPoint<'_> {
        assert!(index < self.len(), "point {index} of a grid of {}", self.len());
        GridPoint { index, grid: self }
    }

    /// All points in order.
    pub fn points(&self) -> impl ExactSizeIterator<Item = GridPoint<'_>> {
        (0..self.len()).map(|index| self.point(index))
    }
}

impl GridPoint<'_> {
    /// Index into the axis of that name.
    ///
    /// # Panics
    /// When there is no such axis.
    pub fn at(&self, axis: &str) -> usize {
        let mut rest = self.index;
        for (name, len) in self.grid.axes.iter().rev() {
            if name == axis {
                return rest % len;
            }
            rest /= len;
        }
        panic!("no axis '{axis}'");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_that_of_nested_loops() {
        let grid = Grid::new().axis("a", 2).axis("one", 1).axis("b", 3);
        let found: Vec<_> = grid.points().map(|p| (p.index, p.at("a"), p.at("one"), p.at("b"))).collect();
        assert_eq!(found, [(0, 0, 0, 0), (1, 0, 0, 1), (2, 0, 0, 2), (3, 1, 0, 0), (4, 1, 0, 1), (5, 1, 0, 2)]);
        assert_eq!(Grid::new().len(), 1);
        assert!(Grid::new().axis("a", 0).is_empty());
        assert_eq!(Grid::new().axis("a", usize::MAX).axis("b", 2).len(), usize::MAX);
    }
}
