//! A writer killed at any instruction leaves a whole committed version, and never an older one than it was told of.

mod common;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use backdoor_core::Nanos;
use backdoor_core::state_box::StateBox;
use backdoor_core::words::{AtomicU64, copy_of, zeroed};
use backdoor_host::app::Node;
use backdoor_host::protocol::STATE_BOXES;
use common::{Entity, Monitor, RELAXED, TestNode, socket_of_parent};

const KILLS: u32 = 2000;
/// Large, so that the writer spends its time in commits.
const STATE_BYTES: usize = 16 << 10;

/// After so many versions the writer begins again with the first's state, so that it makes none between its commits.
const PERIOD: u64 = 16;

/// States that each tell which they are, at every byte, and of lengths that differ.
fn states() -> Vec<Vec<u8>> {
    let state_of = |state: u64| {
        let words = (0..).map(|index: u64| (state << 32 | index).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut bytes: Vec<u8> = words.take(STATE_BYTES / 8).flat_map(u64::to_le_bytes).collect();
        bytes.truncate(STATE_BYTES - state as usize);
        bytes
    };
    (0..PERIOD).map(state_of).collect()
}

fn state_of(states: &[Vec<u8>], version: u64) -> &[u8] {
    &states[(version % PERIOD) as usize]
}

#[test]
#[ignore = "the process that is killed"]
fn commits_for_ever() {
    let Some(socket) = socket_of_parent() else { return };
    let node = Node::connect(socket).unwrap();
    let app = node.register("writer", RELAXED).unwrap();
    let mut session = app.open_session("writer's session", RELAXED, STATE_BYTES).unwrap();
    let states = states();
    for version in 1_u64.. {
        session.commit(state_of(&states, version)).unwrap();
        // What the client was told must not be lost.
        std::io::stderr().write_all(&version.to_le_bytes()).unwrap();
    }
}

#[test]
fn every_kill_leaves_the_last_acknowledged_version_or_a_later_one() {
    // Room for a few of the dead only, so that their memory is used again and again.
    let test = TestNode::start(|config| {
        config.capacity = 16;
        config.retain = Nanos::ZERO;
        config.state_words = 1 << 16;
    });
    let mut monitor = test.attach();
    let states = states();
    let start = Instant::now();
    let mut random = 0x5eed_u64;
    let mut in_the_middle = 0;
    for kill in 0..KILLS {
        let mut child = test.spawn("commits_for_ever");
        let mut acknowledged = [0; 8];
        child.0.stderr.as_mut().unwrap().read_exact(&mut acknowledged).unwrap();
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let until = Instant::now() + Duration::from_nanos((random >> 40) % 300_000);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        let process = u64::from(child.0.id());
        child.kill();
        let mut rest = Vec::new();
        child.0.stderr.as_mut().unwrap().read_to_end(&mut rest).unwrap();
        let (versions, _) = rest.as_chunks::<8>();
        let acknowledged = u64::from_le_bytes(*versions.last().unwrap_or(&acknowledged));

        let all = monitor.entities();
        let entity = all.iter().find(|e| e.record.process == process && e.record.state_box.is_some());
        let entity = entity.expect("its session is kept");
        let (sequence, state) = monitor.state(entity).unwrap();
        assert!(sequence >= acknowledged, "kill {kill}: version {sequence} found, {acknowledged} acknowledged");
        assert!(sequence <= acknowledged + 1, "kill {kill}: version {sequence} was never written");
        assert!(state == state_of(&states, sequence), "kill {kill}: version {sequence} is not whole");
        in_the_middle += u32::from(memory_of(&mut monitor, entity) != written_without_haste(entity, &states, sequence));
        assert!(start.elapsed() < Duration::from_secs(240), "only {kill} kills in four minutes");
    }
    // Otherwise kills fell between commits only, and the test shows nothing.
    println!("{in_the_middle} of {KILLS} kills fell into the middle of a commit");
    assert!(in_the_middle > KILLS / 200, "only {in_the_middle} of {KILLS} kills fell into the middle of a commit");
}

fn memory_of(monitor: &mut Monitor, entity: &Entity) -> Vec<u64> {
    let location = entity.record.state_box.unwrap();
    monitor.read(STATE_BOXES, location.offset, location.words).unwrap()
}

/// The same State Box as a writer leaves it that was not killed: any difference is a commit that had begun.
fn written_without_haste(entity: &Entity, states: &[Vec<u8>], versions: u64) -> Vec<u64> {
    let (claim, session) = (AtomicU64::new(0), entity.record.session);
    let memory = zeroed(entity.record.state_box.unwrap().words as usize);
    let mut state_box = StateBox::format(memory, &claim, session, session).unwrap();
    for version in 1..=versions {
        state_box.commit(state_of(states, version)).unwrap();
    }
    copy_of(state_box.memory())
}
