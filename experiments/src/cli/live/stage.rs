//! `backdoor live stage`.

use std::net::SocketAddr;

use crate::cli::Failure;
use crate::interrupt::Interrupt;
use crate::live::stage::serve::{Stage, StageConfig};
use crate::say;

/// Offer this machine to experiments of others: 'backdoor live detect --on' there starts its agent, worker and load
/// here, and makes them fail.
///
/// One experiment at a time. Its processes end with its connection, whichever side that ends on.
///
/// Whoever can reach the port can start the experiment's processes, as the user who runs this; and with --allow-crash,
/// crash this machine and take its network down. There is no password. Listen only at an address of a network where
/// everybody may do that.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where to listen; port 0 takes any that is free. There is no default, on purpose.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Let experiments crash this machine's kernel (kernel-crash) and take the network interface down that they come in
    /// by (link-down); both need root. Nothing is synced to disk before a crash. The machine starts again by itself only
    /// if it is set to ('sysctl kernel.panic=5'), and this command must then be started by the system. An interface
    /// that comes up again may lack its IPv6 addresses and routes through gateways.
    #[arg(long)]
    allow_crash: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let interrupt = Interrupt::listen()?;
    let program = std::env::current_exe()?;
    let config = StageConfig { program, listen: arguments.listen, allow_crash: arguments.allow_crash };
    let stage = Stage::bind(config)
        .map_err(|error| Failure::Message(format!("can't listen at {}: {}", arguments.listen, crate::plain(&error))))?;
    // The line may be what somebody waits for; without a reader it serves all the same.
    let _ = say::out(&format!("stage ready at {}\n", stage.address()?));
    stage.serve(&interrupt, say::err);
    Ok(())
}
