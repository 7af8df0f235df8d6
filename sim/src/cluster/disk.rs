//! The disk: a queue, a device that does one request after another without any processor, and a kernel that keeps its
//! counter.

use std::collections::VecDeque;

use backdoor_core::Nanos;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::node::{Node, at_least};
use super::{Agenda, What};
use crate::streams::Streams;
use crate::workload::Disk;

/// Who waits for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum User {
    /// The loop of an application.
    Loop(usize),
    /// A process of the chain.
    Process(usize),
}

/// What the device is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Well,
    /// No request completes.
    Hung,
    /// Requests take so many times as long.
    Slow(u64),
    /// Requests complete with an error.
    Failing,
}

#[derive(Debug)]
pub(super) struct DiskState {
    disk: Disk,
    pub(super) health: Health,
    /// The first is being done.
    pub(super) queue: VecDeque<User>,
    times: Xoshiro256PlusPlus,
    /// By application, the turns of its loop; and whether the turn that is under way is the rest of one that has read.
    turns: Vec<(u64, bool)>,
}

impl DiskState {
    pub(super) fn new(disk: Disk, applications: usize, streams: &Streams) -> Self {
        let (queue, turns) = (VecDeque::new(), vec![(0, false); applications]);
        DiskState { disk, health: Health::Well, queue, times: streams.stream("disk"), turns }
    }

    fn takes(&mut self) -> Option<Nanos> {
        let time = at_least(self.disk.read_time.sample(&mut self.times));
        match self.health {
            Health::Well | Health::Failing => Some(time),
            Health::Slow(times) => Some(time * times),
            Health::Hung => None,
        }
    }
}

impl Node {
    /// A turn of an application's loop has ended; answers whether it is to be gone on with after a read.
    pub(super) fn turn_reads(&mut self, application: usize, agenda: &mut Agenda<'_>) -> bool {
        let Some(disk) = &mut self.disk else { return false };
        let (turns, has_read) = &mut disk.turns[application];
        if std::mem::take(has_read) {
            return false;
        }
        *turns += 1;
        if !turns.is_multiple_of(disk.disk.every) {
            return false;
        }
        self.submit(User::Loop(application), agenda);
        true
    }

    /// A request to the disk.
    pub(super) fn submit(&mut self, user: User, agenda: &mut Agenda<'_>) {
        let Some(disk) = &mut self.disk else { return };
        disk.queue.push_back(user);
        let (is_first, is_ill) = (disk.queue.len() == 1, disk.health != Health::Well);
        if is_first {
            self.begin_read(agenda);
        }
        self.memory.counters[self.slots.disk()].advance();
        if is_ill {
            self.takes_effect(self.slots.disk(), agenda.now());
        }
    }

    fn begin_read(&mut self, agenda: &mut Agenda<'_>) {
        if let Some(time) = self.disk.as_mut().and_then(DiskState::takes) {
            agenda.after(time, What::DiskDone);
        }
    }

    /// The device has done a request.
    pub(super) fn read_done(&mut self, agenda: &mut Agenda<'_>) {
        let Some(disk) = &mut self.disk else { return };
        if disk.health == Health::Hung {
            return;
        }
        // The interrupt stays pending until there is a kernel.
        if self.cpu.is_frozen() {
            agenda.after(self.work.tick_interval, What::DiskDone);
            return;
        }
        let Some(user) = disk.queue.pop_front() else { return };
        let (is_busy, health, retry) = (!disk.queue.is_empty(), disk.health, disk.disk.retry_after);
        let counter = &mut self.memory.counters[self.slots.disk()];
        if is_busy {
            counter.advance()
        } else {
            counter.idle()
        }
        if is_busy {
            self.begin_read(agenda);
        }
        match user {
            User::Loop(index) if health == Health::Failing => agenda.after(retry, What::ReadAgain(index as u32)),
            User::Process(index) if health == Health::Failing => {
                agenda.after(retry, What::ReadAgain((self.applications.len() + index) as u32));
            }
            User::Loop(index) => {
                if let Some((_, has_read)) = self.disk.as_mut().and_then(|disk| disk.turns.get_mut(index)) {
                    *has_read = true;
                }
                self.turn(index, agenda);
            }
            User::Process(index) => self.process_continues(index, agenda.now()),
        }
    }

    /// Whoever got an error asks again: applications by number, then processes.
    pub(super) fn read_again(&mut self, number: usize, agenda: &mut Agenda<'_>) {
        let user = match number.checked_sub(self.applications.len()) {
            Some(process) => User::Process(process),
            None => User::Loop(number),
        };
        self.submit(user, agenda);
    }
}
