//! What the experiment found: a row per pair of turns, and a summary for people.

use std::fmt::Write;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use super::OverheadConfig;
use super::client::Turn;
use crate::stats::{self, Estimate};

/// A pair of turns: one without State Boxes, one with. The field names are the columns of the CSV.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, DocumentedFields)]
pub struct OverheadRow {
    /// Number of the pair, from 0.
    pub pair: u32,
    /// Which start of both services it was made with, from 0.
    #[serde(default)]
    pub start: u32,
    /// Bytes of each session's state.
    pub state_bytes: u64,
    /// Requests acted upon with one save.
    pub requests_per_save: u64,
    /// Clients at once.
    pub clients: u32,
    /// Requests per second without State Boxes.
    pub plain_per_s: f64,
    /// Requests per second with them.
    pub saved_per_s: f64,
    /// The second by the first.
    pub throughput_ratio: f64,
    /// Median latency without State Boxes, in microseconds.
    pub plain_p50_us: f64,
    /// Median latency with them, in microseconds.
    pub saved_p50_us: f64,
    /// 99th percentile of the latency without State Boxes, in microseconds.
    pub plain_p99_us: f64,
    /// 99th percentile of the latency with them, in microseconds.
    pub saved_p99_us: f64,
}

impl OverheadRow {
    pub(super) fn of(
        (start, pair): (u32, u32),
        config: &OverheadConfig,
        plain: (f64, Turn),
        saved: (f64, Turn),
    ) -> Self {
        let percentiles = |mut turn: Turn| {
            turn.latencies.sort_unstable();
            [0.5, 0.99].map(|q| {
                let at = ((turn.latencies.len() as f64 * q) as usize).min(turn.latencies.len().saturating_sub(1));
                turn.latencies.get(at).map_or(0.0, |latency| *latency as f64 / 1e3)
            })
        };
        let ([plain_p50_us, plain_p99_us], [saved_p50_us, saved_p99_us]) = (percentiles(plain.1), percentiles(saved.1));
        OverheadRow {
            pair,
            start,
            state_bytes: config.state_bytes as u64,
            requests_per_save: config.requests_per_save as u64,
            clients: config.clients,
            plain_per_s: plain.0,
            saved_per_s: saved.0,
            throughput_ratio: saved.0 / plain.0,
            plain_p50_us,
            saved_p50_us,
            plain_p99_us,
            saved_p99_us,
        }
    }
}

/// All pairs of one configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct OverheadReport {
    /// The configuration.
    pub config: OverheadConfig,
    /// The pairs.
    pub rows: Vec<OverheadRow>,
}

impl OverheadReport {
    /// Throughput with State Boxes by throughput without, over all pairs. Its interval takes starts as the sample, or pairs, if
    /// there was only one; `None` of fewer than two.
    pub fn throughput_ratio(&self) -> Option<Estimate> {
        self.ratio(|row| (row.saved_per_s, row.plain_per_s))
    }

    /// The same of the pairs' median latencies.
    pub fn latency_ratio(&self) -> Option<Estimate> {
        self.ratio(|row| (row.saved_p50_us, row.plain_p50_us))
    }

    fn ratio(&self, of: fn(&OverheadRow) -> (f64, f64)) -> Option<Estimate> {
        let add = |(a, b): (f64, f64), (c, d): (f64, f64)| (a + c, b + d);
        let starts = self.rows.chunk_by(|one, next| one.start == next.start);
        let of_starts: Vec<_> = starts.filter_map(|rows| rows.iter().map(of).reduce(add)).collect();
        match of_starts.len() {
            0 | 1 => stats::ratio(&self.rows.iter().map(of).collect::<Vec<_>>()),
            _ => stats::ratio(&of_starts),
        }
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let config = &self.config;
        let requests = match config.requests_per_save {
            1 => "request".to_owned(),
            several => format!("{several} requests"),
        };
        let placed = match config.pinned {
            true => "that each share a processor with their service",
            false => "wherever the scheduler puts them",
        };
        let mut text = format!(
            "{} bytes of state saved per {requests}, {} clients {placed}, {} pairs of turns of {}, {} starts\n",
            config.state_bytes,
            config.clients,
            self.rows.len(),
            config.turn,
            config.starts
        );
        let mut ratio = |name: &str, estimate: Option<Estimate>| {
            let Some(estimate) = estimate else { return };
            let interval = match (estimate.low, estimate.high) {
                (Some(low), Some(high)) => format!(" (95%: {low:.3} to {high:.3})"),
                _ => String::new(),
            };
            // Writing to a String can't fail.
            let _ = writeln!(text, "  {name:<18}{:.3} of that without State Boxes{interval}", estimate.value);
        };
        ratio("throughput", self.throughput_ratio());
        ratio("latency, median", self.latency_ratio());
        ratio("latency, p99", self.ratio(|row| (row.saved_p99_us, row.plain_p99_us)));
        let median = |of: fn(&OverheadRow) -> f64| {
            let mut values: Vec<f64> = self.rows.iter().map(of).collect();
            stats::quantile(&mut values, 0.5).map_or(0.0, |median| median.value)
        };
        let _ = writeln!(
            text,
            "  {:<18}{:.0} requests/s and {:.1} us without, {:.0} requests/s and {:.1} us with them",
            "medians",
            median(|row| row.plain_per_s),
            median(|row| row.plain_p50_us),
            median(|row| row.saved_per_s),
            median(|row| row.saved_p50_us),
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_the_sample_and_pairs_if_there_was_one() {
        let row = |start, saved_per_s| OverheadRow { start, saved_per_s, plain_per_s: 100.0, ..OverheadRow::default() };
        let width = |rows: Vec<OverheadRow>| {
            let config = OverheadConfig::new(std::path::PathBuf::new());
            let ratio = OverheadReport { config, rows }.throughput_ratio().unwrap();
            ratio.high.unwrap() - ratio.low.unwrap()
        };
        // Pairs of a start are alike: eight of two starts say as much as two do.
        let alike: Vec<_> = (0..8).map(|pair| row(pair / 4, if pair < 4 { 96.0 } else { 98.0 })).collect();
        assert!((width(alike.clone()) - width(vec![row(0, 96.0), row(1, 98.0)])).abs() < 1e-9);
        assert!(width(alike.into_iter().map(|pair| OverheadRow { start: 0, ..pair }).collect()) < 0.05);
    }
}
