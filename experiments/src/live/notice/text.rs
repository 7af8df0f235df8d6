//! Notices as lines for people.

use std::time::{SystemTime, UNIX_EPOCH};

use backdoor_core::Nanos;
use backdoor_host::clock;

use super::{Entity, Notice, Summary, What};

/// More entities than this that join or leave at once are counted, not listed.
const LIST_UP_TO: usize = 16;
/// Late samples are mentioned at most this often; a starved monitor would say little else.
const LATE_EVERY: Nanos = Nanos::from_secs(1);

/// How a line tells its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Times {
    /// Seconds since the start.
    #[default]
    Relative,
    /// Time of day, UTC.
    Utc,
}

/// Turns notices into lines.
#[derive(Debug)]
pub struct TextWriter {
    times: Times,
    colours: bool,
    start: Nanos,
    /// Nanoseconds since 1970 at `start`.
    start_unix_ns: u64,
    late_said: Option<Nanos>,
    late_unsaid: u64,
}

#[derive(Clone, Copy)]
enum Tone {
    Bad,
    Good,
    Quiet,
    Plain,
}

impl TextWriter {
    /// Times count from now; colours only if asked for.
    pub fn new(times: Times, colours: bool) -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let start = clock::now();
        TextWriter { times, colours, start, start_unix_ns: unix, late_said: None, late_unsaid: 0 }
    }

    /// The lines of notices that came together.
    pub fn lines(&mut self, notices: &[Notice]) -> Vec<String> {
        let joined = notices.iter().filter(|n| matches!(n.what, What::Joined { .. })).count();
        let left = notices.iter().filter(|n| matches!(n.what, What::Left { .. })).count();
        let mut lines = Vec::new();
        let mut counted = false;
        for notice in notices {
            let (tone, text) = match &notice.what {
                What::Joined { .. } | What::Left { .. } if joined + left > LIST_UP_TO => {
                    if std::mem::replace(&mut counted, true) {
                        continue;
                    }
                    (Tone::Quiet, many(joined, left))
                }
                What::Late { gap_ns } => match self.late(Nanos(notice.at_ns), Nanos(*gap_ns)) {
                    Some(text) => (Tone::Quiet, text),
                    None => continue,
                },
                what => text_of(what),
            };
            for line in text.lines() {
                lines.push(self.line(notice.at_ns, tone, line));
            }
        }
        lines
    }

    fn late(&mut self, at: Nanos, gap: Nanos) -> Option<String> {
        if self.late_said.is_some_and(|said| at < said + LATE_EVERY) {
            self.late_unsaid += 1;
            return None;
        }
        self.late_said = Some(at);
        let more = match std::mem::take(&mut self.late_unsaid) {
            0 => String::new(),
            more => format!(" ({more} more like it since the last such line)"),
        };
        Some(format!("this monitor was late: {} between its samples, held against nobody{more}", span(gap)))
    }

    fn line(&self, at_ns: u64, tone: Tone, text: &str) -> String {
        let since = Nanos(at_ns) - self.start;
        let time = match self.times {
            Times::Relative => format!("{:>10.4} s", since.as_secs_f64()),
            Times::Utc => utc(self.start_unix_ns + since.0),
        };
        let (on, off) = match tone {
            _ if !self.colours => ("", ""),
            Tone::Bad => ("\x1b[31m", "\x1b[0m"),
            Tone::Good => ("\x1b[32m", "\x1b[0m"),
            Tone::Quiet => ("\x1b[2m", "\x1b[0m"),
            Tone::Plain => ("", ""),
        };
        format!("{time}  {on}{text}{off}")
    }
}

fn utc(unix_ns: u64) -> String {
    let (seconds, micros) = (unix_ns / 1_000_000_000, unix_ns / 1_000 % 1_000_000);
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{micros:06}Z", seconds % 60)
}

/// A span to a precision that a person can read.
fn span(span: Nanos) -> String {
    match span.0 {
        0..1_000_000 => format!("{:.0} us", span.as_micros_f64()),
        1_000_000..10_000_000_000 => format!("{:.1} ms", span.as_millis_f64()),
        _ => format!("{:.1} s", span.as_secs_f64()),
    }
}

fn text_of(what: &What) -> (Tone, String) {
    match what {
        What::Waiting { why } => (Tone::Plain, format!("waiting: {why}")),
        What::Connected { again: false, .. } => (Tone::Plain, "connected to the agent".into()),
        What::Connected { again: true, .. } => (Tone::Plain, "connected to the new agent; all is found anew".into()),
        What::AgentGone => (Tone::Bad, "the agent is gone; what it left is watched on until there is a new one".into()),
        What::Attached { incarnation, capacity } => {
            (Tone::Plain, format!("attached: incarnation {incarnation}, room for {capacity} entities"))
        }
        What::Restarted { .. } => (Tone::Plain, "the node has started anew; its entities are others".into()),
        What::Joined { entity } => {
            (Tone::Quiet, format!("watching  {}, deadline {}", who(entity), Nanos(entity.deadline_ns)))
        }
        What::Left { entity } => (Tone::Quiet, format!("left      {}", who(entity))),
        What::Suspected { entity, silence_ns } => (
            Tone::Bad,
            format!(
                "SUSPECTED {}: silent for {}, deadline {}",
                who(entity),
                span(Nanos(*silence_ns)),
                Nanos(entity.deadline_ns)
            ),
        ),
        What::Trusted { entity, silence_ns } => {
            (Tone::Good, format!("trusted   {} again, after {} of silence", who(entity), span(Nanos(*silence_ns))))
        }
        What::Failure { cause, roots, sessions, recoverable, action, recovery } => {
            (Tone::Bad, failure(cause, roots, *sessions, *recoverable, action, recovery.as_ref()))
        }
        What::Resolved { cause, roots } => (Tone::Good, format!("RESOLVED  {}: {}", words(cause), names(roots))),
        What::ChannelLost { error, .. } => (Tone::Bad, format!("channel lost, nobody is accused: {error}")),
        What::ChannelRestored => (Tone::Good, "channel restored".into()),
        What::Late { gap_ns } => (Tone::Quiet, format!("late by {}", span(Nanos(*gap_ns)))),
        What::BadMemory { error } => (Tone::Bad, format!("the node's memory is not what it should be: {error}")),
        What::NoProgressBox => (Tone::Bad, "the node offers no memory for monitoring".into()),
        What::Summary(summary) => (Tone::Plain, summary_text(summary)),
    }
}

fn many(joined: usize, left: usize) -> String {
    match (joined, left) {
        (joined, 0) => format!("watching  {joined} more entities"),
        (0, left) => format!("left      {left} entities"),
        (joined, left) => format!("watching  {joined} more entities, {left} left"),
    }
}

fn who(entity: &Entity) -> String {
    match entity.process {
        0 => format!("{} '{}'", entity.level, entity.name),
        process => format!("{} '{}' (process {process})", entity.level, entity.name),
    }
}

fn names(entities: &[Entity]) -> String {
    const SHOWN: usize = 4;
    let mut names: Vec<String> = entities.iter().take(SHOWN).map(|entity| format!("'{}'", entity.name)).collect();
    if entities.len() > SHOWN {
        names.push(format!("{} more", entities.len() - SHOWN));
    }
    names.join(", ")
}

fn words(cause: &str) -> &str {
    match cause {
        "operating_system" => "operating system",
        "processor" => "processor",
        "reporter" => "agent, which keeps the system's counters",
        "not_serving" => "application that goes on and serves nobody",
        other => other,
    }
}

fn failure(
    cause: &str,
    roots: &[Entity],
    sessions: usize,
    recoverable: usize,
    action: &str,
    recovery: Option<&super::Recovery>,
) -> String {
    let mut text = format!("FAILURE   {}: {}", words(cause), names(roots));
    if sessions > 0 {
        text += &format!("; {sessions} session{} affected, {recoverable} recoverable", plural(sessions));
    }
    match action {
        "restart_application" => text += "; restart the application",
        "reboot_node" => text += "; reboot the node",
        _ => {}
    }
    if let Some(recovery) = recovery {
        let whole = recovery.states.iter().filter(|state| state.error.is_none()).count();
        text += &format!("; {whole} states read in {}", span(Nanos(recovery.took_ns)));
    }
    text
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn summary_text(s: &Summary) -> String {
    if s.attached == 0 {
        return format!("watched for {:.1} s: there was no agent", s.ran_s);
    }
    let still = match s.suspected {
        0 => "nobody is suspected now".into(),
        1 => "1 is suspected now".into(),
        n => format!("{n} are suspected now"),
    };
    format!(
        "watched {} entities for {:.1} s: {} samples, {} late; {} suspected, {} of them wrongly; {} diagnosed; {still}\n\
         woke up {:.3} ms late in the median, {:.3} ms at 99%, {:.3} ms at worst",
        s.entities,
        s.ran_s,
        s.samples,
        s.late_samples,
        s.suspicions,
        s.withdrawn,
        match s.failures {
            1 => "1 failure".into(),
            failures => format!("{failures} failures"),
        },
        s.wakeups.median_ms,
        s.wakeups.p99_ms,
        s.wakeups.max_ms
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use backdoor_core::progress_box::{EntityRecord, FailureLevel, Slot};

    fn joined(slot: u32) -> Notice {
        let record = EntityRecord::new("kv", FailureLevel::Application, Nanos::from_millis(20));
        Notice { at_ns: clock::now().0, what: What::Joined { entity: Entity::new(Slot(slot), &record) } }
    }

    #[test]
    fn crowds_are_counted_and_few_are_listed() {
        let mut writer = TextWriter::new(Times::Relative, false);
        let crowd: Vec<Notice> = (0..100).map(joined).collect();
        let lines = writer.lines(&crowd);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].ends_with("watching  100 more entities"), "{lines:?}");
        assert!(writer.lines(&[joined(1)])[0].ends_with("watching  application 'kv', deadline 20ms"));
    }

    #[test]
    fn lateness_is_not_repeated_every_millisecond() {
        let mut writer = TextWriter::new(Times::Utc, false);
        let late = Notice { at_ns: clock::now().0, what: What::Late { gap_ns: 7_000_000 } };
        assert_eq!(writer.lines(&vec![late; 50]).len(), 1);
    }

    #[test]
    fn colours_only_when_asked_for() {
        let gone = [Notice { at_ns: clock::now().0, what: What::AgentGone }];
        assert!(!TextWriter::new(Times::Relative, false).lines(&gone)[0].contains('\x1b'));
        assert!(TextWriter::new(Times::Relative, true).lines(&gone)[0].contains("\x1b[31m"));
        assert_eq!(utc(86_399_000_001_000), "23:59:59.000001Z");
    }
}
