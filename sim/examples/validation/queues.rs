//! The run queue as an open queue, against queueing theory.
//!
//! Jobs arrive as a Poisson process, each a task of its own. How they are served is the slice's and the busy tasks' doing:
//!
//! | slice | busy tasks | is | law |
//! |---|---|---|---|
//! | longer than any work | none | first come, first served, one core | wait λE(S²) / 2(1−ρ) (Pollaczek and Khinchine) |
//! | longer than any work | none | the same on c cores, exponential work | wait C(c, λE(S)) / (c/E(S) − λ) (Erlang) |
//! | any | none | work conserved and sizes unknown, exponential work | sojourn E(S)/(1−ρ), as of any such discipline |
//! | far shorter than the work | none | processor sharing | sojourn E(S)/(1−ρ) for any law of work |
//! | longer than any work | one or more | vacations of a slice each | wait λE(S²) / 2(1−ρ) + slice/2 |
//!
//! Sources: Kleinrock, *Queueing Systems*, volume 1, 1975, sections 3.5 and 5.6, and volume 2, 1976, section 4.4; Conway,
//! Maxwell and Miller, *Theory of Scheduling*, 1967, section 8.5 (any discipline that does not look at sizes); Doshi,
//! *Queueing systems with vacations: a survey*, Queueing Systems 1, 1986 (vacations V add E(V²)/2E(V)); Little, *A proof
//! for the queuing formula L = λW*, Operations Research 9, 1961.

use std::collections::VecDeque;

use backdoor_core::Nanos;
use backdoor_sim::cpu::{Affinity, CpuModel, CpuParams, TaskId};
use backdoor_sim::dist::Dist;
use backdoor_sim::stats;
use backdoor_sim::streams::Streams;

use crate::case::{Case, Round};
use crate::table::{Comparison, Known};

/// An open queue.
#[derive(Clone, Copy)]
struct Queue {
    cores: usize,
    slice: Nanos,
    /// Always-busy tasks beside the jobs.
    busy: usize,
    /// Share of the cores that the jobs need.
    load: f64,
    work: &'static str,
    /// Jobs of each replication that are measured.
    jobs: usize,
}

/// What one replication measured, of the jobs that came after the first ones.
#[derive(Clone, Copy, Debug)]
struct Seen {
    wait_s: f64,
    sojourn_s: f64,
    /// Time-average of the jobs in the system.
    inside: f64,
    /// Jobs that came per second.
    rate: f64,
    /// Processor time that jobs had per time and core.
    utilisation: f64,
}

impl Queue {
    fn work(&self) -> Dist {
        self.work.parse().expect("a distribution")
    }

    fn mean_work_s(&self) -> f64 {
        self.work().mean_s()
    }

    /// λ.
    fn rate(&self) -> f64 {
        self.load * self.cores as f64 / self.mean_work_s()
    }

    /// λE(S²) / 2(1−ρ).
    fn pollaczek_khinchine(&self) -> f64 {
        let second_moment = self.work().variance_s2() + self.mean_work_s().powi(2);
        self.rate() * second_moment / (2.0 * (1.0 - self.load))
    }

    /// C(c, a) / (cμ − λ).
    fn erlang(&self) -> f64 {
        let (cores, offered) = (self.cores as f64, self.load * self.cores as f64);
        let terms = |upto: usize| {
            (1..=upto).scan(1.0, |term, n| {
                *term *= offered / n as f64;
                Some(*term)
            })
        };
        let last = terms(self.cores).last().unwrap_or(1.0) / (1.0 - self.load);
        let below: f64 = 1.0 + terms(self.cores - 1).sum::<f64>();
        last / (below + last) / (cores / self.mean_work_s() - self.rate())
    }

    /// Begins empty; a fifth as many jobs as are measured come before those.
    fn simulate(&self, streams: &Streams) -> Seen {
        let (mut gaps, mut works) = (streams.stream("gaps"), streams.stream("works"));
        let gap = Dist::exp(Nanos::from_secs_f64(1.0 / self.rate())).expect("a positive rate");
        let law = self.work();
        let mut cpu = CpuModel::new(CpuParams { cores: self.cores, slice: self.slice }).expect("a possible machine");
        cpu.set_load(Nanos::ZERO, self.busy);
        // So many that whoever is woken has slept long: it brings no used part of a slice along.
        let mut idle: VecDeque<TaskId> =
            (0..500).map(|_| cpu.add_task(Affinity::Free).expect("free tasks are never refused")).collect();
        let tasks: Vec<TaskId> = idle.iter().copied().collect();
        let first = self.jobs / 5;
        let last = first + self.jobs;
        // By job: when it came, its work, when it was finished.
        let mut jobs: Vec<(Nanos, Nanos, Nanos)> = Vec::new();
        let mut inside: Vec<(TaskId, usize)> = Vec::new();
        let (mut now, mut unfinished) = (Nanos::ZERO, last);
        let processor_time = |cpu: &CpuModel| -> Nanos { tasks.iter().map(|task| cpu.cpu_time(*task)).sum() };
        let mut used = [Nanos::ZERO; 2];
        // Arrivals go on until all that are measured are finished.
        while unfinished > 0 {
            now += gap.sample(&mut gaps);
            let work = law.sample(&mut works);
            let task = idle.pop_front().expect("more tasks than jobs at once");
            cpu.wake(now, task, work);
            if jobs.len() == first || jobs.len() == last {
                used[usize::from(jobs.len() == last)] = processor_time(&cpu);
            }
            inside.push((task, jobs.len()));
            jobs.push((now, work, Nanos::MAX));
            for done in cpu.drain_finished() {
                let place = inside.iter().position(|(task, _)| *task == done.task).expect("a job");
                let (task, job) = inside.swap_remove(place);
                jobs[job].2 = done.at;
                idle.push_back(task);
                unfinished -= usize::from(job < last);
            }
        }
        while jobs.len() <= last {
            // Nobody came after the last that is measured; one more ends the time in which the average is taken.
            now += gap.sample(&mut gaps);
            cpu.advance(now);
            used[1] = processor_time(&cpu);
            jobs.push((now, Nanos::ZERO, now));
        }
        let (from, to) = (jobs[first].0, jobs[last].0);
        let time_s = (to - from).as_secs_f64();
        let measured = &jobs[first..last];
        let mean = |of: &dyn Fn(&(Nanos, Nanos, Nanos)) -> Nanos| {
            measured.iter().map(|job| of(job).as_secs_f64()).sum::<f64>() / measured.len() as f64
        };
        let overlap = |(came, _, gone): &(Nanos, Nanos, Nanos)| ((*gone).min(to) - (*came).max(from)).as_secs_f64();
        Seen {
            wait_s: mean(&|(came, work, gone)| *gone - *came - *work),
            sojourn_s: mean(&|(came, _, gone)| *gone - *came),
            inside: jobs[..last].iter().map(overlap).sum::<f64>() / time_s,
            rate: self.jobs as f64 / time_s,
            utilisation: (used[1] - used[0]).as_secs_f64() / time_s / self.cores as f64,
        }
    }
}

/// A measure, what it should be, and how it is found.
type Law = (&'static str, f64, fn(&Seen) -> f64);

fn case(name: &str, queue: Queue, laws: Vec<Law>) -> Case {
    let Queue { cores, slice, busy, load, work, .. } = queue;
    let slice = if slice == Nanos::MAX { "slice without end".into() } else { format!("slice {slice}") };
    let name =
        format!("{name}: {cores} core{}, ρ {load}, S {work}, {slice}, {busy} busy", if cores > 1 { "s" } else { "" });
    Case::new(name, move |name, round: Round| {
        let seen: Vec<Seen> = round.streams(name).map(|streams| queue.simulate(&streams)).collect();
        let row = |(measure, known, of): &Law| Comparison {
            setting: name.into(),
            measure,
            found: stats::mean(&seen.iter().map(of).collect::<Vec<f64>>()).expect("finite numbers"),
            known: Known::Mean(*known),
            replications: round.replications(),
        };
        laws.iter().map(row).collect()
    })
}

const WAIT: &str = "mean wait, ms";
const SOJOURN: &str = "mean sojourn, ms";

/// The laws of utilisation and of Little, which hold for whatever discipline.
fn any_discipline(queue: Queue) -> [Law; 2] {
    [
        ("utilisation", queue.load, |seen| seen.utilisation),
        ("L / λW", 1.0, |seen| seen.inside / (seen.rate * seen.sojourn_s)),
    ]
}

/// First come, first served: slices longer than the work.
pub(crate) fn first_come() -> Vec<Case> {
    let queue = |cores, load, work| Queue { cores, slice: Nanos::MAX, busy: 0, load, work, jobs: 5_000 };
    let mut cases = Vec::new();
    for (name, load, work) in [
        ("M/D/1", 0.5, "const:1ms"),
        ("M/D/1", 0.8, "const:1ms"),
        ("M/M/1", 0.3, "exp:1ms"),
        ("M/M/1", 0.7, "exp:1ms"),
        ("M/G/1", 0.7, "uniform:0s:2ms"),
        ("M/G/1", 0.5, "lognormal:1ms:1500us"),
    ] {
        let queue = queue(1, load, work);
        let mut laws: Vec<Law> = vec![(WAIT, queue.pollaczek_khinchine() * 1e3, |seen| seen.wait_s * 1e3)];
        laws.extend(any_discipline(queue));
        cases.push(case(name, queue, laws));
    }
    for (name, cores, load) in [("M/M/2", 2, 0.7), ("M/M/4", 4, 0.8)] {
        let queue = queue(cores, load, "exp:1ms");
        let mut laws: Vec<Law> = vec![(WAIT, queue.erlang() * 1e3, |seen| seen.wait_s * 1e3)];
        laws.extend(any_discipline(queue));
        cases.push(case(name, queue, laws));
    }
    cases
}

/// Slices shorter than the work, and slices of others.
pub(crate) fn slices() -> Vec<Case> {
    let queue = |slice, busy, load, work, jobs| Queue { cores: 1, slice, busy, load, work, jobs };
    let us = Nanos::from_micros;
    let mut cases = Vec::new();
    for (name, queue) in [
        ("M/M/1, work in turns", queue(us(2_000), 0, 0.7, "exp:5ms", 4_000)),
        ("M/M/1, work in turns", queue(us(500), 0, 0.5, "exp:2ms", 4_000)),
        ("M/D/1, shared processor", queue(us(100), 0, 0.6, "const:10ms", 1_000)),
        ("M/G/1, shared processor", queue(us(100), 0, 0.6, "uniform:2ms:18ms", 1_000)),
    ] {
        let mut laws: Vec<Law> =
            vec![(SOJOURN, queue.mean_work_s() / (1.0 - queue.load) * 1e3, |seen| seen.sojourn_s * 1e3)];
        laws.extend(any_discipline(queue));
        cases.push(case(name, queue, laws));
    }
    for (busy, load, work) in [
        (1, 0.05, "const:20us"),
        (1, 0.5, "const:200us"),
        (3, 0.5, "uniform:0s:400us"),
        (12, 0.3, "uniform:50us:350us"),
    ] {
        let queue = queue(us(2_000), busy, load, work, 5_000);
        let wait = queue.pollaczek_khinchine() + queue.slice.as_secs_f64() / 2.0;
        let mut laws: Vec<Law> = vec![(WAIT, wait * 1e3, |seen| seen.wait_s * 1e3)];
        laws.extend(any_discipline(queue));
        cases.push(case("M/G/1 with vacations", queue, laws));
    }
    cases
}
