//! Draws one figure of each kind, and a report with them, to look at: `cargo run --example figure_gallery [DIR]`.

use backdoor_experiments::figures::{Axis, Figure, Heatmap, Panel, Point, Series};
use backdoor_experiments::report::Report;
use backdoor_experiments::results::{Manifest, Table};
use backdoor_experiments::stats;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join("figure-gallery"), PathBuf::from);
    std::fs::create_dir_all(&dir)?;
    let manifest = Manifest::new(std::env::args(), 7, [("gallery", "# No config: the data are made up.\n")]);
    let mut report = Report::new("Gallery of figures", &manifest);
    for figure in [trade_off(), detection_times(), small_multiples(), scatter(), heatmap()] {
        std::fs::write(dir.join(format!("{}.svg", figure.name)), figure.to_svg())?;
        std::fs::write(dir.join(format!("{}.png", figure.name)), figure.to_png()?)?;
        let figure = figure.caption("Made-up data, to see what this kind of figure looks like.");
        report.section(figure.name.clone()).paragraph("One paragraph says what was asked.").figure(&figure);
    }
    report.section("table").table("Made-up mistakes per second, by mode and deadline.", &table());
    std::fs::write(dir.join("report.html"), report.to_html())?;
    println!("{}", dir.display());
    Ok(())
}

/// Estimates, some of them of nothing.
fn table() -> Table {
    let columns = ["mode", "deadline_s"].map(String::from).into_iter();
    let mut table = Table::new(columns.chain(Table::estimate_columns("mistakes_per_s")).chain(["polls".to_string()]));
    for (name, slowness) in modes() {
        for deadline in [0.01, 0.1] {
            let events = (2e4 * (-deadline / (0.004 * slowness)).exp()) as u64;
            table.row().text(name).number(deadline).estimate(stats::rate(events, 1e4)).integer(1_000_000);
        }
    }
    table
}

/// Reproducible stand-ins for samples.
fn uniform(index: u64) -> f64 {
    let mut x = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

fn modes() -> [(&'static str, f64); 4] {
    [("Back-Door READ", 1.0), ("TCP pull", 8.0), ("heartbeat push", 5.0), ("local watchdog", 2.5)]
}

/// Lines with error bars on two logarithmic axes, and zeros.
fn trade_off() -> Figure {
    let mut panel = Panel::new(Axis::log("deadline").seconds(), Axis::log("mistakes").unit("1/s"));
    for (name, slowness) in modes() {
        let points = (0..13).map(|i| {
            let deadline = 1e-3 * 10f64.powf(f64::from(i) / 6.0);
            let events = (2e4 * (-deadline / (0.004 * slowness)).exp()) as u64;
            let e = stats::rate(events, 1e4).expect("the exposure is positive");
            Point { x: deadline, y: e.value, low: e.low, high: e.high }
        });
        panel = panel.series(Series::line(name, points).bars());
    }
    Figure::new("trade-off").title("Mistakes against deadline").panel(panel.vertical_rule(0.02, "kernel tick × 2"))
}

fn samples(slowness: f64, n: u64) -> Vec<f64> {
    (0..n).map(|i| 0.01 - 0.004 * slowness * (1.0 - uniform(i + (slowness * 1e6) as u64)).ln()).collect()
}

/// Step lines.
fn detection_times() -> Figure {
    let x = Axis::linear("detection time").seconds().range(0.0, 0.1);
    let mut panel = Panel::new(x, Axis::linear("share of faults detected").percent());
    for (name, slowness) in modes() {
        panel = panel.series(Series::ecdf(name, &samples(slowness, 3000)));
    }
    Figure::new("detection-times").panel(panel)
}

/// Panels under one legend, with bands.
fn small_multiples() -> Figure {
    let mut figure = Figure::new("small-multiples").columns(3).title("Detection time under load, by fault");
    for (index, fault) in ["panic", "freeze", "livelock", "starvation", "NIC loss"].into_iter().enumerate() {
        let mut panel = Panel::new(Axis::linear("load").percent(), Axis::log("detection time").seconds()).title(fault);
        for (name, slowness) in modes() {
            let points = (0..=40).map(|i| {
                let load = f64::from(i) / 40.0;
                let y = 0.01 * (1.0 + index as f64) * (1.0 + slowness * load / (1.05 - load));
                Point::new(load, y).between(y * 0.85, y * (1.1 + 0.3 * load))
            });
            panel = panel.series(Series::line(name, points).band());
        }
        figure = figure.panel(panel.horizontal_rule(0.05, "deadline"));
    }
    figure
}

/// Points only.
fn scatter() -> Figure {
    let cloud = |slowness: f64| {
        let times = samples(slowness, 150);
        times.into_iter().enumerate().map(move |(i, t)| Point::new(t, 40.0 * slowness * (0.5 + uniform(i as u64))))
    };
    let panel = Panel::new(Axis::log("detection time").seconds(), Axis::linear("monitor's CPU").unit("µs/poll"));
    let panel = panel.series(Series::points("READ", cloud(1.0))).series(Series::points("pull", cloud(6.0)));
    Figure::new("scatter").panel(panel)
}

/// Cells.
fn heatmap() -> Figure {
    let periods = ["1 ms", "2 ms", "5 ms", "10 ms", "20 ms", "50 ms", "100 ms"];
    let mut map = Heatmap::new("poll period", "fault").columns(periods).log();
    for (row, fault) in ["panic", "freeze", "deadlock", "livelock", "partition"].into_iter().enumerate() {
        let cells = (0..periods.len()).map(|column| {
            let value = (row * column) as f64 * 0.37;
            (row != 4 || column < 5).then(|| (value, format!("{value:.1}")))
        });
        map = map.row(fault, cells);
    }
    Figure::new("heatmap").panel(Panel::heatmap(map).title("False positives per hour"))
}
