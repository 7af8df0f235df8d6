//! Heat maps: a grid of coloured cells with their values written in.

use super::canvas::{self, Align, BLACK, Canvas, FAINT, GREY, WHITE};
use super::layout::TICK_SIZE;
use super::panel::Frame;
use plotters::style::{Color, RGBColor};

/// A grid of cells. Colours run from pale (least) to dark blue (most), which reads in grey too.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heatmap {
    /// What the columns stand for.
    pub x_label: String,
    /// What the rows stand for.
    pub y_label: String,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Names of the rows, the first on top.
    pub rows: Vec<String>,
    /// A value and its text for each cell, row by row; `None` for a cell without data.
    pub cells: Vec<Vec<Option<(f64, String)>>>,
    /// Colours by the logarithm; zeros are white then.
    pub log: bool,
}

/// Smallest size of a column's name, in points.
const LEAST_LABEL: f64 = 6.5;

const PALE: RGBColor = RGBColor(0xf1, 0xf6, 0xfb);
const MIDDLE: RGBColor = RGBColor(0x6b, 0xae, 0xd6);
const DARK: RGBColor = RGBColor(0x08, 0x30, 0x6b);

impl Heatmap {
    /// A heat map without cells.
    pub fn new(x_label: impl Into<String>, y_label: impl Into<String>) -> Self {
        Heatmap { x_label: x_label.into(), y_label: y_label.into(), ..Self::default() }
    }

    /// Sets the names of the columns.
    pub fn columns(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.columns = names.into_iter().map(Into::into).collect();
        self
    }

    /// Adds a row below the others.
    pub fn row(mut self, name: impl Into<String>, cells: impl IntoIterator<Item = Option<(f64, String)>>) -> Self {
        self.rows.push(name.into());
        self.cells.push(cells.into_iter().collect());
        self
    }

    /// Chooses colours by the logarithm of the values.
    pub fn log(mut self) -> Self {
        self.log = true;
        self
    }

    /// Position of a value on the colour scale, 0 to 1; `None` for what stands below the scale.
    fn part(&self, value: f64) -> Option<f64> {
        let shown = |value: &f64| value.is_finite() && (!self.log || *value > 0.0);
        let number = |value: f64| if self.log { value.ln() } else { value };
        let all = || self.cells.iter().flatten().flatten().map(|(value, _)| *value).filter(shown).map(number);
        let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
        if !shown(&value) {
            return None;
        }
        Some(if high > low { (number(value) - low) / (high - low) } else { 0.5 })
    }
}

pub(super) fn left_margin(map: &Heatmap) -> f64 {
    map.rows.iter().map(|name| canvas::text_width(name, TICK_SIZE)).fold(0.0, f64::max) + 6.0
}

pub(super) fn height(map: &Heatmap, width: f64) -> f64 {
    let cell = width / map.columns.len().max(1) as f64;
    map.rows.len().max(1) as f64 * (cell * 0.7).clamp(16.0, 30.0)
}

pub(super) fn draw(canvas: &mut Canvas<'_>, map: &Heatmap, frame: Frame) {
    let (columns, rows) = (map.columns.len().max(1) as f64, map.rows.len().max(1) as f64);
    let (width, height) = ((frame.right - frame.left) / columns, (frame.bottom - frame.top) / rows);
    for (row, cells) in map.cells.iter().enumerate() {
        let top = frame.top + height * row as f64;
        let middle = top + height / 2.0;
        canvas.text(&map.rows[row], (frame.left - 5.0, middle), TICK_SIZE, BLACK, Align::Right);
        for (column, cell) in cells.iter().take(map.columns.len()).enumerate() {
            let left = frame.left + width * column as f64;
            let (fill, ink, text) = match cell {
                None => (FAINT, GREY, "–"),
                Some((value, text)) => {
                    let part = map.part(*value);
                    let ink = if part.is_some_and(|part| part > 0.62) { WHITE } else { BLACK };
                    (part.map_or(WHITE, color), ink, text.as_str())
                }
            };
            let (from, to) = ((left + 0.4, top + 0.4), (left + width - 0.4, top + height - 0.4));
            canvas.rectangle(from, to, fill.to_rgba());
            // A text too wide for its cell is set smaller, though not so small that nobody can read it.
            let size = TICK_SIZE.min(TICK_SIZE * (width - 3.0) / canvas::text_width(text, TICK_SIZE).max(1.0)).max(5.0);
            canvas.text(text, (left + width / 2.0, middle), size, ink, Align::Center);
        }
    }
    let corners = [(frame.left, frame.top), (frame.right, frame.top), (frame.right, frame.bottom)];
    let outline = [&corners[..], &[(frame.left, frame.bottom), corners[0], corners[1]]].concat();
    canvas.line(&outline, 0.6, GREY.to_rgba(), &[]);
    let widest = map.columns.iter().map(|name| canvas::text_width(name, TICK_SIZE)).fold(0.0, f64::max);
    // Set a little smaller, or else some are left out.
    let fitting = TICK_SIZE * ((width - 3.0) / widest.max(1.0)).min(1.0);
    let (size, every) = match fitting {
        size if size >= LEAST_LABEL => (size, 1),
        _ => (TICK_SIZE, ((widest + 5.0) / width).ceil().max(1.0) as usize),
    };
    for (column, name) in map.columns.iter().enumerate().step_by(every) {
        let at = (frame.left + width * (column as f64 + 0.5), frame.bottom + 4.0 + TICK_SIZE / 2.0);
        canvas.text(name, at, size, BLACK, Align::Center);
    }
}

fn color(part: f64) -> RGBColor {
    let (from, to, part) = if part < 0.5 { (PALE, MIDDLE, part * 2.0) } else { (MIDDLE, DARK, part * 2.0 - 1.0) };
    let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * part).round() as u8;
    RGBColor(mix(from.0, to.0), mix(from.1, to.1), mix(from.2, to.2))
}
