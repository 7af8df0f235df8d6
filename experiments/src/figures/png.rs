//! PNG from SVG, with the bundled font, so that both look alike.

use super::canvas::FONT;
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};
use std::sync::{Arc, OnceLock};

/// Pixels per inch.
const DPI: f32 = 300.0;

/// A picture that can't be rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot render the figure as PNG: {0}")]
pub struct PngError(String);

pub(super) fn render(svg: &str) -> Result<Vec<u8>, PngError> {
    static FONTS: OnceLock<Arc<fontdb::Database>> = OnceLock::new();
    let fonts = FONTS.get_or_init(|| {
        let mut fonts = fontdb::Database::new();
        fonts.load_font_data(FONT.to_vec());
        Arc::new(fonts)
    });
    let failed = |error: &dyn std::fmt::Display| PngError(error.to_string());
    let options = Options { fontdb: fonts.clone(), ..Options::default() };
    let tree = Tree::from_str(svg, &options).map_err(|error| failed(&error))?;
    // CSS pixels are 1/96 inch.
    let scale = DPI / 96.0;
    let size = tree.size().to_int_size().scale_by(scale).ok_or_else(|| failed(&"it is empty"))?;
    let mut pixels = Pixmap::new(size.width(), size.height()).ok_or_else(|| failed(&"it is too large"))?;
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut pixels.as_mut());
    pixels.encode_png().map_err(|error| failed(&error))
}
