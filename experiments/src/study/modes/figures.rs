//! Figures of a study of modes, from its tables alone.

use crate::figures::{Axis, Figure, Heatmap, Panel, Point, Series};
use crate::results::Table;
use backdoor_core::Nanos;
use backdoor_core::progress_box::FailureLevel;

pub(super) fn all(name: &str, table: &Table, costs: &Table, deadline: Nanos) -> Option<Vec<Figure>> {
    // The first poll interval stands for all where a figure has no room for it.
    let (poll, rows) = table.groups("poll_ms").into_iter().next()?;
    Some(vec![trade_off(name, &poll, &rows)?, detected(name, &poll, &rows, deadline)?, overhead(name, costs)?])
}

/// What a mode is called in legends, and its style, the same in all figures.
fn series(mode: &str, points: impl IntoIterator<Item = Point>) -> Series {
    let (name, style) = match mode {
        "read" => ("Back-Door READ", 0),
        "pull" => ("TCP pull", 1),
        "push" => ("heartbeat push", 2),
        _ => ("local watchdog", 3),
    };
    Series::line(name, points).style(style).bars()
}

/// False positives against detection time: a row of panels for each level, a column for each load.
fn trade_off(name: &str, poll: &str, table: &Table) -> Option<Figure> {
    let loads = table.groups("load");
    let mut figure = Figure::new(name)
        .title("False positives against detection time, by way of watching")
        .caption(format!(
            "Each curve runs over the deadlines, from short (left) to long, with a poll every {poll} ms. Vertical: false \
             positives per entity and hour; horizontal: mean time from failure to verdict. Load: always-busy processes \
             beside the workload. Bars: 95% intervals. An open marker stands at the shortest deadline from which on none \
             was seen; its bar ends below what the rate may still be. The local watchdog detects no failure of the \
             operating system, so it has no curve there.",
        ))
        .columns(loads.len());
    for level in [FailureLevel::Os, FailureLevel::Application] {
        for (load, rows) in &loads {
            let x = Axis::log("detection time").seconds();
            let y = Axis::log("false positives").unit("1/h");
            let mut panel = Panel::new(x, y).title(format!("{} level, load {load}", level_name(level)));
            for (mode, rows) in rows.filter("level", level.name()).groups("mode") {
                panel = panel.series(series(&mode, trade_off_points(&rows)?));
            }
            figure = figure.panel(panel);
        }
    }
    Some(figure)
}

/// A mode's curve, up to the first deadline from which on no false positive was seen.
fn trade_off_points(rows: &Table) -> Option<Vec<Point>> {
    let detection = rows.numbers("detection_ms")?;
    let mistakes = rows.estimates("false_positives_per_hour")?;
    let last_seen = mistakes.iter().rposition(|rate| rate.is_some_and(|rate| rate.value > 0.0));
    let drawn = last_seen.map_or(1, |last| last + 2);
    Some(detection.iter().zip(mistakes).take(drawn).filter_map(|(x, y)| Some(Point::of((*x)? / 1e3, y?))).collect())
}

/// Share of the failures that were detected: a column for each mode, a row for each level and load.
fn detected(name: &str, poll: &str, table: &Table, deadline: Nanos) -> Option<Figure> {
    let table = table.filter("deadline_ms", &deadline.as_millis_f64().to_string());
    let mut map =
        Heatmap::new("way of watching", "failure at").columns(table.groups("mode").into_iter().map(|(m, _)| m));
    for level in FailureLevel::ALL {
        for (load, rows) in table.filter("level", level.name()).groups("load") {
            let cells = rows.numbers("recall")?;
            let cells = cells.iter().map(|cell| cell.map(|share| (share, format!("{:.0}%", share * 100.0))));
            map = map.row(format!("{}, load {load}", level_name(level)), cells);
        }
    }
    let caption = format!(
        "Share of the failures at each level that were noticed before they were over, with a deadline of {deadline} and a \
         poll every {poll} ms. Load: always-busy processes beside the workload. A watchdog stops with the operating \
         system it runs on.",
    );
    let figure = Figure::new(format!("{name}-detected")).title("Failures that were detected, by way of watching");
    Some(figure.caption(caption).panel(Panel::heatmap(map)))
}

fn level_name(level: FailureLevel) -> &'static str {
    match level {
        FailureLevel::Os => "OS",
        level => level.name(),
    }
}

/// What watching a busy node costs, over the poll interval: processor time and traffic, and what it adds to the time of
/// requests.
fn overhead(name: &str, costs: &Table) -> Option<Figure> {
    let (load, rows) = costs.groups("load").into_iter().last()?;
    let mut figure = Figure::new(format!("{name}-overhead"))
        .title(format!("What watching a node under load {load} costs"))
        .caption(format!(
            "Means with 95% intervals, with {load} always-busy processes beside the workload. Processor time: share of all \
             cores of the node. Traffic: frames on the wire, both ways; a watchdog's are its reports. Requests: mean and \
             99th percentile of the time from arrival to answer, minus those of the same requests when the node is watched \
             by READs, which take none of its processors' time; a longer wait of one request moves all that come after it, \
             so what a mode adds has the noise of a schedule.",
        ))
        .columns(2);
    let added = |what: &str| Axis::linear(format!("{what}, added")).unit("µs");
    let shown = [
        ("cpu_share", "processor time", Axis::log("share of the node").percent(), 1.0),
        ("bytes_per_s", "traffic", Axis::log("traffic").unit("B/s"), 1.0),
        ("added_request_ms", "requests, mean", added("mean"), 1e3),
        ("added_request_p99_ms", "requests, 99th percentile", added("p99"), 1e3),
    ];
    for (column, title, y, scale) in shown {
        let mut panel = Panel::new(Axis::log("poll interval").seconds(), y).title(title);
        for (mode, rows) in rows.groups("mode") {
            let polls = rows.numbers("poll_ms")?;
            let values = rows.estimates(column)?;
            let points = polls.iter().zip(values).filter_map(|(x, y)| Some(Point::of((*x)? / 1e3, y?.scaled(scale))));
            panel = panel.series(series(&mode, points.collect::<Vec<_>>()));
        }
        figure = figure.panel(panel);
    }
    Some(figure)
}
