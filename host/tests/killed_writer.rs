//! A writer killed at any instruction leaves a whole committed version, and never an older one than it was told of.

mod common;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use backdoor_core::Nanos;
use backdoor_host::app::Node;
use common::{RELAXED, TestNode, socket_of_parent};

const KILLS: u32 = 2000;
const STATE_BYTES: usize = 4096;

/// A state that tells which version it is, at every byte, and whose length differs from its neighbours'.
fn state_of(version: u64) -> Vec<u8> {
    let length = STATE_BYTES - (version % 61) as usize;
    let mut next = version;
    let bytes = std::iter::repeat_with(|| {
        next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (next >> 56) as u8
    });
    bytes.take(length).collect()
}

#[test]
#[ignore = "the process that is killed"]
fn commits_for_ever() {
    let Some(socket) = socket_of_parent() else { return };
    let node = Node::connect(socket).unwrap();
    let app = node.register("writer", RELAXED).unwrap();
    let mut session = app.open_session("writer's session", RELAXED, STATE_BYTES).unwrap();
    for version in 1.. {
        session.commit(&state_of(version)).unwrap();
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
    });
    let mut monitor = test.attach();
    let start = Instant::now();
    let mut random = 0x5eed_u64;
    let mut beyond = 0;
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
        let (sequence, state) = monitor.state(entity.expect("its session is kept")).unwrap();
        assert!(sequence >= acknowledged, "kill {kill}: version {sequence} found, {acknowledged} acknowledged");
        assert!(sequence <= acknowledged + 1, "kill {kill}: version {sequence} was never written");
        assert!(state == state_of(sequence), "kill {kill}: version {sequence} is not whole");
        beyond += u32::from(sequence > acknowledged);
        assert!(start.elapsed() < Duration::from_secs(240), "only {kill} kills in four minutes");
    }
    // Otherwise every kill found the writer in the same place, and the test shows nothing.
    assert!(beyond > 0 && beyond < KILLS, "{beyond} of {KILLS} kills fell between a commit and its acknowledgement");
}
