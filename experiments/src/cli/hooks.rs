//! `backdoor hooks`.

use std::path::PathBuf;

use backdoor_core::transport::RegionKey;
use backdoor_host::agent::default_socket;
use backdoor_host::app::Node;
use backdoor_host::protocol::{CLAIMS, HOOK_TABLE, PROGRESS_BOX, STATE_BOXES};

use super::Failure;
use crate::say;

/// Take memory of this node back from monitors on other machines, or offer it again.
///
/// The network card refuses what is taken back as soon as the command has ended; that fences the node against whoever
/// could reach it. Monitors get at what is offered again when they connect anew.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
    /// The agent's socket. [default: backdoor.sock in $XDG_RUNTIME_DIR or the temporary directory]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Take regions back.
    Revoke {
        /// Which.
        #[arg(value_enum, required = true)]
        regions: Vec<Region>,
    },
    /// Offer regions again.
    Restore {
        /// Which.
        #[arg(value_enum, required = true)]
        regions: Vec<Region>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Region {
    /// Where monitors begin: without it, nobody who comes anew finds anything.
    HookTable,
    /// Whom monitors watch.
    Progress,
    /// The sessions' states.
    States,
    /// Who took sessions over.
    Claims,
}

impl Region {
    const fn key(self) -> RegionKey {
        match self {
            Region::HookTable => HOOK_TABLE,
            Region::Progress => PROGRESS_BOX,
            Region::States => STATE_BOXES,
            Region::Claims => CLAIMS,
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let node = Node::connect(arguments.socket.clone().unwrap_or_else(default_socket))?;
    let (regions, done) = match &arguments.what {
        What::Revoke { regions } => (regions, "taken back"),
        What::Restore { regions } => (regions, "offered again"),
    };
    for region in regions {
        match arguments.what {
            What::Revoke { .. } => node.revoke(region.key())?,
            What::Restore { .. } => node.restore(region.key())?,
        }
        let name = clap::ValueEnum::to_possible_value(region);
        say::out(&format!("{} {done}\n", name.as_ref().map_or("region", |name| name.get_name())))?;
    }
    Ok(())
}
