//! What a simulated takeover makes of answers that come late, and of targets that are slow.

use backdoor_core::detector::DeadlineDetector;
use backdoor_core::monitor::Monitor;
use backdoor_core::progress_box::{EntityRecord, FailureLevel, Slot};
use backdoor_core::takeover::{Claim, Offering, Step, Swap};
use backdoor_core::transport::RegionKey;

use super::*;
use crate::cluster::Scenario;
use crate::cluster::world::World;
use crate::streams::StreamKey;

const SEEN: Seen = Seen { session: 7, incarnation: 1, unclaimed: 0, sequence: 3 };
const EPOCH: Epoch = Epoch(1);

/// One session, its state extracted and about to be offered to the first of two targets. Nothing arrives by itself.
fn offering() -> Rescue {
    let (scenario, streams) =
        (Scenario::default(), Streams::new(StreamKey { seed: 1, experiment: "rescue", point: "", replication: 0 }));
    let monitor = |hook_table| Monitor::by_deadline(scenario.monitor, hook_table);
    let world: World<DeadlineDetector> = World::new(&scenario, &streams, monitor).unwrap();
    let path = |name| RandomPath::new(scenario.network_delay, scenario.network_loss, streams.stream(name));
    let connect =
        |name| SimChannel::connect(&world.nodes[0].memory.nic, path(name), scenario.nic.clone()).ok().unwrap();
    let options = RecoveryOptions::default();
    let target = || Target::new(options.target_cpu, 0).unwrap();
    let slice = RemoteSlice { key: RegionKey(0), offset: 0, words: 0 };
    let surroundings = Surroundings {
        hooks: Hooks { states: slice, claims: slice },
        channels: ["reads", "taker", "targets"].map(connect),
        offers: Wire::new(path("offers"), scenario.nic.clone()),
        targets: vec![target(), target()],
        service_work: scenario.workload.service_work,
    };
    let mut record = EntityRecord::new("client", FailureLevel::Session, Nanos(1));
    record.session = SEEN.session;
    let session = SessionToRecover { slot: Slot(0), record };
    let mut rescue = Rescue::new(Nanos::ZERO, &options, vec![session], surroundings, &streams);
    let me = party(TAKER);
    let [claimed, fencing] =
        [Claim::Claimed { by: me, epoch: EPOCH }, Claim::Fencing { by: me, epoch: EPOCH }].map(|it| it.word(0));
    let read = |rescue: &mut Rescue| {
        let look = rescue.rescued[0].looking.take().unwrap();
        rescue.tell(Nanos::ZERO, 0, Input::BoxRead { look, result: Ok(SEEN) });
    };
    let swapped = |rescue: &mut Rescue, expected, new| {
        let swap = Swap { expected, new };
        rescue.tell(Nanos::ZERO, 0, Input::Swapped { swap, result: Ok(expected) });
    };
    read(&mut rescue);
    swapped(&mut rescue, 0, claimed);
    read(&mut rescue);
    swapped(&mut rescue, claimed, fencing);
    rescue.tell(Nanos::ZERO, 0, Input::Fenced);
    read(&mut rescue);
    rescue
}

fn stage(rescue: &Rescue) -> (usize, Offering) {
    match rescue.rescued[0].takeover.step() {
        Step::Offering { target, stage } => (target, stage),
        other => panic!("{other:?}"),
    }
}

/// The target that is asked does not answer in time, and the claim word says that it has not taken the session.
fn pass_over(rescue: &mut Rescue) -> Nanos {
    let now = rescue.rescued[0].takeover.deadline().unwrap();
    rescue.tell(now, 0, Input::Tick);
    let word = Claim::Fencing { by: party(TAKER), epoch: EPOCH }.word(0);
    rescue.tell(now, 0, Input::Swapped { swap: Swap { expected: word, new: word }, result: Ok(word) });
    now
}

#[test]
fn the_answer_of_a_target_that_was_passed_over_is_its_own() {
    let mut rescue = offering();
    let (first, asked) = stage(&rescue);
    assert_eq!((first, asked), (0, Offering::Asked));
    let now = pass_over(&mut rescue);
    assert_eq!(stage(&rescue), (1, Offering::Asked));
    let (earlier, present) = (target_at(&rescue, 0), target_at(&rescue, 1));
    let declined = |target| Delivery::Answer { target, epoch: EPOCH, answer: Answer::Declined };
    rescue.deliver(now, 0, declined(earlier));
    assert_eq!(stage(&rescue), (1, Offering::Asked), "that one was given up before");
    rescue.deliver(now, 0, declined(present));
    assert_eq!(stage(&rescue), (1, Offering::Checking));
}

/// Which of the targets was asked `nth`, by what is under way to it.
fn target_at(rescue: &Rescue, nth: usize) -> usize {
    let offers = rescue.deliveries.values().filter_map(|(_, delivery)| match delivery {
        Delivery::Offer { target, .. } => Some(*target),
        Delivery::Fenced | Delivery::Told | Delivery::Answer { .. } => None,
    });
    offers.collect::<Vec<_>>()[nth]
}

#[test]
fn a_target_that_was_passed_over_and_the_next_one_each_get_ready() {
    let mut rescue = offering();
    let now = pass_over(&mut rescue);
    let deliveries: Vec<_> = std::mem::take(&mut rescue.deliveries).into_values().collect();
    for (at, delivery) in deliveries {
        if matches!(delivery, Delivery::Offer { .. }) {
            rescue.deliver(now, at, delivery);
        }
    }
    let reinstatements = &rescue.rescued[0].reinstatements;
    assert_eq!(reinstatements.keys().copied().collect::<Vec<_>>(), [0, 1]);
    assert!(reinstatements.values().all(|it| it.stage() == Stage::Preparing));
    assert!(rescue.targets.iter().all(|target| target.next_event().is_some()), "both are at work");
}
