//! The detectors that are compared, each as it is used where it comes from.
//!
//! Ours runs in the monitor, over READs, with all that the monitor knows. The pull score reads counters, too. The others
//! are told of heartbeats: all counters of the node in a message of its agent every poll interval, watched by
//! [timers](backdoor_sim::cluster::NodeObservation::by_timers). What is told of an entity beside its progress:
//!
//! | | idle | pending work | processors one by one |
//! |---|---|---|---|
//! | ours | yes | yes | yes |
//! | pull score | by its word | no | no |
//! | heartbeats | by its word, or not at all | no | no |
//!
//! Parameters are as published where that is all there is to choose (Bertier's gains, NFD-E's window); otherwise such that an entity that
//! advanced regularly every *p* is suspected after a silence of the study's deadline *d*: margins *d* − *p*; Φ with the law's
//! deviation or mean; Satzger's stretch *d*/*p*; the score's poll interval *d*/13.5, for it runs out half an interval before
//! the 14th poll that finds nothing.

use backdoor_core::Nanos;
use backdoor_core::detector::{BertierGains, Heartbeat, normal_tail_quantile};
use backdoor_core::progress_box::EntityRecord;
use backdoor_sim::cluster::mode::Mode;
use backdoor_sim::qos::setting::{AnyDetector, DetectorKind};

/// The threshold of φ-accrual, as its users have it.
const PHI: f64 = 8.0;
/// Share of the recent intervals that a silence must outlast, stretched; of those, a hundredth may be outages of before.
const SATZGER: f64 = 0.99;
/// Heartbeats that NFD-E estimates from, as published.
const NFD_E_WINDOW: usize = 32;

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contender {
    Ours,
    Deadline,
    NfdE,
    TwoWindows,
    Bertier,
    PhiNormal,
    PhiExponential,
    Satzger,
    PullScore,
    Watchdog,
}

impl Contender {
    pub(super) const ALL: [Contender; 10] = [
        Contender::Ours,
        Contender::Deadline,
        Contender::NfdE,
        Contender::TwoWindows,
        Contender::Bertier,
        Contender::PhiNormal,
        Contender::PhiExponential,
        Contender::Satzger,
        Contender::PullScore,
        Contender::Watchdog,
    ];

    /// In tables.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Contender::Ours => "duty",
            Contender::Deadline => "deadline",
            Contender::NfdE => "nfd-e",
            Contender::TwoWindows => "2w-fd",
            Contender::Bertier => "bertier",
            Contender::PhiNormal => "phi-accrual",
            Contender::PhiExponential => "phi-exponential",
            Contender::Satzger => "satzger",
            Contender::PullScore => "pull-score",
            Contender::Watchdog => "watchdog",
        }
    }

    /// In figures, where columns are narrow.
    pub(super) const fn short(self) -> &'static str {
        match self {
            Contender::Ours => "duty",
            Contender::Deadline => "timeout",
            Contender::NfdE => "NFD-E",
            Contender::TwoWindows => "2W-FD",
            Contender::Bertier => "Bertier",
            Contender::PhiNormal => "φ norm.",
            Contender::PhiExponential => "φ exp.",
            Contender::Satzger => "Satzger",
            Contender::PullScore => "score",
            Contender::Watchdog => "watch",
        }
    }

    /// How it learns of the node.
    pub(super) const fn mode(self) -> Mode {
        match self {
            Contender::Ours | Contender::PullScore => Mode::Read,
            Contender::Watchdog => Mode::Watchdog,
            _ => Mode::Push,
        }
    }

    /// Whether it expects heartbeat *i* at *i* periods after the first, which a session's requests don't keep.
    pub(super) const fn needs_period(self) -> bool {
        matches!(self, Contender::NfdE | Contender::TwoWindows | Contender::Bertier)
    }

    /// Its detector of an entity that advances every `period`; `None` for ours and the watchdog's, which run in a monitor.
    pub(super) fn detector(
        self,
        (deadline, window): (Nanos, usize),
        period: Nanos,
        record: &EntityRecord,
        now: Nanos,
    ) -> Option<AnyDetector> {
        let margin = (deadline - period).max(Nanos(1));
        let periods = deadline.0 as f64 / period.0.max(1) as f64;
        let kind = match self {
            Contender::Ours | Contender::Watchdog => return None,
            Contender::Deadline => DetectorKind::Deadline { timeout: record.deadline },
            Contender::NfdE => DetectorKind::NfdE { margin, window: window.min(NFD_E_WINDOW) },
            Contender::TwoWindows => DetectorKind::TwoWindows { margin, short: 1, long: window },
            Contender::Bertier => DetectorKind::Bertier { margin, window, gains: BertierGains::default() },
            Contender::PhiNormal => {
                let min_deviation = Nanos((margin.0 as f64 / normal_tail_quantile(PHI)) as u64);
                DetectorKind::PhiNormal { threshold: PHI, window, min_deviation }
            }
            Contender::PhiExponential => {
                let threshold = periods / std::f64::consts::LN_10;
                DetectorKind::PhiExponential { threshold, window }
            }
            Contender::Satzger => DetectorKind::Satzger { threshold: SATZGER, window, stretch: periods },
            Contender::PullScore => DetectorKind::PullScore,
        };
        let poll = Nanos((deadline.0 as f64 / 13.5) as u64);
        Some(kind.make(period, now, Nanos::ZERO, poll, Heartbeat { number: 0, at: now }))
    }
}
