//! Whether the cases can be run on this machine by this program, at once.
//!
//! Only a program that was built with verbs, and has the other program that the cases need beside it, runs them: the
//! guests get these very files, so what is measured is what runs here, and no build of minutes begins unasked.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the script is in a checkout.
const SCRIPT: &str = "transports/soft-roce/run";
/// What else is needed beside this program.
const COMPANION: &str = "examples/verbs_check";
/// What works everywhere where the script itself works.
pub(super) const BY_HAND: &str =
    "run transports/soft-roce/run in a checkout, then reproduce with --soft-roce target/soft-roce";
/// What the script ends with when it can't begin.
pub(super) const COULD_NOT_BEGIN: i32 = 3;
/// Longest sentence that is taken over from the script.
const LONGEST_SENTENCE: usize = 400;

/// Where this program runs, and what it is.
#[derive(Clone, Debug)]
pub struct Here {
    /// From here upwards the checkout is looked for.
    pub directory: PathBuf,
    /// This program's file.
    pub program: PathBuf,
    /// Whether it was built with verbs.
    pub with_verbs: bool,
    /// Whether it is to run nothing but simulations.
    pub only_simulated: bool,
}

/// The script can begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The script.
    pub script: PathBuf,
    /// The target directory of this program.
    pub target: PathBuf,
    /// All its cases, in their order.
    pub cases: Vec<String>,
}

/// It can't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unready {
    /// Why.
    pub why: String,
    /// What to do.
    pub remedy: String,
}

impl Unready {
    pub(super) fn new(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Unready { why: why.into(), remedy: remedy.into() }
    }

    pub(super) fn cannot_run(script: &Path, error: &io::Error) -> Self {
        Unready::new(format!("cannot run {}: {}", script.display(), crate::plain(error)), BY_HAND)
    }
}

impl Here {
    /// This program, in its current directory.
    ///
    /// # Errors
    /// The operating system doesn't tell.
    pub fn current() -> io::Result<Self> {
        Ok(Here {
            directory: std::env::current_dir()?,
            program: std::env::current_exe()?,
            with_verbs: crate::live::reach::built_with_verbs(),
            only_simulated: false,
        })
    }

    /// Looks at everything that it takes, cheapest first; the script has the last word.
    pub fn ready(&self) -> Result<Ready, Unready> {
        if self.only_simulated {
            return Err(Unready::new("by --no-live", "leave that out"));
        }
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            return Err(Unready::new("its virtual machines are for Linux on x86_64", "use such a machine"));
        }
        if !self.with_verbs {
            return Err(Unready::new("this program was built without verbs", BY_HAND));
        }
        let script = self.script()?;
        let release = self.program.parent().filter(|directory| directory.ends_with("release"));
        let (Some(release), Some(target)) = (release, release.and_then(Path::parent)) else {
            let why = format!("{} is not in the release directory of a build", self.program.display());
            return Err(Unready::new(why, BY_HAND));
        };
        if !release.join(COMPANION).is_file() {
            return Err(Unready::new(format!("there is no {}", release.join(COMPANION).display()), BY_HAND));
        }
        check(&script, target)?;
        let cases = cases(&script).map_err(|error| Unready::cannot_run(&script, &error))?;
        Ok(Ready { script, target: target.to_owned(), cases })
    }

    fn script(&self) -> Result<PathBuf, Unready> {
        let found = self.directory.ancestors().map(|directory| directory.join(SCRIPT)).find(|script| script.is_file());
        found.ok_or_else(|| {
            let why = format!("there is no {SCRIPT} from {} upwards", self.directory.display());
            Unready::new(why, "start in a checkout of the project")
        })
    }
}

/// Asks the script. It changes nothing.
fn check(script: &Path, target: &Path) -> Result<(), Unready> {
    let output = Command::new(script)
        .arg("--check")
        .env("CARGO_TARGET_DIR", target)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Unready::cannot_run(script, &error))?;
    match output.status.code() {
        Some(0) => Ok(()),
        Some(COULD_NOT_BEGIN) => Err(Unready::new(sentence(&output.stderr), "run transports/soft-roce/run once")),
        _ => Err(Unready::new(format!("{} --check ended with {}", script.display(), output.status), BY_HAND)),
    }
}

/// The cases are files; their names say in which order they run.
fn cases(script: &Path) -> io::Result<Vec<String>> {
    let mut cases = Vec::new();
    for entry in script.with_file_name("cases").read_dir()? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        cases.extend(name.strip_suffix(".sh").filter(|name| crate::results::is_name(name)).map(str::to_owned));
    }
    cases.sort();
    Ok(cases)
}

/// What the script said last, fit for a line of ours.
pub(super) fn sentence(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let last = text.lines().rev().find_map(|line| line.strip_prefix("soft-roce: "));
    let clean = |text: &str| text.chars().filter(|c| !c.is_control()).take(LONGEST_SENTENCE).collect::<String>();
    match last.map(clean) {
        Some(sentence) if !sentence.trim().is_empty() => sentence.trim().to_owned(),
        _ => "transports/soft-roce/run could not begin, and did not say why".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_sentence_counts() {
        assert_eq!(sentence(b"soft-roce: one\nsoft-roce: two \x1b[31m\nthree\n"), "two [31m");
        assert!(sentence(b"soft-roce: \n").contains("did not say why"));
        assert!(sentence(b"\xff\xfe").contains("did not say why"));
        assert_eq!(sentence(format!("soft-roce: {}", "x".repeat(9999)).as_bytes()).len(), LONGEST_SENTENCE);
    }
}
