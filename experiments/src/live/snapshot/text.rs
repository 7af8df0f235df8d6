//! A snapshot for people: hooks, gauges, and the entities as a tree.

use std::collections::BTreeMap;
use std::fmt::Write;

use backdoor_core::Nanos;

use super::{EntityView, GaugeView, Snapshot, StateBoxSummary};

/// Deeper levels are drawn at this one: parents are what the node says, and may be a chain of any length.
const DEEPEST: usize = 6;
/// Columns of the tree.
const NAME: usize = 40;
const STATE: usize = 10;

/// One line of the tree.
struct Branch<'a> {
    view: &'a EntityView,
    /// For each level above the last: whether the line of its parent goes on below. At the last: whether it is itself
    /// followed by a sibling.
    lines: Vec<bool>,
}

impl Snapshot {
    /// Several lines, with a line break at the end.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = writeln!(
            text,
            "node at {}\n  incarnation {}, {} of {} places taken, directory version {}",
            self.node,
            self.incarnation,
            self.entities.len(),
            self.capacity,
            self.directory_version
        );
        let _ = writeln!(
            text,
            "\nhooks\n  {:>3}  {:<11} {:<7} {:>6} {:>10}  entity",
            "id", "purpose", "rights", "region", "words"
        );
        for hook in &self.hooks {
            let entity = hook.entity.map_or("the node".into(), |slot| format!("slot {slot}"));
            let guard = if hook.guarded { ", guarded" } else { "" };
            let _ = writeln!(
                text,
                "  {:>3}  {:<11} {:<7} {:>6} {:>10}  {entity}{guard}",
                hook.id, hook.purpose, hook.rights, hook.region, hook.words
            );
        }
        text += "\ngauges\n";
        for gauge in &self.gauges {
            let (name, value) = self.gauge(gauge);
            let _ = writeln!(text, "  {name:<24} {value:>14}");
        }
        let _ = writeln!(
            text,
            "\n{:<NAME$} {:<STATE$} {:>14} {:>9} {:>8}  State Box",
            "entities", "state", "count", "deadline", "waiting"
        );
        for branch in self.tree() {
            text += &branch.line();
            text.push('\n');
        }
        if !self.problems.is_empty() {
            text += "\nunreadable\n";
            for problem in &self.problems {
                let _ = writeln!(text, "  {problem}");
            }
        }
        text
    }

    /// Name and value in units for people.
    fn gauge(&self, gauge: &GaugeView) -> (String, String) {
        let value = gauge.value;
        if let Some(name) = gauge.name.strip_suffix("_bytes") {
            return (name.into(), format!("{:.2} GiB", value as f64 / f64::from(1 << 30)));
        }
        if let Some(name) = gauge.name.strip_suffix("_milli") {
            return (name.into(), format!("{:.2}", value as f64 / 1e3));
        }
        match gauge.name {
            "updated_ns" => {
                let age = |now: u64| format!("{:.0} ms ago", (Nanos(now) - Nanos(value)).as_millis_f64());
                let elsewhere = || format!("at {:.1} s of the node's clock", value as f64 / 1e9);
                ("updated".into(), self.at_ns.map_or_else(elsewhere, age))
            }
            name => (name.into(), value.to_string()),
        }
    }

    /// Every entity once, whatever graph their parents form.
    fn tree(&self) -> Vec<Branch<'_>> {
        let by_slot: BTreeMap<u32, &EntityView> = self.entities.iter().map(|view| (view.entity.slot, view)).collect();
        let parent_of = |view: &EntityView| view.parent.filter(|p| by_slot.contains_key(p) && *p != view.entity.slot);
        let mut children: BTreeMap<Option<u32>, Vec<&EntityView>> = BTreeMap::new();
        for view in &self.entities {
            children.entry(parent_of(view)).or_default().push(view);
        }
        let mut tree = Vec::new();
        // Depth first without recursion; taking the children out sees to it that nobody is visited twice.
        let mut open: Vec<(&EntityView, Vec<bool>)> = Vec::new();
        open.extend(roots(children.remove(&None).unwrap_or_default()));
        loop {
            while let Some((view, lines)) = open.pop() {
                let below = children.remove(&Some(view.entity.slot)).unwrap_or_default();
                let last = below.len();
                for (index, child) in below.into_iter().enumerate().rev() {
                    let mut child_lines = lines.clone();
                    child_lines.truncate(DEEPEST);
                    child_lines.push(index + 1 < last);
                    open.push((child, child_lines));
                }
                tree.push(Branch { view, lines });
            }
            // Whoever is left runs in itself, by way of others: shown as if without parent.
            let Some((_, circle)) = children.pop_first() else { return tree };
            open.extend(roots(circle));
        }
    }
}

/// To be taken from the end, so the first comes last.
fn roots(views: Vec<&EntityView>) -> Vec<(&EntityView, Vec<bool>)> {
    views.into_iter().rev().map(|view| (view, Vec::new())).collect()
}

impl Branch<'_> {
    fn line(&self) -> String {
        let EntityView { entity, count, pending, state_box, depends_on, .. } = self.view;
        let mut name = String::new();
        if let Some((last, above)) = self.lines.split_last() {
            for goes_on in above {
                name += if *goes_on { "│  " } else { "   " };
            }
            name += if *last { "├─ " } else { "└─ " };
        }
        name += &entity.name;
        if entity.level == "application" {
            name += &format!(" (process {})", entity.process);
        }
        let mut line = format!(
            "{name:<NAME$} {:<STATE$} {count:>14} {:>9} {:>8}  {}",
            self.view.state_text(),
            Nanos(entity.deadline_ns).to_string(),
            pending.map_or("-".into(), |pending| pending.to_string()),
            state_box.as_ref().map(StateBoxSummary::to_text).unwrap_or_default()
        );
        if !depends_on.is_empty() {
            let slots: Vec<String> = depends_on.iter().map(u32::to_string).collect();
            line += &format!("  waits for slot {}", slots.join(", "));
        }
        line.trim_end().to_string()
    }
}

impl EntityView {
    /// What it says of itself, and what it owes in spite of it.
    fn state_text(&self) -> String {
        let owes = if self.owes_progress && self.state == "idle" { ", owes" } else { "" };
        format!("{}{owes}", self.state)
    }
}

impl StateBoxSummary {
    fn to_text(&self) -> String {
        if let Some(error) = &self.error {
            return error.clone();
        }
        let number = |number: Option<u64>| number.map_or("?".into(), |number| number.to_string());
        let claimed = match self.claimed {
            Some(true) => ", TAKEN OVER",
            Some(false) => "",
            None => ", unknown whether taken over",
        };
        let bytes = self.state_bytes.map(|bytes| bytes as u64);
        format!("commit {}, {} bytes{claimed}", number(self.sequence), number(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Entity;
    use super::*;
    use backdoor_core::progress_box::{EntityRecord, FailureLevel, Slot};
    use proptest::prelude::*;

    fn snapshot(parents: &[Option<u32>]) -> Snapshot {
        let record = EntityRecord::new("e", FailureLevel::Session, Nanos(5));
        let entities = parents.iter().enumerate().map(|(slot, parent)| EntityView {
            entity: Entity::new(Slot(slot as u32), &record),
            parent: *parent,
            depends_on: Vec::new(),
            state: "idle",
            count: 1,
            pending: None,
            owes_progress: false,
            state_box: None,
        });
        Snapshot {
            node: "s".into(),
            at_ns: None,
            incarnation: 1,
            capacity: 99,
            directory_version: 1,
            hooks: Vec::new(),
            gauges: Vec::new(),
            entities: entities.collect(),
            problems: Vec::new(),
        }
    }

    #[test]
    fn children_hang_below_their_parents() {
        let text = snapshot(&[None, Some(0), Some(0), Some(1)]).to_text();
        let tree: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("entities")).skip(1).collect();
        assert!(tree[0].starts_with("e "), "{text}");
        assert!(tree[1].starts_with("├─ e "), "{text}");
        assert!(tree[2].starts_with("│  └─ e "), "{text}");
        assert!(tree[3].starts_with("└─ e "), "{text}");
    }

    #[test]
    fn a_long_chain_is_drawn() {
        let chain: Vec<Option<u32>> = (0..5_000u32).map(|slot| slot.checked_sub(1)).collect();
        assert_eq!(snapshot(&chain).tree().len(), chain.len());
        assert!(snapshot(&chain).to_text().lines().all(|line| line.chars().count() < 120));
    }

    proptest! {
        #[test]
        fn any_graph_of_parents_shows_everybody_once(parents in prop::collection::vec(prop::option::of(0u32..12), 0..12)) {
            let snapshot = snapshot(&parents);
            let mut slots: Vec<u32> = snapshot.tree().iter().map(|branch| branch.view.entity.slot).collect();
            slots.sort_unstable();
            prop_assert_eq!(slots, (0..parents.len() as u32).collect::<Vec<_>>());
        }
    }
}
