//! Draws one panel: frame, grid, axes, series.

use super::canvas::{self, Align, At, BLACK, Canvas, FAINT, GREY, Style, WHITE};
use super::heatmap;
use super::layout::{LABEL_SIZE, TICK_SIZE};
use super::model::{Panel, Point, Rule, Series, Shape, Spread};
use super::scale::{Extent, Map, clip};
use super::ticks::{Ticks, ticks};
use plotters::style::{Color, RGBColor};

/// Least distance of markers on a line, on average; a denser line leaves some out.
const MARKER_DISTANCE: f64 = 16.0;

/// Where the frame of a panel stands on the sheet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
}

/// Which axis labels a panel writes itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Labels {
    pub(super) x: bool,
    /// With the texts at its ticks.
    pub(super) y: bool,
}

/// What the layout decided for a panel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) extents: (Extent, Extent),
    pub(super) frame: Frame,
    pub(super) labels: Labels,
    /// Room left of the frame for tick texts.
    pub(super) tick_room: f64,
}

/// Room that a panel needs left of its frame for tick texts.
pub(super) fn left_margin(panel: &Panel, extents: (Extent, Extent)) -> f64 {
    if let Some(map) = &panel.heatmap {
        return heatmap::left_margin(map);
    }
    // The texts hardly depend on the height; any usual one serves for measuring.
    let map = Map::new(&panel.y, extents.1, 170.0, 0.0);
    let texts = y_ticks(panel, &map).labelled;
    texts.iter().map(|(_, text)| canvas::text_width(text, TICK_SIZE)).fold(0.0, f64::max) + 7.0
}

/// Room that a panel needs right of its frame: half the text of a tick at the end.
pub(super) fn right_margin(panel: &Panel, extents: (Extent, Extent)) -> f64 {
    let map = Map::new(&panel.x, extents.0, 0.0, 200.0);
    let texts = if panel.heatmap.is_some() { Vec::new() } else { x_ticks(panel, &map).labelled };
    texts.iter().map(|(at, text)| at + canvas::text_width(text, TICK_SIZE) / 2.0 - 198.0).fold(0.0, f64::max)
}

/// Height of the frame.
pub(super) fn height(panel: &Panel, width: f64, aspect: f64) -> f64 {
    panel.heatmap.as_ref().map_or(width * aspect, |map| heatmap::height(map, width))
}

/// Draws the panel, without its heading.
pub(super) fn draw(canvas: &mut Canvas<'_>, panel: &Panel, place: Place, styles: &[Style]) {
    let frame = place.frame;
    let chart = Chart {
        x: Map::new(&panel.x, place.extents.0, frame.left, frame.right),
        y: Map::new(&panel.y, place.extents.1, frame.bottom, frame.top),
        frame,
    };
    let (x, y) = (x_ticks(panel, &chart.x), y_ticks(panel, &chart.y));
    if place.labels.x {
        let at = ((frame.left + frame.right) / 2.0, frame.bottom + TICK_SIZE + 9.0 + LABEL_SIZE / 2.0);
        canvas.text(&x.label, at, LABEL_SIZE, BLACK, Align::Center);
    }
    if place.labels.y {
        let at = (frame.left - place.tick_room - LABEL_SIZE / 2.0 - 2.5, (frame.top + frame.bottom) / 2.0);
        canvas.upward_text(&y.label, at, LABEL_SIZE, BLACK);
    }
    if let Some(map) = &panel.heatmap {
        heatmap::draw(canvas, map, frame);
        return;
    }
    chart.axes(canvas, &x, &y, place.labels.y);
    for (series, style) in panel.series.iter().zip(styles).filter(|(series, _)| series.spread == Spread::Band) {
        chart.band(canvas, series, *style);
    }
    for rule in &panel.rules {
        chart.rule(canvas, panel, rule);
    }
    for (series, style) in panel.series.iter().zip(styles) {
        chart.series(canvas, series, *style);
    }
}

fn x_ticks(panel: &Panel, map: &Map) -> Ticks {
    ticks(&panel.x, map, |text| canvas::text_width(text, TICK_SIZE) + 7.0)
}

fn y_ticks(panel: &Panel, map: &Map) -> Ticks {
    ticks(&panel.y, map, |_| TICK_SIZE + 5.0)
}

struct Chart {
    x: Map,
    y: Map,
    frame: Frame,
}

impl Chart {
    fn axes(&self, canvas: &mut Canvas<'_>, x: &Ticks, y: &Ticks, y_texts: bool) {
        let Frame { left, right, top, bottom } = self.frame;
        let (faint, ink) = (FAINT.to_rgba(), BLACK.to_rgba());
        for (at, text) in &x.labelled {
            canvas.line(&[(*at, top), (*at, bottom)], 0.5, faint, &[]);
            canvas.line(&[(*at, bottom), (*at, bottom + 3.5)], 0.7, ink, &[]);
            canvas.text(text, (*at, bottom + 5.0 + TICK_SIZE / 2.0), TICK_SIZE, BLACK, Align::Center);
        }
        for (at, text) in &y.labelled {
            canvas.line(&[(left, *at), (right, *at)], 0.5, faint, &[]);
            canvas.line(&[(left - 3.5, *at), (left, *at)], 0.7, ink, &[]);
            if y_texts {
                canvas.text(text, (left - 5.5, *at), TICK_SIZE, BLACK, Align::Right);
            }
        }
        for at in &x.minor {
            canvas.line(&[(*at, bottom), (*at, bottom + 2.0)], 0.4, ink, &[]);
        }
        for at in &y.minor {
            canvas.line(&[(left - 2.0, *at), (left, *at)], 0.4, ink, &[]);
        }
        canvas.line(&[(left, top), (left, bottom), (right, bottom)], 0.8, ink, &[]);
        // Where an axis is broken: two slanted strokes over a gap.
        if let Some(at) = self.x.break_at() {
            canvas.line(&[(at, top), (at, bottom)], 0.5, GREY.mix(0.6), &[1.0, 2.0]);
            broken(canvas, |along, across| (at + along, bottom - across));
        }
        if let Some(at) = self.y.break_at() {
            canvas.line(&[(left, at), (right, at)], 0.5, GREY.mix(0.6), &[1.0, 2.0]);
            broken(canvas, |along, across| (left + across, at + along));
        }
    }

    /// A reference line, with its name where it covers least of the data.
    fn rule(&self, canvas: &mut Canvas<'_>, panel: &Panel, rule: &Rule) {
        let Frame { left, right, top, bottom } = self.frame;
        let Some(at) = (if rule.vertical { self.x.visible(rule.at) } else { self.y.visible(rule.at) }) else { return };
        let ends = if rule.vertical { [(at, top), (at, bottom)] } else { [(left, at), (right, at)] };
        canvas.line(&ends, 0.8, GREY.to_rgba(), &[4.0, 2.5]);
        if rule.label.is_empty() {
            return;
        }
        let (width, half) = (canvas::text_width(&rule.label, TICK_SIZE), TICK_SIZE / 2.0 + 1.0);
        let (along, across) = if rule.vertical {
            ([at + 3.0, at - width - 3.0], [top + half, bottom - half - 1.0])
        } else {
            ([right - width - 3.0, left + 3.0], [at - half - 0.5, at + half + 1.0])
        };
        let points: Vec<At> = panel
            .series
            .iter()
            .flat_map(|series| &series.points)
            .filter_map(|point| Some((self.x.visible(point.x)?, self.y.visible(point.y)?)))
            .collect();
        let covered = |(x, y): At| {
            let near = |point: &&At| (x - 3.0..x + width + 3.0).contains(&point.0) && (point.1 - y).abs() < half + 3.0;
            let inside = x >= left && x + width <= right && y - half >= top - 1.0 && y + half <= bottom + 1.0;
            if inside { points.iter().filter(near).count() } else { usize::MAX }
        };
        let places = across.into_iter().flat_map(|y| along.into_iter().map(move |x| (x, y)));
        let Some(place) = places.min_by_key(|place| covered(*place)) else { return };
        let (from, to) = ((place.0 - 1.0, place.1 - half), (place.0 + width + 1.0, place.1 + half));
        canvas.rectangle(from, to, WHITE.mix(0.85));
        canvas.text(&rule.label, place, TICK_SIZE, GREY, Align::Left);
    }

    /// The shaded band between the bounds; points without both bounds interrupt it.
    fn band(&self, canvas: &mut Canvas<'_>, series: &Series, style: Style) {
        let bounds = |point: &Point| Some((self.x.visible(point.x)?, point.low?, point.high?));
        let mut run: Vec<(f64, f64, f64)> = Vec::new();
        for point in series.points.iter().map(bounds).chain([None]) {
            if let Some((x, low, high)) = point {
                if let (Shape::Steps, Some((_, low, high))) = (series.shape, run.last().copied()) {
                    run.push((x, low, high));
                }
                run.push((x, self.y.clamped(low), self.y.clamped(high)));
                continue;
            }
            let upper = run.iter().map(|(x, _, high)| (*x, *high));
            let lower = run.iter().rev().map(|(x, low, _)| (*x, *low));
            let outline: Vec<At> = upper.chain(lower).collect();
            if outline.len() > 2 {
                canvas.polygon(&outline, style.color.mix(0.2));
            }
            run.clear();
        }
    }

    fn series(&self, canvas: &mut Canvas<'_>, series: &Series, style: Style) {
        if series.spread == Spread::Bars {
            for point in &series.points {
                self.error_bar(canvas, point, style.color);
            }
        }
        if series.shape != Shape::Points {
            for run in self.runs(series) {
                canvas.line(&run, 1.3, style.color.to_rgba(), style.dashes);
            }
        }
        let most = ((self.frame.right - self.frame.left) / MARKER_DISTANCE).max(4.0) as usize;
        let every = series.points.len().div_ceil(most);
        for (index, point) in series.points.iter().enumerate() {
            let zero = self.at_zero(point);
            // Zeros on a logarithmic axis are isolated, even in a step line, and are never thinned out.
            let marked = match series.shape {
                Shape::Steps => zero && index > 0,
                Shape::Points => true,
                Shape::Line => zero || index % every == 0,
            };
            if marked && let (Some(x), Some(y)) = (self.x.visible(point.x), self.y.visible(point.y)) {
                canvas.marker((x, y), style, zero);
            }
        }
    }

    /// The lines of a series inside the frame. No line leads over a break to a zero.
    fn runs(&self, series: &Series) -> Vec<Vec<At>> {
        let proper = |point: &Point| {
            Some((self.x.position(point.x)?, self.y.position(point.y)?)).filter(|_| !self.at_zero(point))
        };
        let (mut runs, mut run): (Vec<Vec<At>>, Vec<At>) = (Vec::new(), Vec::new());
        let mut last: Option<At> = None;
        for at in series.points.iter().map(proper) {
            let Some(at) = at else {
                runs.push(std::mem::take(&mut run));
                last = None;
                continue;
            };
            let corner = last.filter(|_| series.shape == Shape::Steps).map(|last| (at.0, last.1));
            for to in corner.into_iter().chain([at]) {
                if let Some((from, end)) = last.and_then(|last| clip(last, to, self.x.ends(), self.y.ends())) {
                    if run.last() != Some(&from) {
                        runs.push(std::mem::replace(&mut run, vec![from]));
                    }
                    run.push(end);
                }
                last = Some(to);
            }
        }
        runs.push(run);
        runs.retain(|run| run.len() > 1);
        runs
    }

    /// An error bar; a bound that is missing or beyond the frame has no cap.
    fn error_bar(&self, canvas: &mut Canvas<'_>, point: &Point, color: RGBColor) {
        let Some(x) = self.x.visible(point.x) else { return };
        if self.y.visible(point.y).is_none() || (point.low.is_none() && point.high.is_none()) {
            return;
        }
        let (low, high) = (point.low.unwrap_or(point.y), point.high.unwrap_or(point.y));
        canvas.line(&[(x, self.y.clamped(low)), (x, self.y.clamped(high))], 0.9, color.to_rgba(), &[]);
        for bound in [point.low, point.high].into_iter().flatten().filter(|bound| !self.y.is_zero(*bound)) {
            if let Some(y) = self.y.visible(bound) {
                canvas.line(&[(x - 2.5, y), (x + 2.5, y)], 0.9, color.to_rgba(), &[]);
            }
        }
    }

    fn at_zero(&self, point: &Point) -> bool {
        self.x.is_zero(point.x) || self.y.is_zero(point.y)
    }
}

fn broken(canvas: &mut Canvas<'_>, at: impl Fn(f64, f64) -> At) {
    canvas.polygon(&[at(-0.5, -3.0), at(2.5, -3.0), at(0.5, 3.0), at(-2.5, 3.0)], WHITE.to_rgba());
    for shift in [-1.0, 1.0] {
        canvas.line(&[at(shift + 1.0, -3.0), at(shift - 1.0, 3.0)], 0.8, BLACK.to_rgba(), &[]);
    }
}
