//! `backdoor node`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_host::agent::{Agent, AgentConfig, default_socket};

use super::Failure;
use crate::interrupt::Interrupt;
#[cfg(not(feature = "verbs"))]
use crate::live::reach::WITHOUT_VERBS;
use crate::live::reach::{Card, TransportKind};
use crate::say;

/// Run a node's agent.
///
/// It owns the memory that monitors read, keeps the operating system's counters, and gives services and their sessions
/// their places. It serves until Ctrl-C, and takes its socket away when it ends.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where its socket is made. [default: backdoor.sock in $XDG_RUNTIME_DIR or the temporary directory]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Room for entities: processors, applications, sessions.
    #[arg(long, default_value_t = 1024, value_name = "N")]
    capacity: usize,
    /// Memory for the states of all sessions together.
    #[arg(long, default_value = "8MiB", value_name = "SIZE", value_parser = size)]
    arena: usize,
    /// How often the operating system's counters advance.
    #[arg(long, default_value = "1ms", value_name = "DURATION")]
    tick: Nanos,
    /// Silence of those counters longer than this is a failure.
    #[arg(long, default_value = "100ms", value_name = "DURATION")]
    os_deadline: Nanos,
    /// Sockets of services that can be watched for what waits in them; each takes a descriptor.
    #[arg(long, default_value_t = 256, value_name = "N")]
    queues: usize,
    /// How often they are looked at; well below the sessions' deadlines.
    #[arg(long, default_value = "2ms", value_name = "DURATION")]
    queue_period: Nanos,
    /// How long what has died is kept for recovery, before its room may be used again.
    #[arg(long, default_value = "60s", value_name = "DURATION")]
    retain: Nanos,
    /// Besides processes of this machine, whom to serve: with verbs, monitors on other machines that have the key.
    #[arg(long, value_enum, default_value_t = TransportKind::Shm)]
    transport: TransportKind,
    /// Where to listen for monitors that want to be connected.
    #[arg(long, default_value = "[::]:7471", value_name = "ADDRESS:PORT", help_heading = "RDMA")]
    listen: SocketAddr,
    /// The file with the key that monitors must have, made if there is none. [default: backdoor/key in the user's
    /// configuration directory]
    #[arg(long, value_name = "FILE", help_heading = "RDMA")]
    key: Option<PathBuf>,
    #[command(flatten)]
    card: Card,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let socket = arguments.socket.clone().unwrap_or_else(default_socket);
    let mut config = AgentConfig::at(&socket);
    config.capacity = arguments.capacity;
    config.claims = arguments.capacity;
    config.state_words = arguments.arena / 8;
    config.tick = arguments.tick;
    config.os_deadline = arguments.os_deadline;
    config.retain = arguments.retain;
    config.queues = arguments.queues;
    config.queue_period = arguments.queue_period;
    let serves = match arguments.transport {
        TransportKind::Shm => String::new(),
        TransportKind::Verbs => serve_cards(&mut config, arguments)?,
    };
    let interrupt = Interrupt::listen()?;
    let agent = Agent::start(config)?;
    // The line may be what somebody waits for; without a reader the agent serves all the same.
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "agent ready at {}{serves}", socket.display()).and_then(|()| out.flush());
    drop(out);
    while !interrupt.requested() {
        if !agent.is_running() {
            return Err(Failure::Message("the agent failed".into()));
        }
        for peer in agent.take_turned_away() {
            say::err(&format!("backdoor: turned away {peer}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    agent.stop();
    Ok(())
}

/// Has the agent serve network cards; answers how to say so.
#[cfg(feature = "verbs")]
fn serve_cards(config: &mut AgentConfig, arguments: &Arguments) -> Result<String, Failure> {
    use backdoor_host::agent::RemoteConfig;
    use backdoor_host::remote::SetupKey;

    let path = arguments.key.clone().unwrap_or_else(SetupKey::default_path);
    let made = !path.exists();
    let key = SetupKey::load_or_create(&path)?;
    let remote = RemoteConfig { device: arguments.card.to_choice(), ..RemoteConfig::at(arguments.listen, key) };
    config.remote = Some(remote);
    if made {
        say::err(&format!("backdoor: made the key {}; monitors need a copy of it", path.display()));
    }
    Ok(format!(", and for monitors with the key {} at {}", path.display(), arguments.listen))
}

#[cfg(not(feature = "verbs"))]
fn serve_cards(_: &mut AgentConfig, _: &Arguments) -> Result<String, Failure> {
    Err(Failure::Message(WITHOUT_VERBS.into()))
}

/// Bytes from a number with or without a unit.
fn size(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: usize = match unit.trim() {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        _ => return Err("write a number of bytes, KiB, MiB or GiB, such as 8MiB".into()),
    };
    let number: usize = number.parse().map_err(|_| "write a whole number first, such as 8MiB".to_string())?;
    number.checked_mul(factor).ok_or_else(|| "more than this machine can address".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("8MiB"), Ok(8 << 20));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("2 K"), Ok(2048));
        for bad in ["", "MiB", "1.5GiB", "8MB", "99999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
