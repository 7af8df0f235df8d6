//! The report: one self-contained HTML file, figures inline, no scripts, fit for screen and print.
//!
//! ```
//! use backdoor_experiments::report::Report;
//! use backdoor_experiments::results::{Manifest, Table};
//! use backdoor_experiments::stats;
//! let manifest = Manifest::new(["backdoor".into(), "reproduce".into()], 7, [("qos", "deadline = '20ms'")]);
//! let mut table = Table::new(std::iter::once("deadline_s".into()).chain(Table::estimate_columns("mistakes_per_s")));
//! table.row().number(0.02).estimate(stats::rate(0, 3600.0));
//! let mut report = Report::new("Back-Doors: results", &manifest);
//! report.section("Quality of service").paragraph("How often a detector is wrong.").table("Mistakes.", &table);
//! let html = report.to_html();
//! assert!(html.starts_with("<!DOCTYPE html>") && html.contains("0 [0, 0.00102]"));
//! ```

use crate::figures::Figure;
use crate::results::{Manifest, Table};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use std::collections::BTreeMap;

/// Rows of a table shown before it is folded away.
const OPEN_ROWS: usize = 20;

/// A report being put together.
#[derive(Clone, Debug)]
pub struct Report {
    title: String,
    manifest: Manifest,
    sections: Vec<Section>,
}

/// A part of the report: usually one experiment.
#[derive(Clone, Debug)]
pub struct Section {
    heading: String,
    parts: Vec<Markup>,
}

impl Report {
    /// A report about one run.
    pub fn new(title: impl Into<String>, manifest: &Manifest) -> Self {
        Report { title: title.into(), manifest: manifest.clone(), sections: Vec::new() }
    }

    /// Starts a section.
    pub fn section(&mut self, heading: impl Into<String>) -> &mut Section {
        self.sections.push(Section { heading: heading.into(), parts: Vec::new() });
        self.sections.last_mut().expect("just pushed")
    }

    /// The whole document.
    pub fn to_html(&self) -> String {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (self.title) }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    header {
                        h1 { (self.title) }
                        (self.about())
                        @if self.sections.len() > 1 {
                            nav aria-label="Contents" {
                                ol {
                                    @for (index, section) in self.sections.iter().enumerate() {
                                        li { a href=(format!("#s{}", index + 1)) { (section.heading) } }
                                    }
                                }
                            }
                        }
                    }
                    main {
                        @for (index, section) in self.sections.iter().enumerate() {
                            section id=(format!("s{}", index + 1)) {
                                h2 { (section.heading) }
                                @for part in &section.parts { (part) }
                            }
                        }
                    }
                    footer { (self.configs()) }
                }
            }
        };
        page.into_string()
    }

    /// What was run, on what.
    fn about(&self) -> Markup {
        let Manifest { command, version, seed, host, started_unix_s, finished_unix_s, resumed, .. } = &self.manifest;
        let cores = if host.cores == 1 { "core" } else { "cores" };
        let processor = if host.cpu.is_empty() { "unknown processor" } else { &host.cpu };
        let took = match finished_unix_s {
            Some(end) => format!("{}, took {}", utc(*started_unix_s), duration(end.saturating_sub(*started_unix_s))),
            None => format!("{}, not finished", utc(*started_unix_s)),
        };
        html! {
            dl.about {
                dt { "Command" } dd { code { (command.join(" ")) } }
                dt { "Seed" } dd { (seed) }
                dt { "Version" } dd { (version) }
                dt { "Machine" } dd { (processor) ", " (host.cores) " " (cores) ", " (host.kernel) }
                dt { "Started" } dd {
                    (took)
                    @if *resumed > 0 { ", resumed " (resumed) @if *resumed == 1 { " time" } @else { " times" } }
                }
            }
            p.note { "Intervals are 95% confidence intervals, written value [low, high]." }
        }
    }

    fn configs(&self) -> Markup {
        html! {
            h2 { "Configs" }
            @for experiment in &self.manifest.experiments {
                details {
                    summary { (experiment.name) " " span.note { "SHA-256 " (experiment.config_sha256) } }
                    pre { (experiment.config) }
                }
            }
        }
    }
}

impl Section {
    /// Adds a paragraph of plain text.
    pub fn paragraph(&mut self, text: impl AsRef<str>) -> &mut Self {
        self.parts.push(html! { p { (text.as_ref()) } });
        self
    }

    /// Adds a figure with its caption.
    pub fn figure(&mut self, figure: &Figure) -> &mut Self {
        self.parts.push(html! {
            figure {
                (PreEscaped(figure.to_svg()))
                @if !figure.caption.is_empty() { figcaption { (figure.caption) } }
            }
        });
        self
    }

    /// Adds a table: numbers to the right and shortened, intervals joined. A long one is folded.
    pub fn table(&mut self, caption: &str, table: &Table) -> &mut Self {
        let columns = columns(table);
        let rows = html! {
            div.scroll {
                table {
                    caption { (caption) }
                    thead { tr { @for column in &columns { th.number[column.numeric] scope="col" { (column.name) } } } }
                    tbody {
                        @for row in table.rows() {
                            tr { @for column in &columns { td.number[column.numeric] { (column.text(row)) } } }
                        }
                    }
                }
            }
        };
        let count = table.rows().len();
        self.parts.push(if count <= OPEN_ROWS {
            rows
        } else {
            html! { details { summary { (caption) " (" (count) " rows)" } (rows) } }
        });
        self
    }
}

/// A column of an HTML table; an estimate's three columns are one.
struct Column {
    name: String,
    numeric: bool,
    value: usize,
    bounds: Option<(usize, usize)>,
}

fn columns(table: &Table) -> Vec<Column> {
    let index: BTreeMap<&str, usize> = table.columns().iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
    let bounds = |name: &str| {
        let [_, low, high] = Table::estimate_columns(name);
        Some((*index.get(low.as_str())?, *index.get(high.as_str())?))
    };
    let is_bound = |name: &str| {
        let value = name.strip_suffix("_low").or(name.strip_suffix("_high"));
        value.is_some_and(|value| index.contains_key(value) && bounds(value).is_some())
    };
    let numeric = |value: usize| {
        let mut cells = table.rows().iter().filter_map(|row| row.get(value)).filter(|cell| !cell.is_empty()).peekable();
        cells.peek().is_some() && cells.all(|cell| cell.parse::<f64>().is_ok())
    };
    let names = table.columns().iter().enumerate().filter(|(_, name)| !is_bound(name));
    names
        .map(|(value, name)| Column {
            name: name.replace('_', " "),
            numeric: numeric(value),
            value,
            bounds: bounds(name),
        })
        .collect()
}

impl Column {
    fn text(&self, row: &[String]) -> String {
        let cell = |index: usize| row.get(index).map_or("", String::as_str);
        let short = |index| if self.numeric { shorten(cell(index)) } else { cell(index).to_string() };
        match self.bounds {
            Some((low, high)) if !cell(low).is_empty() || !cell(high).is_empty() => {
                let bound = |index, open: &str| if cell(index).is_empty() { open.to_string() } else { short(index) };
                format!("{} [{}, {}]", short(self.value), bound(low, "?"), bound(high, "?"))
            }
            _ => short(self.value),
        }
    }
}

/// Three significant digits are what a reader takes in; whole numbers stay whole.
fn shorten(text: &str) -> String {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number.fract() != 0.0 => {
            let rounded: f64 = format!("{number:.2e}").parse().unwrap_or(number);
            match rounded.abs() {
                size if !(1e-4..1e9).contains(&size) => format!("{rounded:e}"),
                size if size >= 1000.0 => format!("{number:.0}"),
                _ => rounded.to_string(),
            }
        }
        _ => text.to_string(),
    }
}

fn duration(seconds: u64) -> String {
    if seconds < 120 { format!("{seconds} s") } else { format!("{} min {} s", seconds / 60, seconds % 60) }
}

/// Date and time of day in UTC (Howard Hinnant's `civil_from_days`).
fn utc(unix_s: u64) -> String {
    let (days, time) = ((unix_s / 86_400) as i64 + 719_468, unix_s % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + i64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", time / 3600, time / 60 % 60)
}

const STYLE: &str = "
:root { --ink: #1a1a1a; --dim: #5c5c5c; --paper: #fff; --line: #d8d8d8; --soft: #f5f6f7; --link: #0059a8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --dim: #a3a3a3; --paper: #16181a; --line: #3a3d40; --soft: #1f2225; --link: #7db8ff; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.2rem 4rem; max-width: 52rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, 'DejaVu Sans', sans-serif; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line); }
a { color: var(--link); }
.about { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0; font-size: .92rem; }
dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
.note { color: var(--dim); font-size: .85rem; overflow-wrap: anywhere; }
nav ol { padding-left: 1.3rem; }
figure { margin: 1.4rem 0; }
/* Figures keep white paper in the dark: their colours are chosen for it. */
figure svg { display: block; width: 100%; height: auto; background: #fff; border-radius: 4px; }
figcaption { color: var(--dim); font-size: .9rem; margin-top: .5rem; }
.scroll { overflow-x: auto; margin: 1.2rem 0; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; min-width: 60%; }
caption { text-align: left; color: var(--dim); padding-bottom: .4rem; }
th, td { padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); text-align: left; }
th { font-weight: 600; vertical-align: bottom; }
td { white-space: nowrap; }
.number { text-align: right; }
details { margin: 1rem 0; } summary { cursor: pointer; }
pre { background: var(--soft); padding: .8rem; overflow-x: auto; font-size: .82rem; }
@media print {
  :root { --ink: #000; --dim: #444; --paper: #fff; --line: #bbb; --soft: #f5f5f5; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  figure, tr { break-inside: avoid; } h2 { break-after: avoid; }
}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_joined_and_text_is_escaped() {
        let mut table = Table::new(["mode", "rate", "rate_low", "rate_high", "shelf_low"]);
        table.row().text("<b>").number(0.123456).number(0.1).optional(None).number(5.0);
        table.row().text("c").optional(None).optional(None).optional(None).number(6.0);
        let manifest = Manifest::new(["a<b".to_string()], 1, [("e", "x = 1")]);
        let mut report = Report::new("T & T", &manifest);
        report.section("One").table("Rates", &table);
        let html = report.to_html();
        for part in ["0.123 [0.1, ?]", "&lt;b&gt;", "T &amp; T", "a&lt;b", "shelf low", "<td class=\"number\"></td>"] {
            assert!(html.contains(part), "{part} in {html}");
        }
        assert!(!html.contains("rate low") && !html.contains("<script"));
    }

    #[test]
    fn numbers_are_short() {
        let found = ["0.000012345", "1234567.8", "42", "0.1", "18446744073709551615", "-3.14159"].map(shorten);
        assert_eq!(found, ["1.23e-5", "1234568", "42", "0.1", "18446744073709551615", "-3.14"]);
    }

    #[test]
    fn dates_are_right() {
        assert_eq!(utc(0), "1970-01-01 00:00 UTC");
        assert_eq!(utc(951_827_696), "2000-02-29 12:34 UTC");
        assert_eq!(utc(4_102_444_799), "2099-12-31 23:59 UTC");
    }
}
