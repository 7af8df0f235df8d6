//! Measures as CSV for programs and as a table for people.

use backdoor_sim::qos::closed::ClosedForm;
use backdoor_sim::qos::measures::Measures;
use backdoor_sim::stats::Estimate;

use crate::results::Table;

/// What came out, and how.
#[derive(Clone, Debug)]
pub struct Report {
    /// The measures.
    pub measures: Measures,
    /// Their exact values, where these are known.
    pub form: Option<ClosedForm>,
    /// What was done, in a phrase.
    pub method: String,
    /// What the reader should know, a sentence each without a full stop.
    pub notes: Vec<String>,
}

struct Row {
    metric: &'static str,
    unit: &'static str,
    what: &'static str,
    simulated: Option<Estimate>,
    closed_form: Option<f64>,
}

impl Report {
    fn rows(&self) -> [Row; 6] {
        let Report { measures: m, form, .. } = self;
        let exact = |of: fn(&ClosedForm) -> Option<f64>| form.as_ref().and_then(of).filter(|value| value.is_finite());
        let row = |metric, unit, what, simulated, closed_form| Row { metric, unit, what, simulated, closed_form };
        let longest = m.t_d_max_s.filter(|longest| longest.is_finite()).map(Estimate::exact);
        [
            row("t_d_max", "s", "longest detection time", longest, exact(|form| form.t_d_max_s)),
            row("t_d_mean", "s", "mean detection time", m.t_d_mean_s, exact(|form| Some(form.t_d_mean_s))),
            row("t_mr", "s", "time between mistakes", m.t_mr_s, exact(|form| Some(form.t_mr_s))),
            row("t_m", "s", "duration of a mistake", m.t_m_s, exact(|form| form.t_m_s)),
            row("p_a", "1", "query accuracy", m.p_a, exact(|form| Some(form.p_a))),
            row("lambda_m", "1/s", "mistake rate", m.lambda_m_per_s, exact(|form| Some(form.lambda_m_per_s))),
        ]
    }

    /// `metric,unit,simulated,ci95_low,ci95_high,closed_form`; what doesn't exist is empty.
    pub fn to_csv(&self) -> String {
        let mut table = Table::new(["metric", "unit", "simulated", "ci95_low", "ci95_high", "closed_form"]);
        for row in self.rows() {
            table.row().text(row.metric).text(row.unit).estimate(row.simulated).optional(row.closed_form);
        }
        table.to_csv()
    }

    /// A table and the notes.
    pub fn to_text(&self) -> String {
        let mut text = format!("{:<24}  {:>16}  {:>36}  {:>16}\n", "", "simulated", "95% interval", "closed form");
        for row in self.rows() {
            let name = if row.unit == "1" { row.what.to_owned() } else { format!("{}, {}", row.what, row.unit) };
            let value = row.simulated.map_or("-".into(), |estimate| number(estimate.value));
            let bound = |bound: Option<f64>| bound.map_or("?".into(), number);
            let interval = match row.simulated {
                Some(Estimate { low: None, high: None, .. }) | None => String::new(),
                Some(Estimate { low, high, .. }) => format!("{} to {}", bound(low), bound(high)),
            };
            let exact = row.closed_form.map_or("-".into(), number);
            text += &format!("{name:<24}  {value:>16}  {interval:>36}  {exact:>16}\n");
        }
        text += &format!("\n{}.\n", self.method);
        for note in &self.notes {
            text += &format!("Note: {note}.\n");
        }
        text
    }
}

/// With enough digits to compare by; probabilities near 1 with as many as make the difference.
fn number(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        "0".into()
    } else if (0.9..1.0).contains(&size) {
        let nines = (-(1.0 - size).log10()).clamp(0.0, 11.0) as usize;
        format!("{value:.*}", nines + 4)
    } else if (1e-3..1e6).contains(&size) {
        let digits = 5i32.saturating_sub(size.log10().floor() as i32 + 1).clamp(0, 8) as usize;
        format!("{value:.digits$}")
    } else {
        format!("{value:.4e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let estimate = |value: f64| Some(Estimate { value, low: Some(value * 0.9), high: Some(value * 1.1) });
        let measures = Measures {
            t_d_max_s: Some(1.0999),
            t_d_mean_s: estimate(0.5),
            t_mr_s: estimate(60.5),
            p_a: Some(Estimate::exact(1.0)),
            lambda_m_per_s: Some(Estimate { value: 0.0, low: Some(0.0), high: Some(1e-9) }),
            ..Measures::default()
        };
        let form = Some(ClosedForm { t_d_max_s: None, t_mr_s: f64::INFINITY, p_a: 0.99066, ..ClosedForm::default() });
        Report { measures, form, method: "as a test".into(), notes: vec!["made up".into()] }
    }

    #[test]
    fn what_does_not_exist_is_empty() {
        let csv = report().to_csv();
        let expected = "metric,unit,simulated,ci95_low,ci95_high,closed_form\n\
                        t_d_max,s,1.0999,,,\n\
                        t_d_mean,s,0.5,0.45,0.55,0\n\
                        t_mr,s,60.5,54.45,66.55,\n\
                        t_m,s,,,,\n\
                        p_a,1,1,,,0.99066\n\
                        lambda_m,1/s,0,0,0.000000001,0\n";
        assert_eq!(
            csv,
            expected.replace("0.55,0\n", &format!("{},0\n", 0.5 * 1.1)).replace("66.55", &(60.5f64 * 1.1).to_string())
        );
    }

    #[test]
    fn people_get_a_table() {
        let text = report().to_text();
        assert!(text.contains("time between mistakes, s") && text.ends_with("as a test.\nNote: made up.\n"), "{text}");
        assert_eq!(
            [0.99066, 0.999_907, 60.59, 6059.2, 1e-9].map(number),
            ["0.990660", "0.99990700", "60.590", "6059.2", "1.0000e-9"]
        );
    }
}
