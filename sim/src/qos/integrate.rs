//! Numerical integration of functions with known corners.

/// Nodes of the 15-point Kronrod rule on [−1, 1], with its weights and those of the 7-point Gauss rule within it
/// (Piessens and others, QUADPACK, 1983).
const RULE: [(f64, f64, f64); 8] = [
    (0.991_455_371_120_812_6, 0.022_935_322_010_529_22, 0.0),
    (0.949_107_912_342_758_5, 0.063_092_092_629_978_55, 0.129_484_966_168_869_7),
    (0.864_864_423_359_769_1, 0.104_790_010_322_250_18, 0.0),
    (0.741_531_185_599_394_4, 0.140_653_259_715_525_92, 0.279_705_391_489_276_7),
    (0.586_087_235_467_691_1, 0.169_004_726_639_267_9, 0.0),
    (0.405_845_151_377_397_2, 0.190_350_578_064_785_4, 0.381_830_050_505_118_9),
    (0.207_784_955_007_898_47, 0.204_432_940_075_298_9, 0.0),
    (0.0, 0.209_482_141_084_727_82, 0.417_959_183_673_469_4),
];

/// ∫ f over [`from`, `to`], which is cut at `corners` first: points where f or its derivatives jump, or where much of it
/// lies. f is never asked at the ends of a piece. The error is about 10⁻¹⁰ of the integral of |f|.
pub fn integrate(f: &mut dyn FnMut(f64) -> f64, from: f64, to: f64, corners: &[f64]) -> f64 {
    let mut cuts: Vec<f64> = corners.iter().copied().filter(|x| *x > from && *x < to).collect();
    cuts.extend([from, to]);
    cuts.sort_by(f64::total_cmp);
    cuts.dedup();
    let pieces: Vec<(f64, f64, f64, f64)> = cuts
        .windows(2)
        .map(|piece| {
            let (value, error) = rule(f, piece[0], piece[1]);
            (piece[0], piece[1], value, error)
        })
        .collect();
    let scale: f64 = pieces.iter().map(|piece| piece.2.abs()).sum();
    pieces.into_iter().map(|(a, b, value, error)| refine(f, (a, b), (value, error), 1e-12 * scale, 40)).sum()
}

/// The same for a step function whose steps are all among `corners`: one value a piece is enough.
pub fn integrate_steps(f: &mut dyn FnMut(f64) -> f64, from: f64, to: f64, corners: &[f64]) -> f64 {
    let mut cuts: Vec<f64> = corners.iter().copied().filter(|x| *x > from && *x < to).collect();
    cuts.extend([from, to]);
    cuts.sort_by(f64::total_cmp);
    cuts.windows(2).map(|piece| (piece[1] - piece[0]) * f(piece[0] + (piece[1] - piece[0]) / 2.0)).sum()
}

fn refine(
    f: &mut dyn FnMut(f64) -> f64,
    (a, b): (f64, f64),
    (value, error): (f64, f64),
    tolerance: f64,
    depth: u32,
) -> f64 {
    let middle = a + (b - a) / 2.0;
    if error <= tolerance.max(1e-11 * value.abs()) || depth == 0 || middle <= a || middle >= b {
        return value;
    }
    let (left, right) = (rule(f, a, middle), rule(f, middle, b));
    refine(f, (a, middle), left, tolerance / 2.0, depth - 1) + refine(f, (middle, b), right, tolerance / 2.0, depth - 1)
}

/// The 15 points and weights for an integral over [`a`, `b`].
pub(super) fn rule_nodes(a: f64, b: f64, mut node: impl FnMut(f64, f64)) {
    let (center, half) = (a + (b - a) / 2.0, (b - a) / 2.0);
    for (at, weight, _) in RULE {
        node(center - half * at, half * weight);
        if at != 0.0 {
            node(center + half * at, half * weight);
        }
    }
}

/// Integral by the 15-point rule, and its distance from the 7-point rule's.
fn rule(f: &mut dyn FnMut(f64) -> f64, a: f64, b: f64) -> (f64, f64) {
    let (center, half) = (a + (b - a) / 2.0, (b - a) / 2.0);
    let (mut kronrod, mut gauss) = (0.0, 0.0);
    for (node, weight, gauss_weight) in RULE {
        let both = if node == 0.0 { f(center) } else { f(center - half * node) + f(center + half * node) };
        kronrod += weight * both;
        gauss += gauss_weight * both;
    }
    (half * kronrod, half * (kronrod - gauss).abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-10 * expected.abs(), "{found} for {expected}");
    }

    #[test]
    fn known_integrals() {
        close(integrate(&mut |x| x.powi(20), 0.0, 1.0, &[]), 1.0 / 21.0);
        close(integrate(&mut f64::exp, -1.0, 2.0, &[0.3]), 2f64.exp() - (-1f64).exp());
        close(integrate(&mut |x| (-x / 0.001).exp(), 0.0, 1.0, &[]), 0.001);
        close(integrate(&mut f64::sqrt, 0.0, 4.0, &[]), 16.0 / 3.0);
        close(integrate(&mut |x| f64::from(u8::from(x > 0.3)), 0.0, 1.0, &[0.3]), 0.7);
        close(
            integrate_steps(
                &mut |x| f64::from(u8::from(x > 0.3)) + f64::from(u8::from(x > 0.5)),
                0.0,
                1.0,
                &[0.3, 0.5],
            ),
            1.2,
        );
    }
}
