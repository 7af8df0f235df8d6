//! Figures and the report's section, from the tables in the results directory alone.

use super::SoftRoceError;
use super::tables::{self, Metric, Tables};
use crate::figures::{Axis, Figure, Panel, Point, Series};
use crate::live::detect::{DetectRow, FailureKind};
use crate::report::Report;
use crate::results::{ResultsDir, SoftRoce};
use crate::stats;
use std::fmt::Write;

const HEADING: &str = "Two virtual machines: real verbs over Soft-RoCE";

const ABOUT: &str = "The same monitor over real verbs, without RDMA hardware: two virtual machines, each with a Soft-RoCE \
    device, which Linux's kernel plays. One is watched and fails, by its processes, its kernel or its cable; in the \
    other one the monitor reads its memory.";

const HOW_TO_READ: &str = "The processors are emulated: compare with perftest in the same run, not with hardware. \
    Soft-RoCE lives in its guest's kernel and dies with it, where a hardware card may go on serving.";

/// How many failed bounds a sentence names.
const MOST_NAMED: usize = 5;

/// What the levels are called, in the order of the legend.
const LEVELS: [(&str, &str); 4] =
    [("application", "application"), ("session", "session"), ("os", "the whole node"), ("link", "only a link")];

/// Writes the figures and the section. Answers a line for the console, and whether all is well; `None` for results
/// without a word about Soft-RoCE.
///
/// # Errors
/// Tables that are missing or malformed.
pub fn present(dir: &ResultsDir, report: &mut Report) -> Result<Option<(String, bool)>, SoftRoceError> {
    let Some(outcome) = &dir.manifest().soft_roce else { return Ok(None) };
    let (tables, line) = match outcome {
        SoftRoce::Skipped { why, remedy } => (None, (format!("Soft-RoCE: skipped: {why}; do: {remedy}"), true)),
        SoftRoce::Broken { why } => (None, (format!("Soft-RoCE: failed: {why}"), false)),
        SoftRoce::Ran { cases } => {
            let tables = Tables::read(dir)?;
            let verdict = verdict(&tables, cases, "");
            (Some(tables), verdict)
        }
        SoftRoce::TakenFrom { dir: from } => {
            let tables = Tables::read(dir)?;
            let verdict = verdict(&tables, &[], &format!(", taken from {from}"));
            (Some(tables), verdict)
        }
    };
    let section = report.section(HEADING);
    section.paragraph(ABOUT).paragraph(&line.0);
    if let Some(tables) = tables {
        for figure in [detection(&tables.runs), speed(&tables.metrics)].into_iter().flatten() {
            figure.write(dir)?;
            section.figure(&figure);
        }
        section.table(&format!("{}.csv", tables::METRICS_TABLE), &tables.metrics_table()?);
        if !tables.runs.is_empty() {
            section.table(&format!("{}.csv", tables::RUNS_TABLE), &tables.runs_table()?);
        }
    }
    Ok(Some(line))
}

fn verdict(tables: &Tables, expected: &[String], taken: &str) -> (String, bool) {
    let mut cases: Vec<&str> = tables.metrics.iter().map(|metric| metric.case.as_str()).collect();
    cases.dedup();
    let failures = tables.failures(expected);
    if failures.is_empty() {
        let plural = if cases.len() == 1 { "" } else { "s" };
        return (format!("Soft-RoCE: {} case{plural} held{taken}: {}", cases.len(), cases.join(", ")), true);
    }
    let more = failures.len().saturating_sub(MOST_NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let named = failures[..failures.len().min(MOST_NAMED)].join("; ");
    (format!("Soft-RoCE: failed{taken}: {named}{more}"), false)
}

/// Detection times: a row for each kind of failure, a point for each run.
fn detection(runs: &[DetectRow]) -> Option<Figure> {
    let kinds: Vec<FailureKind> = FailureKind::ALL
        .into_iter()
        .filter(|kind| *kind != FailureKind::None && runs.iter().any(|run| run.failure == kind.name()))
        .collect();
    if kinds.is_empty() {
        return None;
    }
    let of = |kind: FailureKind| runs.iter().filter(move |run| run.failure == kind.name());
    // The first one on top.
    let row = |index: usize| (kinds.len() - 1 - index) as f64;
    let names: Vec<String> = kinds.iter().rev().map(|kind| kind.name().to_owned()).collect();
    let mut panel = Panel::new(Axis::linear("detection time").seconds(), Axis::categories("failure", names));
    let (mut medians, mut intervals, mut counts) = (Vec::new(), Vec::new(), Vec::new());
    let mut points = LEVELS.map(|_| Vec::new());
    for (index, kind) in kinds.iter().enumerate() {
        let mut seconds: Vec<f64> = of(*kind).filter_map(|run| run.detection_ms).map(|ms| ms / 1e3).collect();
        let level = LEVELS.iter().position(|(level, _)| *level == kind.level()).unwrap_or(0);
        let spread = |n: usize| if seconds.len() < 2 { 0.0 } else { n as f64 / (seconds.len() - 1) as f64 - 0.5 };
        points[level]
            .extend(seconds.iter().enumerate().map(|(n, seconds)| Point::new(*seconds, row(index) + 0.3 * spread(n))));
        counts.push(match (seconds.len(), of(*kind).count()) {
            (detected, runs) if detected == runs => format!("{} {runs}", kind.name()),
            (detected, runs) => format!("{} {runs}, of which {detected} detected", kind.name()),
        });
        if let Some((value, low, high)) =
            stats::quantile(&mut seconds, 0.5).and_then(|m| Some((m.value, m.low?, m.high?)))
        {
            let at = row(index) + 0.3;
            medians.push(Point::new(value, at));
            intervals.extend([Point::new(low, at), Point::new(high, at), Point::new(f64::NAN, at)]);
        }
    }
    for (style, ((_, name), points)) in LEVELS.iter().zip(points).enumerate().filter(|(_, (_, of))| !of.is_empty()) {
        panel = panel.series(Series::points(*name, points).style(style));
    }
    let mut caption = String::from(
        "From the moment of failure to the suspicion that lasted, between two virtual machines, over verbs. Every point \
         is a run that was detected; runs: ",
    );
    let _ = write!(caption, "{}. ", counts.join(", "));
    if medians.is_empty() {
        caption.push_str("These are too few for an interval of the median. ");
    } else {
        panel = panel.series(Series::steps("median, 95% interval", intervals).style(6));
        panel = panel.series(Series::points("", medians).style(6));
    }
    let mut deadlines: Vec<f64> = runs.iter().filter(|run| run.failure != "none").map(|run| run.deadline_ms).collect();
    deadlines.sort_by(f64::total_cmp);
    deadlines.dedup();
    for deadline in deadlines {
        panel = panel.vertical_rule(deadline / 1e3, format!("deadline {deadline} ms"));
    }
    caption.push_str(
        "A deadline counts from the last progress that a READ has seen, which may lie before the failure. Where no READ \
         is answered any more, it is the network card that gives up, after a time of its own. ",
    );
    if kinds.contains(&FailureKind::Command) {
        caption.push_str("The command stops the whole virtual machine. ");
    }
    caption.push_str(HOW_TO_READ);
    let title = "Detection times between two virtual machines, over verbs";
    Some(Figure::new("soft-roce-detection").title(title).caption(caption).panel(panel))
}

/// READ latency against perftest's, by size.
fn speed(metrics: &[Metric]) -> Option<Figure> {
    let mut sizes: Vec<(u64, &Metric)> = metrics
        .iter()
        .filter_map(|metric| {
            let bytes = metric.metric.strip_prefix("read_")?.strip_suffix("B_ratio")?.parse().ok()?;
            Some((bytes, metric)).filter(|_| metric.number().is_some())
        })
        .collect();
    sizes.sort_by_key(|(bytes, _)| *bytes);
    sizes.truncate(12);
    if sizes.is_empty() {
        return None;
    }
    let x = Axis::categories("bytes of a READ", sizes.iter().map(|(bytes, _)| size(*bytes)));
    let mut panel = Panel::new(x, Axis::linear("latency, ours / perftest's")).horizontal_rule(1.0, "equal");
    let mut bounds: Vec<&str> = sizes.iter().map(|(_, metric)| metric.bound.as_str()).collect();
    bounds.sort_unstable();
    bounds.dedup();
    for bound in bounds {
        if let Some(limit) = bound.strip_prefix("<=").and_then(|limit| limit.parse().ok()) {
            panel = panel.horizontal_rule(limit, format!("bound {limit}"));
        }
    }
    let ratios = sizes.iter().enumerate().filter_map(|(at, (_, metric))| Some(Point::new(at as f64, metric.number()?)));
    panel = panel.series(Series::points("ratio of medians", ratios));
    let bounded: Vec<String> =
        sizes.iter().filter(|(_, m)| !m.bound.is_empty()).map(|(bytes, _)| size(*bytes)).collect();
    let bounded = if bounded.is_empty() { "no size".to_owned() } else { bounded.join(", ") };
    let caption = format!(
        "Latency of a READ by this project's transport, divided by that of perftest's ib_read_lat: medians over several \
         rounds, in which the two take turns within one guest. One run, so there is no interval; a bound holds for \
         {bounded}. {HOW_TO_READ}"
    );
    let title = "READ latency against perftest's in the same guest";
    Some(Figure::new("soft-roce-speed").title(title).caption(caption).panel(panel))
}

fn size(bytes: u64) -> String {
    if bytes >= 1024 && bytes.is_multiple_of(1024) { format!("{} KiB", bytes / 1024) } else { format!("{bytes} B") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(failure: FailureKind, detection_ms: Option<f64>) -> DetectRow {
        DetectRow {
            failure: failure.name().into(),
            level: failure.level().into(),
            deadline_ms: 200.0,
            detected: detection_ms.is_some(),
            detection_ms,
            ..DetectRow::default()
        }
    }

    #[test]
    fn an_interval_is_drawn_only_where_there_is_one() {
        let two = [run(FailureKind::Sigstop, Some(207.0)), run(FailureKind::LinkDown, None)];
        let figure = detection(&two).unwrap();
        assert_eq!(figure.panels[0].series.len(), 1);
        assert!(figure.caption.contains("runs: sigstop 1, link-down 1, of which 0 detected. These are too few"));
        let many: Vec<DetectRow> = (0..8).map(|n| run(FailureKind::Sigstop, Some(200.0 + f64::from(n)))).collect();
        let figure = detection(&many).unwrap();
        let interval = &figure.panels[0].series[1];
        assert_eq!((interval.name.as_str(), interval.points[0].x), ("median, 95% interval", 0.2));
        assert!(detection(&[run(FailureKind::None, None)]).is_none());
    }

    #[test]
    fn ratios_stand_by_size() {
        let metric = |name: &str, value: &str, bound: &str| Metric {
            metric: name.into(),
            value: value.into(),
            bound: bound.into(),
            ..Metric::default()
        };
        let figure = speed(&[
            metric("read_65536B_ratio", "0.9", "<=1.15"),
            metric("read_8B_ratio", "1.1", "<=1.15"),
            metric("read_8B_time_ratio", "0.6", "<=1.15"),
            metric("read_8B", "42", ""),
        ]);
        let panel = &figure.unwrap().panels[0];
        assert_eq!(panel.x.categories, ["8 B", "64 KiB"]);
        assert_eq!(panel.series[0].points, [Point::new(0.0, 1.1), Point::new(1.0, 0.9)]);
        assert_eq!(panel.rules.iter().map(|rule| rule.at).collect::<Vec<_>>(), [1.0, 1.15]);
        assert!(speed(&[]).is_none());
    }

    #[test]
    fn many_failures_are_counted_not_named() {
        let metric =
            |n: usize| Metric { case: "a".into(), metric: format!("m{n}"), ok: "no".into(), ..Metric::default() };
        let tables = Tables { metrics: (0..7).map(metric).collect(), runs: Vec::new() };
        let (line, good) = verdict(&tables, &["a".into()], "");
        assert!(
            !good && line.starts_with("Soft-RoCE: failed: a: m0 is ''; ") && line.ends_with("; and 2 more"),
            "{line}"
        );
    }
}
