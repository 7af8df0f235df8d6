//! Applications that go on and serve nobody.
//!
//! A livelocked service, or one whose threads wait for each other while its main loop ticks, looks well by its own
//! counter: only that of its sessions says that no work is done. One silent session is a failure of its own. Two or more,
//! while not one session of the application has made progress since the first of them fell silent, are the application's:
//! who carries the sessions away one by one leaves the culprit running, and opens the next ones with it.
//!
//! Several sessions that hang each for itself, in a service whose other clients have asked for nothing since, look the
//! same. To start such a service anew is no worse for them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Cause, Failure, Node, Symptom};
use crate::Nanos;
use crate::monitor::Standing;
use crate::progress_box::{FailureLevel, Slot};

/// What the sessions of an application that goes on say of its service.
#[derive(Clone, Copy, Debug)]
struct Service {
    /// When the first of those that are suspected fell silent, and when it was overdue.
    silent_since: Nanos,
    overdue: Nanos,
    /// When any of its sessions last made progress.
    served: Nanos,
}

impl Service {
    /// Whether somebody was served for long after another fell silent. Samples and rhythms differ a little; half a deadline
    /// is no coincidence.
    fn goes_on(self) -> bool {
        self.served > self.silent_since + (self.overdue - self.silent_since) / 2
    }
}

impl Node<'_> {
    /// The services of applications that go on and have a suspected session.
    fn services(self) -> BTreeMap<Slot, Service> {
        let goes_on = |slot: &Slot| {
            let application = self.get(*slot).filter(|s| s.record.level == FailureLevel::Application);
            application.is_some_and(|s| matches!(s.standing, Standing::Trusted | Standing::Idle))
        };
        let sessions = || {
            let sessions = self.at(FailureLevel::Session).filter(|s| s.is_there());
            sessions.filter_map(|s| Some((s.record.parent?, s)))
        };
        let mut services: BTreeMap<Slot, Service> = BTreeMap::new();
        for (application, session) in sessions().filter(|(_, s)| s.standing == Standing::Suspected) {
            let (silent_since, overdue) = (session.last_progress, session.overdue());
            let service = services.entry(application).or_insert(Service { silent_since, overdue, served: Nanos::ZERO });
            if silent_since < service.silent_since {
                (service.silent_since, service.overdue) = (silent_since, overdue);
            }
        }
        services.retain(|application, _| goes_on(application));
        for (application, session) in sessions() {
            if let Some(service) = services.get_mut(&application) {
                service.served = service.served.max(session.progressed);
            }
        }
        services
    }

    /// Makes one failure of those of several sessions whose application serves nobody.
    pub(super) fn join_unserved(self, failures: &mut Vec<Failure>) {
        let application = |failure: &Failure| {
            let root = failure.roots.first().filter(|_| failure.cause == Cause::Session)?;
            self.get(*root)?.record.parent
        };
        let services = self.services();
        let mut silent: BTreeMap<Slot, usize> = BTreeMap::new();
        for application in failures.iter().filter_map(application) {
            *silent.entry(application).or_default() += 1;
        }
        let serves_nobody =
            |slot: &Slot| silent[slot] > 1 && services.get(slot).is_some_and(|service| !service.goes_on());
        let mut joined = BTreeSet::new();
        failures.retain_mut(|failure| {
            let Some(application) = application(failure).filter(serves_nobody) else { return true };
            failure.cause = Cause::NotServing;
            failure.roots = vec![application];
            failure.sessions = self.sessions_of(application);
            joined.insert(application)
        });
        // Applications come before sessions, and nothing comes after those.
        failures.sort_by_key(|failure| failure.cause == Cause::Session);
    }

    fn sessions_of(self, application: Slot) -> Vec<Slot> {
        let is_its = |s: &&Symptom| s.record.parent == Some(application) && s.is_there();
        self.at(FailureLevel::Session).filter(is_its).map(|s| s.slot).collect()
    }

    /// Up to when it may turn out that nobody is served where a session is suspected: others who owed something before that
    /// one was overdue will be served or suspected until then.
    pub(super) fn services_settle_by(self) -> Option<Nanos> {
        let mut services = self.services();
        services.retain(|_, service| !service.goes_on());
        let owes = |s: &&Symptom| {
            let service = s.record.parent.and_then(|application| services.get(&application));
            s.standing == Standing::Trusted && service.is_some_and(|service| s.last_progress <= service.overdue)
        };
        self.at(FailureLevel::Session).filter(owes).map(Symptom::overdue).max()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::tests::{entity, failure, node};
    use super::super::{diagnose_symptoms, symptoms_settle_by};
    use super::*;

    const MS: Nanos = Nanos::from_millis(1);

    /// The node of the diagnosis' tests, and a third session of its first application, in slot 6, that waits for its client
    /// and was last served at `served`. Deadlines are 20 ms, and whoever is silent is so since 100 ms.
    fn with_third(silent: &[u32], served: Nanos) -> Vec<Symptom> {
        let mut symptoms = node(silent);
        let mut third = entity(6, FailureLevel::Session, Some(1), false);
        third.standing = Standing::Idle;
        (third.last_progress, third.progressed) = (served, served);
        symptoms.push(third);
        symptoms
    }

    #[test]
    fn several_silent_sessions_of_an_application_that_serves_nobody_are_its_failure() {
        for standing in [Standing::Trusted, Standing::Idle] {
            let mut symptoms = with_third(&[3, 4], MS * 109);
            symptoms[1].standing = standing;
            assert_eq!(diagnose_symptoms(&symptoms), [failure(Cause::NotServing, &[1], &[3, 4, 6])]);
        }
        let of_both = diagnose_symptoms(&with_third(&[3, 4, 5], MS * 109));
        let expected = [failure(Cause::NotServing, &[1], &[3, 4, 6]), failure(Cause::Session, &[5], &[5])];
        assert_eq!(of_both, expected, "one session of the other application is a failure of its own");
    }

    #[test]
    fn sessions_that_hang_where_others_are_served_are_failures_of_their_own() {
        let own = [failure(Cause::Session, &[3], &[3]), failure(Cause::Session, &[4], &[4])];
        assert_eq!(diagnose_symptoms(&with_third(&[3, 4], MS * 111)), own);
        assert_eq!(diagnose_symptoms(&with_third(&[3], MS * 50)), own[..1], "one alone shows nothing of the others");
        let mut one_after_the_other = with_third(&[3, 4], MS * 50);
        (one_after_the_other[4].last_progress, one_after_the_other[4].progressed) = (MS * 115, MS * 115);
        assert_eq!(diagnose_symptoms(&one_after_the_other), own, "the second was served when the first was silent");
        one_after_the_other[4].progressed = MS * 90;
        let unserved = [failure(Cause::NotServing, &[1], &[3, 4, 6])];
        assert_eq!(diagnose_symptoms(&one_after_the_other), unserved, "it had nothing to do until 115 ms");
    }

    #[test]
    fn who_owes_something_is_waited_for_where_nobody_was_served_since() {
        let mut symptoms = with_third(&[3], MS * 100);
        symptoms[1].last_progress = MS * 130;
        assert_eq!(symptoms_settle_by(&symptoms), None, "slot 4 was served at 140 ms");
        (symptoms[4].last_progress, symptoms[4].progressed) = (MS * 119, MS * 100);
        assert_eq!(symptoms_settle_by(&symptoms), Some(MS * 139), "work waits for slot 4 since 119 ms");
        symptoms[4].standing = Standing::Suspected;
        assert_eq!(symptoms_settle_by(&symptoms), Some(MS * 150), "now only the application");
        symptoms[1].last_progress = MS * 140;
        assert_eq!(symptoms_settle_by(&symptoms), None);
        symptoms[4].standing = Standing::Trusted;
        symptoms[4].last_progress = MS * 121;
        assert_eq!(symptoms_settle_by(&symptoms), None, "slot 3 was overdue before anything waited for slot 4");
    }
}
