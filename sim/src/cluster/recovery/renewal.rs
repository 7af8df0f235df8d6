//! What a takeover is compared with: a backup that has the state already, a restart, a reboot.
//!
//! ```text
//!  failover   fence ─▶ [run queue of the backup: promote] ─▶ open
//!  restart    [run queue: start the service] ─▶ clients come back ─▶ [run queue: a new session each] ─▶ open
//!             (the node itself; if its operating system has failed: another node, after a fence)
//!  reboot     boot ─▶ start, and on as above
//! ```
//!
//! Each is modelled as well as it could go, so that a comparison never favours takeovers: a backup agrees with nobody on
//! being the next; clients learn at once that the service is back; no file system is checked. Times that no model gives (to
//! start a service, to boot) are [options](RecoveryOptions).

use std::collections::BTreeMap;

use backdoor_core::Nanos;
use backdoor_core::progress_box::FailureLevel;
use backdoor_transports::sim_nic::Leg;

use super::rescue::Marks;
use super::target::Target;
use super::{RecoveryOptions, Remedy};
use crate::cluster::mode::Stream;
use crate::cluster::path::RandomPath;
use crate::dist::Dist;
use crate::streams::Streams;

/// Whose turn it is when the service is; sessions have their numbers.
const SERVICE: usize = 0;

/// What an owner does, or waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// The old owner is cut off.
    Fence,
    Boot,
    Start,
    /// A client comes back: its old connection is reset, it asks for another, that is granted, it sends.
    Client,
    /// The session is opened, or its backup promoted.
    Open,
    /// The first request.
    Serve,
}

/// Sessions that get service again in one of these ways.
pub(super) struct Renewal {
    options: RecoveryOptions,
    machine: Target,
    doing: BTreeMap<usize, What>,
    arrivals: BTreeMap<(Nanos, usize), What>,
    marks: BTreeMap<usize, Marks>,
    path: RandomPath,
    service_work: Dist,
    streams: Streams,
}

impl Renewal {
    /// Begins at `now` for `sessions`, by number; `machine` is where they are served next.
    pub(super) fn new(
        now: Nanos,
        options: &RecoveryOptions,
        sessions: impl IntoIterator<Item = u64>,
        path: RandomPath,
        machine: Target,
        service_work: Dist,
        streams: &Streams,
    ) -> Self {
        let marks = Marks { claimed: Some(now), ..Marks::default() };
        let mut renewal = Renewal {
            options: options.clone(),
            machine,
            doing: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            marks: sessions.into_iter().map(|session| (session as usize, marks)).collect(),
            path,
            service_work,
            streams: *streams,
        };
        let mut fence = streams.stream("fence");
        let mut fenced = || now + options.fence.sample(&mut fence);
        match options.remedy {
            Remedy::Failover => {
                renewal.arrivals.extend(renewal.marks.keys().map(|session| ((fenced(), *session), What::Fence)));
            }
            Remedy::Reboot => _ = renewal.arrivals.insert((now + options.boot, SERVICE), What::Boot),
            // A machine that is alive stops its own processes.
            Remedy::Restart | Remedy::Takeover if options.level == FailureLevel::Os => {
                renewal.arrivals.insert((fenced(), SERVICE), What::Fence);
            }
            Remedy::Restart | Remedy::Takeover => renewal.work(now, SERVICE, What::Start),
        }
        renewal
    }

    /// Lets everything happen that is due by `now`.
    pub(super) fn step(&mut self, now: Nanos) {
        loop {
            if let Some(first) = self.arrivals.first_entry().filter(|first| first.key().0 <= now) {
                let ((at, owner), what) = first.remove_entry();
                self.done(at, owner, what);
            } else if let Some((owner, at)) = self.machine.next_done(now) {
                if let Some(what) = self.doing.remove(&owner) {
                    self.done(at, owner, what);
                }
            } else {
                return;
            }
        }
    }

    /// When to [`step`](Self::step) next.
    pub(super) fn next_event(&self) -> Option<Nanos> {
        let arrival = self.arrivals.first_key_value().map(|((at, _), _)| *at);
        arrival.into_iter().chain(self.machine.next_event()).min()
    }

    /// Whether every session has served.
    pub(super) fn is_done(&self) -> bool {
        self.marks.values().all(|marks| marks.served.is_some())
    }

    /// How far a session has got.
    pub(super) fn get(&self, session: u64) -> Option<Marks> {
        self.marks.get(&(session as usize)).copied()
    }

    fn done(&mut self, now: Nanos, owner: usize, what: What) {
        match what {
            What::Fence | What::Boot if owner == SERVICE => {
                self.marks.values_mut().for_each(|marks| marks.fenced = (what == What::Fence).then_some(now));
                self.work(now, SERVICE, What::Start);
            }
            What::Start => {
                for session in self.marks.keys().copied().collect::<Vec<_>>() {
                    // One connection each: reset, request, grant, first request.
                    let mut stream = Stream::default();
                    let legs = [Leg::FromNode, Leg::ToNode, Leg::FromNode, Leg::ToNode];
                    let comes = legs.iter().fold(now, |at, leg| stream.send(&mut self.path, *leg, at, 0, None));
                    self.arrivals.insert((comes, session), What::Client);
                }
            }
            What::Fence => {
                self.mark(owner, |marks| marks.fenced = Some(now));
                self.work(now, owner, What::Open);
            }
            What::Client | What::Boot => self.work(now, owner, What::Open),
            What::Open => {
                self.mark(owner, |marks| marks.restored = Some(now));
                self.work(now, owner, What::Serve);
            }
            What::Serve => self.mark(owner, |marks| marks.served = Some(now)),
        }
    }

    fn mark(&mut self, session: usize, set: impl FnOnce(&mut Marks)) {
        if let Some(marks) = self.marks.get_mut(&session) {
            set(marks);
        }
    }

    /// Puts something on the run queue.
    fn work(&mut self, now: Nanos, owner: usize, what: What) {
        let work = match what {
            What::Start => self.options.service_start,
            What::Serve => {
                let mut stream = self.streams.indexed("service after recovery", owner as u64);
                self.service_work.sample(&mut stream)
            }
            _ if self.options.remedy == Remedy::Failover => self.options.promote_work,
            _ => self.options.reinstate_work,
        };
        self.doing.insert(owner, what);
        self.machine.work(now, owner, work);
    }
}
