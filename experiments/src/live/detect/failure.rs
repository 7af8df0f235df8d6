//! The kinds of failure.

/// What fails, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The kernel stops all threads of the worker.
    Sigstop,
    /// The kernel ends the worker.
    Sigkill,
    /// The worker's event loop and another thread wait for each other for ever.
    Deadlock,
    /// The handler of one client's request never ends; everything else goes on.
    SessionStuck,
    /// The node's kernel crashes (magic SysRq). Needs --on.
    KernelCrash,
    /// The node's network interface goes down, and comes back by itself. Needs --on.
    LinkDown,
    /// The network interface of the monitor's own machine does: nobody is to be accused. Needs --on.
    OwnLinkDown,
    /// What the command of --inject does to the node: a power switch, a virtual machine that stops. Needs --on.
    Command,
    /// It doesn't: whoever is suspected is suspected wrongly.
    None,
}

impl FailureKind {
    /// Every kind.
    pub const ALL: [FailureKind; 9] = [
        FailureKind::Sigstop,
        FailureKind::Sigkill,
        FailureKind::Deadlock,
        FailureKind::SessionStuck,
        FailureKind::KernelCrash,
        FailureKind::LinkDown,
        FailureKind::OwnLinkDown,
        FailureKind::Command,
        FailureKind::None,
    ];

    /// The name used on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            FailureKind::Sigstop => "sigstop",
            FailureKind::Sigkill => "sigkill",
            FailureKind::Deadlock => "deadlock",
            FailureKind::SessionStuck => "session-stuck",
            FailureKind::KernelCrash => "kernel-crash",
            FailureKind::LinkDown => "link-down",
            FailureKind::OwnLinkDown => "own-link-down",
            FailureKind::Command => "command",
            FailureKind::None => "none",
        }
    }

    /// The level at which it is a failure: `os`, `application` or `session`; `link` if only the way there fails; `none`
    /// if it is none.
    pub const fn level(self) -> &'static str {
        match self {
            FailureKind::Sigstop | FailureKind::Sigkill | FailureKind::Deadlock => "application",
            FailureKind::SessionStuck => "session",
            FailureKind::KernelCrash | FailureKind::Command => "os",
            FailureKind::LinkDown | FailureKind::OwnLinkDown => "link",
            FailureKind::None => "none",
        }
    }

    /// Whether it concerns the node as a whole, or the way there. What was started on the node is started anew then.
    pub const fn is_of_node(self) -> bool {
        matches!(
            self,
            FailureKind::KernelCrash | FailureKind::LinkDown | FailureKind::OwnLinkDown | FailureKind::Command
        )
    }
}
