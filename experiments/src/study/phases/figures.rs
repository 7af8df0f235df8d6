//! Figures of a study of phases, from its summary alone.

use crate::figures::{Axis, Figure, Panel, Point, Series};
use crate::results::Table;
use crate::stats::Estimate;

/// Columns of the phases, without what says how they were found, and what they are called.
const PHASES: [(&str, &str); 4] =
    [("claim_ms", "claim"), ("fence_ms", "fence"), ("extract_ms", "extract"), ("reinstate_ms", "reinstate")];
/// How they were found: what stands before the columns, and what it is called.
const KINDS: [(&str, &str); 2] = [("", "live"), ("simulated_", "simulated")];

/// A panel for each phase, over the sessions: curves for each size of state, live and simulated.
pub(super) fn by_sessions(name: &str, summary: &Table) -> Option<Figure> {
    let mut figure = Figure::new(name)
        .title("Phases of a takeover by number of sessions")
        .caption(
            "From the decision to every session's claim (claim), from there to the failed node's being cut off (fence), to \
             the last State Box read (extract), to the last session serving at the other node (reinstate): medians over \
             the runs, with 95% intervals. The simulation has as many bytes of state a session as were read live. Three \
             of its times come from such measurements on other machines: the fence, what the failed node's agent takes to \
             tell a socket's queues, and a session's reinstatement on two idle processors; the latter two with 100 \
             sessions and more. It reads over an RDMA network, and its taker needs no processor time for what it does \
             with a session. Live, taker, both nodes, clients and switch share the processors of one machine, and what is \
             read is its shared memory.",
        )
        .columns(2);
    let rows = summary.filter("compared_by", "sessions");
    for (column, title) in PHASES {
        let mut panel = Panel::new(Axis::log("sessions"), Axis::log("time").seconds()).title(title);
        for (index, (_, rows)) in rows.groups("state_size").into_iter().enumerate() {
            let size = size(&rows)?;
            for (offset, (before, kind)) in KINDS.into_iter().enumerate() {
                let mut series = Series::line(format!("{kind}, {size} of state"), []).style(2 * index + offset);
                let sessions = rows.numbers("sessions")?;
                for (x, y) in sessions.into_iter().zip(rows.estimates(&format!("{before}{column}"))?) {
                    series.points.extend(x.zip(y).map(|(x, y)| in_seconds(x, y)));
                }
                panel = panel.series(series.bars());
            }
        }
        figure = figure.panel(panel);
    }
    Some(figure)
}

/// A panel for what was found live and one for what was simulated, over the failures: points for each phase.
pub(super) fn by_level(name: &str, summary: &Table) -> Option<Figure> {
    let rows = summary.filter("compared_by", "levels");
    let (sessions, size) = (rows.texts("sessions")?.first()?.to_string(), size(&rows)?);
    let mut figure = Figure::new(name)
        .title("Phases of a takeover by failure level")
        .caption(format!(
            "The phases of a takeover of {sessions} sessions with {size} of state each, at each level of failure: medians \
             over the runs, with 95% intervals. Session: one is stuck; application: a deadlock; os: the process stands \
             still and the node's link is gone. All sessions of the node are carried on at every level, for its fence cuts \
             off all of them. Of a node whose link is gone, sockets can't be asked: live, a mirror of the traffic is; the \
             simulation has none.",
        ))
        .columns(2);
    for (before, kind) in KINDS {
        let x = Axis::categories("failure level", rows.texts("level")?);
        let mut panel = Panel::new(x, Axis::log("time").seconds()).title(kind);
        for (index, (column, phase)) in PHASES.into_iter().enumerate() {
            let mut series = Series::points(phase, []).style(index);
            for (place, y) in rows.estimates(&format!("{before}{column}"))?.into_iter().enumerate() {
                // Side by side: what takes equally long would hide each other.
                let x = place as f64 + (index as f64 - 1.5) * 0.12;
                series.points.extend(y.map(|y| in_seconds(x, y)));
            }
            panel = panel.series(series.bars());
        }
        figure = figure.panel(panel);
    }
    Some(figure)
}

/// The size of these sessions' states, rounded to a tenth of a KiB.
fn size(rows: &Table) -> Option<String> {
    let sizes: Vec<f64> = rows.numbers("state_bytes")?.into_iter().flatten().collect();
    let mean = sizes.iter().sum::<f64>() / sizes.len().max(1) as f64;
    Some(format!("{:.1} KiB", mean / 1024.0))
}

/// A time in milliseconds.
fn in_seconds(x: f64, milliseconds: Estimate) -> Point {
    let y = milliseconds.scaled(1e-3).within(0.0, f64::INFINITY);
    Point::of(x, Estimate { value: y.value.max(0.0), ..y })
}
