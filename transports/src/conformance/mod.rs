//! What every transport must do: one body of tests for simulated and real ones alike.
//!
//! An [`Arm`] says how to set up a node and a channel to it on one substrate. [`run`] puts it through every case and
//! reports each failure by itself; nothing here needs a test harness, so the same suite runs inside a virtual machine.
//! In a test it is one line:
//!
//! ```ignore
//! #[test]
//! fn my_transport_conforms() {
//!     conformance::run(&MyArm).assert_passed();
//! }
//! ```
//!
//! Whatever a case does, the suite also checks that every operation completes exactly once, that completions come in
//! the order of posting, and that nothing hangs. Cases for what an arm can't do are reported as skipped, never as
//! passed.

mod bench;
mod buffers;
mod cpu;
mod data;
mod errors;
mod queue;
mod rights;
mod torn;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use backdoor_core::transport::{Completion, RegionKey, Rights, Transport};

pub use bench::Failure;
pub use cpu::CpuWork;

/// A substrate to be tested.
pub trait Arm {
    /// What one case plays with.
    type Rig: Rig;

    /// What the substrate can do.
    fn capabilities(&self) -> Capabilities;

    /// A node with these regions, filled with zeros, and an open channel to it. Every case begins with its own.
    fn set_up(&self, regions: &[RegionSetup]) -> Self::Rig;
}

/// A region to be registered at the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionSetup {
    /// Its length.
    pub words: usize,
    /// What remote operations may do to it.
    pub rights: Rights,
}

/// A node and a channel to it. Regions go by their place in the list of [`Arm::set_up`].
pub trait Rig {
    /// The transport under test.
    type T: Transport;

    /// The transport under test.
    fn transport(&mut self) -> &mut Self::T;

    /// The key of a region.
    fn key(&self, region: usize) -> RegionKey;

    /// The node's processor reads a word.
    fn cpu_load(&mut self, region: usize, word: usize) -> u64;

    /// The node's processor stores a word.
    fn cpu_store(&mut self, region: usize, word: usize, value: u64);

    /// Lets a little time pass, about a way there and back or up to the next event, and polls once.
    fn step(&mut self, completions: &mut Vec<Completion>);

    /// Steps after which the suite concludes that nothing more will come. Must cover the time in which the transport
    /// gives up on a node that doesn't answer.
    fn patience(&self) -> usize;

    /// The node takes a region back. For arms that [can](Capabilities::revoke).
    fn revoke(&mut self, region: usize) {
        panic!("this arm can't revoke region {region}")
    }

    /// The way to the node is cut, both ways. For arms that [can](Capabilities::cut_link).
    fn cut_link(&mut self) {
        panic!("this arm can't cut the link")
    }

    /// The way to the node is whole again. For arms that [can](Capabilities::cut_link).
    fn restore_link(&mut self) {
        panic!("this arm can't restore the link")
    }

    /// From now on, for the life of the rig, the node's processor does this work on a region, over and over while READs
    /// go on. For arms that [can](Capabilities::concurrent_cpu).
    fn start_cpu(&mut self, region: usize, work: CpuWork) {
        panic!("this arm can't run {work:?} on region {region}")
    }
}

/// What a substrate can do. What it can't is not tested, and reported as skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Compare-and-swap is offered.
    pub compare_swap: bool,
    /// Regions can be taken back.
    pub revoke: bool,
    /// The link can be cut and restored.
    pub cut_link: bool,
    /// The node's processor can run while READs go on.
    pub concurrent_cpu: bool,
    /// A READ brings words whole, also those being stored meanwhile. Network cards and shared memory do; Soft-RoCE copies
    /// as its kernel copies memory, which may be byte by byte.
    pub whole_words: bool,
    /// An error breaks the channel, as verbs do; otherwise it must stay open.
    pub breaks_on_error: bool,
    /// `OutOfBounds` is told apart from `Refused` (verbs can't); otherwise both mean either.
    pub tells_out_of_bounds: bool,
}

impl Capabilities {
    /// All of them.
    pub const ALL: Capabilities = Capabilities {
        compare_swap: true,
        revoke: true,
        cut_link: true,
        concurrent_cpu: true,
        whole_words: true,
        breaks_on_error: true,
        tells_out_of_bounds: true,
    };
}

/// What a case needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    Nothing,
    CompareSwap,
    Revoke,
    CutLink,
    ConcurrentCpu,
    WholeWords,
    BreaksOnError,
}

impl Needs {
    fn met_by(self, capabilities: Capabilities) -> bool {
        match self {
            Needs::Nothing => true,
            Needs::CompareSwap => capabilities.compare_swap,
            Needs::Revoke => capabilities.revoke,
            Needs::CutLink => capabilities.cut_link,
            Needs::ConcurrentCpu => capabilities.concurrent_cpu,
            Needs::WholeWords => capabilities.concurrent_cpu && capabilities.whole_words,
            Needs::BreaksOnError => capabilities.breaks_on_error,
        }
    }
}

/// One test.
#[derive(Debug)]
pub struct Case<A: Arm> {
    /// What must hold.
    pub name: &'static str,
    needs: Needs,
    body: fn(&A) -> Result<(), Failure>,
}

impl<A: Arm> Case<A> {
    fn new(name: &'static str, needs: Needs, body: fn(&A) -> Result<(), Failure>) -> Self {
        Case { name, needs, body }
    }

    /// Runs it. A panic of the transport is a failure.
    pub fn run(&self, arm: &A) -> Outcome {
        if !self.needs.met_by(arm.capabilities()) {
            return Outcome::Skipped;
        }
        match catch_unwind(AssertUnwindSafe(|| (self.body)(arm))) {
            Ok(Ok(())) => Outcome::Passed,
            Ok(Err(failure)) => Outcome::Failed(failure.to_string()),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
                Outcome::Failed(format!("panicked: {text}"))
            }
        }
    }
}

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Passed,
    /// The arm can't do what the case needs.
    Skipped,
    /// It doesn't hold, and why.
    Failed(String),
}

/// Every case, in an order fit for reading.
pub fn cases<A: Arm>() -> Vec<Case<A>> {
    [data::cases(), rights::cases(), queue::cases(), errors::cases(), buffers::cases(), torn::cases()]
        .into_iter()
        .flatten()
        .collect()
}

/// Puts an arm through every case.
pub fn run<A: Arm>(arm: &A) -> Report {
    Report { outcomes: cases().iter().map(|case| (case.name, case.run(arm))).collect() }
}

/// What came of all cases. Its `Display` is a line per case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Name and outcome of each case.
    pub outcomes: Vec<(&'static str, Outcome)>,
}

impl Report {
    /// Names and reasons of the cases that failed.
    pub fn failures(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.outcomes.iter().filter_map(|(name, outcome)| match outcome {
            Outcome::Failed(why) => Some((*name, why.as_str())),
            _ => None,
        })
    }

    /// Names of the cases that the arm can't be put through.
    pub fn skipped(&self) -> impl Iterator<Item = &'static str> {
        self.outcomes.iter().filter(|(_, outcome)| *outcome == Outcome::Skipped).map(|(name, _)| *name)
    }

    /// # Panics
    /// If a case failed; says which and why.
    pub fn assert_passed(&self) {
        let failed = self.failures().count();
        assert!(failed == 0, "{failed} of {} cases failed:\n{self}", self.outcomes.len());
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, outcome) in &self.outcomes {
            match outcome {
                Outcome::Passed => writeln!(f, "ok       {name}")?,
                Outcome::Skipped => writeln!(f, "skipped  {name}")?,
                Outcome::Failed(why) => writeln!(f, "FAILED   {name}: {why}")?,
            }
        }
        Ok(())
    }
}
