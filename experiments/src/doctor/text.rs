//! The report for people.

use super::{Mark, Report};

/// Lines are no longer than this, but for commands and tables: those are not broken.
const WIDTH: usize = 80;
/// Where what was found begins.
const INDENT: usize = 11;

impl Report {
    /// The report, 80 columns wide; with colours only if asked for.
    pub fn to_text(&self, colours: bool) -> String {
        let paint = |code: &str, text: &str| match colours {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        };
        let mut out = String::new();
        let blank = " ".repeat(INDENT);
        for section in &self.sections {
            let needed_for = paint("2", &format!("({})", section.needed_for));
            out += &format!("{} {needed_for}\n", paint("1", section.name));
            for finding in &section.findings {
                let (code, word) = match finding.mark {
                    Mark::Ok => ("32", "ok"),
                    Mark::Warning => ("33", "warning"),
                    Mark::Missing => ("31", "missing"),
                };
                // Padded outside of the colour, which takes no room on the screen.
                let mut begin = format!("  {}{}", paint(code, word), " ".repeat(INDENT - 2 - word.len()));
                for line in wrapped(&finding.found, WIDTH - INDENT) {
                    out += &format!("{begin}{line}\n");
                    begin.clone_from(&blank);
                }
                for line in &finding.details {
                    out += &format!("{blank}{line}\n");
                }
                if let Some(remedy) = &finding.remedy {
                    // Broken where one command ends and the next begins, so that each can be copied whole.
                    let lines = remedy.split("; ").collect::<Vec<_>>().join(&format!("\n{blank}    "));
                    out += &format!("{blank}{} {lines}\n", paint("1", "do:"));
                }
            }
            out.push('\n');
        }
        let kernel = self.kernel.as_ref().map_or(String::new(), |kernel| format!(" (Linux {kernel})"));
        out += &format!("{}{kernel}\n", paint("1", "This machine can run"));
        let lacking = |sections: &[&str]| {
            let of_these = self.sections.iter().filter(|section| sections.contains(&section.name));
            of_these.flat_map(|section| &section.findings).filter(|finding| finding.mark == Mark::Missing).count()
        };
        for (what, can, sections) in [
            ("shared memory", self.can_run.shm, &["Shared memory"][..]),
            ("RDMA (verbs)", self.can_run.verbs, &["RDMA", "Memory limits"][..]),
        ] {
            let verdict = match (can, lacking(sections)) {
                (true, _) => paint("32", "yes"),
                (false, 1) => format!("{}: 1 thing is missing", paint("31", "no")),
                (false, n) => format!("{}: {n} things are missing", paint("31", "no")),
            };
            out += &format!("  {what:<15}{verdict}\n");
        }
        out
    }
}

/// Lines of whole words, no longer than `width` unless a word is.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("there is always one");
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= width {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("incomprehensibilities and", 5), ["incomprehensibilities", "and"]);
        assert_eq!(wrapped("", 5), [""]);
    }
}
