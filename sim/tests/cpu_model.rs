//! The CPU model against what is known of schedulers: conservation of work, shares, bounds of delays. What queueing theory
//! says of its mean waits is in `validation.rs`.

use backdoor_core::Nanos;
use backdoor_sim::cpu::{Affinity, CpuModel, CpuParams, ENDLESS, Finished, TaskId};
use backdoor_sim::dist::Dist;
use backdoor_sim::streams::{StreamKey, Streams};
use proptest::prelude::*;

const SLICE: Nanos = Nanos::from_millis(2);

fn ms(n: u64) -> Nanos {
    Nanos::from_millis(n)
}

fn us(n: u64) -> Nanos {
    Nanos::from_micros(n)
}

fn cpu(cores: usize) -> CpuModel {
    CpuModel::new(CpuParams { cores, slice: SLICE }).unwrap()
}

fn free(cpu: &mut CpuModel) -> TaskId {
    cpu.add_task(Affinity::Free).unwrap()
}

fn pinned(cpu: &mut CpuModel, core: usize) -> TaskId {
    cpu.add_task(Affinity::Pinned(core)).unwrap()
}

fn finished(cpu: &mut CpuModel) -> Vec<Finished> {
    cpu.drain_finished().collect()
}

#[test]
fn a_task_alone_finishes_after_exactly_its_work() {
    let mut cpu = cpu(2);
    let task = free(&mut cpu);
    cpu.wake(ms(3), task, us(7_001));
    assert_eq!(cpu.next_change(), Some(us(10_001)));
    cpu.advance(ms(20));
    assert_eq!(finished(&mut cpu), [Finished { task, at: us(10_001) }]);
    assert_eq!((cpu.cpu_time(task), cpu.remaining(task)), (us(7_001), Nanos::ZERO));
}

#[test]
fn no_work_at_all_is_finished_at_once_on_an_idle_core() {
    let mut cpu = cpu(1);
    let task = free(&mut cpu);
    cpu.wake(ms(1), task, Nanos::ZERO);
    assert_eq!(cpu.next_change(), Some(ms(1)));
    cpu.advance(ms(1));
    assert_eq!(finished(&mut cpu), [Finished { task, at: ms(1) }]);
}

#[test]
fn machines_with_no_more_tasks_than_cores_have_no_events() {
    let mut cpu = cpu(3);
    assert_eq!(cpu.next_change(), None);
    cpu.set_load(Nanos::ZERO, 3);
    assert_eq!(cpu.next_change(), None);
    cpu.set_load(ms(1), 4);
    assert_eq!(cpu.next_change(), Some(SLICE));
    cpu.set_load(ms(1), 2);
    assert_eq!((cpu.next_change(), cpu.runnable()), (None, 2));
}

#[test]
fn always_busy_tasks_get_equal_shares_within_a_slice() {
    for (cores, count) in [(1, 3), (2, 5), (3, 4)] {
        let mut cpu = cpu(cores);
        let tasks: Vec<_> = (0..count).map(|_| free(&mut cpu)).collect();
        for &task in &tasks {
            cpu.wake(Nanos::ZERO, task, ENDLESS);
        }
        let until = Nanos::from_secs(1) + us(300);
        let mut events = 0;
        while let Some(at) = cpu.next_change().filter(|&at| at <= until) {
            cpu.advance(at);
            events += 1;
        }
        cpu.advance(until);
        let share = until * cores as u64 / count;
        for &task in &tasks {
            let time = cpu.cpu_time(task);
            assert!(time + SLICE >= share && time <= share + SLICE, "{time} for {share}");
        }
        let slices = until.0 / SLICE.0;
        assert!(events <= slices, "{events} events in {slices} slices: one for each end of a slice is enough");
        assert!(cpu.context_switches() <= (slices + 1) * cores as u64);
    }
}

#[test]
fn a_woken_task_waits_for_the_rest_of_a_slice() {
    // One core, one busy task: the waiting time is uniform between 0 and a slice.
    let mut rng = Streams::new(StreamKey { seed: 1, experiment: "cpu", point: "wake", replication: 0 }).stream("gaps");
    let gap: Dist = "uniform:5ms:25ms".parse().unwrap();
    let mut cpu = cpu(1);
    let task = free(&mut cpu);
    cpu.set_load(Nanos::ZERO, 1);
    let (mut now, mut sum, mut longest, wakes) = (Nanos::ZERO, Nanos::ZERO, Nanos::ZERO, 10_000);
    for _ in 0..wakes {
        now += gap.sample(&mut rng);
        cpu.wake(now, task, us(20));
        cpu.advance(now + SLICE + us(20));
        let [done] = finished(&mut cpu)[..] else { panic!("not finished within a slice and its work") };
        let waited = done.at - now - us(20);
        sum += waited;
        longest = longest.max(waited);
    }
    let mean = sum.as_secs_f64() / f64::from(wakes);
    let sd_of_mean = SLICE.as_secs_f64() / 12f64.sqrt() / f64::from(wakes).sqrt();
    assert!((mean - SLICE.as_secs_f64() / 2.0).abs() < 4.0 * sd_of_mean, "mean wait {mean} s");
    assert!(longest <= SLICE && longest > SLICE / 20 * 19, "{longest}");
}

#[test]
fn sleepers_go_before_tasks_that_have_used_up_a_slice() {
    for (cores, load) in [(1, 3), (2, 2), (2, 7)] {
        let mut cpu = cpu(cores);
        let tasks = [free(&mut cpu), free(&mut cpu)];
        cpu.set_load(Nanos::ZERO, load);
        for n in 0..500 {
            // Any times that do not keep step with the slices.
            let now = us(7_310) * (n + 1);
            for task in tasks {
                cpu.wake(now, task, us(20));
            }
            // The second has to wait for the first, too, where there is one core.
            cpu.advance(now + SLICE + us(40));
            assert_eq!(finished(&mut cpu).len(), 2, "{load} busy tasks on {cores} cores, wake {n}");
        }
    }
}

#[test]
fn tasks_that_sleep_little_do_not_starve_the_busy() {
    // Two, because one of them is always there when the other leaves the core.
    let mut cpu = cpu(1);
    let greedy = [free(&mut cpu), free(&mut cpu)];
    let busy = free(&mut cpu);
    for task in greedy {
        cpu.wake(Nanos::ZERO, task, us(1_800));
    }
    cpu.wake(Nanos::ZERO, busy, ENDLESS);
    while let Some(at) = cpu.next_change().filter(|&at| at < Nanos::from_secs(1)) {
        cpu.advance(at);
        for done in finished(&mut cpu) {
            cpu.wake(done.at + us(100), done.task, us(1_800));
        }
    }
    assert!(cpu.cpu_time(busy) > ms(250), "{}", cpu.cpu_time(busy));
    assert!(greedy.iter().all(|&task| cpu.cpu_time(task) > ms(250)));
}

#[test]
fn a_freeze_stops_everything_and_a_thaw_continues_it() {
    let mut cpu = cpu(2);
    let (running, woken_late) = (free(&mut cpu), pinned(&mut cpu, 1));
    cpu.set_load(Nanos::ZERO, 3);
    cpu.wake(Nanos::ZERO, running, ms(5));
    cpu.freeze(ms(3));
    let times = |cpu: &CpuModel| (cpu.cpu_time(running), cpu.cpu_time(woken_late), cpu.context_switches());
    let before = times(&cpu);
    cpu.wake(ms(4), woken_late, ms(1));
    assert_eq!(cpu.next_change(), None);
    cpu.advance(Nanos::from_secs(100));
    assert_eq!((times(&cpu), finished(&mut cpu)), (before, vec![]));
    assert!(cpu.is_stuck(running) && cpu.is_stuck(woken_late));

    cpu.thaw(Nanos::from_secs(100));
    cpu.set_load(Nanos::from_secs(100), 0);
    cpu.advance(Nanos::from_secs(101));
    let mut done: Vec<_> = finished(&mut cpu).iter().map(|done| done.task).collect();
    done.sort();
    assert_eq!(done, [running, woken_late]);
    assert_eq!((cpu.cpu_time(running), cpu.cpu_time(woken_late)), (ms(5), ms(1)));
}

#[test]
fn a_stopped_task_keeps_its_work_and_lends_its_core() {
    let mut cpu = cpu(1);
    let (first, second) = (free(&mut cpu), free(&mut cpu));
    cpu.wake(Nanos::ZERO, first, ms(1));
    cpu.wake(Nanos::ZERO, second, ms(1));
    cpu.stop(us(400), first);
    assert!(cpu.is_running(second) && cpu.is_stopped(first) && cpu.is_stuck(first));
    cpu.wake(us(500), first, ms(1));
    cpu.advance(ms(10));
    assert_eq!(finished(&mut cpu), [Finished { task: second, at: us(1_400) }]);
    cpu.resume(ms(10), first);
    cpu.resume(ms(10), first);
    cpu.advance(ms(20));
    assert_eq!(finished(&mut cpu), [Finished { task: first, at: us(11_600) }]);
    // A waiting task can be stopped, too, and killed.
    cpu.set_load(ms(20), 1);
    cpu.wake(ms(20), first, ms(1));
    cpu.stop(ms(20), first);
    assert_eq!(cpu.runnable(), 1);
    assert_eq!(cpu.drop_work(ms(20), first), ms(1));
    cpu.resume(ms(21), first);
    assert_eq!((cpu.runnable(), cpu.next_change()), (1, None));
}

#[test]
fn a_hung_core_stalls_what_is_pinned_to_it_and_no_more() {
    let mut cpu = cpu(2);
    let trapped = pinned(&mut cpu, 0);
    let counters = [pinned(&mut cpu, 0), pinned(&mut cpu, 1), free(&mut cpu)];
    cpu.wake(Nanos::ZERO, trapped, ms(3));
    cpu.hang_core(ms(1), 0).unwrap();
    for counter in counters {
        cpu.wake(ms(1), counter, us(10));
    }
    cpu.advance(ms(50));
    let done: Vec<_> = finished(&mut cpu).iter().map(|done| done.task).collect();
    assert_eq!(done, [counters[1], counters[2]]);
    assert!(cpu.is_stuck(trapped) && cpu.is_stuck(counters[0]) && !cpu.is_stuck(counters[2]));
    assert_eq!(cpu.cpu_time(trapped), ms(1));
    // SIGSTOP reaches a task only when its core comes back.
    cpu.stop(ms(50), trapped);
    assert!(cpu.is_running(trapped));
    cpu.resume_core(ms(60), 0).unwrap();
    assert!(!cpu.is_running(trapped) && cpu.is_running(counters[0]));
    cpu.resume(ms(60), trapped);
    cpu.advance(ms(70));
    assert_eq!((cpu.cpu_time(trapped), cpu.cpu_time(counters[0])), (ms(3), us(10)));
}

#[test]
fn a_pinned_task_waits_for_its_core_although_another_is_idle() {
    let mut cpu = cpu(2);
    let task = pinned(&mut cpu, 0);
    cpu.set_load(Nanos::ZERO, 1);
    cpu.wake(us(500), task, us(10));
    cpu.advance(ms(10));
    // At the end of its slice the free task goes over to the idle core.
    assert_eq!(finished(&mut cpu), [Finished { task, at: SLICE + us(10) }]);
    assert_eq!((cpu.runnable(), cpu.next_change()), (1, None));
}

#[test]
fn cores_that_do_not_exist_are_refused() {
    let mut cpu = cpu(2);
    let message = cpu.add_task(Affinity::Pinned(2)).unwrap_err().to_string();
    assert_eq!(message, "core 2 does not exist: the node has 2, numbered from 0");
    assert!(cpu.hang_core(Nanos::ZERO, 2).is_err() && cpu.resume_core(Nanos::ZERO, 7).is_err());
}

/// Something done to a machine with six tasks, the last two of them pinned.
#[derive(Clone, Debug)]
enum Action {
    Wake(usize, Nanos),
    Drop(usize),
    Stop(usize),
    Resume(usize),
    Hang(usize),
    Unhang(usize),
    Freeze,
    Thaw,
    Load(usize),
}

fn action() -> impl Strategy<Value = Action> {
    let work = prop_oneof![8 => (0..8_000_000u64).prop_map(Nanos), 1 => Just(ENDLESS), 1 => Just(Nanos::ZERO)];
    prop_oneof![
        10 => (0..6usize, work).prop_map(|(task, work)| Action::Wake(task, work)),
        1 => (0..6usize).prop_map(Action::Drop),
        1 => (0..6usize).prop_map(Action::Stop),
        2 => (0..6usize).prop_map(Action::Resume),
        1 => (0..2usize).prop_map(Action::Hang),
        2 => (0..2usize).prop_map(Action::Unhang),
        1 => Just(Action::Freeze),
        2 => Just(Action::Thaw),
        1 => (0..4usize).prop_map(Action::Load),
    ]
}

fn machine() -> (CpuModel, Vec<TaskId>) {
    let mut cpu = cpu(2);
    let tasks = (0..6).map(|n| if n < 4 { free(&mut cpu) } else { pinned(&mut cpu, n - 4) }).collect();
    (cpu, tasks)
}

fn act(cpu: &mut CpuModel, tasks: &[TaskId], now: Nanos, action: &Action) {
    match *action {
        Action::Wake(task, work) => cpu.wake(now, tasks[task], work),
        Action::Drop(task) => {
            cpu.drop_work(now, tasks[task]);
        }
        Action::Stop(task) => cpu.stop(now, tasks[task]),
        Action::Resume(task) => cpu.resume(now, tasks[task]),
        Action::Hang(core) => cpu.hang_core(now, core).unwrap(),
        Action::Unhang(core) => cpu.resume_core(now, core).unwrap(),
        Action::Freeze => cpu.freeze(now),
        Action::Thaw => cpu.thaw(now),
        Action::Load(busy) => cpu.set_load(now, busy),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Nothing is lost, nothing is done twice, and no core is idle while somebody may use it.
    #[test]
    fn work_is_conserved(steps in prop::collection::vec((action(), 0..5_000_000u64), 1..60)) {
        let (mut cpu, tasks) = machine();
        let mut owed = [Nanos::ZERO; 6];
        let mut endless = [false; 6];
        let mut now = Nanos::ZERO;
        for (step, pause) in &steps {
            if let Action::Drop(task) = *step {
                cpu.advance(now);
                // What was done counts, what is dropped does not.
                owed[task] = cpu.cpu_time(tasks[task]);
                endless[task] = false;
            }
            act(&mut cpu, &tasks, now, step);
            if let Action::Wake(task, work) = *step {
                owed[task] += work;
                endless[task] |= work == ENDLESS;
            }
            now += Nanos(*pause);
            cpu.advance(now);
            for (number, &task) in tasks.iter().enumerate() {
                if !endless[number] {
                    prop_assert_eq!(cpu.cpu_time(task) + cpu.remaining(task), owed[number], "task {}", number);
                }
            }
            let running = tasks.iter().filter(|&&task| cpu.is_running(task)).count();
            prop_assert!(running <= 2);
            if !cpu.is_frozen() {
                let may_run = tasks[..4].iter().any(|&t| {
                    cpu.remaining(t) > Nanos::ZERO && !cpu.is_running(t) && !cpu.is_stopped(t)
                });
                prop_assert!(!may_run || cpu.idle_cores() == 0, "a free task waits while a core is idle");
            }
        }
    }

    /// How often the caller looks makes no difference.
    #[test]
    fn stepping_event_by_event_is_the_same_as_one_leap(
        steps in prop::collection::vec((action(), 0..20_000_000u64), 1..40),
    ) {
        let ((mut stepped, tasks), (mut leapt, _)) = (machine(), machine());
        let mut now = Nanos::ZERO;
        for (step, pause) in &steps {
            act(&mut stepped, &tasks, now, step);
            act(&mut leapt, &tasks, now, step);
            now += Nanos(*pause);
            while let Some(at) = stepped.next_change().filter(|&at| at <= now) {
                // Look a little before, when nothing happens, too.
                stepped.advance(at - us(1));
                stepped.advance(at);
            }
            stepped.advance(now);
            leapt.advance(now);
            prop_assert_eq!(finished(&mut stepped), finished(&mut leapt));
            for &task in &tasks {
                prop_assert_eq!(stepped.cpu_time(task), leapt.cpu_time(task));
                prop_assert_eq!(stepped.is_running(task), leapt.is_running(task));
            }
        }
    }
}
