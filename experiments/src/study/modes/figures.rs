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

fn point(x: f64, y: crate::stats::Estimate) -> Point {
    let point = Point::new(x, y.value);
    match (y.low, y.high) {
        (Some(low), Some(high)) => point.between(low, high),
        _ => point,
    }
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
            let title = if level == FailureLevel::Os { "OS level" } else { "application level" };
            let mut panel = Panel::new(x, y).title(format!("{title}, load {load}"));
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
    Some(detection.iter().zip(mistakes).take(drawn).filter_map(|(x, y)| Some(point((*x)? / 1e3, y?))).collect())
}

/// Share of the failures that were detected, by mode and level, a panel for each load.
fn detected(name: &str, poll: &str, table: &Table, deadline: Nanos) -> Option<Figure> {
    let deadline_ms = deadline.as_millis_f64().to_string();
    let table = table.filter("deadline_ms", &deadline_ms);
    let loads = table.groups("load");
    let mut figure = Figure::new(format!("{name}-detected"))
        .title("Failures that were detected, by way of watching")
        .caption(format!(
            "Share of the failures at each level that were noticed before they were over, with a deadline of {deadline} \
             and a poll every {poll} ms. Load: always-busy processes beside the workload. A watchdog stops with the \
             operating system it runs on.",
        ))
        .columns(loads.len());
    for (load, rows) in loads {
        let levels = FailureLevel::ALL.map(|level| match level {
            FailureLevel::Os => "OS".to_owned(),
            FailureLevel::Application => "app".to_owned(),
            FailureLevel::Session => "session".to_owned(),
        });
        let mut map = Heatmap::new("level of the failure", "way of watching").columns(levels);
        for (mode, rows) in rows.groups("mode") {
            let cells = FailureLevel::ALL.map(|level| {
                let cell = rows.filter("level", level.name()).numbers("recall");
                let share = cell.and_then(|cells| cells.first().copied().flatten());
                share.map(|share| (share, format!("{:.0}%", share * 100.0)))
            });
            map = map.row(mode, cells);
        }
        figure = figure.panel(Panel::heatmap(map).title(format!("load {load}")));
    }
    Some(figure)
}

/// What watching costs, over the poll interval: processor time and traffic, and what it adds to the requests' time.
fn overhead(name: &str, costs: &Table) -> Option<Figure> {
    let loads = costs.groups("load");
    let (idle, busy) = (loads.first()?, loads.last()?);
    let mut figure = Figure::new(format!("{name}-overhead"))
        .title("What watching costs, by way of watching")
        .caption(format!(
            "Means with 95% intervals. Processor time: share of all cores of the node. Traffic: frames on the wire, both \
             ways; a watchdog's are its reports. Added time of requests: mean and 99th percentile of the time from arrival to answer, minus those of the same requests \
             when the node is watched by READs, which take none of its processors' time. Load {}, where nothing is said.",
            busy.0
        ))
        .columns(2);
    let shown = [
        ("cpu_share", "processor time".to_owned(), Axis::log("share of the node").percent(), &busy.1, 1.0),
        ("bytes_per_s", "traffic".to_owned(), Axis::log("traffic").unit("B/s"), &busy.1, 1.0),
        ("added_request_ms", format!("requests, load {}", idle.0), added("mean"), &idle.1, 1e3),
        ("added_request_ms", format!("requests, load {}", busy.0), added("mean"), &busy.1, 1e3),
        ("added_request_p99_ms", format!("slow requests, load {}", idle.0), added("p99"), &idle.1, 1e3),
        ("added_request_p99_ms", format!("slow requests, load {}", busy.0), added("p99"), &busy.1, 1e3),
    ];
    for (column, title, y, rows, scale) in shown {
        let mut panel = Panel::new(Axis::log("poll interval").seconds(), y).title(title);
        for (mode, rows) in rows.groups("mode") {
            let polls = rows.numbers("poll_ms")?;
            let values = rows.estimates(column)?;
            let points = polls.iter().zip(values).filter_map(|(x, y)| Some(point((*x)? / 1e3, y?.scaled(scale))));
            panel = panel.series(series(&mode, points.collect::<Vec<_>>()));
        }
        figure = figure.panel(panel);
    }
    Some(figure)
}

fn added(what: &str) -> Axis {
    Axis::linear(format!("{what}, added")).unit("µs")
}
