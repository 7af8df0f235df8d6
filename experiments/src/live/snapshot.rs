//! What a node's boxes hold now, read once.
//!
//! Everything is got by one-sided READs, so it works on a node whose services hang or have died. What comes back may be
//! torn or forged: whatever can't be read is named among the problems, and the rest is shown.

mod text;

use backdoor_core::hook_table::{HOOK_HEADER_WORDS, HookTable, Purpose, hook_count, hook_table_words};
use backdoor_core::progress_box::{
    EntityRecord, EntityState, HEADER_WORDS, Header, Liveness, Pending, Slot, StateBoxLocation, read_directory,
};
use backdoor_core::recovery::{Extraction, ExtractionConfig, SessionToRecover};
use backdoor_core::transport::{
    LocalSlice, Operation, PostError, RemoteSlice, Transport, TransportError, WorkId, WorkRequest,
};
use backdoor_core::{FormatError, Nanos};
use backdoor_host::agent::Gauge;
use backdoor_host::attach::{AttachError, NodeAddress, attach};
use backdoor_host::clock;
use serde::Serialize;

use super::notice::Entity;

/// A READ over shared memory takes microseconds; one that takes this long has failed.
const READ_LIMIT: Nanos = Nanos::from_secs(2);
/// How often memory that is being changed is read again.
const ATTEMPTS: usize = 8;

/// A node's boxes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Snapshot {
    /// The agent's socket, or the host that it is on.
    pub node: String,
    /// When it was taken, on the machine's monotonic clock; nothing if the node is another machine, with another clock.
    pub at_ns: Option<u64>,
    /// Which start of the agent the memory belongs to.
    pub incarnation: u64,
    /// Room for entities.
    pub capacity: usize,
    /// Moves with every change of the directory.
    pub directory_version: u64,
    /// What the node offers.
    pub hooks: Vec<HookView>,
    /// Statistics of the system.
    pub gauges: Vec<GaugeView>,
    /// Everybody who is there, by slot.
    pub entities: Vec<EntityView>,
    /// What could not be read, and why.
    pub problems: Vec<String>,
}

/// One hook.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HookView {
    /// Its number.
    pub id: u32,
    /// `monitoring`, `recovery`, `claim` or `repair`.
    pub purpose: &'static str,
    /// `r`, `w`, `c` (compare-and-swap), or `-` in their places.
    pub rights: String,
    /// Key of its region.
    pub region: u32,
    /// First word in that region.
    pub offset: u64,
    /// Its length in words.
    pub words: u64,
    /// Slot of the entity it belongs to; none for the node as a whole.
    pub entity: Option<u32>,
    /// Whether a repair must find something before it writes.
    pub guarded: bool,
}

/// One gauge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GaugeView {
    /// Its name, with its unit.
    pub name: &'static str,
    /// Its value.
    pub value: u64,
}

/// One entity.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EntityView {
    /// What the directory says of it.
    #[serde(flatten)]
    pub entity: Entity,
    /// Slot of what it runs in.
    pub parent: Option<u32>,
    /// Slots of those it waits for.
    pub depends_on: Vec<u32>,
    /// `active`, `idle` or `departed`.
    pub state: &'static str,
    /// Progress so far.
    pub count: u64,
    /// How much work waits for it: bytes in a session's socket, whether a client waits at a service's; none if nobody
    /// counts that.
    pub pending: Option<u32>,
    /// Whether it owes progress: because it is active, or because work waits for it while it is idle.
    pub owes_progress: bool,
    /// Its State Box.
    pub state_box: Option<StateBoxSummary>,
}

/// What a State Box holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StateBoxSummary {
    /// Its length in words.
    pub words: u64,
    /// Number of commits.
    pub sequence: Option<u64>,
    /// Length of the committed state.
    pub state_bytes: Option<usize>,
    /// Whether somebody took the session over.
    pub claimed: Option<bool>,
    /// Why there is no state.
    pub error: Option<String>,
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is no agent to attach to.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A READ could not be posted.
    #[error("can't read the node's memory: {0}")]
    Post(#[from] PostError),
    /// A READ failed.
    #[error("can't read the node's memory: {0}")]
    Transport(#[from] TransportError),
    /// The memory is not what it should be.
    #[error("the node's memory is damaged: {0}")]
    Format(#[from] FormatError),
    /// The node offers no Progress Box.
    #[error("the node offers no memory for monitoring")]
    NoProgressBox,
}

impl Snapshot {
    /// Reads the node at this address.
    pub fn take(node: &NodeAddress) -> Result<Self, SnapshotError> {
        let (mut transport, link) = attach(node)?.into_parts();
        let table = |words: usize| RemoteSlice { key: link.hook_table(), offset: 0, words: words as u64 };
        let count = hook_count(&read(&mut transport, table(HOOK_HEADER_WORDS))?)?;
        let hooks = HookTable::read(&read(&mut transport, table(hook_table_words(count)))?)?;
        let memory = hooks.find(Purpose::Monitoring).ok_or(SnapshotError::NoProgressBox)?.memory;
        let part = |words: usize| memory.part(0, words as u64).ok_or(SnapshotError::NoProgressBox);
        let header = Header::read(&read(&mut transport, part(HEADER_WORDS)?)?)?;
        let (words, entries, problems) =
            read_box(&mut transport, part(header.geometry.total_words())?, header.geometry.directory().start)?;
        // Monotonic clocks of different machines have nothing to do with each other.
        let at_ns = matches!(node, NodeAddress::Local(_)).then(|| clock::now().0);
        let header = Header::read(&words)?;
        let liveness = words.get(header.geometry.liveness()).unwrap_or_default();
        let gauges = words.get(header.geometry.gauges()).unwrap_or_default();
        let mut snapshot = Snapshot {
            node: node.to_string(),
            at_ns,
            incarnation: header.boot_incarnation,
            capacity: header.geometry.capacity(),
            directory_version: header.directory_version,
            hooks: hooks.hooks.iter().map(HookView::from).collect(),
            gauges: Gauge::ALL.iter().filter_map(|gauge| GaugeView::new(*gauge, gauges)).collect(),
            entities: Vec::new(),
            problems,
        };
        let mut sessions = Vec::new();
        for (slot, record) in entries {
            let Some(word) = liveness.get(slot.index()).copied().map(Liveness) else { continue };
            let Some(state) = state_name(word.state()) else { continue };
            if record.state_box.is_some() {
                sessions.push((snapshot.entities.len(), SessionToRecover { slot, record }));
            }
            let gauge = record.pending.and_then(|gauge| gauges.get(usize::from(gauge)));
            let pending = gauge.map(|word| Pending::of_word(*word).amount);
            snapshot.entities.push(EntityView {
                entity: Entity::new(slot, &record),
                parent: record.parent.map(|parent| parent.0),
                depends_on: record.dependencies().map(|slot| slot.0).collect(),
                state,
                count: word.count(),
                pending,
                owes_progress: match word.state() {
                    EntityState::Active => true,
                    EntityState::Idle => pending.is_some_and(|amount| amount > 0),
                    EntityState::Free | EntityState::Departed => false,
                },
                state_box: None,
            });
        }
        snapshot.read_state_boxes(&mut transport, &hooks, &sessions);
        Ok(snapshot)
    }

    fn read_state_boxes(
        &mut self,
        transport: &mut impl Transport,
        hooks: &HookTable,
        sessions: &[(usize, SessionToRecover)],
    ) {
        let Some(recovery) = hooks.find(Purpose::Recovery) else { return };
        let claims = hooks.find(Purpose::Claim).map(|hook| hook.memory);
        // A few at a time: the directory may be forged, and its boxes as large as the node's memory.
        let config = ExtractionConfig { window: 4, ..ExtractionConfig::default() };
        let mut extraction = Extraction::new(config, recovery.memory, sessions.iter().map(|(_, session)| *session));
        let mut found = Vec::new();
        let end = clock::now() + READ_LIMIT * 5;
        while !extraction.is_done() && clock::now() < end {
            extraction.step(transport, &mut |session, state| {
                let summary = match state {
                    Ok(state) => Ok((state.committed.sequence, state.committed.payload.len(), state.unclaimed)),
                    Err(error) => Err(error.to_string()),
                };
                found.push((session.slot, summary));
            });
        }
        for (index, session) in sessions {
            let Some(location) = session.record.state_box else { continue };
            let answer = found.iter().find(|(slot, _)| *slot == session.slot);
            let mut summary = StateBoxSummary {
                words: location.words,
                sequence: None,
                state_bytes: None,
                claimed: None,
                error: None,
            };
            match answer {
                Some((_, Ok((sequence, bytes, unclaimed)))) => {
                    summary.sequence = Some(*sequence);
                    summary.state_bytes = Some(*bytes);
                    summary.claimed = claims.and_then(|claims| claimed(transport, claims, location, *unclaimed));
                }
                Some((_, Err(error))) => summary.error = Some(error.clone()),
                None => summary.error = Some("it was not read in time".into()),
            }
            if let Some(entity) = self.entities.get_mut(*index) {
                entity.state_box = Some(summary);
            }
        }
    }
}

/// The sessions that the Progress Box in `memory` names now.
pub(in crate::live) fn sessions_in(
    transport: &mut impl Transport,
    memory: RemoteSlice,
) -> Result<Vec<SessionToRecover>, SnapshotError> {
    let part = |words: usize| memory.part(0, words as u64).ok_or(SnapshotError::NoProgressBox);
    let geometry = Header::read(&read(transport, part(HEADER_WORDS)?)?)?.geometry;
    let (words, entries, _) = read_box(transport, part(geometry.total_words())?, geometry.directory().start)?;
    let liveness = words.get(geometry.liveness()).unwrap_or_default();
    let is_there =
        |slot: Slot| liveness.get(slot.index()).is_some_and(|word| Liveness(*word).state() != EntityState::Free);
    let sessions = entries.into_iter().filter(|(slot, record)| record.state_box.is_some() && is_there(*slot));
    Ok(sessions.map(|(slot, record)| SessionToRecover { slot, record }).collect())
}

impl From<&backdoor_core::hook_table::Hook> for HookView {
    fn from(hook: &backdoor_core::hook_table::Hook) -> Self {
        HookView {
            id: hook.id,
            purpose: hook.purpose.name(),
            rights: hook.rights.to_string(),
            region: hook.memory.key.0,
            offset: hook.memory.offset,
            words: hook.memory.words,
            entity: hook.entity.map(|slot| slot.0),
            guarded: hook.guard.is_some(),
        }
    }
}

impl GaugeView {
    fn new(gauge: Gauge, values: &[u64]) -> Option<Self> {
        Some(GaugeView { name: gauge.name(), value: *values.get(gauge.index())? })
    }
}

type Entries = Vec<(Slot, EntityRecord)>;

/// Reads the whole Progress Box until no entry of its directory is torn, a few times at most; answers the words, the
/// entries, and what is wrong with the others.
fn read_box(
    transport: &mut impl Transport,
    memory: RemoteSlice,
    directory: usize,
) -> Result<(Vec<u64>, Entries, Vec<String>), SnapshotError> {
    let mut attempt = 1;
    loop {
        let words = read(transport, memory)?;
        let (mut entries, mut problems) = (Vec::new(), Vec::new());
        for (slot, entry) in read_directory(words.get(directory..).unwrap_or_default()) {
            match entry {
                Ok(Some(record)) => entries.push((slot, record)),
                Ok(None) => {}
                Err(error) => problems.push(format!("slot {}: {error}", slot.0)),
            }
        }
        if problems.is_empty() || attempt == ATTEMPTS {
            return Ok((words, entries, problems));
        }
        attempt += 1;
    }
}

fn claimed(
    transport: &mut impl Transport,
    claims: RemoteSlice,
    location: StateBoxLocation,
    unclaimed: u64,
) -> Option<bool> {
    let word = read(transport, claims.part(u64::from(location.claim), 1)?).ok()?;
    Some(*word.first()? != unclaimed)
}

/// One READ, waited for.
fn read(transport: &mut impl Transport, from: RemoteSlice) -> Result<Vec<u64>, SnapshotError> {
    let words = usize::try_from(from.words).map_err(|_| TransportError::OutOfBounds)?;
    let buffer = transport.allocate(words)?;
    let operation = Operation::Read { from, into: LocalSlice::start_of(buffer) };
    transport.post(&[WorkRequest { id: WorkId(0), operation }])?;
    let mut completions = Vec::new();
    let end = clock::now() + READ_LIMIT;
    while completions.is_empty() {
        transport.poll(&mut completions);
        if clock::now() > end {
            return Err(TransportError::Unreachable.into());
        }
    }
    let outcome = completions.first().map_or(Err(TransportError::Unreachable), |completion| completion.result);
    let copy = transport.buffer(buffer)?.to_vec();
    transport.release(buffer)?;
    outcome?;
    Ok(copy)
}

/// `None` for a free slot.
fn state_name(state: EntityState) -> Option<&'static str> {
    match state {
        EntityState::Free => None,
        EntityState::Active => Some("active"),
        EntityState::Idle => Some("idle"),
        EntityState::Departed => Some("departed"),
    }
}
