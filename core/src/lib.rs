//! Formats and decisions of Back-Doors: how a node describes itself in memory that others may read, and how a monitor
//! that can do nothing but read finds out who has failed and carries their work on.
//!
//! ```text
//!     the monitored node                                        the monitor
//!
//!   Counter::advance ──┐       ═════ READ, every poll ═════>  Monitor ── Detector, one per entity
//!   ProgressBox ───────┤                                         │ Event::Suspected, ...
//!                      v                                         v
//!            hook table │ Progress Box                        diagnose ── at which level, who is the root
//!            State Boxes │ claim words                           │ Failure
//!                      ^                                         v
//!   StateBox::commit ──┘       ═════ READ, once ═══════════>  plan, Extraction ── the sessions' last committed state
//! ```
//!
//! # Concepts
//! * **Memory is [words].** What can be reached remotely is a slice of [`AtomicU64`](words::AtomicU64). The node's side
//!   writes to the shared words with plain stores; a reader looks at the private copy that a READ brought, and believes
//!   nothing of it before it was checked. A READ is not atomic, and a node that failed may hold anything.
//! * **[Progress Box](progress_box).** A word per *entity* (operating system, application, session) with its state and a
//!   count. Who is active must advance within its deadline; who is idle or has departed may be silent.
//! * **[State Box](state_box).** A session's state in two slots and a commit word: whenever its writer dies, the last
//!   committed version is whole.
//! * **[Channels](channels).** What a session's state says of its connections, so that they can be carried on, too.
//! * **[Hook table](hook_table).** Where all that lies, and with which rights.
//! * **[Transport](transport).** Posted work and polled completions, as with verbs; the monitor needs no more of a
//!   substrate. Simulated, shared and real memory are in `backdoor-transports`.
//! * **[Monitor](monitor).** Finds the Progress Box, polls it, and tells who is suspected and who came back, by a
//!   [detector] for each entity. It doubts itself first: silence counts only while it demonstrably watched.
//! * **[Diagnosis](diagnosis).** Many counters fall silent by one failure: which is it, and is that answer
//!   [for good](diagnosis::settles_by) already?
//! * **[Recovery](recovery).** What to do about it, and the READs that get the state out.
//! * **[Takeover](takeover).** Whose a session is, whoever fails or is late: claim, fence, extract, reinstate.
//!
//! Nothing in here does I/O, starts a thread, or asks a clock: time is an argument, in [`Nanos`] since an origin of the
//! caller's choice. So the same code runs in virtual time and in real time, and every decision can be tested by itself.
//!
//! # A node and its monitor
//! ```
//! use backdoor_core::Nanos;
//! use backdoor_core::diagnosis::{Cause, diagnose, settles_by};
//! use backdoor_core::hook_table::{Hook, Purpose, hook_table_words, write_hook_table};
//! use backdoor_core::monitor::{Event, Monitor, MonitorConfig};
//! use backdoor_core::progress_box::{Counter, EntityRecord, FailureLevel, Geometry, ProgressBox};
//! use backdoor_core::transport::{RegionKey, Rights};
//! use backdoor_core::words::{AtomicU64, zeroed};
//! # use std::collections::BTreeMap;
//! # use backdoor_core::transport::*;
//! # use backdoor_core::words::copy_of;
//! #
//! # /// Two regions in this process; a READ is a copy.
//! # struct InProcess<'m> {
//! #     regions: [&'m [AtomicU64]; 2],
//! #     buffers: BTreeMap<u32, Vec<u64>>,
//! #     queue: Vec<WorkRequest>,
//! # }
//! # impl<'m> InProcess<'m> {
//! #     fn new(regions: [&'m [AtomicU64]; 2]) -> Self {
//! #         InProcess { regions, buffers: BTreeMap::new(), queue: Vec::new() }
//! #     }
//! # }
//! # impl Transport for InProcess<'_> {
//! #     fn allocate(&mut self, words: usize) -> Result<BufferId, PostError> {
//! #         let id = self.buffers.keys().last().map_or(0, |last| last + 1);
//! #         self.buffers.insert(id, vec![0; words]);
//! #         Ok(BufferId(id))
//! #     }
//! #     fn release(&mut self, _: BufferId) -> Result<(), PostError> {
//! #         Ok(())
//! #     }
//! #     fn buffer(&self, buffer: BufferId) -> Result<&[u64], PostError> {
//! #         Ok(&self.buffers[&buffer.0])
//! #     }
//! #     fn buffer_mut(&mut self, _: BufferId) -> Result<&mut [u64], PostError> {
//! #         unreachable!()
//! #     }
//! #     fn post(&mut self, batch: &[WorkRequest]) -> Result<(), PostError> {
//! #         self.queue.extend(batch);
//! #         Ok(())
//! #     }
//! #     fn poll(&mut self, completions: &mut Vec<Completion>) {
//! #         for WorkRequest { id, operation } in self.queue.drain(..) {
//! #             let Operation::Read { from, into } = operation else { unreachable!() };
//! #             let words = &self.regions[from.key.0 as usize][from.offset as usize..][..from.words as usize];
//! #             let buffer = self.buffers.get_mut(&into.buffer.0).unwrap();
//! #             buffer[into.offset..][..words.len()].copy_from_slice(&copy_of(words));
//! #             completions.push(Completion { id, result: Ok(Done::Read) });
//! #         }
//! #     }
//! #     fn channel(&self) -> ChannelState {
//! #         ChannelState::Open
//! #     }
//! #     fn reopen(&mut self) {}
//! # }
//!
//! // The node: a Progress Box with an operating system and an application, and a hook table that says where it is.
//! let geometry = Geometry::new(8, 0)?;
//! let (table, memory) = (zeroed(hook_table_words(1)), zeroed(geometry.total_words()));
//! let mut node = ProgressBox::format(&*memory, geometry, 1)?;
//! let os = node.add(EntityRecord::new("os", FailureLevel::Os, Nanos::from_millis(20)))?;
//! let kv = node.add(EntityRecord::new("kv", FailureLevel::Application, Nanos::from_millis(5)).within(os))?;
//! let hook = Hook::whole_region(1, Purpose::Monitoring, Rights::READ, RegionKey(1), memory.len());
//! write_hook_table(&table, 1, &[hook])?;
//!
//! // The monitor knows one thing: where the hook table lies. `InProcess` is a transport over these two regions.
//! let mut transport = InProcess::new([&table, &memory]);
//! let mut monitor = Monitor::by_deadline(MonitorConfig::polling_every(Nanos::from_millis(1)), RegionKey(0));
//!
//! // The application stops after 30 ms; the system goes on.
//! let mut events = Vec::new();
//! for ms in 0..40 {
//!     Counter::resume(node.liveness_word(os)).advance();
//!     if ms < 30 {
//!         Counter::resume(node.liveness_word(kv)).advance();
//!     }
//!     monitor.step(Nanos::from_millis(ms), &mut transport, &mut events);
//! }
//! let Some(Event::Suspected(verdict)) = events.last() else { panic!("{events:?}") };
//! assert_eq!((verdict.slot, verdict.at), (kv, Nanos::from_millis(35)));
//!
//! // The system was seen to advance since: the failure is no wider than the application.
//! assert_eq!(settles_by(&monitor), None);
//! assert_eq!(diagnose(&monitor)[0].cause, Cause::Application);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A session's state and its recovery: see [`StateBox`](state_box::StateBox) and [`Extraction`](recovery::Extraction).
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(not(target_endian = "little"))]
compile_error!("the formats are little-endian words; a big-endian machine would need byte swaps at every access");

pub mod channels;
mod checksum;
pub mod detector;
pub mod diagnosis;
mod format;
pub mod hook_table;
pub mod monitor;
pub mod progress_box;
pub mod recovery;
pub mod state_box;
pub mod takeover;
pub mod transport;
mod units;
pub mod words;

pub use format::FormatError;
pub use units::{Nanos, ParseNanosError};
