//! The conformance suite against the simulated NIC, bare and inside the wrappers.

mod support;

use backdoor_transports::{FaultInjector, Tracer, conformance};
use support::{Channel, SimArm, Wrapped};

impl Wrapped for Tracer<Channel> {
    fn wrap(channel: Channel) -> Self {
        Tracer::new(channel)
    }
    fn channel_inside(&mut self) -> &mut Channel {
        self.inner_mut()
    }
}

impl Wrapped for FaultInjector<Channel> {
    fn wrap(channel: Channel) -> Self {
        FaultInjector::new(channel, Default::default()).unwrap()
    }
    fn channel_inside(&mut self) -> &mut Channel {
        self.inner_mut()
    }
}

fn run<W: Wrapped>() {
    let report = conformance::run(&SimArm::<W>::new());
    report.assert_passed();
    assert_eq!(report.skipped().count(), 0, "the simulated NIC can do everything");
}

#[test]
fn the_simulated_nic_conforms() {
    run::<Channel>();
}

#[test]
fn a_tracer_changes_nothing() {
    run::<Tracer<Channel>>();
}

#[test]
fn a_fault_injector_without_faults_changes_nothing() {
    run::<FaultInjector<Channel>>();
}
