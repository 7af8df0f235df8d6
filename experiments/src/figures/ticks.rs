//! Where ticks stand and what is written at them.

use super::model::{Axis, Scale, Unit};
use super::scale::Map;

/// Ticks of one axis.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ticks {
    /// Position on the sheet and text.
    pub(super) labelled: Vec<(f64, String)>,
    /// Positions without text.
    pub(super) minor: Vec<f64>,
    /// The axis label with its unit.
    pub(super) label: String,
}

/// Ticks for an axis. `room(text)` is the length along the axis that a tick text takes; texts never overlap.
pub(super) fn ticks(axis: &Axis, map: &Map, room: impl Fn(&str) -> f64) -> Ticks {
    if !axis.categories.is_empty() {
        return names(axis, map);
    }
    let (low, high) = (map.extent.low, map.extent.high);
    let writer = Writer::new(axis, low, high);
    let place = |values: &[f64]| -> Vec<(f64, String)> {
        let step = values.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
        values.iter().filter_map(|value| Some((map.visible(*value)?, writer.text(*value, step)))).collect()
    };
    let fits = |labelled: &[(f64, String)]| {
        labelled.windows(2).all(|pair| (pair[0].0 - pair[1].0).abs() >= (room(&pair[0].1) + room(&pair[1].1)) / 2.0)
    };
    let (candidates, minor) = match axis.scale {
        Scale::Linear => (linear(low, high), Vec::new()),
        Scale::Log => (logarithmic(low, high), minor(low, high)),
    };
    let mut labelled =
        candidates.iter().map(|values| place(values)).find(|labelled| fits(labelled)).unwrap_or_default();
    if let Some(zero) = map.zero_at {
        labelled.insert(0, (zero, "0".to_string()));
    }
    let minor = minor.into_iter().filter_map(|value| map.visible(value)).collect();
    Ticks { labelled, minor, label: writer.label(&axis.label) }
}

/// A tick for each name. None is left out: without its name, what stands there would mean nothing.
fn names(axis: &Axis, map: &Map) -> Ticks {
    let at = |(index, name): (usize, &String)| Some((map.visible(index as f64)?, name.clone()));
    let labelled = axis.categories.iter().enumerate().filter_map(at).collect();
    Ticks { labelled, minor: Vec::new(), label: axis.label.clone() }
}

/// Sets of ticks on a linear axis, fine to coarse.
fn linear(low: f64, high: f64) -> Vec<Vec<f64>> {
    let decade = 10f64.powf(((high - low) / 8.0).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0].map(|step| step * decade);
    let set = |step: f64| {
        let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
        (first..=last).map(|index| index as f64 * step).collect::<Vec<_>>()
    };
    steps.into_iter().filter(|step| (high - low) / step <= 8.5).map(set).collect()
}

/// Sets of ticks on a logarithmic axis: all digits, 1-2-5, decades, every second decade, …
fn logarithmic(low: f64, high: f64) -> Vec<Vec<f64>> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let inside = |value: &f64| (low * (1.0 - 1e-9)..=high * (1.0 + 1e-9)).contains(value);
    let set = |digits: &[f64], stride: usize| -> Vec<f64> {
        // Multiples of the stride, so that 1 stays among them.
        let exponents = (first..=last).filter(|exponent| exponent.rem_euclid(stride as i32) == 0);
        exponents.flat_map(|e| digits.iter().map(move |digit| digit * power(e))).filter(inside).collect()
    };
    let decades = high.log10() - low.log10();
    let mut sets = Vec::new();
    if decades < 0.7 {
        sets.extend(linear(low, high));
    }
    if decades < 3.2 {
        sets.push(set(&[1.0, 2.0, 5.0], 1));
    }
    sets.extend([1, 2, 3, 4, 6, 10, 20, 50, 100].map(|stride| set(&[1.0], stride)));
    sets.retain(|set| !set.is_empty());
    sets
}

fn minor(low: f64, high: f64) -> Vec<f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    if last - first > 8 {
        return (first..=last).map(power).collect();
    }
    (first..=last).flat_map(|e| (1..=9).map(move |digit| f64::from(digit) * power(e))).collect()
}

/// A power of ten as written in decimal, so that 3 × 0.001 and 0.003 are neighbours at worst.
fn power(exponent: i32) -> f64 {
    10f64.powi(exponent)
}

/// How the numbers of one axis are written, all in the same manner.
struct Writer<'a> {
    unit: &'a Unit,
    log: bool,
    /// Values are multiplied by this before they are written.
    factor: f64,
    /// The unit that goes with the factor.
    name: &'a str,
    /// Write powers of ten.
    powers: bool,
}

const TIME_UNITS: [(f64, &str); 4] = [(1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")];

/// The largest unit in which `seconds` is not below one.
fn time_unit(seconds: f64) -> (f64, &'static str) {
    TIME_UNITS.into_iter().find(|(size, _)| seconds.abs() >= size * 0.999_999).unwrap_or((1e-9, "ns"))
}

impl<'a> Writer<'a> {
    fn new(axis: &'a Axis, low: f64, high: f64) -> Self {
        let log = axis.scale == Scale::Log;
        let largest = low.abs().max(high.abs());
        let (factor, name) = match &axis.unit {
            Unit::None => (1.0, ""),
            Unit::Percent => (100.0, "%"),
            Unit::Named(name) => (1.0, name.as_str()),
            Unit::Seconds if log => (1.0, ""),
            Unit::Seconds => {
                let (size, name) = time_unit(largest / 2.0);
                (1.0 / size, name)
            }
        };
        let (low, high) = (low * factor, high * factor);
        let powers =
            if log { low < 0.99e-3 || high > 1.01e5 } else { largest * factor >= 1e7 || largest * factor < 1e-4 };
        Writer { unit: &axis.unit, log, factor, name, powers }
    }

    fn label(&self, label: &str) -> String {
        if self.name.is_empty() { label.to_string() } else { format!("{label} ({})", self.name) }
    }

    fn text(&self, value: f64, step: f64) -> String {
        if self.log && *self.unit == Unit::Seconds {
            let (size, name) = time_unit(value);
            return format!("{} {name}", significant(value / size));
        }
        let (value, step) = (value * self.factor, step * self.factor);
        if self.powers {
            return scientific(value);
        }
        if self.log {
            return significant(value);
        }
        let decimals = if step.is_finite() { (-(step.log10() + 1e-9).floor()).clamp(0.0, 9.0) as usize } else { 2 };
        minus(format!("{value:.decimals$}"))
    }
}

/// A number without digits that only rounding made.
fn significant(value: f64) -> String {
    minus(format!("{}", format!("{value:.3e}").parse::<f64>().unwrap_or(value)))
}

/// 2×10⁻⁶, 10³, and plainly 1 and 10.
fn scientific(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let text = format!("{value:.2e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    let raised: String = exponent.chars().map(superscript).collect();
    match (digits, exponent) {
        ("1", "0") => "1".into(),
        ("1", "1") => "10".into(),
        ("1", _) => format!("10{raised}"),
        (digits, "0") => minus(digits.into()),
        (digits, _) => minus(format!("{digits}×10{raised}")),
    }
}

fn superscript(digit: char) -> char {
    match digit {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        digit => char::from_u32(0x2070 + digit.to_digit(10).unwrap_or(0)).unwrap_or(digit),
    }
}

/// The true minus sign.
fn minus(text: String) -> String {
    text.replace('-', "−")
}

#[cfg(test)]
mod tests {
    use super::super::scale::Extent;
    use super::*;

    fn texts(axis: Axis, values: [f64; 2], length: f64) -> (Vec<String>, String) {
        let map = Map::new(&axis, Extent::of(&axis, values.into_iter()), 0.0, length);
        let ticks = ticks(&axis, &map, |text| text.chars().count() as f64 * 5.0 + 6.0);
        (ticks.labelled.into_iter().map(|(_, text)| text).collect(), ticks.label)
    }

    #[test]
    fn time_reads_as_people_write_it() {
        let (found, label) = texts(Axis::log("deadline").seconds(), [1e-6, 1.0], 200.0);
        assert_eq!(found, ["1 µs", "100 µs", "10 ms", "1 s"].map(String::from)[..].to_vec(), "{label}");
        let (found, label) = texts(Axis::linear("deadline").seconds(), [0.0, 0.1], 300.0);
        assert_eq!((found.join(" ").as_str(), label.as_str()), ("0 20 40 60 80 100", "deadline (ms)"));
    }

    #[test]
    fn few_decades_show_one_two_five() {
        let (found, _) = texts(Axis::log("x"), [1.0, 100.0], 300.0);
        assert_eq!(found.join(" "), "1 2 5 10 20 50 100");
        let (found, _) = texts(Axis::log("x"), [1.0, 100.0], 60.0);
        assert_eq!(found.join(" "), "1 10 100");
    }

    #[test]
    fn names_stand_in_order() {
        let axis = Axis::categories("failure", ["a", "b", "c"]);
        let map = Map::new(&axis, Extent::of(&axis, std::iter::empty()), 0.0, 300.0);
        let found = ticks(&axis, &map, |_| 0.0);
        assert_eq!(found.labelled, [(50.0, "a".to_string()), (150.0, "b".into()), (250.0, "c".into())]);
        assert_eq!((found.label.as_str(), found.minor.len()), ("failure", 0));
    }

    #[test]
    fn far_numbers_are_powers() {
        let (found, label) = texts(Axis::log("rate").unit("1/s"), [1e-6, 50.0], 200.0);
        assert!(found.contains(&"10⁻⁴".to_string()) && found.contains(&"1".to_string()), "{found:?}");
        assert_eq!(label, "rate (1/s)");
        assert_eq!(scientific(2e-6), "2×10⁻⁶");
        let (found, label) = texts(Axis::linear("share").percent(), [0.0, 1.0], 300.0);
        assert_eq!((found.last().unwrap().as_str(), label.as_str()), ("100", "share (%)"));
    }
}
