//! NFD-S's parameters from what is required of it.
//!
//! Source: Chen, Toueg and Aguilera 2002, section 4 (figure 9), for a known loss and law of delay. With T = T_D^U and
//! q₀′ = (1 − p_L)·P(D < T): the largest η up to η_max = q₀′·T_M^U for which
//!
//! ```text
//! f(η) = η / (q₀′ · Π_{j=1..⌈T/η⌉−1} [p_L + (1 − p_L)·P(D > T − jη)]) ≥ T_MR^L,        δ = T − η.
//! ```
//!
//! With δ = T − η, f(η) *is* E(T_MR) of NFD-S: the product is u(0), but for the index, which there counts from 0 at the
//! heartbeat of age δ.

use backdoor_core::Nanos;

use super::delay::Delay;
use super::setting::SettingError;

/// What is required.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirements {
    /// A crash is to be found within this, T_D^U.
    pub detection_time: Nanos,
    /// Mistakes are to be this far apart on average, T_MR^L.
    pub recurrence: Nanos,
    /// Mistakes are to be over within this on average, T_M^U.
    pub duration: Nanos,
}

/// What meets it with the fewest heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Time between heartbeats, η.
    pub period: Nanos,
    /// Freshness points after sending times, δ.
    pub shift: Nanos,
}

/// How many values of η are tried, evenly between 0 and the largest; between two neighbours, bisection goes on.
const TRIES: u32 = 100_000;
/// Fewer, where so many heartbeats were to be looked at for each that all of them would take more than a second.
const MOST_HEARTBEATS: f64 = 4e6;

/// The largest η, and the δ that goes with it; `None` if no heartbeat period meets the requirements (Chen's theorem 7 then
/// says that no failure detector does).
///
/// # Errors
/// Requirements of zero or 'never', a loss that is no probability below 1, or mistakes so short that millions of heartbeats
/// would have to be sent within the detection time.
pub fn configure(required: Requirements, loss: f64, delay: &Delay) -> Result<Option<Configuration>, SettingError> {
    for (name, span) in [
        ("detection time", required.detection_time),
        ("time between mistakes", required.recurrence),
        ("duration of mistakes", required.duration),
    ] {
        if span == Nanos::ZERO || span == Nanos::MAX {
            return Err(SettingError(format!("the required {name} must be more than zero and less than 'never'")));
        }
    }
    if !(0.0..1.0).contains(&loss) {
        return Err(SettingError(format!("the loss must be a probability from 0 to less than 1, not {loss}")));
    }
    let bound = required.detection_time.0 as f64;
    let in_time = (1.0 - loss) * delay.below(bound);
    let most = (in_time * required.duration.0 as f64).min(bound);
    let meets = |period: f64| recurrence(period, bound, in_time, loss, delay) >= required.recurrence.0 as f64;
    // Times are whole nanoseconds.
    if most < 1.0 {
        return Ok(None);
    }
    let tries = f64::from(TRIES).min(MOST_HEARTBEATS * most / bound) as u32;
    if tries == 0 {
        return Err(SettingError(format!(
            "mistakes over within {} take more than {MOST_HEARTBEATS} heartbeats within the detection time of {}",
            required.duration, required.detection_time
        )));
    }
    let step = most / f64::from(tries);
    let Some(met) = (1..=tries).rev().find(|place| meets(f64::from(*place) * step)) else { return Ok(None) };
    let (mut good, mut bad) = (f64::from(met) * step, f64::from(met + 1) * step);
    while met < tries && bad - good > 0.5 {
        let middle = (good + bad) / 2.0;
        if meets(middle) {
            good = middle;
        } else {
            bad = middle;
        }
    }
    // Down, for it may not be longer.
    let period = Nanos(good as u64);
    Ok((period > Nanos::ZERO).then(|| Configuration { period, shift: required.detection_time - period }))
}

/// f(η), in nanoseconds.
fn recurrence(period: f64, bound: f64, in_time: f64, loss: f64, delay: &Delay) -> f64 {
    let heartbeats = (bound / period).ceil() as u64;
    let mut mistake = in_time;
    for j in 1..heartbeats {
        mistake *= loss + (1.0 - loss) * delay.above(bound - j as f64 * period);
        if mistake < 1e-300 {
            break;
        }
    }
    period / mistake
}

#[cfg(test)]
mod tests {
    use super::super::closed::nfd_s;
    use super::*;

    const DAY: u64 = 86_400;

    fn example() -> Requirements {
        Requirements {
            detection_time: Nanos::from_secs(30),
            recurrence: Nanos::from_secs(30 * DAY),
            duration: Nanos::from_secs(60),
        }
    }

    /// The source's example: 30 s, 30 days, 60 s, 1% loss, delays of 20 ms: η = 9.97 s, δ = 20.03 s. By hand, the third
    /// factor must be 0.0390 = 0.01 + 0.99·e^(−(30 − 3η)/0.02): η = 9.9765, which the source rounds down.
    #[test]
    fn the_published_example() {
        let delay = Delay::Law("exp:20ms".parse().unwrap());
        let found = configure(example(), 0.01, &delay).unwrap().unwrap();
        assert!((found.period.as_secs_f64() - 9.9765).abs() < 1e-4, "{found:?}");
        assert!((found.shift.as_secs_f64() - 20.0235).abs() < 1e-4, "{found:?}");
    }

    #[test]
    fn what_is_found_meets_the_requirements_and_more_would_not() {
        for (loss, law) in
            [(0.01, "exp:20ms"), (0.2, "exp:2s"), (0.05, "uniform:1s:4s"), (0.01, "lognormal:100ms:400ms")]
        {
            let delay = Delay::Law(law.parse().unwrap());
            let required = example();
            let found = configure(required, loss, &delay).unwrap().unwrap();
            let of = |period: Nanos| {
                let shift = required.detection_time - period;
                nfd_s(period.0 as f64, shift.0 as f64, loss, &delay).unwrap()
            };
            let form = of(found.period);
            let enough = required.recurrence.as_secs_f64() * (1.0 - 1e-6);
            assert!(form.t_mr_s >= enough && form.t_m_s.unwrap() <= 60.0, "{law}: {form:?}");
            assert!(of(found.period + Nanos::from_millis(20)).t_mr_s < enough, "{law}: {found:?}");
        }
    }

    #[test]
    fn what_nothing_meets() {
        let delay = Delay::Law("const:31s".parse().unwrap());
        assert_eq!(configure(example(), 0.01, &delay), Ok(None));
        let error = configure(Requirements { duration: Nanos::ZERO, ..example() }, 0.01, &delay).unwrap_err();
        assert!(error.to_string().contains("duration of mistakes must be more than zero"));
        assert!(configure(example(), 1.0, &delay).is_err());
    }

    /// Requirements that are far from each other must not take for ever: hardly any heartbeat here is in time.
    #[test]
    fn what_would_take_too_many_heartbeats() {
        let delay = Delay::Law("exp:20ms".parse().unwrap());
        let tiny = Requirements { detection_time: Nanos(1), duration: Nanos(1), ..example() };
        assert_eq!(configure(tiny, 0.01, &delay), Ok(None));
        let late = Delay::Law("const:31s".parse().unwrap());
        assert_eq!(configure(example(), 0.01, &late), Ok(None));
        let slow = Delay::Law("uniform:29s:60min".parse().unwrap());
        let error = configure(Requirements { duration: Nanos::from_millis(1), ..example() }, 0.01, &slow).unwrap_err();
        assert!(error.to_string().starts_with("mistakes over within 1ms take more than 4000000 heartbeats"), "{error}");
        let many = Requirements { duration: Nanos::from_secs(1), ..example() };
        assert_eq!(configure(many, 0.01, &slow), Ok(None));
    }
}
