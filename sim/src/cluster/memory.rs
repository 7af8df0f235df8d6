//! A simulated node's registered memory, in the formats of `backdoor-core` and no others: hook table, Progress Box,
//! State Boxes, claim words.

use std::ops::{Deref, Range};
use std::sync::Arc;

use backdoor_core::hook_table::{Hook, Purpose, hook_table_words, write_hook_table};
use backdoor_core::progress_box::{Counter, EntityRecord, FailureLevel, Geometry, ProgressBox, Slot, StateBoxLocation};
use backdoor_core::state_box::{StateBox, StateBoxView, words_needed};
use backdoor_core::transport::{RegionKey, Rights};
use backdoor_core::words::{AtomicU64, Ordering, copy_of, zeroed};
use backdoor_transports::sim_nic::SimNode;

use super::scenario::Scenario;

/// A part of a region, held for as long as somebody writes to it.
#[derive(Clone, Debug)]
pub(super) struct Part {
    region: Arc<[AtomicU64]>,
    range: Range<usize>,
}

impl Deref for Part {
    type Target = [AtomicU64];
    fn deref(&self) -> &[AtomicU64] {
        &self.region[self.range.clone()]
    }
}

/// One word of a region.
#[derive(Clone, Debug)]
pub(super) struct Word {
    region: Arc<[AtomicU64]>,
    index: usize,
}

impl Deref for Word {
    type Target = AtomicU64;
    fn deref(&self) -> &AtomicU64 {
        &self.region[self.index]
    }
}

/// A writer of one liveness word.
pub(super) type LivenessCounter = Counter<Word>;
/// A writer of one State Box.
pub(super) type SessionBox = StateBox<Part, Word>;

/// What a node has registered, with the writing ends.
#[derive(Debug)]
pub(super) struct NodeMemory {
    pub(super) nic: SimNode,
    pub(super) hook_table: RegionKey,
    /// The region of the Progress Box, and the words at its beginning that a monitor polls.
    pub(super) progress_key: RegionKey,
    polled: Part,
    /// In slot order.
    pub(super) counters: Vec<LivenessCounter>,
    /// By session; empty if none is kept.
    pub(super) boxes: Vec<SessionBox>,
    /// By session, then by process of the chain, the requests that wait; empty if they are not counted.
    pending: Vec<Word>,
}

/// Where the entities of a node lie: OS counters of each core, the migrating one, applications, sessions by application,
/// processes of the chain, the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slots {
    cores: usize,
    applications: usize,
    sessions: usize,
    processes: usize,
    disks: usize,
}

impl Slots {
    pub(super) fn of(scenario: &Scenario) -> Self {
        let work = &scenario.workload;
        Slots {
            cores: scenario.cpu.cores,
            applications: work.applications,
            sessions: work.total_sessions(),
            processes: work.processes(),
            disks: usize::from(work.disk.is_some()),
        }
    }
    pub(super) fn os(self) -> Range<usize> {
        0..self.cores + 1
    }
    pub(super) fn application(self, application: usize) -> usize {
        self.cores + 1 + application
    }
    pub(super) fn session(self, session: usize) -> usize {
        self.cores + 1 + self.applications + session
    }
    /// A process of the chain.
    pub(super) fn process(self, process: usize) -> usize {
        self.session(self.sessions) + process
    }
    pub(super) fn disk(self) -> usize {
        self.process(self.processes)
    }
    pub(super) fn count(self) -> usize {
        self.disk() + self.disks
    }
}

impl NodeMemory {
    /// Registers everything. The sizes were checked with the scenario.
    pub(super) fn new(scenario: &Scenario, node: usize) -> Result<Self, String> {
        let work = &scenario.workload;
        let nic = SimNode::with_first_key(RegionKey(0x1000 + node as u32 * 16));
        let box_words = work.state_bytes.map_or(0, words_needed);
        let sessions = work.total_sessions();

        let gauges = if work.pending_gauges { sessions + work.processes() } else { 0 };
        let geometry = Geometry::new(Slots::of(scenario).count(), gauges).map_err(text)?;
        let progress: Arc<[AtomicU64]> = zeroed(geometry.total_words()).into();
        let recovery: Arc<[AtomicU64]> = zeroed(box_words * sessions).into();
        let claims: Arc<[AtomicU64]> = zeroed(sessions).into();
        let region = |memory: &Arc<[AtomicU64]>, rights| nic.register(memory.clone(), rights).map_err(text);
        let progress_key = region(&progress, Rights::READ)?;
        let mut hooks = vec![(Purpose::Monitoring, Rights::READ, progress_key, progress.len())];
        if box_words * sessions > 0 {
            let claim = Rights::READ | Rights::COMPARE_SWAP;
            hooks.push((Purpose::Recovery, Rights::READ, region(&recovery, Rights::READ)?, recovery.len()));
            hooks.push((Purpose::Claim, claim, region(&claims, claim)?, claims.len()));
        }
        let hooks: Vec<Hook> = (1..)
            .zip(hooks)
            .map(|(id, (purpose, rights, key, words))| Hook::whole_region(id, purpose, rights, key, words))
            .collect();
        let table = zeroed(hook_table_words(hooks.len()));
        write_hook_table(&table, 1, &hooks).map_err(text)?;
        let hook_table = nic.register(table, Rights::READ).map_err(text)?;
        nic.seal();

        let polled = Part { range: 0..geometry.poll_words(), region: progress.clone() };
        let whole = Part { range: 0..progress.len(), region: progress.clone() };
        let mut owner = ProgressBox::format(whole, geometry, 1).map_err(text)?;
        for record in records_of(scenario, box_words) {
            owner.add(record).map_err(text)?;
        }
        let counters =
            geometry.liveness().map(|index| Counter::resume(Word { region: progress.clone(), index })).collect();
        let pending = geometry.gauges().map(|index| Word { region: progress.clone(), index }).collect();
        let boxes = (0..if box_words > 0 { sessions } else { 0 })
            .map(|session| {
                let range = session * box_words..(session + 1) * box_words;
                let claim = Word { region: claims.clone(), index: session };
                StateBox::format(Part { region: recovery.clone(), range }, claim, session as u64 + 1, 1)
            })
            .collect::<Result<_, _>>()
            .map_err(text)?;
        Ok(NodeMemory { nic, hook_table, progress_key, polled, counters, boxes, pending })
    }

    /// The kernel counts the requests that wait for a session, or for a process: those are numbered after the sessions.
    pub(super) fn count_pending(&self, number: usize, requests: u64) {
        if let Some(gauge) = self.pending.get(number) {
            gauge.store(requests, Ordering::Relaxed);
        }
    }

    /// Another network card of the node, through which its Progress Box can be read as well, and the hook table there.
    pub(super) fn second_card(&self) -> Result<(SimNode, RegionKey), String> {
        let card = SimNode::with_first_key(self.progress_key);
        let progress = &self.polled.region;
        let key = card.register(progress.clone(), Rights::READ).map_err(text)?;
        let table = zeroed(hook_table_words(1));
        let hook = Hook::whole_region(1, Purpose::Monitoring, Rights::READ, key, progress.len());
        write_hook_table(&table, 1, &[hook]).map_err(text)?;
        let hook_table = card.register(table, Rights::READ).map_err(text)?;
        card.seal();
        Ok((card, hook_table))
    }

    /// What a poll is about: header, liveness words and gauges.
    pub(super) fn polled(&self) -> &[AtomicU64] {
        &self.polled
    }
}

/// Flips one bit of a State Box's committed payload, as a wild store of a failing node would. No effect before the
/// first commit.
pub(super) fn damage(state_box: &SessionBox, bit: u64) {
    let memory = state_box.memory();
    let copy = copy_of(memory);
    let version = StateBoxView::read(&copy).ok().and_then(|view| view.head().committed().ok());
    if let Some(word) = version.and_then(|version| memory.get(version.range().start + (bit / 64) as usize)) {
        word.store(word.load(Ordering::Relaxed) ^ 1 << (bit % 64), Ordering::Relaxed);
    }
}

fn records_of(scenario: &Scenario, box_words: usize) -> Vec<EntityRecord> {
    let (slots, work) = (Slots::of(scenario), &scenario.workload);
    let new = |name: String, level: FailureLevel| EntityRecord::new(&name, level, scenario.deadlines.of(level));
    let slot = |index: usize| Slot(index as u32);
    let system = |name: String| new(name, FailureLevel::Os).every(work.tick_interval);
    let mut records: Vec<_> = (0..scenario.cpu.cores).map(|core| system(format!("os/cpu{core}"))).collect();
    let os = slot(records.len());
    records.push(system("os".to_string()));
    for application in 0..work.applications {
        let record = new(format!("app{application}"), FailureLevel::Application).within(os);
        records.push(if work.disk.is_some() { record.depending_on(slot(slots.disk())) } else { record });
    }
    for session in 0..work.total_sessions() {
        let application = session / work.sessions;
        let mut record = new(format!("app{application}/session{}", session % work.sessions), FailureLevel::Session)
            .within(slot(slots.application(application)));
        record.session = session as u64 + 1;
        record.pending = u16::try_from(session).ok().filter(|_| work.pending_gauges);
        if box_words > 0 {
            let offset = (session * box_words) as u64;
            record.state_box = Some(StateBoxLocation { offset, words: box_words as u64, claim: session as u32 });
        }
        records.push(record);
    }
    for process in 0..work.processes() {
        let mut record = new(format!("process{process}"), FailureLevel::Application).within(os);
        record.pending = u16::try_from(work.total_sessions() + process).ok().filter(|_| work.pending_gauges);
        let is_last = process + 1 == work.processes();
        let waits_for = match work.disk {
            _ if !is_last => Some(slots.process(process + 1)),
            Some(_) if work.chain.is_some_and(|chain| chain.reads_disk) => Some(slots.disk()),
            _ => None,
        };
        records.push(waits_for.map_or(record, |other| record.depending_on(slot(other))));
    }
    if work.disk.is_some() {
        records.push(new("disk".to_string(), FailureLevel::Application).within(os));
    }
    records
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
