//! Which remedy a taker tries: the one that it was told, or what core's policy finds best.

use backdoor_core::progress_box::{EntityRecord, FailureLevel, Slot};
use backdoor_core::recovery::NodeAction;
use backdoor_core::recovery::policy::{Policy, Reach, Remedy, Room, Situation};
use backdoor_core::takeover::PartyId;
use serde::{Deserialize, Serialize};

/// What to do about a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// The node is cut off, and its sessions go on at another.
    #[default]
    Takeover,
    /// The service is started again on its node, and its sessions go on there.
    Restart,
    /// The node starts anew. Its sessions end.
    Reboot,
    /// Whatever is expected to cost least, and of the others the same, if that does not help.
    Policy,
}

impl Choice {
    /// Whether the node may be started anew.
    pub const fn reboots(self) -> bool {
        matches!(self, Choice::Reboot | Choice::Policy)
    }

    /// Whether the service may be started again on its node.
    pub const fn restarts(self) -> bool {
        matches!(self, Choice::Restart | Choice::Policy)
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ToDo {
    /// What is planned, the first one first. If that does not help, more is known, and it is decided again.
    pub(super) remedies: Vec<Remedy>,
    /// What is to be done at the node besides, for people. Here it is said, not done; but for a node that is excluded, which
    /// stays cut off.
    pub(super) afterwards: Vec<String>,
}

/// What the taker knows of a failure.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    /// What was diagnosed, by its name.
    pub(super) cause: &'a str,
    /// How many sessions lose service by it.
    pub(super) affected: u64,
    /// All that have a State Box.
    pub(super) sessions: &'a [EntityRecord],
    /// Whether somebody at the node can start the service again, and the agent lives that keeps the sessions' sockets.
    pub(super) can_restart: bool,
    /// Who may carry sessions on. How much room they have is not known before they are asked, so it counts as enough.
    pub(super) targets: &'a [PartyId],
    /// Whether somebody can start the node anew.
    pub(super) can_reboot: bool,
}

pub(super) fn to_do(choice: Choice, known: &Known<'_>) -> ToDo {
    let told = |remedy| ToDo { remedies: vec![remedy], afterwards: Vec::new() };
    match choice {
        Choice::Takeover => return told(Remedy::Takeover),
        Choice::Restart => return told(Remedy::RestartInPlace),
        Choice::Reboot => return told(Remedy::Reboot),
        Choice::Policy => {}
    }
    let of_node = known.sessions.len() as u64;
    let application = known.sessions.first().and_then(|record| record.parent);
    let of_application = known.sessions.iter().filter(|record| record.parent == application).count() as u64;
    let room = |party: &PartyId| Room { party: *party, free: of_node };
    let targets: Vec<Room> = known.targets.iter().map(room).collect();
    let decision = Policy::default().decide(&Situation {
        level: match known.cause {
            "operating_system" => FailureLevel::Os,
            "session" => FailureLevel::Session,
            _ => FailureLevel::Application,
        },
        application,
        reach: if known.can_restart { Reach::Agent } else { Reach::Memory },
        affected: known.affected.min(of_node),
        of_application,
        of_node,
        not_kept: 0,
        stateless: 0,
        targets: &targets,
        can_reboot: known.can_reboot,
        restarts: 0,
        exclusions: 0,
    });
    let name = |action: &NodeAction| match action {
        NodeAction::None => "nothing".to_owned(),
        NodeAction::RestartApplication(Slot(_)) => "start the application again".to_owned(),
        NodeAction::RebootNode => "reboot the node".to_owned(),
        NodeAction::ExcludeNode(time) => format!("exclude the node for {time}"),
    };
    ToDo {
        remedies: decision.steps.iter().map(|step| step.remedy).collect(),
        afterwards: decision.afterwards.iter().map(name).collect(),
    }
}

#[cfg(test)]
mod tests {
    use backdoor_core::Nanos;

    use super::*;

    fn known(can_restart: bool, cause: &str, choice: Choice) -> ToDo {
        let targets = [PartyId::new(2).unwrap()];
        let record = EntityRecord::new("client", FailureLevel::Session, Nanos(1)).within(Slot(4));
        let sessions = [record; 3];
        let known = Known { cause, affected: 3, sessions: &sessions, can_restart, targets: &targets, can_reboot: true };
        to_do(choice, &known)
    }

    #[test]
    fn what_it_was_told_is_what_it_does() {
        assert_eq!(known(true, "application", Choice::Takeover).remedies, [Remedy::Takeover]);
        assert_eq!(known(false, "application", Choice::Restart).remedies, [Remedy::RestartInPlace]);
        assert_eq!(known(true, "application", Choice::Reboot).remedies, [Remedy::Reboot]);
    }

    #[test]
    fn the_policy_reboots_when_nothing_else_can_be_had() {
        let known = |targets, can_reboot| {
            let known =
                Known { cause: "application", affected: 1, sessions: &[], can_restart: false, targets, can_reboot };
            to_do(Choice::Policy, &known).remedies
        };
        assert_eq!((known(&[], true), known(&[], false)), (vec![Remedy::Reboot], vec![]));
    }

    #[test]
    fn the_policy_restarts_where_somebody_can_and_moves_sessions_otherwise() {
        let both = [Remedy::RestartInPlace, Remedy::Takeover];
        assert_eq!(known(true, "application", Choice::Policy), ToDo { remedies: both.into(), afterwards: vec![] });
        let moved = known(false, "application", Choice::Policy);
        assert_eq!(moved.remedies, [Remedy::Takeover]);
        assert_eq!(moved.afterwards, ["start the application again"]);
        let system = known(true, "operating_system", Choice::Policy);
        assert_eq!(system.remedies, [Remedy::Takeover]);
        assert_eq!(system.afterwards, ["reboot the node", "exclude the node for 60s"]);
    }
}
