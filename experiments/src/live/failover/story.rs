//! What the takers told of a run, made one.

use std::collections::BTreeMap;

use backdoor_core::Nanos;

use super::FailoverFailure;
use super::report::FailoverRow;
use super::seen::Seen;
use crate::live::web::party;
use crate::live::web::rescued::Marks;
use crate::live::web::supervisor::Restarted;
use crate::live::web::taker::TakerReport;
use crate::say::without_numbers;

/// Most troubles that a row tells.
const MOST_TROUBLES: usize = 6;

/// What was told of one session.
#[derive(Debug, Default)]
struct Told {
    moved: Option<(u32, u32)>,
    left: bool,
    marks: Marks,
    outcome: String,
    state_bytes: u64,
    input_known: Option<bool>,
}

/// What the takers told.
#[derive(Debug, Default)]
pub(super) struct Story {
    suspected: Vec<Nanos>,
    decided: Option<Nanos>,
    cause: String,
    restarted: Option<Restarted>,
    /// When node A's service was there again.
    rebooted: Option<Nanos>,
    afterwards: Vec<String>,
    sessions: BTreeMap<u64, Told>,
    troubles: Vec<String>,
}

impl Story {
    /// Takes in what a taker says of a session, a suspicion or its decision.
    pub(super) fn add(&mut self, report: TakerReport) {
        match report {
            TakerReport::Suspected { at_ns } => self.suspected.push(Nanos(at_ns)),
            TakerReport::Decided { at_ns, cause } => {
                if self.decided.is_none_or(|decided| Nanos(at_ns) < decided) {
                    (self.decided, self.cause) = (Some(Nanos(at_ns)), cause);
                }
            }
            TakerReport::Session { session, moved, left, outcome, marks, state_bytes, input_known } => {
                let told = self.sessions.entry(session).or_default();
                if let (Some(one), Some(other)) = (told.moved, moved)
                    && one != other
                {
                    let trouble = format!(
                        "session {session} moved to {} by claim {} and to {} by claim {}",
                        party::name(one.0),
                        one.1,
                        party::name(other.0),
                        other.1
                    );
                    self.troubles.push(trouble);
                }
                // Whoever heard that it is served knows most.
                let knows_more =
                    (moved.is_some(), input_known.is_some()) > (told.moved.is_some(), told.input_known.is_some());
                if knows_more || told.outcome.is_empty() {
                    *told = Told { moved, left, marks, outcome, state_bytes, input_known };
                }
            }
            TakerReport::Restarted(restarted) => {
                self.troubles.extend(restarted.why.clone());
                if restarted.lost + restarted.withheld > 0 {
                    let Restarted { lost, withheld, .. } = restarted;
                    self.troubles.push(format!("{lost} sessions were lost and {withheld} left by the restart"));
                }
                // Two takers are told the same of one restart.
                self.restarted = Some(restarted);
            }
            TakerReport::Afterwards { actions } => {
                for action in actions {
                    if !self.afterwards.contains(&action) {
                        self.afterwards.push(action);
                    }
                }
            }
            TakerReport::NoRemedy => self.troubles.push(
                "no remedy is left: nobody can start the service again, take its sessions over, or reboot its node"
                    .into(),
            ),
            TakerReport::AgentGone => self.troubles.push("a taker found its node's agent gone".into()),
            TakerReport::Ready | TakerReport::Reboot | TakerReport::Halted { .. } | TakerReport::Done => {}
        }
    }

    /// Something went wrong.
    pub(super) fn trouble(&mut self, what: String) {
        self.troubles.push(what);
    }

    /// Node A has started anew, and serves since then.
    pub(super) fn rebooted(&mut self, at: Nanos) {
        self.rebooted = Some(at);
    }

    /// Whether it has.
    pub(super) fn has_rebooted(&self) -> bool {
        self.rebooted.is_some()
    }

    /// When it was decided what to do.
    pub(super) fn decided(&self) -> Option<Nanos> {
        self.decided
    }

    /// Sessions that were moved.
    pub(super) fn moved(&self) -> u64 {
        self.sessions.values().filter(|told| told.moved.is_some()).count() as u64
    }

    /// Those that were moved to this party.
    pub(super) fn moved_to(&self, party: u32) -> u64 {
        self.sessions.values().filter(|told| told.moved.is_some_and(|(to, _)| to == party)).count() as u64
    }

    /// Whether every session went on with all input; `None` if none is known to have gone on.
    pub(super) fn input_known(&self) -> Option<bool> {
        self.sessions.values().filter_map(|told| told.input_known).reduce(|all, one| all && one)
    }

    /// Fills in what the takers know, of a failure at `failed_at`.
    pub(super) fn tell(
        mut self,
        failure: FailoverFailure,
        failed_at: Option<Nanos>,
        seen: &Seen,
        row: &mut FailoverRow,
    ) {
        row.moved = self.moved();
        let restarted = self.restarted.take().filter(|restarted| restarted.readopted > 0);
        row.readopted = restarted.as_ref().map_or(0, |restarted| restarted.readopted);
        row.given_back = self.sessions.values().filter(|told| told.left).count() as u64;
        row.lost = seen.lost();
        let done = [(row.readopted > 0, "restart"), (row.moved > 0, "takeover"), (self.has_rebooted(), "reboot")];
        let done: Vec<&str> = done.into_iter().filter_map(|(is_done, name)| is_done.then_some(name)).collect();
        row.remedy = done.join(", ").into();
        row.afterwards = self.afterwards.join("; ");
        row.state_bytes = self.sessions.values().map(|told| told.state_bytes).sum();
        row.input_known = self.input_known();
        if let (Some(failed_at), true) = (failed_at, failure.is_one()) {
            let (after, before): (Vec<Nanos>, Vec<Nanos>) = self.suspected.iter().partition(|at| **at >= failed_at);
            row.detection_ms = after.into_iter().min().map(|at| ms(failed_at, at));
            let early = before.into_iter().min().map(|at| ms(at, failed_at));
            self.troubles
                .extend(early.map(|early| format!("a suspicion {early:.1} ms before the failure: a false positive")));
        }
        let moved: Vec<&Marks> =
            self.sessions.values().filter(|told| told.moved.is_some()).map(|told| &told.marks).collect();
        let last = |of: fn(&Marks) -> u64| moved.iter().map(|marks| of(marks)).max().unwrap_or(0);
        let [claimed, fenced, extracted, served] =
            [last(|m| m.claimed_ns), last(|m| m.fenced_ns), last(|m| m.extracted_ns), last(|m| m.served_ns)];
        let phase = |from: u64, to: u64| (from > 0 && to > 0).then(|| ms(Nanos(from), Nanos(to)));
        if failed_at.is_some() && row.hit && self.decided.is_none() {
            self.troubles.push("no taker has decided to take over".into());
        }
        if let Some(decided) = self.decided {
            row.claim_ms = phase(decided.0, claimed);
            row.fence_ms = phase(claimed, fenced);
            row.extract_ms = phase(fenced, extracted);
            row.reinstate_ms = phase(extracted, served);
            let mut spoke = moved.iter().map(|marks| marks.served_ns).filter(|at| *at > 0).min();
            if let (Some(restarted), 0) = (&restarted, row.moved) {
                row.reinstate_ms = phase(decided.0, restarted.readopted_ns);
                spoke = Some(restarted.readopted_ns);
            }
            if let (Some(rebooted), 0) = (self.rebooted, row.moved) {
                (row.reinstate_ms, spoke) = (phase(decided.0, rebooted.0), Some(rebooted.0));
            }
            row.first_byte_ms = spoke.and_then(|at| seen.first_after(Nanos(at))).map(|at| ms(decided, at));
        }
        for told in self.sessions.values() {
            if told.moved.is_none() && !told.left || told.outcome.contains(": ") {
                self.troubles.push(told.outcome.clone());
            }
        }
        row.cause = self.cause;
        let mut told: Vec<String> = Vec::new();
        self.troubles.iter().map(|trouble| without_numbers(trouble)).for_each(|trouble| {
            if !told.contains(&trouble) {
                told.push(trouble);
            }
        });
        let left = told.len().saturating_sub(MOST_TROUBLES);
        told.truncate(MOST_TROUBLES);
        if left > 0 {
            told.push(format!("and {left} more"));
        }
        row.trouble = told.join("; ");
    }
}

/// Milliseconds from one moment to another, which may be before it.
fn ms(from: Nanos, to: Nanos) -> f64 {
    (to.0 as f64 - from.0 as f64) / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(session: u64, moved: Option<(u32, u32)>, outcome: &str, input_known: Option<bool>) -> TakerReport {
        TakerReport::Session {
            session,
            moved,
            left: false,
            outcome: outcome.into(),
            marks: Marks::default(),
            state_bytes: 1,
            input_known,
        }
    }

    fn row(failure: FailoverFailure, failed_at: u64, reports: Vec<TakerReport>) -> FailoverRow {
        let (mut story, mut row) = (Story::default(), FailoverRow::default());
        let decided = TakerReport::Decided { at_ns: failed_at + 1, cause: String::new() };
        reports.into_iter().chain([decided]).for_each(|report| story.add(report));
        story.tell(failure, Some(Nanos(failed_at)), &Seen::default(), &mut row);
        row
    }

    #[test]
    fn a_suspicion_before_the_failure_is_a_false_positive_and_detects_nothing() {
        let suspected = |at_ns| TakerReport::Suspected { at_ns };
        let found = row(FailoverFailure::Sigstop, 5_000_000, vec![suspected(2_000_000), suspected(9_000_000)]);
        assert_eq!(found.detection_ms, Some(4.0));
        assert!(found.trouble.contains("3.0 ms before the failure"), "{}", found.trouble);
        let found = row(FailoverFailure::Wrong, 5_000_000, vec![suspected(2_000_000)]);
        assert_eq!((found.detection_ms, found.trouble.as_str()), (None, ""));
    }

    #[test]
    fn what_two_takers_say_of_a_session_is_one_story() {
        let loser = || session(1, Some((2, 1)), "moved to node B", None);
        let winner = || session(1, Some((2, 1)), "moved to node B", Some(false));
        let gave_up = || session(1, None, "not taken over in time", None);
        for reports in
            [vec![loser(), winner()], vec![winner(), loser()], vec![gave_up(), winner()], vec![winner(), gave_up()]]
        {
            let row = row(FailoverFailure::Sigstop, 0, reports);
            assert_eq!((row.moved, row.input_known, row.state_bytes, row.trouble.as_str()), (1, Some(false), 1, ""));
        }
        let other = session(1, Some((2, 4)), "moved to node B", Some(true));
        assert!(
            row(FailoverFailure::Sigstop, 0, vec![winner(), other])
                .trouble
                .contains("to node B by claim 1 and to node B by claim 4")
        );
    }

    #[test]
    fn what_went_wrong_with_any_session_is_told_once() {
        let refused = |number| session(number, None, "not taken over in time: no room", None);
        let found = row(
            FailoverFailure::Sigstop,
            0,
            vec![refused(1), refused(2), session(3, Some((2, 1)), "moved to node B: late", Some(true))],
        );
        assert_eq!(found.trouble, "not taken over in time: no room; moved to node B: late");
    }

    #[test]
    fn what_came_of_a_restart_is_told_and_what_was_tried_after_it() {
        let restarted = Restarted { readopted: 2, readopted_ns: 4_000_001, ..Restarted::default() };
        let found = row(FailoverFailure::Sigstop, 0, vec![TakerReport::Restarted(restarted.clone())]);
        assert_eq!((found.remedy.as_ref(), found.readopted, found.reinstate_ms), ("restart", 2, Some(4.0)));
        let why = Some("nobody is there".to_owned());
        let failed = TakerReport::Restarted(Restarted { why, ..Restarted::default() });
        let found =
            row(FailoverFailure::Sigstop, 0, vec![failed, session(1, Some((2, 1)), "moved to node B", Some(true))]);
        assert_eq!((found.remedy.as_ref(), found.readopted, found.moved), ("takeover", 0, 1));
        assert_eq!(found.trouble, "nobody is there");
        let partly = TakerReport::Restarted(Restarted { withheld: 1, ..restarted });
        let found =
            row(FailoverFailure::Sigstop, 0, vec![partly, session(1, Some((2, 1)), "moved to node B", Some(true))]);
        assert_eq!(found.remedy, "restart, takeover");
        assert_eq!(found.trouble, "0 sessions were lost and 1 left by the restart");
        let actions = vec!["reboot the node".to_owned()];
        let twice = [(); 2].map(|()| TakerReport::Afterwards { actions: actions.clone() });
        assert_eq!(row(FailoverFailure::Cut, 0, twice.into()).afterwards, "reboot the node");
    }
}
