//! Figures of a study of detectors, from its tables alone.

use super::Config;
use crate::figures::{Axis, Figure, Heatmap, Panel, Point, Series};
use crate::results::Table;
use crate::stats::Estimate;
use backdoor_core::progress_box::FailureLevel;

pub(super) fn all(name: &str, config: &Config, table: &Table, least: &Table) -> Option<Vec<Figure>> {
    // The first poll interval stands for all where a figure has no room for it.
    let (poll, rows) = table.groups("poll_ms").into_iter().next()?;
    let mut figures = Vec::new();
    for (mode, rows) in rows.groups("mode") {
        figures.push(trade_off(name, config, &poll, &mode, &rows)?);
    }
    figures.push(compared(name, config, &poll, &rows)?);
    let (_, least) = least.groups("poll_ms").into_iter().next()?;
    for level in FailureLevel::ALL {
        figures.push(least_times(name, config, &poll, level, &least.filter("level", level.name()))?);
    }
    Some(figures)
}

/// What a detector is called in figures, and its style, the same in all of them.
fn look(detector: &str) -> (&'static str, usize) {
    match detector {
        "deadline" => ("deadline", 6),
        "duty" => ("Duty", 1),
        "nfd-e" => ("NFD-E", 0),
        "2w-fd" => ("2W-FD", 7),
        "bertier" => ("Bertier", 2),
        "phi-accrual" => ("φ norm.", 3),
        "phi-exponential" => ("φ exp.", 4),
        "satzger" => ("Satzger", 5),
        _ => ("Mu pull", 12),
    }
}

/// False positives against detection time in one mode: a row of panels for each load, a column for each level.
fn trade_off(name: &str, config: &Config, poll: &str, mode: &str, table: &Table) -> Option<Figure> {
    let shown =
        |level: &FailureLevel| fit(config, &table.filter("level", level.name())).is_none_or(|fit| !fit.is_empty());
    let mut levels = FailureLevel::ALL.to_vec();
    if levels.iter().any(shown) {
        levels.retain(shown);
    }
    let mut figure = Figure::new(format!("{name}-{mode}"))
        .title(format!("False positives against detection time, by detector: {}", mode_name(mode)))
        .caption(format!(
            "Each curve runs over the settings of one detector's knob, with a poll every {poll} ms. Vertical: false positives \
             per entity and hour; horizontal: mean time from failure to verdict. Load: always-busy processes beside the \
             workload. Bars: 95% intervals. An open marker: none was seen{}; a curve ends with the first setting from which \
             on none was. {} Nothing at the OS level for a watchdog, which stops with the operating system; no curve at the \
             session level for those that need a period.",
            upper_bound_of_none(config, table)?,
            left_out(config),
        ))
        .columns(levels.len());
    for (load, rows) in table.groups("load") {
        for level in &levels {
            let x = Axis::log("detection time").seconds();
            let y = Axis::log("false positives").unit("1/h");
            let mut panel = Panel::new(x, y).title(format!("{}, load {load}", level_name(*level)));
            for (detector, rows) in rows.filter("level", level.name()).groups("detector") {
                let (shown, style) = look(&detector);
                let points = trade_off_points(config, &rows)?;
                panel = panel.series(Series::line(shown, points).style(style).bars());
            }
            figure = figure.panel(panel);
        }
    }
    Some(figure)
}

/// What is said of settings with which no false positive was seen, instead of a bar for each: so many would hide the rest.
fn upper_bound_of_none(config: &Config, table: &Table) -> Option<String> {
    let mut most: Option<f64> = None;
    for (_, rows) in table.groups("load") {
        for (_, rows) in rows.groups("level") {
            for (_, rows) in rows.groups("detector") {
                let none = fit(config, &rows)?.into_iter().filter(|(_, rate, _)| rate.value == 0.0);
                most = none.filter_map(|(_, rate, _)| rate.high).chain(most).reduce(f64::max);
            }
        }
    }
    Some(
        most.map_or(String::new(), |most| {
            format!(", and without a bar: the interval ends at {most:.1} per hour or below")
        }),
    )
}

/// What is said of settings that are not shown.
fn left_out(config: &Config) -> String {
    let [time, failures] = [config.accuracy, config.recall].map(|share| percent(1.0 - share));
    format!(
        "Settings that suspect healthy entities for more than {time}% of the time, or miss more than {failures}% of the \
         failures, are left out: who always suspects errs seldom, and who overlooks what is hard to find is quick.",
    )
}

/// The mean detection time in milliseconds, and the rate of false positives, of each setting that is fit to be compared;
/// and whether false positives were seen with it or with a later one.
fn fit(config: &Config, rows: &Table) -> Option<Vec<(f64, Estimate, bool)>> {
    let (detection, accuracy) = (rows.numbers("detection_ms")?, rows.numbers("query_accuracy")?);
    let (detected, missed) = (rows.numbers("detected")?, rows.numbers("missed")?);
    let mistakes = rows.estimates("false_positives_per_hour")?;
    let last_seen = mistakes.iter().rposition(|rate| rate.is_some_and(|rate| rate.value > 0.0));
    let of = |index: usize| {
        let is_fit = config.is_fit(accuracy[index], detected[index]?, missed[index]?);
        let seen = last_seen.is_some_and(|last| index <= last);
        is_fit.then_some((detection[index]?, mistakes[index]?, seen))
    };
    Some((0..mistakes.len()).filter_map(of).collect())
}

/// A detector's curve, up to the first setting from which on no false positive was seen.
fn trade_off_points(config: &Config, rows: &Table) -> Option<Vec<Point>> {
    let settings = fit(config, rows)?;
    let drawn = settings.iter().take_while(|(_, _, seen)| *seen).count() + 1;
    let drawn = settings.into_iter().take(drawn);
    // The caption has the intervals of zeros.
    let without = |rate: Estimate| if rate.value == 0.0 { Estimate::exact(0.0) } else { rate };
    Some(drawn.map(|(time, rate, _)| Point::of(time / 1e3, without(rate))).collect())
}

/// Ways of watching with one detector, each with the setting that finds failures within the same time.
fn compared(name: &str, config: &Config, poll: &str, table: &Table) -> Option<Figure> {
    let (detector, time) = (&config.compared.detector, config.compared.detection_time);
    let table = table.filter("detector", detector);
    let loads: Vec<String> = table.groups("load").into_iter().map(|(load, _)| load).collect();
    let modes: Vec<String> = table.groups("mode").into_iter().map(|(mode, _)| mode).collect();
    let mut figure = Figure::new(format!("{name}-compared"))
        .title(format!("False positives by way of watching, failures found in {time} on average"))
        .caption(format!(
            "The detector is {}, for each way of watching and load with the most patient setting with which failures are \
             found in {time} on average; with a poll every {poll} ms. Vertical: false positives per entity and hour, with \
             95% intervals; an open marker: none seen. Load: always-busy processes beside the workload. {}",
            look(detector).0,
            left_out(config),
        ))
        .columns(3);
    for level in FailureLevel::ALL {
        let y = Axis::log("false positives").unit("1/h");
        let mut panel = Panel::new(Axis::categories("load", loads.clone()), y).title(level_name(level));
        for (place, mode) in modes.iter().enumerate() {
            let beside = (place as f64 - (modes.len() - 1) as f64 / 2.0) * 0.16;
            let mut points = Vec::new();
            for (index, load) in loads.iter().enumerate() {
                let rows = table.filter("level", level.name()).filter("mode", mode).filter("load", load);
                let chosen = most_patient(config, &rows, time.0.as_millis_f64())?;
                points.extend(chosen.map(|rate| Point::of(index as f64 + beside, rate)));
            }
            panel = panel.series(Series::points(mode_name(mode), points).style(place).bars());
        }
        figure = figure.panel(panel);
    }
    Some(figure)
}

/// The rate of false positives with the longest mean detection time up to `most_ms`.
fn most_patient(config: &Config, rows: &Table, most_ms: f64) -> Option<Option<Estimate>> {
    let settings = fit(config, rows)?.into_iter().filter(|(time, ..)| *time <= most_ms);
    Some(settings.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, rate, _)| rate))
}

/// How fast each detector can be at one level: a column for each, a row for each way of watching and load.
fn least_times(name: &str, config: &Config, poll: &str, level: FailureLevel, least: &Table) -> Option<Figure> {
    let columns = least.groups("detector").into_iter().map(|(detector, _)| look(&detector).0);
    let mut map = Heatmap::new("detector", "way of watching, load").columns(columns).log();
    for (mode, rows) in least.groups("mode") {
        for (load, rows) in rows.groups("load") {
            let times = rows.numbers("detection_ms")?;
            map = map.row(format!("{mode}, {load}"), times.iter().map(|t| t.map(|t| (t, format!("{t:.1}")))));
        }
    }
    let figure = Figure::new(format!("{name}-least-{level}"))
        .title(format!("Shortest mean detection time at the {} level, in ms", level_name(level)))
        .caption(format!(
            "Of all settings of a detector's knob, with a poll every {poll} ms, those with which the upper bound of the \
             95% interval allows for at most {} false positives per entity and hour; of these the fastest. A dash: there \
             is none among those tried. Load: always-busy processes beside the workload. {}",
            config.tolerance_per_hour,
            left_out(config),
        ));
    Some(figure.panel(Panel::heatmap(map)))
}

fn percent(share: f64) -> f64 {
    (share * 1e4).round() / 1e2
}

fn mode_name(mode: &str) -> &'static str {
    match mode {
        "read" => "Back-Door READs",
        "pull" => "TCP pull",
        "push" => "heartbeat push",
        _ => "local watchdog",
    }
}

fn level_name(level: FailureLevel) -> &'static str {
    match level {
        FailureLevel::Os => "OS",
        level => level.name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A setting's row: false positives per hour, and the mean detection time in milliseconds.
    fn row(table: &mut Table, level: FailureLevel, per_hour: Estimate, detection_ms: f64) {
        let row = table.row().text("read").text("0").text(level.name()).text("deadline").estimate(Some(per_hour));
        // Within the operating system, everybody is suspected all the time.
        let accuracy = if level == FailureLevel::Os { 0.1 } else { 1.0 };
        row.number(detection_ms).integer(10).integer(0).number(accuracy);
    }

    #[test]
    fn zeros_have_no_bars_but_their_bound_in_the_caption_and_levels_with_nothing_to_show_no_panels() {
        let text = include_str!("../../../configs/detectors.toml");
        let config = Config::parse("detectors.toml", text).unwrap();
        let rate = Table::estimate_columns("false_positives_per_hour");
        let [mode, load, level, detector] = ["mode", "load", "level", "detector"].map(String::from);
        let others = ["detection_ms", "detected", "missed", "query_accuracy"].map(String::from);
        let mut table = Table::new([mode, load, level, detector].into_iter().chain(rate).chain(others));
        let estimate = |value, low, high| Estimate { value, low: Some(low), high: Some(high) };
        for level in FailureLevel::ALL {
            row(&mut table, level, estimate(5.0, 2.0, 9.0), 2.0);
            row(&mut table, level, estimate(0.0, 0.0, 3.7), 4.0);
            row(&mut table, level, estimate(0.0, 0.0, 3.7), 8.0);
        }
        let figure = trade_off("d", &config, "1", "read", &table).unwrap();
        assert_eq!(figure.panels.len(), 2, "nothing is fit to be shown at the OS level");
        let expected = [Point::new(0.002, 5.0).between(2.0, 9.0), Point::new(0.004, 0.0)];
        assert!(figure.panels.iter().all(|panel| panel.series[0].points == expected), "{:?}", figure.panels);
        assert!(figure.caption.contains("the interval ends at 3.7 per hour or below"), "{}", figure.caption);
    }
}
