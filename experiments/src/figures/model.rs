//! What a figure is made of. Plain descriptions with builders; nothing here draws.

use super::Heatmap;
use crate::results::Table;
use crate::stats::Estimate;

/// A figure: panels in a grid under one legend.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figure {
    /// Stem of its files.
    pub name: String,
    /// Heading inside the picture; papers prefer none.
    pub title: Option<String>,
    /// What it shows and what to see in it; goes into the report, not into the picture.
    pub caption: String,
    /// Panels, row by row.
    pub panels: Vec<Panel>,
    /// Panels per row.
    pub columns: usize,
}

/// One panel: a chart, or a heat map.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// Heading of the panel.
    pub title: Option<String>,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// What is plotted, later ones on top.
    pub series: Vec<Series>,
    /// Reference lines.
    pub rules: Vec<Rule>,
    /// Instead of series: cells.
    pub heatmap: Option<Heatmap>,
}

/// An axis. Panels of a figure whose axes have the same label, unit and scale share their range.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// What is measured.
    pub label: String,
    /// In what.
    pub unit: Unit,
    /// Linear or logarithmic.
    pub scale: Scale,
    /// A range instead of one taken from the data.
    pub range: Option<(f64, f64)>,
    /// Names that stand at 0, 1, 2, … instead of numbers.
    pub categories: Vec<String>,
}

/// How numbers on an axis are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Plain numbers.
    None,
    /// Values are seconds; written in ns, µs, ms or s, whatever reads best.
    Seconds,
    /// Values are fractions of one; written in percent.
    Percent,
    /// Values are in this unit.
    Named(String),
}

/// Linear or logarithmic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Equal differences.
    Linear,
    /// Equal ratios; zeros go to a strip of their own, negative values can't be shown.
    Log,
}

/// Data under one name. The same name has the same colour, marker and dashes in all panels.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// How points are connected.
    pub shape: Shape,
    /// How intervals are shown.
    pub spread: Spread,
    /// The data, in drawing order.
    pub points: Vec<Point>,
    /// A style instead of the next free one, so that a name looks the same in several figures.
    pub style: Option<usize>,
}

/// How points are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Straight lines and markers.
    Line,
    /// Steps, each value holding until the next point; no markers.
    Steps,
    /// Markers only.
    Points,
}

/// How intervals are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Not at all.
    None,
    /// Error bars.
    Bars,
    /// A shaded band.
    Band,
}

/// A point, with an interval in `y` where there is one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Horizontal position.
    pub x: f64,
    /// Vertical position.
    pub y: f64,
    /// Lower bound of `y`.
    pub low: Option<f64>,
    /// Upper bound of `y`.
    pub high: Option<f64>,
}

/// A dashed grey reference line across a panel.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// What it stands for.
    pub label: String,
    /// Where on its axis.
    pub at: f64,
    /// Vertical, at an `x`; otherwise horizontal, at a `y`.
    pub vertical: bool,
}

impl Figure {
    /// An empty figure; `name` is the stem of its files.
    pub fn new(name: impl Into<String>) -> Self {
        Figure { name: name.into(), columns: 1, ..Self::default() }
    }

    /// Sets the heading inside the picture.
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = Some(title.into());
        self
    }

    /// Sets the caption.
    pub fn caption(mut self, caption: impl Into<String>) -> Self {
        self.caption = caption.into();
        self
    }

    /// Sets the number of panels per row.
    pub fn columns(mut self, columns: usize) -> Self {
        self.columns = columns.max(1);
        self
    }

    /// Adds a panel.
    pub fn panel(mut self, panel: Panel) -> Self {
        self.panels.push(panel);
        self
    }
}

impl Panel {
    /// An empty chart.
    pub fn new(x: Axis, y: Axis) -> Self {
        Panel { title: None, x, y, series: Vec::new(), rules: Vec::new(), heatmap: None }
    }

    /// A heat map; the axes are those of its rows and columns.
    pub fn heatmap(heatmap: Heatmap) -> Self {
        let axis = |label: &str| Axis::linear(label);
        let (x, y) = (axis(&heatmap.x_label), axis(&heatmap.y_label));
        Panel { heatmap: Some(heatmap), ..Panel::new(x, y) }
    }

    /// Sets the heading.
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = Some(title.into());
        self
    }

    /// Adds a series.
    pub fn series(mut self, series: Series) -> Self {
        self.series.push(series);
        self
    }

    /// Adds a vertical reference line.
    pub fn vertical_rule(mut self, at: f64, label: impl Into<String>) -> Self {
        self.rules.push(Rule { label: label.into(), at, vertical: true });
        self
    }

    /// Adds a horizontal reference line.
    pub fn horizontal_rule(mut self, at: f64, label: impl Into<String>) -> Self {
        self.rules.push(Rule { label: label.into(), at, vertical: false });
        self
    }
}

impl Axis {
    /// A linear axis without a unit.
    pub fn linear(label: impl Into<String>) -> Self {
        Axis { label: label.into(), unit: Unit::None, scale: Scale::Linear, range: None, categories: Vec::new() }
    }

    /// Names instead of numbers: the first at 0, the next at 1, and so on.
    pub fn categories(label: impl Into<String>, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let categories: Vec<String> = names.into_iter().map(Into::into).collect();
        let end = categories.len() as f64 - 0.5;
        Axis { categories, ..Self::linear(label).range(-0.5, end.max(0.5)) }
    }

    /// A logarithmic axis without a unit.
    pub fn log(label: impl Into<String>) -> Self {
        Axis { scale: Scale::Log, ..Self::linear(label) }
    }

    /// Values are seconds.
    pub fn seconds(mut self) -> Self {
        self.unit = Unit::Seconds;
        self
    }

    /// Values are fractions, shown in percent.
    pub fn percent(mut self) -> Self {
        self.unit = Unit::Percent;
        self
    }

    /// Values are in this unit.
    pub fn unit(mut self, unit: impl Into<String>) -> Self {
        self.unit = Unit::Named(unit.into());
        self
    }

    /// Fixes the range. What lies outside is cut off.
    pub fn range(mut self, low: f64, high: f64) -> Self {
        self.range = Some((low, high));
        self
    }

    /// Whether two axes measure the same, so that panels may share their range and their label.
    pub(super) fn alike(&self, other: &Axis) -> bool {
        (&self.label, &self.unit, self.scale, &self.categories)
            == (&other.label, &other.unit, other.scale, &other.categories)
    }
}

impl Series {
    fn new(name: impl Into<String>, shape: Shape, points: impl IntoIterator<Item = Point>) -> Self {
        Series { name: name.into(), shape, spread: Spread::None, points: points.into_iter().collect(), style: None }
    }

    /// A line with markers.
    pub fn line(name: impl Into<String>, points: impl IntoIterator<Item = Point>) -> Self {
        Self::new(name, Shape::Line, points)
    }

    /// A step line.
    pub fn steps(name: impl Into<String>, points: impl IntoIterator<Item = Point>) -> Self {
        Self::new(name, Shape::Steps, points)
    }

    /// Markers only.
    pub fn points(name: impl Into<String>, points: impl IntoIterator<Item = Point>) -> Self {
        Self::new(name, Shape::Points, points)
    }

    /// The empirical distribution function of samples, as a step line from 0 to 1. Samples that are not finite count
    /// as never reached: the line ends below one.
    pub fn ecdf(name: impl Into<String>, samples: &[f64]) -> Self {
        let mut sorted: Vec<f64> = samples.iter().copied().filter(|sample| sample.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let n = samples.len() as f64;
        let start = sorted.first().map(|first| Point::new(*first, 0.0));
        let rises = sorted.iter().enumerate().map(|(i, x)| Point::new(*x, (i + 1) as f64 / n));
        Self::new(name, Shape::Steps, start.into_iter().chain(rises))
    }

    /// A line from two columns of a table, with the interval of `y` if the table has it; rows with an empty `x` or
    /// `y` are left out. A column that doesn't exist gives an empty series.
    pub fn from_table(name: impl Into<String>, table: &Table, x: &str, y: &str) -> Self {
        let pairs = table.numbers(x).unwrap_or_default().into_iter().zip(table.estimates(y).unwrap_or_default());
        let points = pairs.filter_map(|(x, y)| {
            let y = y?;
            Some(Point { x: x?, y: y.value, low: y.low, high: y.high })
        });
        Self::line(name, points)
    }

    /// Shows intervals as error bars.
    pub fn bars(mut self) -> Self {
        self.spread = Spread::Bars;
        self
    }

    /// Shows intervals as a shaded band.
    pub fn band(mut self) -> Self {
        self.spread = Spread::Band;
        self
    }

    /// Sets how points are connected.
    pub fn shape(mut self, shape: Shape) -> Self {
        self.shape = shape;
        self
    }

    /// Fixes the style: colour, marker and dashes number `style`.
    pub fn style(mut self, style: usize) -> Self {
        self.style = Some(style);
        self
    }
}

impl Point {
    /// A point without an interval.
    pub fn new(x: f64, y: f64) -> Self {
        Point { x, y, low: None, high: None }
    }

    /// The same point with an interval.
    pub fn between(mut self, low: f64, high: f64) -> Self {
        (self.low, self.high) = (Some(low), Some(high));
        self
    }

    /// An estimate, with its interval if it has both bounds.
    pub fn of(x: f64, y: Estimate) -> Self {
        let point = Point::new(x, y.value);
        match (y.low, y.high) {
            (Some(low), Some(high)) => point.between(low, high),
            _ => point,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ecdf_ends_below_one_when_some_samples_never_came() {
        let series = Series::ecdf("x", &[2.0, 1.0, f64::INFINITY, 4.0]);
        let found: Vec<_> = series.points.iter().map(|p| (p.x, p.y)).collect();
        assert_eq!(found, [(1.0, 0.0), (1.0, 0.25), (2.0, 0.5), (4.0, 0.75)]);
    }

    #[test]
    fn empty_cells_are_left_out() {
        let mut table = Table::new(["x", "y", "y_low", "y_high"]);
        table.row().number(1.0).optional(None).optional(None).optional(None);
        table.row().number(2.0).number(5.0).number(4.0).optional(None);
        let series = Series::from_table("s", &table, "x", "y");
        assert_eq!(series.points, [Point { x: 2.0, y: 5.0, low: Some(4.0), high: None }]);
    }
}
