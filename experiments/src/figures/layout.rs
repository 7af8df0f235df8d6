//! Lays out a figure: title, legend, and panels in a grid whose frames line up.

use super::canvas::{self, Align, BLACK, Canvas, Style};
use super::model::{Figure, Panel, Series, Shape, Spread};
use super::panel::{self, Frame, Labels};
use super::scale::{self, Extent};
use plotters::style::Color;

/// 16 cm, the text width of a paper.
const WIDTH: f64 = 453.6;
/// Room around everything.
const EDGE: f64 = 6.0;
/// Text sizes in points.
pub(super) const TICK_SIZE: f64 = 8.0;
pub(super) const LABEL_SIZE: f64 = 8.5;
const HEAD_SIZE: f64 = 9.0;
const TITLE_SIZE: f64 = 11.0;
/// Room between panels, and the least right of a frame.
const GAP: f64 = 10.0;
const RIGHT: f64 = 6.0;
const LEGEND_ROW: f64 = 14.0;

/// Draws the figure as an SVG document.
pub(super) fn draw(figure: &Figure) -> String {
    let columns = figure.columns.clamp(1, figure.panels.len().max(1));
    let rows = figure.panels.len().div_ceil(columns);
    let extents = extents(figure);
    let names = names(figure);
    let legend = legend_rows(&names);
    let labels: Vec<Labels> = (0..figure.panels.len()).map(|index| labels(figure, columns, index)).collect();
    let in_column = |column: usize| labels.iter().skip(column).step_by(columns);
    let in_row = |row: usize| row * columns..((row + 1) * columns).min(figure.panels.len());

    // Every panel gets the widest margins that any needs, so that frames line up; a column or row in which no panel
    // writes an axis label needs no room for one.
    let measured = figure.panels.iter().zip(&extents).map(|(panel, extent)| panel::left_margin(panel, *extent));
    let tick_room = measured.fold(0.0, f64::max);
    let label_room = LABEL_SIZE + 6.0;
    let left_room = |column| if in_column(column).any(|labels| labels.y) { tick_room + label_room } else { 4.0 };
    let halves = figure.panels.iter().zip(&extents).map(|(panel, extent)| panel::right_margin(panel, *extent));
    let right = halves.fold(RIGHT, f64::max);
    let taken = (0..columns).map(left_room).sum::<f64>() + (right + GAP) * columns as f64 - GAP;
    let frame_width = ((WIDTH - 2.0 * EDGE - taken) / columns as f64).max(20.0);

    let title_room = if figure.title.is_some() { TITLE_SIZE + 9.0 } else { 0.0 };
    let legend_room = if legend.is_empty() { 0.0 } else { legend.len() as f64 * LEGEND_ROW + 5.0 };
    let head_room = if figure.panels.iter().any(|panel| panel.title.is_some()) { HEAD_SIZE + 8.0 } else { 6.0 };
    let aspect = if columns == 1 { 0.52 } else { 0.8 };
    let frame_height =
        |row| figure.panels[in_row(row)].iter().map(|p| panel::height(p, frame_width, aspect)).fold(0.0, f64::max);
    let below = |row| TICK_SIZE + 8.0 + if labels[in_row(row)].iter().any(|l| l.x) { label_room } else { 0.0 };
    let row_room = |row| head_room + frame_height(row) + below(row) + GAP * 0.5;
    let height = 2.0 * EDGE + title_room + legend_room + (0..rows).map(row_room).sum::<f64>();

    let label = figure.title.as_deref().unwrap_or(&figure.caption);
    canvas::sheet(WIDTH, height, label, |canvas| {
        let mut top = EDGE;
        if let Some(title) = &figure.title {
            canvas.text(title, (EDGE, top + TITLE_SIZE / 2.0), TITLE_SIZE, BLACK, Align::Left);
            top += title_room;
        }
        draw_legend(canvas, &legend, top);
        top += legend_room;
        for row in 0..rows {
            let mut left = EDGE;
            for index in in_row(row) {
                left += left_room(index % columns);
                let top = top + head_room;
                let frame = Frame { left, right: left + frame_width, top, bottom: top + frame_height(row) };
                let panel = &figure.panels[index];
                if let Some(title) = &panel.title {
                    let at = (left + frame_width / 2.0, top - head_room + HEAD_SIZE / 2.0 + 1.0);
                    canvas.text(title, at, HEAD_SIZE, BLACK, Align::Center);
                }
                let styles: Vec<Style> = panel.series.iter().map(|series| style_of(series, &names)).collect();
                let place = panel::Place { extents: extents[index], frame, labels: labels[index], tick_room };
                panel::draw(canvas, panel, place, &styles);
                left += frame_width + right + GAP;
            }
            top += row_room(row);
        }
    })
}

/// The extents of all panels, those of like axes made equal.
fn extents(figure: &Figure) -> Vec<(Extent, Extent)> {
    let charts: Vec<(&Panel, (Extent, Extent))> = figure
        .panels
        .iter()
        .map(|panel| {
            let (xs, ys) = scale::values(panel);
            (panel, (Extent::of(&panel.x, xs.into_iter()), Extent::of(&panel.y, ys.into_iter())))
        })
        .collect();
    let shared = |(panel, own): &(&Panel, (Extent, Extent))| {
        let like = charts.iter().filter(|(other, _)| other.heatmap.is_none());
        like.fold(*own, |(x, y), (other, extent)| {
            (
                if other.x.alike(&panel.x) && other.x.range == panel.x.range { x.union(extent.0) } else { x },
                if other.y.alike(&panel.y) && other.y.range == panel.y.range { y.union(extent.1) } else { y },
            )
        })
    };
    charts.iter().map(shared).collect()
}

/// Which labels a panel writes: none that its neighbour to the left, or below, writes already. With its axis label
/// goes the text at its vertical ticks.
fn labels(figure: &Figure, columns: usize, index: usize) -> Labels {
    let panel = &figure.panels[index];
    let left = (!index.is_multiple_of(columns)).then(|| &figure.panels[index - 1]);
    let below = figure.panels.get(index + columns);
    let rows = |panel: &Panel| panel.heatmap.as_ref().map(|map| map.rows.clone());
    Labels {
        y: left
            .is_none_or(|left| !left.y.alike(&panel.y) || left.y.range != panel.y.range || rows(left) != rows(panel)),
        x: below.is_none_or(|below| !below.x.alike(&panel.x)),
    }
}

/// The distinct series in order of appearance, each by its first.
fn names(figure: &Figure) -> Vec<&Series> {
    let mut names: Vec<&Series> = Vec::new();
    for series in figure.panels.iter().flat_map(|panel| &panel.series) {
        if names.iter().all(|known| known.name != series.name) {
            names.push(series);
        }
    }
    names
}

fn style_of(series: &Series, names: &[&Series]) -> Style {
    let index = names.iter().position(|known| known.name == series.name).unwrap_or(0);
    Style::number(series.style.or(names[index].style).unwrap_or(index))
}

type LegendRow<'a> = Vec<(&'a Series, Style, f64)>;

/// Breaks the legend into rows; a series without a name has no entry.
fn legend_rows<'a>(names: &[&'a Series]) -> Vec<LegendRow<'a>> {
    let mut rows: Vec<LegendRow<'a>> = Vec::new();
    let mut left = f64::INFINITY;
    for series in names.iter().filter(|series| !series.name.is_empty()) {
        let (width, space) = (sample(series) + 5.0 + canvas::text_width(&series.name, TICK_SIZE), 16.0);
        if left + width > WIDTH - EDGE {
            rows.push(Vec::new());
            left = EDGE;
        }
        if let Some(row) = rows.last_mut() {
            row.push((series, style_of(series, names), left));
        }
        left += width + space;
    }
    rows
}

/// Length of the sample in the legend.
fn sample(series: &Series) -> f64 {
    if series.shape == Shape::Points { 7.0 } else { 24.0 }
}

fn draw_legend(canvas: &mut Canvas<'_>, rows: &[LegendRow<'_>], top: f64) {
    for (row, entries) in rows.iter().enumerate() {
        let y = top + LEGEND_ROW * (row as f64 + 0.5);
        for (series, style, left) in entries {
            let (from, to) = ((*left, y), (left + sample(series), y));
            if series.spread == Spread::Band {
                canvas.rectangle((from.0, y - 4.0), (to.0, y + 4.0), style.color.mix(0.2));
            }
            if series.shape != Shape::Points {
                canvas.line(&[from, to], 1.3, style.color.to_rgba(), style.dashes);
            }
            if series.shape != Shape::Steps {
                canvas.marker((left + sample(series) / 2.0, y), *style, false);
            }
            canvas.text(&series.name, (to.0 + 5.0, y), TICK_SIZE, BLACK, Align::Left);
        }
    }
}
