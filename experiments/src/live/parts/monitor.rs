//! The monitor's process. Its pipe to the parent is written by a thread of its own, so that a parent that reads slowly
//! never holds up a poll.

use std::error::Error;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use backdoor_core::Nanos;
use backdoor_core::monitor::MonitorConfig;
use backdoor_host::clock;

use crate::live::detector::DetectorKind;
use crate::live::notice::{Notice, What};
use crate::live::reach::NodeAddress;
use crate::live::watch::{Watch, WatchConfig};

/// How often the monitor looks whether it is to end.
const LOOK_EVERY: Nanos = Nanos::from_millis(20);

pub(super) fn play(node: NodeAddress, poll: Nanos, detector: DetectorKind, spin: bool) -> Result<(), Box<dyn Error>> {
    let gone = super::parent_gone();
    let (sender, receiver) = mpsc::channel::<Notice>();
    let writer = std::thread::spawn(move || receiver.into_iter().try_for_each(|notice| super::tell(&notice)));
    let monitor = MonitorConfig::polling_every(poll);
    let mut watch = Watch::new(WatchConfig { node: node.to_attach()?, monitor, detector, spin, recover: true });
    let mut notices = Vec::new();
    while !gone.load(Ordering::Acquire) {
        watch.turn(clock::now() + LOOK_EVERY, &mut notices);
        for notice in notices.drain(..) {
            // A writer that has ended found nobody to write to; then this process is about to end, too.
            let _ = sender.send(notice);
        }
    }
    let _ = sender.send(Notice { at_ns: clock::now().0, what: What::Summary(watch.summary()) });
    drop(sender);
    let _ = writer.join();
    Ok(())
}
