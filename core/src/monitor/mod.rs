//! The monitor of one node: finds its Progress Box, polls it, and says who has stopped making progress.
//!
//! ```text
//!  hook table ──> Progress Box header ──> poll, poll, poll ...      (each arrow is a READ)
//!                                          └─ directory, when its version moved
//! ```
//!
//! The monitor has no clock and does no I/O of its own. Its user calls [`Monitor::step`] with the time, at
//! [`Monitor::due`] and whenever work may have completed; the same code runs over simulated and real memory.
//!
//! # Evidence time
//! The monitor doubts itself first. A sample says what the node's memory held at *some* moment between its posting and
//! its completion; of the two ends the one that accuses least is taken. And silence counts only while the monitor
//! demonstrably watched: *evidence time* advances from sample to sample, and when two samples are further apart than
//! [`MonitorConfig::max_gap`] (the monitor was starved, stopped, or cut off) the gap counts as one ordinary poll
//! interval. Detectors see evidence time only. A broken channel brings no samples, so it accuses nobody.
//!
//! # Idle
//! An entity that says it is idle may be silent. If its pending work is counted by somebody else
//! ([`EntityRecord::pending`](crate::progress_box::EntityRecord)), the claim is held against that: who has work owes
//! progress, whatever it says.

mod attach;
mod config;
mod event;
mod evidence;
mod idle_claims;
mod node_clock;
mod table;

pub use config::{MonitorConfig, MonitorStats};
pub use event::{Event, Verdict};
pub use node_clock::{NodeClock, SLOWEST};
pub use table::{EntityView, Standing};

use attach::{Attach, Target};
use evidence::Evidence;
use table::{EntityTable, Sample};

use crate::Nanos;
use crate::detector::{DeadlineDetector, Detector};
use crate::progress_box::{ENTRY_WORDS, EntityRecord, HEADER_WORDS, Header, read_directory};
use crate::transport::{
    BufferId, ChannelState, Completion, LocalSlice, Operation, PostError, RegionKey, RemoteSlice, Transport,
    TransportError, WorkId, WorkRequest,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    Attach,
    Sample,
    Directory(Asked),
}

/// What was known of the directory when it was asked for: a copy that is no older is good as long as nothing else is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    version: u64,
    used: usize,
    /// The sample that it was asked for after.
    sample: u64,
}

#[derive(Clone, Copy, Debug)]
struct UnderWay {
    id: WorkId,
    read: Read,
    posted: Nanos,
}

#[derive(Debug)]
struct Watch<D> {
    target: Target,
    header: Header,
    /// The words that `header` was last read from: they hardly ever change, and comparing is cheaper than checking.
    header_words: Option<[u64; HEADER_WORDS]>,
    sample_buffer: BufferId,
    directory_buffer: BufferId,
    attached: Nanos,
    /// The directory that the table has taken in.
    directory_known: Option<Asked>,
    /// The sample after which the directory was last asked for: once per sample is enough, whatever becomes of it.
    directory_asked: u64,
    /// The last sample that showed somebody whom the table doesn't know.
    strangers_seen: u64,
    table: EntityTable<D>,
    /// See [`Monitor::keeper_ended`].
    keeper_ended: bool,
}

/// Makes an entity's detector when its watch begins.
type MakeDetector<D> = Box<dyn FnMut(&EntityRecord, Nanos) -> D + Send>;

/// Watches one node through one transport.
///
/// `D` is the detector of each entity; [`Monitor::by_deadline`] gives the paper's.
pub struct Monitor<D> {
    config: MonitorConfig,
    hook_table: RegionKey,
    make: MakeDetector<D>,
    attach: Attach,
    watch: Option<Watch<D>>,
    under_way: Vec<UnderWay>,
    next_work: u64,
    due: Nanos,
    channel_lost: bool,
    evidence: Evidence,
    stats: MonitorStats,
    completions: Vec<Completion>,
}

impl Monitor<DeadlineDetector> {
    /// A monitor with the paper's detector: every entity's own deadline.
    pub fn by_deadline(config: MonitorConfig, hook_table: RegionKey) -> Self {
        Monitor::new(config, hook_table, |record, now| DeadlineDetector::new(record.deadline, now))
    }
}

impl<D: Detector> Monitor<D> {
    /// A monitor of the node whose hook table lies in region `hook_table`.
    pub fn new(
        config: MonitorConfig,
        hook_table: RegionKey,
        make: impl FnMut(&EntityRecord, Nanos) -> D + Send + 'static,
    ) -> Self {
        // Without a pause between READs, a step over memory that answers at once would never end.
        let pause = |interval: Nanos| interval.max(Nanos(1));
        let (poll_interval, retry_interval) = (pause(config.poll_interval), pause(config.retry_interval));
        let config = MonitorConfig { poll_interval, retry_interval, ..config };
        Monitor {
            config,
            hook_table,
            make: Box::new(make),
            attach: Attach::default(),
            watch: None,
            under_way: Vec::new(),
            next_work: 0,
            due: Nanos::ZERO,
            channel_lost: false,
            evidence: Evidence::default(),
            stats: MonitorStats::default(),
            completions: Vec::new(),
        }
    }

    /// When [`step`](Self::step) is to be called next, at the latest.
    pub fn due(&self) -> Nanos {
        let timeout = self.under_way.iter().map(|w| w.posted + self.config.read_timeout).min();
        self.due.min(timeout.unwrap_or(Nanos::MAX))
    }

    /// Whether a READ is under way, so that a step is worth while as soon as it may have completed.
    pub fn is_waiting(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// What the monitor has done so far.
    pub fn stats(&self) -> MonitorStats {
        self.stats
    }

    /// Evidence time of the last sample: its words can't have been read before.
    pub fn evidence_time(&self) -> Nanos {
        self.evidence.time
    }

    /// Evidence time at which the last sample was complete: its words can't have been read after. Progress counts from
    /// then, silence up to [`evidence_time`](Self::evidence_time).
    pub fn evidence_end(&self) -> Nanos {
        self.evidence.end
    }

    /// Tells that whoever keeps the operating system's counters in this memory has ended, while the system runs: somebody
    /// saw it end, and no counter can say so for good. From here on the silence of these counters neither excuses anybody's
    /// nor accuses the system; who else writes into the memory is watched as before. Holds until another node, or another
    /// start of this one, is attached to.
    pub fn keeper_ended(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.keeper_ended = true;
            watch.table.keeper_ended();
        }
    }

    /// Whether it was [told so](Self::keeper_ended).
    pub fn has_keeper_ended(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.keeper_ended)
    }

    /// The entities of the node, in slot order.
    pub fn entities(&self) -> impl Iterator<Item = EntityView<'_, D>> {
        self.watch.iter().flat_map(|watch| watch.table.entities())
    }

    /// Shows, in slot order, each entity that has progressed, changed its standing or its entry since the last call, and
    /// perhaps some that have not. Who keeps a record looks at these few after a step, instead of at thousands.
    pub fn show_changed(&mut self, show: impl FnMut(EntityView<'_, D>)) {
        if let Some(watch) = &mut self.watch {
            watch.table.show_changed(show);
        }
    }

    /// The hooks that the node offers, once the monitor is attached.
    pub fn hooks(&self) -> Option<&crate::hook_table::HookTable> {
        self.watch.as_ref().map(|watch| &watch.target.hooks)
    }

    /// The node's gauges as of the last sample; `None` before it, or while a sample is under way.
    pub fn gauges<'t>(&self, transport: &'t impl Transport) -> Option<&'t [u64]> {
        let watch = self.watch.as_ref()?;
        transport.buffer(watch.sample_buffer).ok()?.get(watch.header.geometry.gauges())
    }

    /// Does what is to be done at `now`: takes in what has completed, posts what is due, and appends what it noticed to
    /// `events`. `now` must not decrease from call to call.
    pub fn step<T: Transport>(&mut self, now: Nanos, transport: &mut T, events: &mut Vec<Event>) {
        self.collect(now, transport, events);
        self.give_up_on_silent_reads(now, transport, events);
        // A transport may complete at once what is posted; so look again as long as something new was posted.
        while self.post_due(now, transport, events) {
            self.collect(now, transport, events);
        }
    }

    fn collect<T: Transport>(&mut self, now: Nanos, transport: &mut T, events: &mut Vec<Event>) {
        transport.poll(&mut self.completions);
        if self.completions.is_empty() {
            return;
        }
        let mut completions = std::mem::take(&mut self.completions);
        for completion in completions.drain(..) {
            let Some(at) = self.under_way.iter().position(|work| work.id == completion.id) else { continue };
            let work = self.under_way.swap_remove(at);
            match completion.result {
                Ok(_) => self.take_in(work, now, transport, events),
                Err(error) => self.read_failed(error, now, transport, events),
            }
        }
        self.completions = completions;
    }

    fn take_in<T: Transport>(&mut self, work: UnderWay, now: Nanos, transport: &mut T, events: &mut Vec<Event>) {
        if work.read != Read::Attach {
            self.channel_works(now, events);
        }
        match work.read {
            Read::Attach => match self.attach.take_in(transport) {
                // The hook table can be read of a node that refuses its Progress Box: that restores nothing.
                Ok(None) => self.due = now,
                Ok(Some((target, header))) => {
                    self.channel_works(now, events);
                    self.start_watch(target, header, now, transport, events);
                }
                Err(error) => {
                    self.channel_works(now, events);
                    events.push(match error {
                        attach::AttachError::Format(error) => Event::BadMemory { error, at: now },
                        attach::AttachError::NoProgressBox => Event::NoProgressBox { at: now },
                    });
                    self.detach(now, transport);
                }
            },
            Read::Sample => self.take_sample(work, now, transport, events),
            Read::Directory(asked) => self.take_directory(asked, transport, events),
        }
    }

    fn channel_works(&mut self, now: Nanos, events: &mut Vec<Event>) {
        if std::mem::take(&mut self.channel_lost) {
            events.push(Event::ChannelRestored { at: now });
        }
    }

    fn start_watch<T: Transport>(
        &mut self,
        target: Target,
        header: Header,
        now: Nanos,
        transport: &mut T,
        events: &mut Vec<Event>,
    ) {
        let geometry = header.geometry;
        let sample_buffer = transport.allocate(geometry.poll_words());
        let directory_buffer = transport.allocate(geometry.directory().len());
        let (Ok(sample_buffer), Ok(directory_buffer)) = (sample_buffer, directory_buffer) else {
            for buffer in [sample_buffer, directory_buffer].into_iter().flatten() {
                let _ = transport.release(buffer);
            }
            events.push(Event::NoProgressBox { at: now });
            self.detach(now, transport);
            return;
        };
        let table = EntityTable::new(geometry.capacity());
        events.push(Event::Attached { incarnation: header.boot_incarnation, capacity: geometry.capacity() });
        self.evidence.interrupt();
        self.watch = Some(Watch {
            target,
            header,
            header_words: None,
            sample_buffer,
            directory_buffer,
            attached: now,
            directory_known: None,
            directory_asked: self.stats.samples,
            strangers_seen: 0,
            table,
            keeper_ended: false,
        });
        self.due = now;
    }

    fn take_sample<T: Transport>(&mut self, work: UnderWay, now: Nanos, transport: &mut T, events: &mut Vec<Event>) {
        let Some(watch) = &mut self.watch else { return };
        let Ok(words) = transport.buffer(watch.sample_buffer) else { return };
        let same = watch.header_words.is_some_and(|known| words.starts_with(&known));
        let header = match if same { Ok(watch.header) } else { Header::read(words) } {
            Ok(header) => header,
            Err(error) => {
                events.push(Event::BadMemory { error, at: now });
                self.detach(now, transport);
                return;
            }
        };
        if header.boot_incarnation != watch.header.boot_incarnation || header.geometry != watch.header.geometry {
            events.push(Event::Restarted { old: watch.header.boot_incarnation, new: header.boot_incarnation });
            // At once, unless it starts anew all the time: a step must end.
            let again = now.max(watch.attached + self.config.retry_interval);
            self.detach(now, transport);
            self.due = again;
            return;
        }
        watch.header = header;
        watch.header_words = words.first_chunk().copied();
        if let Some(gap) = self.evidence.sample(work.posted, now, &self.config) {
            self.stats.late_samples += 1;
            events.push(Event::Late { gap, at: now });
        }
        self.stats.samples += 1;
        let Evidence { time: begin, end, .. } = self.evidence;
        let geometry = header.geometry;
        let gauges = words.get(geometry.gauges()).unwrap_or_default();
        let sample = Sample { words: &words[geometry.liveness()], gauges, begin, end, now };
        if watch.table.observe(sample, events) {
            watch.strangers_seen = self.stats.samples;
        }
    }

    fn take_directory<T: Transport>(&mut self, asked: Asked, transport: &mut T, events: &mut Vec<Event>) {
        let Some(watch) = &mut self.watch else { return };
        let Ok(words) = transport.buffer(watch.directory_buffer) else { return };
        let Some(entries) = words.get(..asked.used * ENTRY_WORDS) else { return };
        for (slot, entry) in read_directory(entries) {
            // An entry that can't be read is being changed; the change will move the version, and it is read then.
            if let Ok(Some(record)) = entry {
                // Of the last sample's two ends, the one that accuses least.
                watch.table.learn(slot, record, self.evidence.end, &mut self.make, events);
            }
        }
        watch.directory_known = Some(asked);
    }

    fn read_failed<T: Transport>(
        &mut self,
        error: TransportError,
        now: Nanos,
        transport: &mut T,
        events: &mut Vec<Event>,
    ) {
        if !std::mem::replace(&mut self.channel_lost, true) {
            events.push(Event::ChannelLost { error, at: now });
        }
        match error {
            // The memory itself was taken away: where it is now, only the hook table can tell.
            TransportError::Refused | TransportError::OutOfBounds => self.detach(now, transport),
            _ => self.due = self.due.max(now + self.config.retry_interval),
        }
    }

    fn give_up_on_silent_reads<T: Transport>(&mut self, now: Nanos, transport: &mut T, events: &mut Vec<Event>) {
        let silent = |work: &UnderWay| now >= work.posted + self.config.read_timeout;
        if self.under_way.iter().any(silent) {
            self.under_way.clear();
            transport.reopen();
            self.read_failed(TransportError::Unreachable, now, transport, events);
        }
    }

    /// Forgets the node and looks for it again later.
    fn detach<T: Transport>(&mut self, now: Nanos, transport: &mut T) {
        if let Some(watch) = self.watch.take() {
            // A buffer with work under way can't be released yet; reopening the channel flushes that work.
            for buffer in [watch.sample_buffer, watch.directory_buffer] {
                if transport.release(buffer).is_err() {
                    self.attach.release_later(buffer);
                }
            }
        }
        self.attach.restart();
        self.evidence.interrupt();
        self.due = now + self.config.retry_interval;
    }

    /// Posts what is due; answers whether anything was posted.
    fn post_due<T: Transport>(&mut self, now: Nanos, transport: &mut T, events: &mut Vec<Event>) -> bool {
        self.attach.release_what_is_free(transport);
        match transport.channel() {
            ChannelState::Open => {}
            ChannelState::Opening => {
                if now >= self.due {
                    self.due = now + self.config.retry_interval;
                }
                return false;
            }
            ChannelState::Broken => {
                if now >= self.due {
                    transport.reopen();
                    self.due = now + self.config.retry_interval;
                }
                return false;
            }
        }
        let posted = match self.watch {
            None => now >= self.due && self.post_attach(now, transport),
            Some(_) => self.post_directory(now, transport) | (now >= self.due && self.post_sample(now, transport)),
        };
        if transport.channel() == ChannelState::Broken && !posted {
            self.read_failed(TransportError::LocalFault, now, transport, events);
        }
        posted
    }

    fn post_attach<T: Transport>(&mut self, now: Nanos, transport: &mut T) -> bool {
        self.due = now + self.config.retry_interval;
        if self.under_way.iter().any(|work| work.read == Read::Attach) {
            return false;
        }
        match self.attach.next_read(self.hook_table, transport) {
            Ok((from, buffer)) => self.post(Read::Attach, from, buffer, now, transport).is_ok(),
            Err(_) => false,
        }
    }

    fn post_sample<T: Transport>(&mut self, now: Nanos, transport: &mut T) -> bool {
        // Keep the rhythm; but polls that were missed are not made up for.
        let next = self.due + self.config.poll_interval;
        self.due = if next > now { next } else { now + self.config.poll_interval };
        let Some(watch) = &self.watch else { return false };
        if self.under_way.iter().any(|work| work.read == Read::Sample) {
            return false;
        }
        let words = watch.header.geometry.poll_words() as u64;
        let Some(from) = watch.target.progress_box.part(0, words) else { return false };
        let buffer = watch.sample_buffer;
        self.post(Read::Sample, from, buffer, now, transport).is_ok()
    }

    fn post_directory<T: Transport>(&mut self, now: Nanos, transport: &mut T) -> bool {
        let Some(watch) = &mut self.watch else { return false };
        let Header { directory_version: version, directory_used: used, .. } = watch.header;
        // A READ's words are of different moments, so a version may come with the extent of the version before it.
        let is_good =
            |known: Asked| known.version == version && known.used == used && known.sample >= watch.strangers_seen;
        if watch.directory_known.is_some_and(is_good)
            || watch.directory_asked == self.stats.samples
            || self.under_way.iter().any(|work| matches!(work.read, Read::Directory(_)))
        {
            return false;
        }
        let asked = Asked { version, used, sample: self.stats.samples };
        watch.directory_asked = asked.sample;
        let directory = watch.header.geometry.directory();
        let words = (used * ENTRY_WORDS) as u64;
        let Some(from) = watch.target.progress_box.part(directory.start as u64, words) else { return false };
        let buffer = watch.directory_buffer;
        let posted = self.post(Read::Directory(asked), from, buffer, now, transport).is_ok();
        self.stats.directory_reads += u64::from(posted);
        posted
    }

    fn post<T: Transport>(
        &mut self,
        read: Read,
        from: RemoteSlice,
        buffer: BufferId,
        now: Nanos,
        transport: &mut T,
    ) -> Result<(), PostError> {
        let id = WorkId(self.next_work);
        self.next_work += 1;
        let operation = Operation::Read { from, into: LocalSlice::start_of(buffer) };
        transport.post(&[WorkRequest { id, operation }])?;
        self.under_way.push(UnderWay { id, read, posted: now });
        Ok(())
    }
}
