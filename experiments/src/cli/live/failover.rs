//! `backdoor live failover`.

use std::net::SocketAddr;

use backdoor_core::Nanos;
use clap::ValueEnum;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use super::Format;
use super::measurement::{self, Measurement};
use crate::cli::Failure;
use crate::interrupt::Interrupt;
use crate::live::detector::DetectorKind;
use crate::live::failover::{
    ClientKind, Disturbance, Elsewhere, FailoverConfig, FailoverError, FailoverFailure, FailoverReport, FailoverRow,
    ServiceKind, Victim, has_means, run as run_failover,
};
use crate::live::reach::{Card, Retry};
use crate::live::web::remedy::Choice;

/// Make the serving node fail in the middle of a transfer, and carry its sessions on at another node.
///
/// A client, two nodes and a switch get a network namespace each; an ordinary client talks to a service on the one node,
/// which fails. A monitor behind the switch notices it by one-sided reads, claims the sessions, cuts the node off, reads
/// its State Boxes, and has the other node recreate the connections. The client should finish with every byte right,
/// without a reset and without a new connection. The exit status is 1 if in any run it did not finish with every byte right.
///
/// Needs root, or CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_NET_RAW and CAP_NET_BIND_SERVICE, and Linux with TCP_REPAIR; curl for
/// the clients of that name. Whatever is made ends with the command, however that ends; but with
/// --on, a SIGKILL leaves the bridge bd-failover behind, and the link --through in it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = measurement::columns::<FailoverRow>())]
pub(super) struct Arguments {
    /// Who talks to the service; several, separated by commas, run one after the other.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "curl", value_name = "KIND")]
    client: Vec<ClientKind>,
    /// How the serving node fails; several, separated by commas, run one after the other.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "sigstop", value_name = "KIND")]
    failure: Vec<FailoverFailure>,
    /// How many processes the service is: in a pair, a front talks to clients and a worker counts their requests, over a link
    /// between the two; both are carried on.
    #[arg(long, value_enum, default_value_t = ServiceKind::default())]
    service: ServiceKind,
    /// Which processes of a pair fail; several, separated by commas, run one after the other.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "front", value_name = "PROCESS")]
    process: Vec<Victim>,
    /// How the other node fails after it has taken over, in the middle of what is left: a third node takes over from it, and a
    /// second monitor decides.
    #[arg(long, value_name = "KIND", value_parser = of_an_heir())]
    then: Option<FailoverFailure>,
    /// What the client moves, about, such as 60MB or 512KiB; from 1kB to 10GB. [default: 60MB; requests: 2MB; many: 500kB]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    size: Option<u64>,
    /// Connections of the client 'many', up to 2000. [default: 200]
    #[arg(long, value_name = "K")]
    sessions: Option<u64>,
    /// Bytes of each session's state beyond what it needs, such as 4KiB and up to 256KiB: written with each commit, and compared
    /// by the node that carries the session on.
    #[arg(long, default_value = "0", value_name = "BYTES", value_parser = bytes)]
    state_size: u64,
    /// Silence of the service or a session longer than this is a failure; from 2ms to 60s.
    #[arg(long, default_value = "100ms", value_name = "DURATION")]
    deadline: Nanos,
    /// Time between the monitor's polls, from 10us to the deadline.
    #[arg(long, default_value = "1ms", value_name = "DURATION")]
    poll: Nanos,
    /// What the monitor judges by.
    #[arg(long, value_enum, default_value_t = DetectorKind::default())]
    detector: DetectorKind,
    /// What is done about the failure: sessions go on at node B (takeover), or in a new process of the service on node A over
    /// the connections that its agent has kept (restart), or node A starts anew and its clients are told that their sessions have
    /// ended, and connect again (reboot; of the clients, 'requests' and 'many' can), or whatever is expected to cost least (policy). After a takeover the
    /// switch's port to node A stays closed: that node is excluded.
    #[arg(long, value_enum, default_value_t = Choice::default())]
    remedy: Choice,
    /// Monitors that watch, each by itself, up to 2; each takes over what it suspects, and the claim words decide. If the
    /// one dies that has claimed a session, the other one goes on when that claim has run out, after some seconds.
    #[arg(long, default_value_t = 1, value_name = "N")]
    takers: u32,
    /// For how long node A is off when it is rebooted, beside what its processes take to start, and shorter than --limit; a
    /// machine takes a minute or so.
    #[arg(long, default_value = "0s", value_name = "DURATION")]
    boot_time: Nanos,
    /// Nodes that stand by, up to 4: B, C, and so on; none, if nothing is to be taken over. The service has as many addresses,
    /// from 10.0.0.10 on; the client 'many' connects to them by turns, others to the first. All sessions of an address go on at
    /// the same node, spread so that each has about as many. Those of a node that takes none go to another one; of a node that
    /// takes some and has no room for others, or dies when it has taken them, those others are left.
    #[arg(long, default_value_t = 1, value_name = "N")]
    heirs: u32,
    /// What else goes wrong, as ACCIDENT@STEP; several, separated by commas, together. Accidents: kill-taker, kill-agent,
    /// stop-agent (both of node A), kill-supervisor (who restarts the service), resume (the frozen service goes on),
    /// kill-heir, restart-heir, stop-heir, cut-heir (its link is down), unroute-heir (it has no route to clients),
    /// stranger (somebody else has the service's address), connect (five more clients); and, which have no step,
    /// heir-dies-taking (between owning sessions and speaking) and fill-heir (it has no room for all). Steps of the first
    /// taker: watching (right before the failure, and if none is named), decided, claimed, fencing, fenced, offering,
    /// offered, served.
    #[arg(long, value_delimiter = ',', value_name = "ACCIDENT@STEP")]
    disturb: Vec<Disturbance>,
    /// Runs of each combination, each in a network of its own.
    #[arg(long, default_value_t = 20, value_name = "N")]
    runs: u32,
    /// How long a run may take from the failure on; from 1s to 3600s, and longer than the deadline.
    #[arg(long, default_value = "30s", value_name = "DURATION")]
    limit: Nanos,
    /// The taker has a mirror of what passes between the client and the switch: when the serving node can't be asked what its
    /// sockets held, the mirror is. For takeovers.
    #[arg(long)]
    mirror: bool,
    /// The stage on the machine that is to be node A (see 'backdoor live stage'), by its address in the network that the
    /// monitor reads over, by RDMA. This machine is all the rest. Its agent can't be asked what its sockets hold; --mirror
    /// tells.
    #[arg(long, value_name = "HOST:PORT", value_parser = super::address, requires = "through", help_heading = ELSEWHERE)]
    on: Option<SocketAddr>,
    /// This machine's link to node A for clients' traffic; not the one that is read over: it is taken down to fence the node,
    /// and until the end it has no use for its own addresses. Node A needs the addresses 10.0.0.2/24 and 10.0.0.10/32 at
    /// its end.
    #[arg(long, value_name = "LINK", requires = "on", help_heading = ELSEWHERE)]
    through: Option<String>,
    #[command(flatten)]
    card: Card,
    #[command(flatten)]
    retry: Retry,
    /// Seed of the moments of failure and of what is transferred.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// A row per run as CSV, or a summary for people.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// No progress on standard error.
    #[arg(long, short)]
    quiet: bool,
}

/// Heading of the options for node A on another machine.
const ELSEWHERE: &str = "With node A on another machine";

/// Ways for an heir to fail: whose sessions nobody has, goes on again without a word.
fn of_an_heir() -> impl TypedValueParser<Value = FailoverFailure> {
    let all = FailoverFailure::value_variants().iter().filter(|failure| **failure != FailoverFailure::Zombie);
    let named = all.filter_map(ValueEnum::to_possible_value).collect::<Vec<PossibleValue>>();
    PossibleValuesParser::new(named).try_map(|name| FailoverFailure::from_str(&name, false))
}

/// Bytes, with a unit or without.
fn bytes(text: &str) -> Result<u64, String> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let factor: f64 = match unit.trim() {
        "" | "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(format!("'{unit}' is no unit of size; there are kB, MB, GB, KiB, MiB, GiB")),
    };
    let number: f64 = number.parse().map_err(|_| format!("'{number}' is no number"))?;
    Ok((number * factor).round() as u64)
}

impl Arguments {
    /// What only some of the other arguments have a use for.
    fn check(&self) -> Result<(), String> {
        if self.sessions.is_some() && !self.client.contains(&ClientKind::Many) {
            return Err("--sessions: only the client 'many' has more than one".into());
        }
        let retry = self.retry != Retry::default();
        if self.on.is_none() && (retry || self.card != Card::default()) {
            return Err("options for RDMA: only with --on is anything read through a card".into());
        }
        named_once("--client", &self.client, |client| client.name())?;
        named_once("--failure", &self.failure, |failure| failure.name())?;
        named_once("--process", &self.process, |process| process.name())
    }

    fn configs(&self) -> Result<Vec<FailoverConfig>, Failure> {
        let mut configs = Vec::new();
        let elsewhere = self.on.zip(self.through.clone()).map(|(stage, through)| Elsewhere {
            stage,
            through,
            card: self.card.clone(),
            retry: self.retry,
        });
        for client in &self.client {
            for failure in &self.failure {
                for victim in &self.process {
                    let default = FailoverConfig::of(*client, *failure)?;
                    configs.push(FailoverConfig {
                        service: self.service,
                        victim: *victim,
                        then: self.then,
                        bytes: self.size.unwrap_or(default.bytes),
                        connections: self.sessions.unwrap_or(default.connections),
                        state_size: usize::try_from(self.state_size).unwrap_or(usize::MAX),
                        deadline: self.deadline,
                        poll: self.poll,
                        detector: self.detector,
                        runs: self.runs,
                        limit: self.limit,
                        seed: self.seed,
                        mirror: self.mirror,
                        elsewhere: elsewhere.clone(),
                        remedy: self.remedy,
                        takers: self.takers,
                        heirs: self.heirs,
                        boot_time: self.boot_time,
                        disturbances: self.disturb.clone(),
                        ..default
                    });
                }
            }
        }
        Ok(configs)
    }
}

/// Whether no value comes twice, which would only mix its runs up.
fn named_once<T: PartialEq>(option: &str, values: &[T], name: fn(&T) -> &'static str) -> Result<(), String> {
    let twice = (1..values.len()).find(|at| values[..*at].contains(&values[*at]));
    twice.map_or(Ok(()), |at| Err(format!("{option}: {} is named twice", name(&values[at]))))
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    arguments.check().map_err(Failure::Message)?;
    measurement::run(&arguments.configs()?, arguments.quiet, arguments.format)
}

impl Measurement for FailoverConfig {
    type Row = FailoverRow;
    type Report = FailoverReport;
    type Error = FailoverError;

    fn check(&self) -> Result<(), FailoverError> {
        self.check()?;
        has_means(self)
    }

    fn name(&self) -> String {
        format!("{}, {}", self.client.name(), self.failure.name())
    }

    fn rows(&self) -> u32 {
        self.runs
    }

    fn run(
        &self,
        interrupt: &Interrupt,
        finished: &mut dyn FnMut(&FailoverRow),
    ) -> Result<FailoverReport, FailoverError> {
        run_failover(self, interrupt, finished)
    }

    fn partial(error: FailoverError) -> Result<FailoverReport, FailoverError> {
        match error {
            FailoverError::Interrupted { report, .. } => Ok(*report),
            error => Err(error),
        }
    }

    fn text(report: &FailoverReport) -> String {
        report.to_text()
    }

    fn complaint(reports: &[FailoverReport]) -> Option<String> {
        let count = |of: fn(&FailoverReport) -> usize| reports.iter().map(of).sum::<usize>();
        let (failed, all) = (count(FailoverReport::failed), count(|report| report.rows.len()));
        (failed > 0).then(|| format!("in {failed} of {all} runs the client did not finish with every byte right"))
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use clap::{Args, FromArgMatches};

    use super::*;
    use crate::live::failover::{DEADLINES, MAX_HEIRS, MAX_SESSIONS, MAX_TAKERS, RUN_LIMITS, SHORTEST_POLL, TRANSFERS};
    use crate::live::web::ballast::MAX_BALLAST_BYTES;

    fn command() -> clap::Command {
        Arguments::augment_args(clap::Command::new("failover"))
    }

    fn configs(options: &str) -> Vec<FailoverConfig> {
        let line = std::iter::once("failover").chain(options.split_whitespace());
        Arguments::from_arg_matches(&command().get_matches_from(line)).unwrap().configs().unwrap()
    }

    #[test]
    fn defaults_are_those_of_the_library() {
        for client in ClientKind::value_variants() {
            let given = configs(&format!("--client {}", client.name()));
            assert_eq!(given, [FailoverConfig::of(*client, FailoverFailure::Sigstop).unwrap()]);
        }
        assert_eq!(configs("")[0].client, ClientKind::Curl);
    }

    #[test]
    fn the_help_says_what_is_checked() {
        let said = |option: &str, what: String| {
            let command = command();
            let argument = command.get_arguments().find(|argument| argument.get_id() == option).unwrap();
            let help = argument.get_long_help().or_else(|| argument.get_help()).unwrap().to_string();
            assert!(help.contains(&what), "--{option} should say '{what}', says: {help}");
        };
        let from_to = |range: RangeInclusive<Nanos>| format!("from {} to {}", range.start(), range.end());
        said("deadline", from_to(DEADLINES));
        said("limit", from_to(RUN_LIMITS));
        said("poll", format!("from {SHORTEST_POLL} to the deadline"));
        said("size", format!("from {}kB to {}GB", TRANSFERS.start() / 1000, TRANSFERS.end() / 1_000_000_000));
        said("state_size", format!("up to {}KiB", MAX_BALLAST_BYTES >> 10));
        said("sessions", format!("up to {MAX_SESSIONS}."));
        said("takers", format!("up to {MAX_TAKERS};"));
        said("heirs", format!("up to {MAX_HEIRS}:"));
        let default = |client| FailoverConfig::of(client, FailoverFailure::Sigstop).unwrap();
        said("sessions", format!("[default: {}]", default(ClientKind::Many).connections));
        let [most, requests, many] =
            [ClientKind::Curl, ClientKind::Requests, ClientKind::Many].map(|client| default(client).bytes / 1000);
        said("size", format!("[default: {}MB; requests: {}MB; many: {many}kB]", most / 1000, requests / 1000));
    }

    #[test]
    fn sizes_have_units() {
        for (text, expected) in
            [("60MB", 60_000_000), ("1.5kB", 1500), ("2MiB", 2 << 20), ("17", 17), ("1 GB", 1_000_000_000)]
        {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for bad in ["", "MB", "1XB", "1..2MB", "-1", "NaN"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
