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
    /// A lost wake-up: one client's request lies in the socket, and its session goes on saying that it is idle.
    IdleLie,
    /// The worker's event loop goes on, and no request is served any more: they wait in their sockets.
    Livelock,
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
    pub const ALL: [FailureKind; 11] = [
        FailureKind::Sigstop,
        FailureKind::Sigkill,
        FailureKind::Deadlock,
        FailureKind::SessionStuck,
        FailureKind::IdleLie,
        FailureKind::Livelock,
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
            FailureKind::IdleLie => "idle-lie",
            FailureKind::Livelock => "livelock",
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
            FailureKind::Sigstop | FailureKind::Sigkill | FailureKind::Deadlock | FailureKind::Livelock => {
                "application"
            }
            FailureKind::SessionStuck | FailureKind::IdleLie => "session",
            FailureKind::KernelCrash | FailureKind::Command => "os",
            FailureKind::LinkDown | FailureKind::OwnLinkDown => "link",
            FailureKind::None => "none",
        }
    }

    /// What a right diagnosis calls it, as in [notices](crate::live::notice::cause_name); nothing if there is nothing to
    /// diagnose, or nothing that can be read.
    pub const fn cause(self) -> Option<&'static str> {
        match self {
            FailureKind::Sigstop | FailureKind::Sigkill | FailureKind::Deadlock => Some("application"),
            FailureKind::Livelock => Some("not_serving"),
            FailureKind::SessionStuck | FailureKind::IdleLie => Some("session"),
            FailureKind::Command | FailureKind::KernelCrash => Some("operating_system"),
            FailureKind::LinkDown | FailureKind::OwnLinkDown | FailureKind::None => None,
        }
    }

    /// Whether only the work that waits in sockets shows it.
    pub const fn shows_in_queues(self) -> bool {
        matches!(self, FailureKind::IdleLie | FailureKind::Livelock)
    }

    /// Whether it concerns the node as a whole, or the way there. What was started on the node is started anew then.
    pub const fn is_of_node(self) -> bool {
        matches!(
            self,
            FailureKind::KernelCrash | FailureKind::LinkDown | FailureKind::OwnLinkDown | FailureKind::Command
        )
    }
}
