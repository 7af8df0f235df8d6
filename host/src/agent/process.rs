//! Whether a process has ended: the kernel's word, for what a process left is handed on only when nobody can use it any more.
//!
//! A number may be another process' later, so it counts only together with the time at which its process started. No
//! descriptor is held for it: whoever dies and comes back all day makes the agent hold none.

use std::fs;

/// A process of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    id: u64,
    /// When it started, in the kernel's ticks since boot; `None` if that could not be read.
    started: Option<u64>,
}

/// What the kernel tells of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    threads: u64,
    started: u64,
}

impl Process {
    /// The one with that number now.
    pub(super) fn of(id: u64) -> Self {
        let started = Stat::of(id).ok().flatten().map(|stat| stat.started);
        Process { id, started }
    }

    /// Its number.
    pub(super) fn id(self) -> u64 {
        self.id
    }

    /// Whether it has ended for certain: none of its threads will do anything any more.
    pub(super) fn has_ended(self) -> bool {
        let Some(started) = self.started else { return false };
        match Stat::of(self.id) {
            Ok(None) => true,
            // The first thread of a process may end before the others; then the process is called dead, and lives.
            Ok(Some(stat)) => stat.started != started || (matches!(stat.state, 'Z' | 'X') && stat.threads <= 1),
            Err(_) => false,
        }
    }
}

impl Stat {
    /// `None` if there is no such process; an error if the kernel does not say.
    fn of(id: u64) -> Result<Option<Self>, ()> {
        match fs::read_to_string(format!("/proc/{id}/stat")) {
            Ok(text) => Stat::parse(&text).map(Some).ok_or(()),
            // Without /proc, everything is missing.
            Err(error)
                if error.kind() == std::io::ErrorKind::NotFound && fs::exists("/proc/self").is_ok_and(|is| is) =>
            {
                Ok(None)
            }
            // Gone between opening and reading.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
            Err(_) => Err(()),
        }
    }

    /// proc_pid_stat(5).
    fn parse(text: &str) -> Option<Self> {
        // The name before it is in parentheses, and may hold any character.
        let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        // Fields 20 and 22; the state is field 3.
        let threads = fields.nth(16)?.parse().ok()?;
        let started = fields.nth(1)?.parse().ok()?;
        Some(Stat { state, threads, started })
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_has_ended_when_it_is_dead_and_not_before() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let process = Process::of(u64::from(child.id()));
        assert!(!process.has_ended());
        child.kill().unwrap();
        // Not waited for, it is a zombie.
        let dead = std::iter::repeat_with(|| process.has_ended()).take(10_000_000).any(|ended| ended);
        assert!(dead);
        child.wait().unwrap();
        assert!(process.has_ended());
        assert!(!Process { started: None, ..process }.has_ended(), "nothing is known of it");
    }

    #[test]
    fn another_process_of_the_same_number_is_another() {
        let here = Process::of(u64::from(std::process::id()));
        assert!(!here.has_ended());
        assert!(Process { started: here.started.map(|started| started + 1), ..here }.has_ended());
    }

    #[test]
    fn the_kernels_line_is_read_whatever_the_name() {
        let line = "7 (a ) Z 9) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 3 18 4711 20";
        assert_eq!(Stat::parse(line), Some(Stat { state: 'Z', threads: 3, started: 4711 }));
        assert_eq!(Stat::parse("7 (a) Z 1 2"), None);
    }
}
