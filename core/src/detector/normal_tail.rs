//! How far out a normal distribution's tail of a given probability begins.
//!
//! A φ detector needs this once, when it is made: its threshold never changes. So it is computed from the definition, by
//! bisection, rather than by one of the rational approximations; it takes some microseconds.

/// The z with Q(z) = P(N(0, 1) > z) = 10^−φ, for a `phi` above zero: φ = 1 gives 1.2816, φ = 8 gives 5.6120.
///
/// To about 12 digits, for φ up to 300; beyond, and for what is no positive number, the nearest possible value.
///
/// Q is computed by the series Φ(z) = 1/2 + φ(z)·Σ z^(2k+1) / (1·3·5 … (2k+1)) near the middle, and by Laplace's continued
/// fraction Q(z) = φ(z) / (z + 1/(z + 2/(z + 3/(z + …)))) in the tail (Abramowitz and Stegun, 26.2.11 and 26.2.14).
pub fn normal_tail_quantile(phi: f64) -> f64 {
    let phi = phi.clamp(1e-12, 300.0);
    let phi = if phi.is_nan() { 1e-12 } else { phi };
    let target = -phi * std::f64::consts::LN_10;
    let (mut low, mut high) = (-8.0, 40.0);
    while high - low > 1e-13 * f64::abs(low).max(1.0) {
        let middle = (low + high) / 2.0;
        // The logarithm of Q falls from 0 without end.
        if ln_tail(middle) > target {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low + high) / 2.0
}

/// ln Q(z).
fn ln_tail(z: f64) -> f64 {
    let ln_density = -z * z / 2.0 - (2.0 * std::f64::consts::PI).ln() / 2.0;
    if z < 3.0 {
        let (mut term, mut sum, mut odd) = (z, z, 1.0);
        while term.abs() > 1e-18 * sum.abs() && odd < 400.0 {
            odd += 2.0;
            term *= z * z / odd;
            sum += term;
        }
        let middle = ln_density.exp() * sum;
        return if z < 0.0 { (0.5 - middle).ln() } else { f64::ln_1p(-0.5 - middle) };
    }
    let fraction = (1..=200).rev().fold(z, |rest, k| z + f64::from(k) / rest);
    ln_density - fraction.ln()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn quantiles_as_in_tables() {
        for (phi, z) in [
            (std::f64::consts::LOG10_2, 0.0),
            (1.0, 1.281_551_565_544_6),
            (2.0, 2.326_347_874_040_841),
            (3.0, 3.090_232_306_167_813),
            (8.0, 5.612_001_244_174_789),
            (16.0, 8.222_082_216_130_435),
            // P(N > -1.2816) = 0.9.
            (0.045_757_490_560_675_1, -1.281_551_565_544_6),
        ] {
            let found = normal_tail_quantile(phi);
            assert!((found - z).abs() < 1e-10, "{phi}: {found} for {z}");
        }
    }

    #[test]
    fn what_is_no_threshold_gives_a_number_all_the_same() {
        for phi in [f64::NAN, -1.0, 0.0, f64::INFINITY, 1e300] {
            assert!(normal_tail_quantile(phi).is_finite(), "{phi}");
        }
        assert!(normal_tail_quantile(300.0) > 37.0);
    }
}
