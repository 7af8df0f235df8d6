//! Values in configs: spans of time as text, one value or many, ranges.

use backdoor_core::Nanos;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

/// A span of time, written as text with its unit: `"250us"`, `"20ms"`, `"1.1s"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Nanos);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Span> for Nanos {
    fn from(span: Span) -> Nanos {
        span.0
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Span;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration in quotes, such as \"20ms\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                text.parse().map(Span).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// One value or a list of values, at least one; a plain value reads as a list of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneOrMany<T>(Vec<T>);

/// Values along one axis of a sweep: a value, a list, or a range.
///
/// A range is a table: `{ from = 1, to = 100, steps = 3, scale = "log" }` is 1, 10, 100; both ends belong to it, and
/// `scale` is `"linear"` unless told. Whole numbers and spans of time are rounded to the nearest; values that
/// coincide after rounding are kept once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axis<T>(Vec<T>);

/// What an [`Axis`] can range over.
pub trait AxisValue: Copy + PartialEq {
    /// The value as a number, in its smallest unit.
    fn to_f64(self) -> f64;
    /// The value nearest to a number.
    fn from_f64(number: f64) -> Self;
}

impl AxisValue for f64 {
    fn to_f64(self) -> f64 {
        self
    }
    fn from_f64(number: f64) -> Self {
        number
    }
}

impl AxisValue for u64 {
    fn to_f64(self) -> f64 {
        self as f64
    }
    fn from_f64(number: f64) -> Self {
        number.round() as u64
    }
}

impl AxisValue for Span {
    fn to_f64(self) -> f64 {
        self.0.0 as f64
    }
    fn from_f64(number: f64) -> Self {
        Span(Nanos(number.round() as u64))
    }
}

macro_rules! list {
    ($name:ident) => {
        impl<T> $name<T> {
            /// A list of one.
            pub fn one(value: T) -> Self {
                $name(vec![value])
            }
        }
        impl<T> Deref for $name<T> {
            type Target = [T];
            fn deref(&self) -> &[T] {
                &self.0
            }
        }
        impl<'a, T> IntoIterator for &'a $name<T> {
            type Item = &'a T;
            type IntoIter = std::slice::Iter<'a, T>;
            fn into_iter(self) -> Self::IntoIter {
                self.0.iter()
            }
        }
        impl<T: Serialize> Serialize for $name<T> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.0.serialize(serializer)
            }
        }
    };
}
list!(OneOrMany);
list!(Axis);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Values::<T, Table<T>>(PhantomData)).map(OneOrMany)
    }
}

impl<'de, T: Deserialize<'de> + AxisValue> Deserialize<'de> for Axis<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Values::<T, Range<T>>(PhantomData)).map(Axis)
    }
}

/// What a table stands for: itself, or a range.
trait FromTable<T>: Sized {
    fn values<'de, E: de::Error, D: Deserializer<'de, Error = E>>(deserializer: D) -> Result<Vec<T>, E>
    where
        T: Deserialize<'de>;
}

struct Table<T>(PhantomData<T>);

impl<T> FromTable<T> for Table<T> {
    fn values<'de, E: de::Error, D: Deserializer<'de, Error = E>>(deserializer: D) -> Result<Vec<T>, E>
    where
        T: Deserialize<'de>,
    {
        T::deserialize(deserializer).map(|value| vec![value])
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Range<T> {
    from: T,
    to: T,
    steps: u32,
    #[serde(default)]
    scale: Scale,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Scale {
    #[default]
    Linear,
    Log,
}

/// More points on one axis than anybody means; a slip such as `steps = 1000000` should not eat the memory.
const MOST_STEPS: u32 = 10_000;

impl<T: AxisValue> FromTable<T> for Range<T> {
    fn values<'de, E: de::Error, D: Deserializer<'de, Error = E>>(deserializer: D) -> Result<Vec<T>, E>
    where
        T: Deserialize<'de>,
    {
        let range = Range::<T>::deserialize(deserializer)?;
        let (from, to) = (range.from.to_f64(), range.to.to_f64());
        if !(from.is_finite() && to.is_finite()) {
            return Err(E::custom("a range must be finite"));
        }
        if !(2..=MOST_STEPS).contains(&range.steps) {
            return Err(E::custom(format!("a range needs 2 to {MOST_STEPS} steps")));
        }
        if from >= to {
            return Err(E::custom("a range must go upwards, from less to more"));
        }
        if range.scale == Scale::Log && from <= 0.0 {
            return Err(E::custom("a logarithmic range must start above zero"));
        }
        let mut values: Vec<T> = Vec::new();
        for step in 0..range.steps {
            let part = f64::from(step) / f64::from(range.steps - 1);
            // The ends are exact as written, whatever rounding does in between.
            let value = match (step, range.scale) {
                (0, _) => range.from,
                (step, _) if step == range.steps - 1 => range.to,
                (_, Scale::Linear) => T::from_f64(from + (to - from) * part),
                (_, Scale::Log) => T::from_f64(from * (to / from).powf(part)),
            };
            if values.last() != Some(&value) {
                values.push(value);
            }
        }
        Ok(values)
    }
}

/// Reads a value, a list or a table. By hand rather than as an untagged enum, because that forgets what was wrong.
struct Values<T, M>(PhantomData<(T, M)>);

impl<'de, T: Deserialize<'de>, M: FromTable<T>> Visitor<'de> for Values<T, M> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or a list of values")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Vec<T>, E> {
        T::deserialize(value.into_deserializer()).map(|value| vec![value])
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Vec<T>, E> {
        T::deserialize(value.into_deserializer()).map(|value| vec![value])
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Vec<T>, E> {
        T::deserialize(value.into_deserializer()).map(|value| vec![value])
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Vec<T>, E> {
        T::deserialize(value.into_deserializer()).map(|value| vec![value])
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Vec<T>, E> {
        T::deserialize(value.into_deserializer()).map(|value| vec![value])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Vec<T>, A::Error> {
        let values = Vec::<T>::deserialize(SeqAccessDeserializer::new(list))?;
        if values.is_empty() { Err(de::Error::custom("the list is empty")) } else { Ok(values) }
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Vec<T>, A::Error> {
        M::values(MapAccessDeserializer::new(table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Config<T> {
        x: T,
    }

    fn read<T: de::DeserializeOwned>(text: &str) -> T {
        crate::config::parse::<Config<T>>("x.toml", &format!("x = {text}")).unwrap().x
    }

    #[test]
    fn values_lists_and_ranges() {
        assert_eq!(*read::<Axis<u64>>("3"), [3]);
        assert_eq!(*read::<Axis<f64>>("[1, 2.5]"), [1.0, 2.5]);
        assert_eq!(*read::<OneOrMany<bool>>("[true, false]"), [true, false]);
        assert_eq!(*read::<OneOrMany<String>>("'a'"), ["a"]);
        assert_eq!(*read::<Axis<f64>>("{ from = 0, to = 1, steps = 5 }"), [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(*read::<Axis<u64>>("{ from = 1, to = 1000, steps = 4, scale = 'log' }"), [1, 10, 100, 1000]);
        assert_eq!(*read::<Axis<u64>>("{ from = 1, to = 3, steps = 9 }"), [1, 2, 3]);
        let spans = read::<Axis<Span>>("{ from = '1ms', to = '100ms', steps = 100 }");
        assert_eq!((spans.len(), spans[41]), (100, Span(Nanos::from_millis(42))));
    }
}
