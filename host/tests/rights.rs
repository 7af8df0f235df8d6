//! Who may write what is up to the kernel: each peer's descriptors, tried the wrong way.

mod common;

use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};

use backdoor_core::transport::{RegionKey, TransportError};
use backdoor_host::protocol::{Answer, CLAIMS, HOOK_TABLE, PROGRESS_BOX, Region, Request, STATE_BOXES};
use backdoor_host::wire::Connection;
use backdoor_transports::shm::{MapError, ReadOnlyWords, SharedWords};
use common::{RELAXED, TestNode};

/// Maps every descriptor for writing; answers the regions for which the kernel allowed it.
fn writable(regions: &[Region], descriptors: &[OwnedFd]) -> Vec<RegionKey> {
    assert_eq!(regions.len(), descriptors.len());
    let mut allowed = Vec::new();
    for (region, fd) in regions.iter().zip(descriptors) {
        let words = region.words as usize;
        ReadOnlyWords::open(fd.as_fd(), words).unwrap();
        match SharedWords::open(fd.as_fd(), words) {
            Ok(_) => allowed.push(RegionKey(region.key)),
            Err(MapError::System { source, .. }) => assert_eq!(source.kind(), ErrorKind::PermissionDenied),
            Err(error) => panic!("{error}"),
        }
        assert_eq!(region.writable, allowed.contains(&RegionKey(region.key)), "the agent says what it does");
    }
    allowed
}

#[test]
fn a_monitor_can_write_claims_and_nothing_else() {
    let test = TestNode::start(|_| {});
    let connection = Connection::connect(&test.socket()).unwrap();
    let (answer, descriptors) = connection.request(&Request::Attach {}).unwrap();
    let Answer::Attached { regions, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(
        regions.iter().map(|r| RegionKey(r.key)).collect::<Vec<_>>(),
        [HOOK_TABLE, PROGRESS_BOX, STATE_BOXES, CLAIMS]
    );
    assert_eq!(writable(&regions, &descriptors), [CLAIMS]);
}

#[test]
fn an_application_can_not_write_claims_nor_reach_the_hook_table() {
    let test = TestNode::start(|_| {});
    let connection = Connection::connect(&test.socket()).unwrap();
    let request = Request::Register { name: "kv".into(), deadline_ns: RELAXED.0 };
    let (answer, descriptors) = connection.request(&request).unwrap();
    let Answer::Registered { regions, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(writable(&regions, &descriptors), [PROGRESS_BOX, STATE_BOXES]);
    assert!(regions.iter().all(|region| region.key != HOOK_TABLE.0));
}

#[test]
fn the_transport_refuses_before_the_kernel_has_to() {
    let test = TestNode::start(|_| {});
    let mut monitor = test.attach();
    for key in [HOOK_TABLE, PROGRESS_BOX, STATE_BOXES, CLAIMS] {
        assert_eq!(monitor.write(key, 0), Err(TransportError::Refused), "{key:?}");
    }
    assert_eq!(monitor.read(RegionKey(99), 0, 1), Err(TransportError::Refused));
    let words = monitor.0.transport().region_words(STATE_BOXES).unwrap() as u64;
    assert_eq!(monitor.read(STATE_BOXES, words, 1), Err(TransportError::OutOfBounds));
}
