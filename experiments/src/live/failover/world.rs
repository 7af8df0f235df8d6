//! Who is in an experiment's network: the agents, the service, its heirs, the takers.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_host::net::NetworkNamespace;
use backdoor_host::{clock, process};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::disturbance::Accident;
use super::heirs::Heir;
use super::network::Network;
use super::roles::{
    PATIENCE, Reach, agent_role, begun, boxes, front, links, service, start, start_supervisor, start_taker,
};
use super::tcp_counts::TcpCounts;
use super::{Elsewhere, FailoverConfig, FailoverError, ServiceKind, Victim};
use crate::live::parts::{Part, PartError, PartSignal, Place, Ready, Role};
use crate::live::reach::{NodeAddress, Offer, Reached, TransportKind, reach};
use crate::live::stage::connection::StageConnection;
use crate::live::stage::offset::ClockOffset;
use crate::live::web::party::TAKERS;
use crate::live::web::remedy::Choice;
use crate::live::web::serve::{Duty, ServicePart};

/// How long a kernel that was cut off may take for its last words: it has to ask first where the clients are.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// Files that a process may have open beside those of connections.
const OWN_FILES: u64 = 512;
/// Files for each connection, in the process that has most.
const FILES_A_CONNECTION: u64 = 4;

/// The network, and who is in it. Dropping it ends all of that.
pub(super) struct World {
    /// Watch node A from the switch.
    pub(super) takers: Vec<Part>,
    /// The service on node A.
    pub(super) serving: Part,
    /// Whoever can start it again there.
    supervisor: Option<Part>,
    /// Its worker, if it has one.
    worker: Option<Part>,
    /// The nodes that stand by.
    pub(super) heirs: Vec<Heir>,
    /// Of node A, and of those.
    agents: Vec<Part>,
    stranger: Option<NetworkNamespace>,
    /// Stands by for node B's sessions, when that is to fail in turn.
    pub(super) third: Option<Heir>,
    /// Where node A's processes run.
    node_a: Place,
    _by_card: Option<Reached>,
    pub(super) network: Network,
    pub(super) config: FailoverConfig,
    /// Last: removed when whoever is in them has ended.
    _directories: Directories,
}

/// The directories of this machine's agents. An agent removes its own, unless it is killed.
struct Directories(Vec<PathBuf>);

impl Drop for Directories {
    fn drop(&mut self) {
        for directory in &self.0 {
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}

impl World {
    /// Makes it, and waits until the service serves and the takers watch.
    pub(super) fn make(config: &FailoverConfig) -> Result<Self, FailoverError> {
        allow_files(OWN_FILES + FILES_A_CONNECTION * config.most_sessions())?;
        let here = Place::Here(config.program.clone());
        let (network, node_a) = match &config.elsewhere {
            None => (Network::within(config.heirs + u32::from(config.then.is_some()), config.addresses())?, here),
            Some(Elsewhere { stage, through, .. }) => {
                let stage = StageConnection::open(*stage).map_err(PartError::from)?;
                (Network::around(through)?, Place::Stage(Rc::new(stage)))
            }
        };
        let all = boxes(config);
        let start_a = |role: Role| match &network.node {
            Some(namespace) => start(config, namespace, role),
            None => Ok(node_a.start(role)?),
        };
        // Any of them may have to carry on all sessions; the first has room for half of its own if it is to be full.
        let is_full = |heir: usize| heir == 0 && config.is_disturbed_by(Accident::FillHeir);
        let room = |heir| if is_full(heir) { all.div_ceil(2 * config.addresses() as usize) } else { all + 1 };
        let offer = |to: &Elsewhere| Offer { listen: to.stage.ip(), card: to.card.clone() };
        let mut agent_a = start_a(agent_role(config, all + 1, config.elsewhere.as_ref().map(offer)))?;
        let mut agents_of_heirs = Vec::new();
        for (heir, standby) in network.heirs.iter().enumerate() {
            agents_of_heirs.push(start(config, &standby.namespace, agent_role(config, room(heir), None))?);
        }
        let ready_a: Ready = agent_a.expect(PATIENCE)?;
        let mut sockets_of_heirs = Vec::new();
        for agent in &mut agents_of_heirs {
            sockets_of_heirs.push(PathBuf::from(agent.expect::<Ready>(PATIENCE)?.socket));
        }
        let by_card = config.elsewhere.as_ref().map(|Elsewhere { stage, card, retry, .. }| {
            let same_machine = node_a.is_this_machine();
            reach(TransportKind::Verbs, &ready_a, Some(stage.ip()), same_machine, (card, *retry))
        });
        let by_card = by_card.transpose().map_err(FailoverError::Config)?;
        let agent_a_socket = PathBuf::from(ready_a.socket);
        let here = network.node.iter().map(|_| &agent_a_socket).chain(&sockets_of_heirs);
        let directories = here.filter_map(|socket| socket.parent()).map(Path::to_owned);
        let directories = Directories(directories.collect());
        let node = by_card.as_ref().map(|to| to.address.clone());
        let reached =
            Reach { node: node.unwrap_or_else(|| NodeAddress::Local(agent_a_socket.clone())), agent_a: agent_a_socket };
        let serve = |part| begun(start_a(service(config, &reached.agent_a, Duty::Serve, part))?);
        let is_pair = config.service == ServiceKind::Pair;
        let worker = is_pair.then(|| serve(ServicePart::Worker { links: links(&reached.agent_a) })).transpose()?;
        let serving = serve(front(config, &reached.agent_a))?;
        let supervisor = match (config.remedy, &network.node) {
            (Choice::Restart | Choice::Policy, Some(node)) => {
                Some(start_supervisor(config, node, &reached, serving.id())?)
            }
            _ => None,
        };
        let places = network.heirs.iter().zip(&sockets_of_heirs).enumerate();
        let heirs = places.map(|(heir, (place, agent))| {
            let of_the_first =
                config.then.filter(|_| heir > 0).map(|_| NodeAddress::Local(sockets_of_heirs[0].clone()));
            Heir::start(config, heir, place, agent, of_the_first.as_ref().unwrap_or(&reached.node))
        });
        let mut heirs: Vec<Heir> = heirs.collect::<Result<_, _>>()?;
        let third = config.then.and_then(|_| heirs.pop());
        let targets: Vec<_> = heirs.iter().flat_map(Heir::targets).collect();
        let numbers = TAKERS.iter().take(config.takers as usize);
        let takers = numbers.map(|number| start_taker(config, &network, &reached, &targets, *number));
        Ok(World {
            takers: takers.collect::<Result<_, _>>()?,
            serving,
            supervisor,
            worker,
            heirs,
            agents: std::iter::once(agent_a).chain(agents_of_heirs).collect(),
            stranger: None,
            third,
            node_a,
            _by_card: by_card,
            network,
            config: config.clone(),
            _directories: directories,
        })
    }

    /// The processes on node A that are to fail.
    pub(super) fn victims(&mut self, victim: Victim) -> impl Iterator<Item = &mut Part> {
        let front = Some(&mut self.serving).filter(|_| victim != Victim::Worker);
        front.into_iter().chain(self.worker.as_mut().filter(|_| victim != Victim::Front))
    }

    /// Signals them; answers when the first of them had it, by node A's clock.
    pub(super) fn signal(&mut self, victim: Victim, signal: PartSignal) -> Result<Nanos, FailoverError> {
        let mut first = None;
        for part in self.victims(victim) {
            let (_, at) = part.signal(signal)?;
            first.get_or_insert(at);
        }
        Ok(first.unwrap_or(Nanos::ZERO))
    }

    /// Has an accident happen. More clients are not its business.
    pub(super) fn disturb(&mut self, accident: Accident) -> Result<(), FailoverError> {
        let signal = |part: &Part, signal| part.signal(signal).map(drop);
        match accident {
            Accident::KillTaker => self.takers.first().map_or(Ok(()), |taker| signal(taker, PartSignal::Kill))?,
            Accident::Resume => {
                self.signal(self.config.victim, PartSignal::Continue)?;
                // It shows life four times in its deadline.
                std::thread::sleep(Duration::from_nanos(self.config.deadline.0 / 2));
            }
            Accident::KillAgent => signal(&self.agents[0], PartSignal::Kill)?,
            Accident::StopAgent => signal(&self.agents[0], PartSignal::Stop)?,
            Accident::KillSupervisor => {
                self.supervisor.as_ref().map_or(Ok(()), |supervisor| signal(supervisor, PartSignal::Kill))?;
            }
            Accident::KillHeir => signal(&self.heirs[0].standing_by, PartSignal::Kill)?,
            Accident::StopHeir => signal(&self.heirs[0].standing_by, PartSignal::Stop)?,
            Accident::RestartHeir => self.heirs[0].start_anew(&self.config, &self.network.heirs[0])?,
            Accident::CutHeir => self.network.cut_heir()?,
            Accident::UnrouteHeir => self.network.unroute_heir()?,
            Accident::Stranger => self.stranger = Some(self.network.stranger()?),
            Accident::Connect | Accident::FillHeir | Accident::HeirDiesTaking => {}
        }
        Ok(())
    }

    /// Whether node A's agent has ended.
    pub(super) fn agent_has_ended(&self) -> Result<bool, FailoverError> {
        Ok(self.agents[0].has_ended()?)
    }

    /// Node A starts anew: all that was there is ended, which its kernel tells the clients; and what comes after it has another
    /// kernel and another memory. Answers when its service was there again.
    pub(super) fn reboot(&mut self) -> Result<Nanos, FailoverError> {
        // An owner that was fenced has nobody after it, or there would be no reboot.
        let was_fenced = self.network.open()?;
        let parts = [self.supervisor.as_ref(), self.worker.as_ref(), Some(&self.serving), self.agents.first()];
        for part in parts.into_iter().flatten() {
            // All of its threads have ended then, and the last one has closed its connections.
            let ended = process::end(part.id(), Nanos(PATIENCE.as_nanos() as u64));
            ended.map_err(|error| FailoverError::Unexpected(format!("node A is not rebooted: {error}")))?;
        }
        if was_fenced {
            std::thread::sleep(LAST_WORDS);
        }
        self.supervisor = None;
        self.network.power_off()?;
        std::thread::sleep(Duration::from_nanos(self.config.boot_time.0));
        self.network.power_on(self.config.addresses())?;
        let (config, node) = (&self.config, self.network.node.as_ref());
        let node = node.ok_or_else(|| FailoverError::Unexpected("the node is on another machine".into()))?;
        let mut agent = start(config, node, agent_role(config, boxes(config) + 1, None))?;
        let socket = PathBuf::from(agent.expect::<Ready>(PATIENCE)?.socket);
        self._directories.0.extend(socket.parent().map(Path::to_owned));
        let serve = |part| begun(start(config, node, service(config, &socket, Duty::Serve, part))?);
        let worker = self.worker.as_ref().map(|_| serve(ServicePart::Worker { links: links(&socket) })).transpose()?;
        (self.serving, self.worker) = (serve(front(config, &socket))?, worker);
        self.agents[0] = agent;
        Ok(clock::now())
    }

    /// Cuts node A's link.
    pub(super) fn cut(&mut self) -> Result<(), FailoverError> {
        Ok(self.network.cut()?)
    }

    /// What the client's kernel has counted.
    pub(super) fn counted(&self) -> Result<TcpCounts, FailoverError> {
        TcpCounts::of(&self.network.client)
    }

    /// What node A's kernel has counted, if it can be asked.
    pub(super) fn counted_at_a(&self) -> Result<Option<TcpCounts>, FailoverError> {
        self.network.node.as_ref().map(TcpCounts::of).transpose()
    }

    /// How far node A's clock is ahead of this machine's.
    pub(super) fn clock(&self) -> Result<ClockOffset, FailoverError> {
        Ok(self.node_a.clock()?)
    }
}

/// Raises this process's limit of open files, which its children inherit, as far as it may.
fn allow_files(needed: u64) -> Result<(), FailoverError> {
    let limit = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    if enough(limit.current) {
        return Ok(());
    }
    if !enough(limit.maximum) {
        let most = limit.maximum.unwrap_or_default();
        let message =
            format!("so many connections need {needed} open files, and this process may have {most} (ulimit -Hn)");
        return Err(FailoverError::Config(message));
    }
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(needed), ..limit });
    raised.map_err(|errno| FailoverError::Files(errno.into()))
}
