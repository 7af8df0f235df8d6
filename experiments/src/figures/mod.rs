//! Figures for print and screen, from tables alone.
//!
//! A [`Figure`] is a description: panels in a grid, each a chart (lines, steps, points with error bars or bands) or a
//! heat map, under one shared legend. It is drawn as SVG, and as PNG rendered from that SVG with the same bundled
//! font, so both look alike on every machine and the bytes depend on the data only.
//!
//! Choices that hold for all figures: 16 cm wide with text of at least 8 points; the colours of Okabe and Ito, which
//! colour-blind readers can tell apart, and a marker and a dash pattern of its own for each series, so that grey
//! prints read too; the legend above the panels, never over data; zero on a logarithmic axis is drawn in a strip of
//! its own below a break, with an open marker: "none seen" is a result, not a missing value.
//!
//! ```
//! use backdoor_experiments::figures::{Axis, Figure, Panel, Point, Series};
//! let points = [Point::new(0.01, 3e-3).between(1e-3, 9e-3), Point::new(0.1, 0.0).between(0.0, 4e-5)];
//! let figure = Figure::new("mistakes").caption("Fewer mistakes with longer deadlines.").panel(
//!     Panel::new(Axis::log("deadline").seconds(), Axis::log("mistakes").unit("1/s"))
//!         .series(Series::line("Back-Door READ", points).bars()),
//! );
//! assert!(figure.to_svg().starts_with("<svg "));
//! ```

mod canvas;
mod heatmap;
mod layout;
mod model;
mod panel;
#[cfg(feature = "png")]
mod png;
mod scale;
mod ticks;

pub use heatmap::Heatmap;
pub use model::{Axis, Figure, Panel, Point, Rule, Scale, Series, Shape, Spread, Unit};
#[cfg(feature = "png")]
pub use png::PngError;

use crate::results::{ResultsDir, ResultsError};

/// Whether figures are written as PNG, too.
pub const WITH_PNG: bool = cfg!(feature = "png");

impl Figure {
    /// The figure as an SVG document of its physical size.
    pub fn to_svg(&self) -> String {
        layout::draw(self)
    }

    /// The figure as a PNG with 300 pixels per inch.
    ///
    /// ```
    /// # use backdoor_experiments::figures::{Figure, PngError};
    /// assert!(Figure::new("empty").to_png()?.starts_with(b"\x89PNG"));
    /// # Ok::<(), PngError>(())
    /// ```
    ///
    /// # Errors
    /// When the picture would be too large to render.
    #[cfg(feature = "png")]
    pub fn to_png(&self) -> Result<Vec<u8>, PngError> {
        png::render(&self.to_svg())
    }

    /// Writes `figures/NAME.svg` and, [with PNG](WITH_PNG), `figures/NAME.png`; gives back the SVG, to be put into a
    /// report.
    ///
    /// # Errors
    /// I/O, or a picture that can't be rendered.
    pub fn write(&self, dir: &ResultsDir) -> Result<String, ResultsError> {
        let svg = self.to_svg();
        dir.write(&format!("figures/{}.svg", self.name), svg.as_bytes())?;
        #[cfg(feature = "png")]
        {
            let name = format!("figures/{}.png", self.name);
            let malformed =
                |error: PngError| ResultsError::Malformed { path: dir.path().join(&name), reason: error.to_string() };
            dir.write(&name, &png::render(&svg).map_err(malformed)?)?;
        }
        Ok(svg)
    }
}
