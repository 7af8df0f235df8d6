//! The detectors of a study, each with one knob: what [the study](super) says of them.

use crate::config::{Axis, Span};
use backdoor_core::Nanos;
use backdoor_core::detector::{
    Bertier, BertierGains, DeadlineDetector, Duty, Heartbeat, MAX_WINDOW, NfdE, PhiExponential, PhiNormal, PullScore,
    Satzger, Tuned, TwoWindows, normal_tail_quantile,
};
use backdoor_core::progress_box::{EntityRecord, FailureLevel};
use backdoor_sim::cluster::{Alone, Ladder, NodeObservation, Observation, Scenario, Settings, Suspicions};
use backdoor_sim::metrics::{LevelQos, replayed};
use backdoor_sim::workload::Workload;
use serde::Deserialize;

/// The `[detectors]` table.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Detectors {
    deadline: Option<Deadline>,
    duty: Option<Deadline>,
    nfd_e: Option<ByPeriod>,
    #[serde(rename = "2w-fd")]
    two_windows: Option<ByPeriod>,
    bertier: Option<ByError>,
    phi_accrual: Option<Phi>,
    phi_exponential: Option<Phi>,
    satzger: Option<ByRank>,
    pull_score: Option<Polls>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Deadline {
    deadline: Axis<Span>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ByPeriod {
    margin: Axis<Span>,
    /// For 2W-FD, the long one; its short one is of one heartbeat.
    window: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ByError {
    phi: Axis<f64>,
    window: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Phi {
    threshold: Axis<f64>,
    window: usize,
    /// Least deviation of the normal law.
    #[serde(default)]
    min_deviation: Span,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ByRank {
    stretch: Axis<f64>,
    threshold: f64,
    window: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Polls {
    poll: Axis<Span>,
}

/// A detector and the settings of its knob, ascending.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// The detector, as configurations and tables call it.
    pub(super) name: &'static str,
    /// Its knob, as tables call it.
    pub(super) knob: &'static str,
    rule: Rule,
}

#[derive(Clone, Debug)]
enum Rule {
    Deadline { deadlines: Vec<Nanos> },
    Duty { deadlines: Vec<Nanos> },
    NfdE { margins: Vec<Nanos>, window: usize },
    TwoWindows { margins: Vec<Nanos>, window: usize },
    Bertier { phis: Vec<f64>, window: usize },
    PhiNormal { thresholds: Vec<f64>, deviations: Vec<f64>, window: usize, min_deviation: Nanos },
    PhiExponential { thresholds: Vec<f64>, window: usize },
    Satzger { stretches: Vec<f64>, threshold: f64, window: usize },
    PullScore { polls: Vec<Nanos> },
}

impl Detectors {
    /// Those that are asked for, in the order of the study's table.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        let spans = |axis: &Axis<Span>| axis.iter().map(|span| span.0).collect::<Vec<_>>();
        let mut all = Vec::new();
        let mut add = |name, knob, rule: Option<Rule>| all.extend(rule.map(|rule| Candidate { name, knob, rule }));
        let rule = self.deadline.as_ref().map(|d| Rule::Deadline { deadlines: spans(&d.deadline) });
        add("deadline", "deadline_ms", rule);
        add("duty", "deadline_ms", self.duty.as_ref().map(|d| Rule::Duty { deadlines: spans(&d.deadline) }));
        let rule = self.nfd_e.as_ref().map(|d| Rule::NfdE { margins: spans(&d.margin), window: d.window });
        add("nfd-e", "margin_ms", rule);
        let rule = self.two_windows.as_ref().map(|d| Rule::TwoWindows { margins: spans(&d.margin), window: d.window });
        add("2w-fd", "margin_ms", rule);
        let rule = self.bertier.as_ref().map(|d| Rule::Bertier { phis: d.phi.to_vec(), window: d.window });
        add("bertier", "phi", rule);
        let rule = self.phi_accrual.as_ref().map(|d| Rule::PhiNormal {
            thresholds: d.threshold.to_vec(),
            deviations: d.threshold.iter().map(|threshold| normal_tail_quantile(*threshold)).collect(),
            window: d.window,
            min_deviation: d.min_deviation.0,
        });
        add("phi-accrual", "threshold", rule);
        let exponential = |d: &Phi| Rule::PhiExponential { thresholds: d.threshold.to_vec(), window: d.window };
        add("phi-exponential", "threshold", self.phi_exponential.as_ref().map(exponential));
        let rule = self.satzger.as_ref().map(|d| Rule::Satzger {
            stretches: d.stretch.to_vec(),
            threshold: d.threshold,
            window: d.window,
        });
        add("satzger", "stretch", rule);
        let rule = self.pull_score.as_ref().map(|d| Rule::PullScore { polls: spans(&d.poll) });
        add("pull-score", "poll_ms", rule);
        all
    }

    /// What can't be, by key and reason.
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        for candidate in self.candidates() {
            candidate.check().map_err(|(key, reason)| (format!("detectors.{}.{key}", candidate.name), reason))?;
        }
        let deviation = self.phi_exponential.as_ref().map(|d| d.min_deviation.0);
        if deviation.is_some_and(|deviation| deviation > Nanos::ZERO) {
            let reason = "an exponential law has no deviation of its own".to_owned();
            return Err(("detectors.phi-exponential.min_deviation".to_owned(), reason));
        }
        Ok(())
    }
}

impl Candidate {
    /// Number of its settings.
    pub(super) fn rungs(&self) -> usize {
        self.settings().len()
    }

    /// The settings of the knob, in its unit.
    pub(super) fn settings(&self) -> Vec<f64> {
        let millis = |spans: &[Nanos]| spans.iter().map(|span| span.as_millis_f64()).collect();
        match &self.rule {
            Rule::Deadline { deadlines: spans }
            | Rule::Duty { deadlines: spans }
            | Rule::PullScore { polls: spans } => millis(spans),
            Rule::NfdE { margins, .. } | Rule::TwoWindows { margins, .. } => millis(margins),
            Rule::Bertier { phis: numbers, .. } | Rule::Satzger { stretches: numbers, .. } => numbers.clone(),
            Rule::PhiNormal { thresholds, .. } | Rule::PhiExponential { thresholds, .. } => thresholds.clone(),
        }
    }

    fn window(&self) -> usize {
        match self.rule {
            Rule::NfdE { window, .. }
            | Rule::TwoWindows { window, .. }
            | Rule::Bertier { window, .. }
            | Rule::PhiNormal { window, .. }
            | Rule::PhiExponential { window, .. }
            | Rule::Satzger { window, .. } => window,
            Rule::Deadline { .. } | Rule::Duty { .. } | Rule::PullScore { .. } => 1,
        }
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        let settings = self.settings();
        let key = self.knob.trim_end_matches("_ms");
        if !settings.iter().all(|setting| setting.is_finite() && *setting > 0.0) {
            return Err((key, "must be more than zero, and finite".into()));
        }
        if !settings.is_sorted_by(|less, more| less < more) {
            return Err((key, "must go upwards".into()));
        }
        if !(1..=MAX_WINDOW).contains(&self.window()) {
            return Err(("window", format!("must be from 1 to {MAX_WINDOW}")));
        }
        match &self.rule {
            Rule::PhiNormal { .. } | Rule::PhiExponential { .. } if settings.iter().any(|phi| *phi > 300.0) => {
                Err((key, "must be at most 300".into()))
            }
            Rule::Satzger { threshold, .. } if !(*threshold > 0.0 && *threshold <= 1.0) => {
                Err(("threshold", "must be more than 0 and at most 1".into()))
            }
            _ => Ok(()),
        }
    }

    /// Whether it makes sense at a level; see [the study](super).
    pub(super) fn watches(&self, level: FailureLevel) -> bool {
        let by_period = matches!(self.rule, Rule::NfdE { .. } | Rule::TwoWindows { .. } | Rule::Bertier { .. });
        level != FailureLevel::Session || !by_period
    }

    /// The quality of each setting on what was observed in a run of `scenario`, by level. Levels that it doesn't
    /// [watch](Self::watches) tell nothing.
    pub(super) fn qualities(&self, scenario: &Scenario, run: &Observation) -> Vec<[LevelQos; 3]> {
        let period = |record: &EntityRecord| period(&scenario.workload, record.level);
        let start = |now| Heartbeat { number: 0, at: now };
        match &self.rule {
            Rule::Deadline { deadlines } => {
                self.in_one_pass(run, deadlines, |_, now| DeadlineDetector::new(deadlines[0], now))
            }
            Rule::Duty { deadlines } => {
                let of_node = |node: &NodeObservation| -> Suspicions {
                    let by = |deadline: &Nanos| node.suspicions_by_sample(|_, now| Duty::new(*deadline, now));
                    deadlines.iter().map(by).collect()
                };
                replayed(run, &run.nodes.iter().map(of_node).collect::<Vec<_>>())
            }
            Rule::NfdE { margins, window } => {
                self.in_one_pass(run, margins, |record, now| NfdE::new(period(record), margins[0], *window, start(now)))
            }
            Rule::TwoWindows { margins, window } => self.in_one_pass(run, margins, |record, now| {
                TwoWindows::new(period(record), margins[0], (1, *window), start(now))
            }),
            Rule::Bertier { phis, window } => self.in_one_pass(run, phis, |record, now| {
                Bertier::new(period(record), Nanos::ZERO, *window, BertierGains::default(), start(now))
            }),
            Rule::PhiNormal { thresholds, deviations, window, min_deviation } => {
                self.in_one_pass(run, deviations, |record, now| {
                    PhiNormal::new(thresholds[0], *window, *min_deviation, period(record), now)
                })
            }
            Rule::PhiExponential { thresholds, window } => self.in_one_pass(run, thresholds, |record, now| {
                PhiExponential::new(thresholds[0], *window, period(record), now)
            }),
            Rule::Satzger { stretches, threshold, window } => self.in_one_pass(run, stretches, |record, now| {
                Satzger::new(*threshold, *window, stretches[0], period(record), now)
            }),
            Rule::PullScore { polls } => {
                let of = |poll: &Nanos| self.judged(run, 1, |_, now| Alone(PullScore::new(*poll, now)));
                polls.iter().flat_map(of).collect()
            }
        }
    }

    fn in_one_pass<D: Tuned>(
        &self,
        run: &Observation,
        knobs: &[D::Knob],
        make: impl Fn(&EntityRecord, Nanos) -> D,
    ) -> Vec<[LevelQos; 3]> {
        self.judged(run, knobs.len(), |record, now| Settings { detector: make(record, now), knobs })
    }

    fn judged<L: Ladder>(
        &self,
        run: &Observation,
        rungs: usize,
        make: impl Fn(&EntityRecord, Nanos) -> L,
    ) -> Vec<[LevelQos; 3]> {
        let ladder = |record: &EntityRecord, now| self.watches(record.level).then(|| make(record, now));
        let of_node = |node: &NodeObservation| node.suspicions(&node.evidence, rungs, ladder);
        let suspicions: Vec<Suspicions> = run.nodes.iter().map(of_node).collect();
        replayed(run, &suspicions)
    }
}

/// How often an entity of a level advances on a node with nothing else to do.
fn period(work: &Workload, level: FailureLevel) -> Nanos {
    match level {
        FailureLevel::Os => work.tick_interval,
        FailureLevel::Application => work.loop_interval + work.loop_jitter.mean() + work.loop_work,
        FailureLevel::Session => work.request_interval.mean(),
    }
}
