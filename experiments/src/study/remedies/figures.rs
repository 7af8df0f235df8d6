//! Figures of a study of remedies, from its tables alone.

use crate::figures::{Axis, Figure, Panel, Point, Series};
use crate::results::Table;
use crate::stats::Estimate;
use crate::study::recovery::in_seconds;

/// Outage by number of sessions, a curve for each remedy, a panel for each level.
pub(super) fn outages(name: &str, table: &Table) -> Option<Figure> {
    let mut figure = Figure::new(name)
        .title("Outage of a session, by what is done about the failure")
        .caption(
            "Mean time without service of a session that lost it, from the failure to its being able to serve again, with \
             95% intervals. Takeover and failover keep its state; restart and reboot lose it. All begin with the same \
             detection and diagnosis. Times to fence, to start a service and to boot are assumed, the shortest that are \
             plausible.",
        )
        .columns(3);
    for (level, rows) in table.groups("level") {
        let mut panel = Panel::new(Axis::log("sessions"), Axis::log("outage").seconds());
        panel = panel.title(format!("{level} level"));
        for (remedy, rows) in rows.groups("remedy") {
            let (label, style) = match remedy.as_str() {
                "takeover" => ("takeover with State Boxes", 0),
                "failover" => ("failover to a backup", 1),
                "restart" => ("restart, state lost", 2),
                _ => ("reboot, state lost", 3),
            };
            panel = panel.series(in_seconds(Series::line(label, []).style(style), &rows, "outage_ms")?.bars());
        }
        figure = figure.panel(panel);
    }
    Some(figure)
}

/// What is added to a request, by size of the state, a curve for each protection: its time, and the node's CPU time.
pub(super) fn costs(name: &str, table: &Table, update_bytes: u64) -> Option<Figure> {
    let mut figure = Figure::new(name)
        .title("What a request pays while nothing fails")
        .caption(
            "Added to the mean time of a request (above) and to the CPU time that its node spends on it (below), against the \
             same requests without protection, with 95% intervals, most of them narrower than the markers. The reply waits for a backup's acknowledgement: messages \
             both ways, and the run queues of both nodes. A State Box is stored into the node's own memory.",
        )
        .columns(2);
    for (column, label) in [("added_request_us", "added time"), ("added_cpu_us", "added CPU time")] {
        for (every, rows) in table.groups("commit_every") {
            let mut panel = Panel::new(Axis::log("state").unit("B"), Axis::log(label).seconds());
            let often = if every == "1" { "every request".to_owned() } else { format!("every {every}th request") };
            panel = panel.title(format!("saved with {often}"));
            for (protection, rows) in rows.groups("protection") {
                let (name, style) = match protection.as_str() {
                    "state-box" => ("State Box".to_owned(), 0),
                    "backup" => ("backup, whole state".to_owned(), 1),
                    _ => (format!("backup, {update_bytes} B of changes"), 2),
                };
                let mut points = Vec::new();
                for (x, y) in rows.numbers("state_bytes")?.into_iter().zip(rows.estimates(column)?) {
                    let (Some(x), Some(y)) = (x, y.map(|y| y.scaled(1e-6))) else { continue };
                    let y = y.within(0.0, f64::INFINITY);
                    points.push(Point::of(x, Estimate { value: y.value.max(0.0), ..y }));
                }
                panel = panel.series(Series::line(name, points).style(style).bars());
            }
            figure = figure.panel(panel);
        }
    }
    Some(figure)
}
