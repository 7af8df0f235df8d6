//! Making failures, and telling when they began.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_host::clock;

use super::cast::PATIENCE;
use super::judge::{Fault, Hit};
use super::{DetectConfig, DetectError, FailureKind};
use crate::config::Span;
use crate::live::parts::{NodeFault, Order, Part, PartSignal, Place, Report, Role, Sabotage, SaboteurReport};

/// How long a link stays down beyond the wait for its detection.
const DOWN_LONGER: Nanos = Nanos::from_secs(1);

/// What stands ready to make a run's failure. Dropping it undoes what can be undone.
#[derive(Debug)]
pub(super) enum Means {
    /// Signals, and orders to the worker.
    Worker,
    /// A saboteur on the node.
    OnNode { saboteur: Part, struck: bool },
    /// A saboteur on this machine.
    Here { saboteur: Option<Part>, struck: bool },
    /// The user's commands.
    Commands { inject: String, repair: Option<String>, limit: Nanos, injected: bool },
}

impl Means {
    /// Looks whether the failure can be made, so that nothing is left to be done but to make it.
    pub(super) fn prepare(config: &DetectConfig, node: &Place) -> Result<Self, DetectError> {
        let down_for = Span(config.limit() + DOWN_LONGER);
        let link_down = |address| NodeFault::LinkDown { address, down_for };
        match config.failure {
            FailureKind::KernelCrash => {
                Ok(Means::OnNode { saboteur: saboteur(node, NodeFault::KernelCrash)?, struck: false })
            }
            FailureKind::LinkDown => {
                Ok(Means::OnNode { saboteur: saboteur(node, link_down(node.host()))?, struck: false })
            }
            FailureKind::OwnLinkDown => {
                let saboteur = saboteur(&config.here(), link_down(node.own_address()))?;
                Ok(Means::Here { saboteur: Some(saboteur), struck: false })
            }
            FailureKind::Command => Ok(Means::Commands {
                inject: config.inject.clone().unwrap_or_default(),
                repair: config.repair.clone(),
                limit: config.reboot_limit,
                injected: false,
            }),
            FailureKind::Sigstop
            | FailureKind::Sigkill
            | FailureKind::Deadlock
            | FailureKind::SessionStuck
            | FailureKind::IdleLie
            | FailureKind::Livelock
            | FailureKind::None => Ok(Means::Worker),
        }
    }

    /// Whether the node, or the way there, was made to fail.
    pub(super) fn node_has_failed(&self) -> bool {
        match self {
            Means::Worker => false,
            Means::OnNode { struck, .. } | Means::Here { struck, .. } => *struck,
            Means::Commands { injected, .. } => *injected,
        }
    }

    /// Makes the failure; if it is that of one session, then that of `client`.
    pub(super) fn fail(
        &mut self,
        config: &DetectConfig,
        client: u64,
        node: &Place,
        worker: &mut Part,
    ) -> Result<Fault, DetectError> {
        let hit = match config.failure {
            FailureKind::LinkDown | FailureKind::OwnLinkDown => Hit::Link,
            _ => Hit::Node,
        };
        let known = |at, injection| Fault { at, clock_error: Nanos::ZERO, injection, hit };
        match self {
            Means::Worker => fail_worker(config.failure, client, node, worker),
            Means::OnNode { saboteur, struck } => {
                let at = clock::now();
                saboteur.send_last(&Sabotage::Strike)?;
                *struck = true;
                Ok(known(at, None))
            }
            Means::Here { saboteur, struck } => {
                let Some(saboteur) = saboteur else { return Err(DetectError::Config("a run fails once".into())) };
                // First: the way to the stage is about to be cut.
                node.give_up();
                *struck = true;
                saboteur.send(&Sabotage::Strike)?;
                match saboteur.expect(PATIENCE)? {
                    SaboteurReport::Done { before_ns, after_ns } => {
                        Ok(known(Nanos(after_ns), Some(Nanos(after_ns) - Nanos(before_ns))))
                    }
                    report => Err(DetectError::Saboteur(format!("it answered {report:?}"))),
                }
            }
            Means::Commands { inject, limit, injected, .. } => {
                node.give_up();
                *injected = true;
                let at = clock::now();
                shell("--inject", inject, *limit)?;
                Ok(known(at, Some(clock::now() - at)))
            }
        }
    }

    /// Undoes what can be undone.
    pub(super) fn undo(&mut self) -> Result<(), DetectError> {
        match self {
            Means::Worker | Means::OnNode { .. } => Ok(()),
            Means::Here { saboteur, .. } => {
                // Its end brings the link up.
                *saboteur = None;
                Ok(())
            }
            Means::Commands { repair, injected: true, limit, .. } => match repair.take() {
                Some(command) => shell("--repair", &command, *limit),
                None => Ok(()),
            },
            Means::Commands { injected: false, .. } => Ok(()),
        }
    }
}

impl Drop for Means {
    fn drop(&mut self) {
        // After an error; that one is the one to be told.
        let _ = self.undo();
    }
}

fn saboteur(place: &Place, fault: NodeFault) -> Result<Part, DetectError> {
    let mut saboteur = place.start(Role::Saboteur { fault })?;
    match saboteur.expect(PATIENCE)? {
        SaboteurReport::Ready => Ok(saboteur),
        SaboteurReport::Cannot { why } => Err(DetectError::Saboteur(why)),
        SaboteurReport::Done { .. } => Err(DetectError::Saboteur("it struck before it was told to".into())),
    }
}

/// Makes the worker fail.
fn fail_worker(failure: FailureKind, client: u64, node: &Place, worker: &mut Part) -> Result<Fault, DetectError> {
    let order = match failure {
        FailureKind::Sigstop => return signal(PartSignal::Stop, node, worker),
        FailureKind::Sigkill => return signal(PartSignal::Kill, node, worker),
        FailureKind::SessionStuck => Order::Stick { client },
        FailureKind::IdleLie => Order::MissWakeup { client },
        FailureKind::Livelock => Order::Livelock,
        _ => Order::Deadlock,
    };
    let hit = match order {
        Order::Stick { client } | Order::MissWakeup { client } => Hit::Session(client),
        Order::Livelock => Hit::Service,
        Order::Deadlock => Hit::Worker,
    };
    let before = node.clock()?;
    let ordered = clock::now();
    worker.send(&order)?;
    match worker.expect(PATIENCE)? {
        Report::Failed { at_ns } => {
            let offset = before.spanning(node.clock()?);
            let at = offset.to_ours(Nanos(at_ns));
            Ok(Fault { at, clock_error: offset.error(), injection: Some(at - ordered), hit })
        }
        Report::Ready { .. } => Err(DetectError::Config("the worker started twice".into())),
    }
}

fn signal(signal: PartSignal, node: &Place, worker: &Part) -> Result<Fault, DetectError> {
    let before = node.clock()?;
    let (began, ended) = worker.signal(signal)?;
    let offset = before.spanning(node.clock()?);
    let waited_from = clock::now();
    while !worker.state()?.is_none_or(|state| signal.leads_to().contains(state)) {
        if clock::now() > waited_from + Nanos(PATIENCE.as_nanos() as u64) {
            return Err(DetectError::Unharmed { signal: signal.name() });
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    let at = offset.to_ours(ended);
    Ok(Fault { at, clock_error: offset.error(), injection: Some(ended - began), hit: Hit::Worker })
}

/// Runs a command of the user's to its end. What it prints goes to standard error: standard output is for results.
fn shell(option: &'static str, command: &str, limit: Nanos) -> Result<(), DetectError> {
    let error = |how: String| DetectError::Command { option, command: command.into(), how };
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        // A Ctrl-C in the terminal is for this program, which then undoes what was done.
        .process_group(0)
        .spawn()
        .map_err(|source| error(crate::plain(&source)))?;
    let end = clock::now() + limit;
    loop {
        match child.try_wait().map_err(|source| error(crate::plain(&source)))? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(error(format!("failed ({status})"))),
            None if clock::now() < end => std::thread::sleep(Duration::from_millis(1)),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error(format!("did not end within {limit}")));
            }
        }
    }
}
