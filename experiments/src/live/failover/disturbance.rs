//! What else goes wrong, and when: so that a takeover is seen to survive it, or to say that it did not.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;

use crate::live::web::milestone::Milestone;
use crate::live::web::remedy::Choice;

/// Something else that happens while a node's sessions are taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
#[value(rename_all = "kebab-case")]
pub enum Accident {
    /// The first taker is killed. A second one waits for that before it begins.
    KillTaker,
    /// The service goes on by itself, if it was frozen.
    Resume,
    /// Node A's agent is killed.
    KillAgent,
    /// Node A's agent is frozen.
    StopAgent,
    /// Whoever could start the service again on node A is killed.
    KillSupervisor,
    /// The heir's process is killed. Of several, here and below, node B's is meant.
    KillHeir,
    /// The heir's process is killed, and started anew.
    RestartHeir,
    /// The heir's process is frozen.
    StopHeir,
    /// The heir kills itself when sessions are its own, and none of them has spoken.
    HeirDiesTaking,
    /// The heir's node has no room for all sessions.
    FillHeir,
    /// The heir's link is down.
    CutHeir,
    /// The heir's node has no route to clients.
    UnrouteHeir,
    /// A stranger on the link has the service's address.
    Stranger,
    /// More clients connect.
    Connect,
}

impl Accident {
    /// Whether it is so from the start on, or has a moment of its own, whatever a taker does.
    const fn waits_for_no_step(self) -> bool {
        matches!(self, Accident::FillHeir | Accident::HeirDiesTaking)
    }

    /// Whether it happens to an heir, or in its stead.
    pub(super) const fn is_an_heirs(self) -> bool {
        matches!(
            self,
            Accident::KillHeir
                | Accident::RestartHeir
                | Accident::StopHeir
                | Accident::HeirDiesTaking
                | Accident::FillHeir
                | Accident::CutHeir
                | Accident::UnrouteHeir
        )
    }
}

/// An accident, and the moment of it: before the first taker takes this step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Disturbance {
    /// What happens.
    pub accident: Accident,
    /// When.
    pub at: Milestone,
}

impl FromStr for Disturbance {
    type Err = String;

    /// `kill-taker@fenced`; without a step: right before the failure.
    fn from_str(text: &str) -> Result<Self, String> {
        let (accident, at) = text.split_once('@').unwrap_or((text, Milestone::Watching.name()));
        Ok(Disturbance { accident: named("accident", accident)?, at: named("step", at)? })
    }
}

impl Disturbance {
    /// Why it would make no difference, if what is done about the failure is `remedy`.
    pub(super) fn is_in_vain(self, remedy: Choice) -> Option<String> {
        let Disturbance { accident, at } = self;
        let at_a_step = at != Milestone::Watching;
        if at_a_step && accident.waits_for_no_step() {
            return Some(format!(
                "'{self}': whether the heir is full, or dies taking, is settled before; leave out the step"
            ));
        }
        if accident == Accident::Resume && !at_a_step {
            return Some(format!("'{self}': right before the failure nobody is frozen; name a later step"));
        }
        if accident.is_an_heirs() && matches!(remedy, Choice::Restart | Choice::Reboot) {
            return Some(format!("'{self}': only a takeover asks an heir for anything"));
        }
        if accident == Accident::KillSupervisor && remedy == Choice::Takeover {
            return Some(format!("'{self}': with --remedy takeover there is no supervisor"));
        }
        if at_a_step && at != Milestone::Decided && remedy == Choice::Restart {
            return Some(format!("'{self}': with --remedy restart a taker only watches and decides"));
        }
        None
    }
}

fn named<T: ValueEnum>(what: &str, text: &str) -> Result<T, String> {
    T::from_str(text, false).map_err(|_| {
        let names = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let names: Vec<String> = names.map(|value| value.get_name().to_owned()).collect();
        format!("'{text}' is no {what}; there are {}", names.join(", "))
    })
}

impl fmt::Display for Disturbance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.accident.to_possible_value();
        write!(f, "{}@{}", name.as_ref().map_or("", |value| value.get_name()), self.at.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disturbances_are_read_and_written() {
        for text in ["kill-taker@fenced", "connect@fencing", "heir-dies-taking@watching"] {
            assert_eq!(text.parse::<Disturbance>().unwrap().to_string(), text);
        }
        assert_eq!("cut-heir".parse::<Disturbance>().unwrap().at, Milestone::Watching);
        assert!("kill-cat".parse::<Disturbance>().unwrap_err().contains("kill-taker"));
        assert_eq!("kill-heir@served".parse::<Disturbance>().unwrap().at, Milestone::Served);
        assert!("kill-taker@noon".parse::<Disturbance>().unwrap_err().contains("fenced"));
    }

    #[test]
    fn what_would_make_no_difference_is_in_vain_and_nothing_else_is() {
        let in_vain = |text: &str, remedy| text.parse::<Disturbance>().unwrap().is_in_vain(remedy).is_some();
        for text in ["fill-heir@fenced", "heir-dies-taking@offered", "kill-supervisor", "kill-supervisor@decided"] {
            assert!(in_vain(text, Choice::Takeover), "{text}");
        }
        for text in ["fill-heir", "heir-dies-taking@watching", "kill-heir@served", "kill-taker@decided"] {
            assert!(!in_vain(text, Choice::Takeover), "{text}");
        }
        assert!(!in_vain("kill-supervisor@decided", Choice::Restart) && !in_vain("kill-supervisor", Choice::Policy));
        assert!(in_vain("kill-heir", Choice::Reboot) && !in_vain("kill-heir", Choice::Policy));
        assert!(in_vain("kill-agent@claimed", Choice::Restart) && !in_vain("kill-agent@claimed", Choice::Policy));
    }
}
