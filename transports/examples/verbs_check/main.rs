//! Puts the verbs transport to the test on a real device, or on Soft-RoCE: both ends on this machine, connected through
//! the device's own loopback.
//!
//! ```text
//! cargo run --release -p backdoor-transports --features verbs --example verbs_check -- conformance --device mlx5_0
//! ```

mod conformance;
mod extraction;
mod node;
mod revocation;
mod speed;
mod torn;

use std::process::ExitCode;

use backdoor_transports::verbs::{Device, DeviceChoice};
use clap::Parser;

/// Checks of the verbs transport on this machine's RDMA device.
///
/// Results are lines `name value unit` on standard output; the exit code is 1 if a check failed.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    check: Check,
    /// The device, such as mlx5_0. [default: the first with an active port]
    #[arg(long, global = true, value_name = "NAME")]
    device: Option<String>,
    /// Its port, from 1. [default: the first that is active]
    #[arg(long, global = true, value_name = "N")]
    port: Option<u8>,
    /// Index of the global identifier. [default: chosen by type: RoCE v2, IPv4 first]
    #[arg(long, global = true, value_name = "N")]
    gid_index: Option<u32>,
}

#[derive(Clone, Copy, Debug, clap::Subcommand)]
enum Check {
    /// The suite that every transport passes.
    Conformance,
    /// A region is taken back while READs go on: when does the first fail, and does none succeed that began later?
    Revocation,
    /// READs of words that a processor is changing: how many are torn, and does a State Box always come whole?
    Torn,
    /// READ latency and throughput, next to ib_read_lat and ib_read_bw in the same run.
    Speed,
    /// States of sessions read out, next to plain READs of as many bytes.
    Extraction,
    /// READ latency of one size, for one round.
    Latency {
        /// A multiple of 8.
        #[arg(value_name = "BYTES")]
        bytes: usize,
    },
}

fn main() -> ExitCode {
    let Arguments { check, device, port, gid_index } = Arguments::parse();
    let outcome = Device::open(&DeviceChoice { device, port, gid_index }).map_err(Into::into).and_then(|device| {
        eprintln!("{} port {}, {}, {}", device.name(), device.port(), device.link(), device.gid());
        match check {
            Check::Conformance => conformance::check(&device),
            Check::Revocation => revocation::check(&device),
            Check::Torn => torn::check(&device),
            Check::Speed => speed::check(&device),
            Check::Extraction => extraction::check(&device),
            Check::Latency { bytes } => speed::check_latency(&device, bytes),
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

type Outcome = Result<(), Box<dyn std::error::Error>>;
