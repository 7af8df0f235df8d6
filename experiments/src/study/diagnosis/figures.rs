//! Figures of a study of diagnoses, from its tables alone.

use crate::figures::{Axis, Figure, Heatmap, Panel, Point, Series};
use crate::results::Table;
use crate::stats::Estimate;
use backdoor_sim::faults::Breakdown;

/// The ways of asking, in the order of their styles: what is known, when, and their name in legends.
const WAYS: [(bool, &str, &str); 4] = [
    (false, "first-sign", "at the first sign"),
    (true, "first-sign", "…, informed"),
    (false, "for-good", "for good"),
    (true, "for-good", "…, informed"),
];

pub(super) fn all(name: &str, table: &Table, confusion: &Table) -> Option<Vec<Figure>> {
    let mut figures = Vec::new();
    let (counters, channels) = (Part::new(table, confusion, false), Part::new(table, confusion, true));
    for (part, suffix) in [(counters, ""), (channels, "-channels")] {
        if !part.breakdowns.is_empty() {
            let name = format!("{name}{suffix}");
            figures.push(part.shares(&name)?);
            figures.push(part.times(&format!("{name}-time"))?);
            figures.push(part.confusions(&format!("{name}-confusion"))?);
        }
    }
    Some(figures)
}

/// The breakdowns of counters, or those of channels.
struct Part {
    of_channel: bool,
    breakdowns: Vec<Breakdown>,
    table: Table,
    confusion: Table,
}

impl Part {
    fn new(table: &Table, confusion: &Table, of_channel: bool) -> Self {
        let all: &[Breakdown] = if of_channel { &Breakdown::CHANNELS } else { &Breakdown::COUNTERS };
        let names = table.texts("breakdown").unwrap_or_default();
        let breakdowns = all.iter().copied().filter(|breakdown| names.contains(&breakdown.name())).collect();
        // Where a figure has no room for them, the first poll interval and the first loss stand for all.
        let first = |mut table: Table| {
            for column in ["poll_ms", "network_loss"] {
                table = table.groups(column).into_iter().next().map_or(table, |(_, rows)| rows);
            }
            table
        };
        Part { of_channel, breakdowns, table: first(table.clone()), confusion: first(confusion.clone()) }
    }

    fn known(&self, informed: bool) -> &'static str {
        match (informed, self.of_channel) {
            (false, _) => "nothing",
            (true, false) => "dependencies",
            (true, true) => "second-path",
        }
    }

    /// The name of a way in the legend.
    fn legend(&self, (informed, when, name): (bool, &str, &str)) -> String {
        match (informed, when, self.of_channel) {
            (false, ..) => name.to_owned(),
            (true, "first-sign", false) => "at the first sign, dependencies known".into(),
            (true, "first-sign", true) => "at the first sign, second path".into(),
            (true, _, false) => "for good, dependencies known".into(),
            (true, _, true) => "for good, second path".into(),
        }
    }

    fn x(&self) -> Axis {
        Axis::categories("what breaks down", self.breakdowns.iter().map(|breakdown| short(breakdown.name())))
    }

    /// A series for each way, side by side over each breakdown.
    fn series(&self, mut panel: Panel, rows: &Table, column: &str, scale: f64) -> Option<Panel> {
        for (place, way) in WAYS.into_iter().enumerate() {
            let (informed, when, _) = way;
            let rows = rows.filter("known", self.known(informed)).filter("when", when);
            let mut points = Vec::new();
            for (at, breakdown) in self.breakdowns.iter().enumerate() {
                let value = rows.filter("breakdown", breakdown.name()).estimates(column)?.into_iter().next().flatten();
                let x = at as f64 + (place as f64 - 1.5) * 0.18;
                points.extend(value.map(|value| point(x, value.scaled(scale))));
            }
            panel = panel.series(Series::points(self.legend(way), points).style(place).bars());
        }
        Some(panel)
    }

    fn shares(&self, name: &str) -> Option<Figure> {
        let mut figure = Figure::new(name).title(self.title("Named rightly: cause and root")).caption(format!(
            "Share of the failures of which the diagnosis named cause and root and nothing else, with 95% intervals \
             (Wilson). {} {}",
            self.ways(),
            self.abbreviations(),
        ));
        for (load, rows) in self.table.groups("load") {
            let y = Axis::linear("named rightly").percent().range(0.0, 1.0);
            let panel = Panel::new(self.x(), y).title(format!("load {load}"));
            figure = figure.panel(self.series(panel, &rows, "right_share", 1.0)?);
        }
        Some(figure)
    }

    fn times(&self, name: &str) -> Option<Figure> {
        let mut figure = Figure::new(name).title(self.title("Time to the diagnosis")).caption(format!(
            "Mean time from when the failure took effect to the answer, right or wrong, with 95% intervals. {} {}",
            self.ways(),
            self.abbreviations(),
        ));
        for (load, rows) in self.table.groups("load") {
            let panel =
                Panel::new(self.x(), Axis::linear("time to the answer").seconds()).title(format!("load {load}"));
            figure = figure.panel(self.series(panel, &rows, "answer_ms", 1e-3)?);
        }
        Some(figure)
    }

    /// What each breakdown was taken for by who knows more and waits, under the highest load.
    fn confusions(&self, name: &str) -> Option<Figure> {
        let (load, rows) = self.confusion.groups("load").into_iter().last()?;
        let rows = rows.filter("known", self.known(true)).filter("when", "for-good");
        let mut found: Vec<String> = Vec::new();
        let of = |breakdown: &Breakdown| rows.filter("breakdown", breakdown.name());
        for breakdown in &self.breakdowns {
            for (name, _) in of(breakdown).groups("found") {
                if !found.contains(&name) {
                    found.push(name);
                }
            }
        }
        let mut map =
            Heatmap::new("diagnosis", "what breaks down").columns(found.iter().map(|name| short(name).to_owned()));
        for breakdown in &self.breakdowns {
            let rows = of(breakdown);
            let first = |rows: &Table, column| rows.numbers(column)?.into_iter().next()?;
            let share = |name: &String| {
                let rows = rows.filter("found", name);
                let Some(share) = first(&rows, "share") else { return Some((0.0, String::new())) };
                let open = if first(&rows, "open").is_some_and(|open| open > 0.0) { " *" } else { "" };
                Some((share, format!("{:.0}%{open}", share * 100.0)))
            };
            map = map.row(long(*breakdown), found.iter().map(share));
        }
        let caption = format!(
            "What each breakdown was taken for under load {load}, by a diagnosis that is for good and {}. *: the \
             true root is left open, as a doubt beside what is named, or because the silence is said to be unexplained.",
            if self.of_channel { "has a second path" } else { "knows who waits for whom" },
        );
        Some(Figure::new(name).title(self.title("Taken for what")).caption(caption).panel(Panel::heatmap(map)))
    }

    fn title(&self, what: &str) -> String {
        if self.of_channel { format!("{what}, of a silent channel") } else { what.to_owned() }
    }

    fn ways(&self) -> &'static str {
        if self.of_channel {
            "Asked when the channel's failure is noticed, or when what the other channels say is for good; without a second \
             path to the node, or with one."
        } else {
            "Asked at the first suspicion, or when the answer is for good; without knowing who waits for whom, or knowing \
             it. Load: always-busy processes beside the workload."
        }
    }

    fn abbreviations(&self) -> &'static str {
        if self.of_channel {
            "A dead card or a cut link can't be told from a dead node without a second path: the diagnosis then says that \
             it can't, which counts as not named."
        } else {
            "First, middle, last: a process of the chain stops; idle: the last one when it has nothing to do; counted: the \
             same, while the kernel counts what waits for it; hang, slow, errors: the disk. An idle process and a disk \
             that answers with errors look well: they are left as a doubt, which counts as not named."
        }
    }
}

fn point(x: f64, y: Estimate) -> Point {
    Point::of(x, y.within(0.0, f64::INFINITY))
}

/// A name that fits under its place on an axis.
fn short(name: &str) -> &str {
    match name {
        "processor" => "cpu",
        "application" => "app",
        "first process" => "first",
        "middle process" => "middle",
        "last process" => "last",
        "last-idle" => "idle",
        "last-idle-counted" => "counted",
        "disk-hangs" => "hang",
        "disk-slow" => "slow",
        "disk-errors" => "errors",
        "own-link" => "own link",
        "system-and-card" => "system, card",
        "card or path" => "card, path",
        name => name,
    }
}

/// A name that stands beside a row.
fn long(breakdown: Breakdown) -> &'static str {
    match breakdown {
        Breakdown::First => "first process",
        Breakdown::Middle => "middle process",
        Breakdown::Last => "last process",
        Breakdown::LastIdle => "last process, idle",
        Breakdown::LastIdleCounted => "…, work counted",
        Breakdown::DiskHangs => "disk hangs",
        Breakdown::DiskSlow => "disk slow",
        Breakdown::DiskErrors => "disk errors",
        Breakdown::OwnLink => "own link",
        Breakdown::SystemAndCard => "system and card",
        other => other.name(),
    }
}
