//! What the experiment found: a row per run, and a summary for people.

use std::borrow::Cow;
use std::fmt::Write;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use super::{FailoverConfig, ServiceKind};
use crate::live::web::remedy::Choice;
use crate::stats::{self, Estimate};

/// One run. The field names are the columns of the CSV.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, DocumentedFields)]
pub struct FailoverRow {
    /// Number of the run, from 0.
    pub run: u32,
    /// How node A failed.
    pub failure: Cow<'static, str>,
    /// Who was its client.
    pub client: Cow<'static, str>,
    /// Bytes that the client moved.
    pub bytes: u64,
    /// From the failure to the first suspicion, in ms; none if nobody failed.
    pub detection_ms: Option<f64>,
    /// From the decision until every claim stood, in ms.
    pub claim_ms: Option<f64>,
    /// From there until node A was cut off, in ms.
    pub fence_ms: Option<f64>,
    /// From there until the last State Box was read, in ms.
    pub extract_ms: Option<f64>,
    /// From there until the last connection spoke at its new node, in ms; of a restart, from the decision until the service's new
    /// process at node A had taken up the last one.
    pub reinstate_ms: Option<f64>,
    /// From the decision to the first new byte at the client, in ms.
    pub first_byte_ms: Option<f64>,
    /// The longest silence of any one of the client's connections over which anything moved, in ms; of one that did not finish, up
    /// to the end of the run.
    pub outage_ms: Option<f64>,
    /// Whether every byte was right.
    pub sha256_ok: bool,
    /// Resets that the client's kernel counted.
    pub client_resets: u64,
    /// Connections that the client's kernel opened, or tried to: who connects again tries until somebody is there.
    pub client_connections: u64,
    /// Whether the client still waited for something when the failure was decided upon. If not, it had finished before, and the
    /// row says nothing of what a failure costs.
    #[serde(default)]
    pub hit: bool,
    /// Sessions.
    pub sessions: u64,
    /// Of those: carried on at another node.
    pub moved: u64,
    /// What was diagnosed.
    pub cause: String,
    /// Bytes of state that were extracted.
    pub state_bytes: u64,
    /// Whether every session went on with all input that the kernel of the node before had acknowledged; none if no session is known to
    /// have gone on.
    pub input_known: Option<bool>,
    /// What was done: `takeover` and `restart` if sessions go on by it, `reboot` if node A started anew; or several, one after
    /// the other.
    pub remedy: Cow<'static, str>,
    /// Sessions that go on at node A.
    pub readopted: u64,
    /// What is to be done at node A besides; it is not done here.
    pub afterwards: String,
    /// What went wrong, if something did. Whoever takes part is a number there: nodes B to E are 2, 5, 6 and 7, a pair's worker at
    /// node B is 4, and takers are 1 and 3.
    pub trouble: String,
    /// Whether the taker had a mirror.
    #[serde(default)]
    pub mirror: bool,
    /// How many processes the service was: `web` or `pair`.
    pub service: Cow<'static, str>,
    /// Which of a pair's processes failed.
    pub process: Cow<'static, str>,
    /// How node B failed after it had taken over; empty if it was not to.
    #[serde(default)]
    pub then: Cow<'static, str>,
    /// Sessions that were carried on at node C after that.
    #[serde(default)]
    pub moved_again: u64,
    /// From node B's failure to the first suspicion, in ms.
    #[serde(default)]
    pub then_detection_ms: Option<f64>,
    /// From the second taker's decision to the first new byte at the client, in ms.
    #[serde(default)]
    pub then_first_byte_ms: Option<f64>,
    /// Nodes that stood by.
    #[serde(default)]
    pub heirs: u32,
    /// How many sessions were carried on at each of them, such as `B:100 C:100`.
    #[serde(default)]
    pub moved_to: String,
    /// Sessions that were claimed and then left to node A, whose service had gone on by itself.
    #[serde(default)]
    pub given_back: u64,
    /// Sessions that ended, as they do with node A's reboot, and whose clients connected again.
    #[serde(default)]
    pub lost: u64,
}

impl FailoverRow {
    /// Takes in what came of node B's failure.
    pub(super) fn then_is(&mut self, second: FailoverRow) {
        self.moved_again = second.moved;
        (self.then_detection_ms, self.then_first_byte_ms) = (second.detection_ms, second.first_byte_ms);
        self.input_known = [self.input_known, second.input_known].into_iter().flatten().reduce(|all, one| all && one);
        if !second.trouble.is_empty() {
            let separator = if self.trouble.is_empty() { "" } else { "; " };
            self.trouble = format!("{}{separator}then: {}", self.trouble, second.trouble);
        }
    }

    /// Whether the failure was one to the client, and it finished with every byte right: what medians are of.
    pub fn is_measured(&self) -> bool {
        self.hit && self.sha256_ok
    }

    /// Whether the client finished with every byte right, over the connections that it began with.
    pub fn is_good(&self) -> bool {
        self.sha256_ok && self.client_resets == 0 && self.client_connections == self.sessions
    }
}

/// The median of what was measured, over the runs that were hit and finished.
pub fn median(rows: &[FailoverRow], of: fn(&FailoverRow) -> Option<f64>) -> Option<Estimate> {
    let mut values: Vec<f64> = rows.iter().filter(|row| row.is_measured()).filter_map(of).collect();
    stats::quantile(&mut values, 0.5)
}

/// All runs of one configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct FailoverReport {
    /// The configuration.
    pub config: FailoverConfig,
    /// The runs.
    pub rows: Vec<FailoverRow>,
}

impl FailoverReport {
    /// In how many runs the client did not get every byte right.
    pub fn failed(&self) -> usize {
        self.rows.iter().filter(|row| !row.sha256_ok).count()
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let config = &self.config;
        let mut text = format!(
            "{}, {}{}{}{}{}: {} bytes, deadline {}, poll {}\n",
            config.client.name(),
            config.failure.name(),
            match config.service {
                ServiceKind::Web => String::new(),
                ServiceKind::Pair => format!(" of a pair's {}", config.victim.name()),
            },
            config.then.map(|then| format!(", then {}", then.name())).unwrap_or_default(),
            match config.heirs {
                1 => String::new(),
                heirs => format!(", {heirs} nodes stand by"),
            } + if config.mirror { ", with a mirror" } else { "" },
            match config.remedy {
                Choice::Takeover => "",
                Choice::Restart => ", restarted in place",
                Choice::Reboot => ", rebooted",
                Choice::Policy => ", by policy",
            },
            config.bytes,
            config.deadline,
            config.poll,
        );
        let mut line = |name: &str, what: &str| {
            // Writing to a String can't fail.
            let _ = writeln!(text, "  {name:<18}{what}");
        };
        let count = |of: fn(&&FailoverRow) -> bool| self.rows.iter().filter(of).count();
        let (all, spared) = (self.rows.len(), count(|row| !row.hit && row.sha256_ok));
        let (finished, good) = (count(|row| row.is_measured()), count(|row| row.is_measured() && row.is_good()));
        let how = match finished - good {
            _ if finished == 0 => String::new(),
            0 => ": every byte right, no reset, no new connection".to_owned(),
            _ => format!(" with every byte right; {good} of them without a reset and a new connection"),
        };
        if all > spared {
            line("finished", &format!("{finished} of {} runs{how}", all - spared));
        }
        if spared > 0 {
            line("not hit", &format!("{spared} of {all} runs, which no median is of: the client had finished before"));
        }
        type Column = (&'static str, fn(&FailoverRow) -> Option<f64>);
        let columns: [Column; 9] = [
            ("detection", |row| row.detection_ms),
            ("claim", |row| row.claim_ms),
            ("fence", |row| row.fence_ms),
            ("extract", |row| row.extract_ms),
            ("reinstate", |row| row.reinstate_ms),
            ("first byte", |row| row.first_byte_ms),
            ("then detection", |row| row.then_detection_ms),
            ("then first byte", |row| row.then_first_byte_ms),
            ("outage", |row| row.outage_ms),
        ];
        for (name, of) in columns {
            let Some(median) = median(&self.rows, of) else { continue };
            let interval = match (median.low, median.high) {
                (Some(low), Some(high)) => format!(" (95%: {low:.2} to {high:.2})"),
                _ => String::new(),
            };
            line(name, &format!("{:.2} ms in the median{interval}", median.value));
        }
        if config.heirs > 1 {
            let moved = self.rows.iter().map(|row| row.moved_to.as_str()).collect::<Vec<_>>();
            line("sessions moved", &moved.join(", "));
        }
        let given_back: u64 = self.rows.iter().map(|row| row.given_back).sum();
        if given_back > 0 {
            line("given back", &format!("{given_back} sessions, to node A, whose service had gone on"));
        }
        let (lost, resets) =
            self.rows.iter().fold((0, 0), |(lost, resets), row| (lost + row.lost, resets + row.client_resets));
        if lost + resets > 0 {
            line("lost", &format!("{lost} sessions; the client counted {resets} resets"));
        }
        let mut troubles: Vec<&str> =
            self.rows.iter().map(|row| row.trouble.as_str()).filter(|t| !t.is_empty()).collect();
        troubles.sort_unstable();
        troubles.dedup();
        for trouble in troubles {
            line("trouble", trouble);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::failover::{ClientKind, FailoverFailure};

    fn row(hit: bool, sha256_ok: bool, outage: f64) -> FailoverRow {
        let trouble = if hit && sha256_ok { String::new() } else { "why".into() };
        let (sessions, client_connections) = (1, 1);
        let outage_ms = Some(outage);
        FailoverRow { hit, sha256_ok, outage_ms, trouble, sessions, client_connections, ..FailoverRow::default() }
    }

    fn report(rows: Vec<FailoverRow>) -> FailoverReport {
        let config = FailoverConfig::new(ClientKind::Curl, FailoverFailure::Sigstop, std::path::PathBuf::new());
        FailoverReport { config, rows }
    }

    #[test]
    fn medians_are_of_runs_that_were_hit_and_finished() {
        let rows =
            vec![row(true, true, 100.0), row(false, true, 1.0), row(true, false, 9000.0), row(true, true, 100.0)];
        let report = report(rows);
        assert_eq!(median(&report.rows, |row| row.outage_ms).map(|median| median.value), Some(100.0));
        assert_eq!(report.failed(), 1);
        let text = report.to_text();
        for line in
            ["2 of 3 runs: every byte right, no reset", "1 of 4 runs, which no median", "outage            100.00 ms"]
        {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn who_finished_over_another_connection_has_finished() {
        let mut other = row(true, true, 100.0);
        other.client_connections = 2;
        let text = report(vec![row(true, true, 100.0), other]).to_text();
        assert!(text.contains("2 of 2 runs with every byte right; 1 of them without a reset"), "{text}");
        let text = report(vec![row(true, false, 100.0)]).to_text();
        assert!(text.contains("0 of 1 runs\n") && !text.contains("every byte right"), "{text}");
        assert!(!report(vec![row(false, true, 1.0)]).to_text().contains("finished   "));
    }
}
