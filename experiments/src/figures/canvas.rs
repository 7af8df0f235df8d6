//! The paper: lines, markers and text in points (1/72 inch), on the SVG backend of plotters.
//!
//! The backend counts whole units, so a point is made of many of them; the document then gets its physical size.

use plotters::backend::{DrawingBackend, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{
    Color, FontDesc, FontFamily, FontStyle, FontTransform, RGBAColor, RGBColor, ShapeStyle, TextStyle, register_font,
};
use std::sync::Once;

/// The bundled font, used for measuring, and for rendering PNG.
pub(super) static FONT: &[u8] = include_bytes!("../../assets/fonts/DejaVuSans.ttf");

/// A CSS list: viewers without DejaVu fall back to Verdana, which has nearly the same widths.
const FAMILY: &str = "DejaVu Sans, Verdana, sans-serif";

/// Backend units per point.
const UNITS: f64 = 20.0;
/// The backend writes a font size of this part of the style's size.
const FONT_FACTOR: f64 = 1.24;
/// The font is measured at this part of its true size: ascent and descent are 1.164 em together.
const MEASURE_FACTOR: f64 = 1.164;

/// Ink.
pub(super) const BLACK: RGBColor = RGBColor(0x1a, 0x1a, 0x1a);
/// Secondary text and reference lines.
pub(super) const GREY: RGBColor = RGBColor(0x66, 0x66, 0x66);
/// Grid lines.
pub(super) const FAINT: RGBColor = RGBColor(0xe2, 0xe2, 0xe2);
/// Paper.
pub(super) const WHITE: RGBColor = RGBColor(0xff, 0xff, 0xff);

/// Okabe and Ito's palette, most distinct first; its yellow is left out, it vanishes on white paper.
const PALETTE: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x00, 0x00, 0x00),
];

/// Lengths of dash and gap in points; empty for a solid line. Six against seven colours: no pair repeats before 42.
const DASHES: [&[f64]; 6] =
    [&[], &[5.0, 2.0], &[1.5, 1.5], &[7.0, 2.0, 1.5, 2.0], &[3.0, 3.0], &[9.0, 2.0, 1.5, 2.0, 1.5, 2.0]];

/// The look of a series.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub(super) color: RGBColor,
    pub(super) dashes: &'static [f64],
    marker: usize,
}

impl Style {
    /// Style number `index`; they repeat when exhausted.
    pub(super) fn number(index: usize) -> Self {
        Style { color: PALETTE[index % PALETTE.len()], dashes: DASHES[index % DASHES.len()], marker: index % 6 }
    }
}

/// Where text stands relative to its position.
#[derive(Clone, Copy, Debug)]
pub(super) enum Align {
    Left,
    Center,
    Right,
}

/// A position in points from the upper left corner.
pub(super) type At = (f64, f64);

pub(super) struct Canvas<'a> {
    backend: SVGBackend<'a>,
}

/// Runs `draw` on an empty sheet of a size in points; gives the SVG document.
pub(super) fn sheet(width: f64, height: f64, label: &str, draw: impl FnOnce(&mut Canvas<'_>)) -> String {
    load_font();
    let (w, h) = ((width * UNITS).round() as u32, (height * UNITS).round() as u32);
    let mut text = String::new();
    let mut canvas = Canvas { backend: SVGBackend::with_string(&mut text, (w, h)) };
    canvas.rectangle((0.0, 0.0), (width, height), WHITE.to_rgba());
    draw(&mut canvas);
    canvas.backend.present().expect("writing to memory succeeds");
    drop(canvas);
    // The backend's head gives the size in its units; replace it by one in points, with a description for readers
    // who can't see, and with round joins for all lines.
    let body = text.split_once('>').map_or("", |(_, body)| body);
    let label = label.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    format!(
        "<svg width=\"{width:.1}pt\" height=\"{height:.1}pt\" viewBox=\"0 0 {w} {h}\" role=\"img\" \
         aria-label=\"{label}\" stroke-linejoin=\"round\" xmlns=\"http://www.w3.org/2000/svg\">{body}"
    )
}

fn load_font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        register_font(FAMILY, FontStyle::Normal, FONT).unwrap_or_else(|_| panic!("the bundled font is whole"));
    });
}

/// Width of a text in points.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    load_font();
    // Measured large, because the result is a whole number.
    let font = FontDesc::new(FontFamily::Name(FAMILY), 1000.0 * MEASURE_FACTOR, FontStyle::Normal);
    let (width, _) = font.box_size(text).expect("the font is registered");
    f64::from(width) * size / 1000.0
}

impl Canvas<'_> {
    /// A text of one line, its middle at the height of `at`.
    pub(super) fn text(&mut self, text: &str, at: At, size: f64, color: RGBColor, align: Align) {
        self.styled_text(text, at, size, color, align, FontTransform::None);
    }

    /// A text that reads upwards, centred at `at`.
    pub(super) fn upward_text(&mut self, text: &str, at: At, size: f64, color: RGBColor) {
        self.styled_text(text, at, size, color, Align::Center, FontTransform::Rotate270);
    }

    fn styled_text(&mut self, text: &str, at: At, size: f64, color: RGBColor, align: Align, turn: FontTransform) {
        let horizontal = match align {
            Align::Left => HPos::Left,
            Align::Center => HPos::Center,
            Align::Right => HPos::Right,
        };
        let font = FontDesc::new(FontFamily::Name(FAMILY), size * UNITS * FONT_FACTOR, FontStyle::Normal);
        let style = TextStyle::from(font.transform(turn)).color(&color).pos(Pos::new(horizontal, VPos::Center));
        self.backend.draw_text(text, &style, units(at)).expect("writing to memory succeeds");
    }

    /// A line through points; drops points too close to see, so that dense data stay small.
    pub(super) fn line(&mut self, points: &[At], width: f64, color: RGBAColor, dashes: &[f64]) {
        let mut kept: Vec<At> = Vec::with_capacity(points.len());
        for (index, point) in points.iter().enumerate() {
            let far = kept.last().is_none_or(|last| distance(*last, *point) > 0.1);
            if far || index + 1 == points.len() {
                kept.push(*point);
            }
        }
        let style = ShapeStyle { color, filled: false, stroke_width: (width * UNITS).round().max(1.0) as u32 };
        for piece in if dashes.is_empty() { vec![kept] } else { dashed(&kept, dashes) } {
            if piece.len() > 1 {
                self.backend.draw_path(piece.into_iter().map(units), &style).expect("writing to memory succeeds");
            }
        }
    }

    /// A filled polygon without an outline.
    pub(super) fn polygon(&mut self, points: &[At], color: RGBAColor) {
        self.backend.fill_polygon(points.iter().copied().map(units), &color).expect("writing to memory succeeds");
    }

    /// A filled rectangle without an outline.
    pub(super) fn rectangle(&mut self, from: At, to: At, color: RGBAColor) {
        self.backend.draw_rect(units(from), units(to), &color, true).expect("writing to memory succeeds");
    }

    /// The marker of a style: filled, or open (white inside) for values that stand at zero on a logarithmic axis.
    pub(super) fn marker(&mut self, at: At, style: Style, open: bool) {
        let corners: &[At] = match style.marker {
            0 => &[],
            1 => &[(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)],
            2 => &[(0.0, -1.35), (1.25, 0.95), (-1.25, 0.95)],
            3 => &[(0.0, -1.45), (1.45, 0.0), (0.0, 1.45), (-1.45, 0.0)],
            4 => &[(0.0, 1.35), (1.25, -0.95), (-1.25, -0.95)],
            _ => &[
                (-0.45, -1.3),
                (0.45, -1.3),
                (0.45, -0.45),
                (1.3, -0.45),
                (1.3, 0.45),
                (0.45, 0.45),
                (0.45, 1.3),
                (-0.45, 1.3),
                (-0.45, 0.45),
                (-1.3, 0.45),
                (-1.3, -0.45),
                (-0.45, -0.45),
            ],
        };
        let radius = 2.1;
        let inside = if open { WHITE } else { style.color };
        if corners.is_empty() {
            let outline = ShapeStyle { color: style.color.to_rgba(), filled: false, stroke_width: UNITS as u32 };
            let r = (radius * UNITS) as u32;
            self.backend.draw_circle(units(at), r, &inside.to_rgba(), true).expect("writing to memory succeeds");
            self.backend.draw_circle(units(at), r, &outline, false).expect("writing to memory succeeds");
            return;
        }
        let mut outline: Vec<At> = corners.iter().map(|(x, y)| (at.0 + x * radius, at.1 + y * radius)).collect();
        self.polygon(&outline, inside.to_rgba());
        // Closed beyond the first side, so that the first corner gets a join as well.
        outline.extend_from_within(..2);
        self.line(&outline, 1.0, style.color.to_rgba(), &[]);
    }
}

fn units((x, y): At) -> (i32, i32) {
    ((x * UNITS).round() as i32, (y * UNITS).round() as i32)
}

fn distance(a: At, b: At) -> f64 {
    (a.0 - b.0).hypot(a.1 - b.1)
}

/// Cuts a line into dashes; `pattern` alternates dash and gap.
fn dashed(points: &[At], pattern: &[f64]) -> Vec<Vec<At>> {
    let (mut pieces, mut part, mut left) = (Vec::new(), 0, pattern[0]);
    let mut piece: Vec<At> = points.first().copied().into_iter().collect();
    for pair in points.windows(2) {
        let (mut from, to) = (pair[0], pair[1]);
        loop {
            let length = distance(from, to);
            if length <= left {
                left -= length;
                if part % 2 == 0 {
                    piece.push(to);
                }
                break;
            }
            from = (from.0 + (to.0 - from.0) * left / length, from.1 + (to.1 - from.1) * left / length);
            if part % 2 == 0 {
                piece.push(from);
                pieces.push(std::mem::take(&mut piece));
            } else {
                piece = vec![from];
            }
            part = (part + 1) % pattern.len();
            left = pattern[part];
        }
    }
    if part % 2 == 0 {
        pieces.push(piece);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_follow_corners() {
        let pieces = dashed(&[(0.0, 0.0), (3.0, 0.0), (3.0, 4.0)], &[4.0, 2.0]);
        assert_eq!(pieces, [vec![(0.0, 0.0), (3.0, 0.0), (3.0, 1.0)], vec![(3.0, 3.0), (3.0, 4.0)]]);
    }

    #[test]
    fn text_is_measured_with_the_bundled_font() {
        // An "m" of DejaVu Sans is 0.974 em wide.
        assert!((text_width("m", 10.0) - 9.74).abs() < 0.05, "{}", text_width("m", 10.0));
    }
}
