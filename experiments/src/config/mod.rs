//! Experiment configs: TOML, checked strictly, with errors that name file, line and key.
//!
//! A struct that derives `Deserialize` with `deny_unknown_fields` is a config. Values to sweep over are an
//! [`Axis`] (a value, a list, or a range) or [`OneOrMany`] (a value or a list); spans of time are text such as
//! `"20ms"`, read by [`Span`]. [`Grid`] lists all combinations.
//!
//! ```
//! use backdoor_experiments::config::{self, Axis, Grid, OneOrMany, Span};
//! #[derive(Debug, serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Config { deadline: Axis<Span>, mode: OneOrMany<String> }
//!
//! let text = r#"
//!     deadline = { from = "1ms", to = "100ms", steps = 3, scale = "log" }
//!     mode = ["read", "pull"]
//! "#;
//! let config: Config = config::parse("example.toml", text)?;
//! let grid = Grid::new().axis("deadline", config.deadline.len()).axis("mode", config.mode.len());
//! let texts: Vec<String> = grid
//!     .points()
//!     .map(|point| format!("{} {}", config.deadline[point.at("deadline")], config.mode[point.at("mode")]))
//!     .collect();
//! assert_eq!(texts, ["1ms read", "1ms pull", "10ms read", "10ms pull", "100ms read", "100ms pull"]);
//!
//! let wrong = config::parse::<Config>("example.toml", "dedline = '1ms'").unwrap_err();
//! assert_eq!(wrong.to_string(), "example.toml:1: unknown key 'dedline'; did you mean 'deadline'?");
//! # Ok::<(), config::ConfigError>(())
//! ```

mod error;
mod grid;
mod values;

pub use error::ConfigError;
pub use grid::{Grid, GridPoint};
pub use values::{Axis, AxisValue, OneOrMany, Span};

use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// More than any config has; what is larger is another file, given by mistake.
const MOST_BYTES: u64 = 1 << 20;

/// A config file read: the value, and the text it came from for the manifest and for later complaints.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    /// The config.
    pub value: T,
    /// The file's text, whole.
    pub text: String,
    file: String,
}

impl<T> Loaded<T> {
    /// An error about a value that is well-formed but makes no sense, such as a deadline shorter than the period.
    ///
    /// `key` is the path in the file, such as `monitor.deadline`; its line is looked up.
    pub fn invalid(&self, key: &str, message: impl Into<String>) -> ConfigError {
        ConfigError::invalid(&self.file, &self.text, key, message.into())
    }
}

/// Reads a config file.
///
/// # Errors
/// One sentence with file, line and key; see [`ConfigError`].
pub fn load<T: DeserializeOwned>(path: impl AsRef<Path>) -> Result<T, ConfigError> {
    load_with_text(path).map(|loaded| loaded.value)
}

/// Reads a config file and keeps its text.
///
/// # Errors
/// As [`load`].
pub fn load_with_text<T: DeserializeOwned>(path: impl AsRef<Path>) -> Result<Loaded<T>, ConfigError> {
    let path = path.as_ref();
    let refused = |reason: String| ConfigError::Read { path: path.to_path_buf(), reason };
    let because = |error: std::io::Error| refused(crate::plain(&error));
    let mut bytes = Vec::new();
    // Bounded before it is read: a path may name anything, a device without end as well.
    File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes)).map_err(because)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(refused(format!("it is larger than the {} KiB of any config", MOST_BYTES >> 10)));
    }
    let file = path.display().to_string();
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        ConfigError::not_text(&file, error.as_bytes(), valid)
    })?;
    let value = parse(&file, &text)?;
    Ok(Loaded { value, text, file })
}

/// Reads a config from text; `file` is its name in errors.
///
/// # Errors
/// As [`load`].
pub fn parse<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, ConfigError> {
    let deserializer = toml::Deserializer::parse(text).map_err(|error| ConfigError::syntax(file, text, &error))?;
    serde_path_to_error::deserialize(deserializer).map_err(|error| ConfigError::value(file, text, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Config {
        seed: Option<u64>,
        monitor: Monitor,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Monitor {
        deadline: Axis<Span>,
        #[serde(default)]
        mode: Option<OneOrMany<Mode>>,
        nodes: Option<Axis<u64>>,
    }

    #[derive(Debug, Deserialize, PartialEq, Clone, Copy)]
    #[serde(rename_all = "kebab-case")]
    enum Mode {
        Read,
        TcpPull,
    }

    fn error(text: &str) -> String {
        parse::<Config>("x.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_file_line_and_key() {
        assert_eq!(
            error("seed = 1\n[monitor]\ndedline = '1ms'\n"),
            "x.toml:3: unknown key 'dedline' in [monitor]; did you mean 'deadline'?"
        );
        assert_eq!(
            error("[monitor]\ndeadline = '1ms'\nzzz = 1\n"),
            "x.toml:3: unknown key 'zzz' in [monitor]; the keys are deadline, mode, nodes"
        );
        assert_eq!(error("seed = 1\n"), "x.toml: missing key 'monitor'");
        assert_eq!(error("seed = 1\n\n[monitor]\n"), "x.toml:3: missing key 'deadline' in [monitor]");
        assert_eq!(
            error("seed = 'one'\n[monitor]\ndeadline = '1ms'"),
            "x.toml:1: seed: invalid type: string \"one\", expected a whole number, not negative"
        );
        let text = error("[monitor]\ndeadline = '20 bananas'");
        assert!(text.starts_with("x.toml:2: monitor.deadline: '20 bananas' is not a duration"), "{text}");
        let text = error("[monitor]\ndeadline = ['1ms', '2']");
        assert!(text.starts_with("x.toml:2: monitor.deadline[1]: '2' is not a duration"), "{text}");
        assert_eq!(
            error("[monitor]\ndeadline = '1ms'\nmode = 'reed'"),
            "x.toml:3: monitor.mode: unknown value 'reed'; did you mean 'read'?"
        );
        let text = error("[monitor]\ndeadline = \n");
        assert!(text.starts_with("x.toml:2: "), "{text}");
        assert!(!text.contains('\n'), "{text}");
    }

    #[test]
    fn files_that_are_no_configs_are_one_sentence() {
        let place = tempfile::tempdir().unwrap();
        let refused = |path: &Path| load::<Config>(path).unwrap_err().to_string();
        let path = place.path().join("c.toml");
        std::fs::write(&path, b"seed = 1\n# \xff\n").unwrap();
        assert_eq!(refused(&path), format!("{}:2: this is not UTF-8 text", path.display()));
        std::fs::write(&path, vec![b'\n'; MOST_BYTES as usize + 1]).unwrap();
        assert!(refused(&path).ends_with("c.toml: it is larger than the 1024 KiB of any config"), "{}", refused(&path));
        assert!(refused(Path::new("/dev/zero")).contains("larger"));
        assert!(refused(place.path()).ends_with(": is a directory"), "{}", refused(place.path()));
    }

    #[test]
    fn ranges_are_checked_too() {
        let range = |inner: &str| error(&format!("[monitor]\ndeadline = {{ {inner} }}"));
        assert_eq!(
            range("from = '1ms', to = '2ms', step = 3"),
            "x.toml:2: unknown key 'step' in [monitor.deadline]; did you mean 'steps'?"
        );
        assert_eq!(
            range("from = '0', to = '2ms', steps = 3, scale = 'log'"),
            "x.toml:2: monitor.deadline: a logarithmic range must start above zero"
        );
        assert_eq!(
            range("from = '3ms', to = '2ms', steps = 3"),
            "x.toml:2: monitor.deadline: a range must go upwards, from less to more"
        );
        assert_eq!(error("[monitor]\ndeadline = []"), "x.toml:2: monitor.deadline: the list is empty");
    }

    #[test]
    fn later_complaints_find_their_line() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("c.toml");
        std::fs::write(&path, "[monitor]\n# a comment\ndeadline = '1ms'\nmode = ['read', 'tcp-pull']\n").unwrap();
        let loaded = load_with_text::<Config>(&path).unwrap();
        assert_eq!(loaded.value.monitor.mode.as_ref().unwrap()[1], Mode::TcpPull);
        let complaint = loaded.invalid("monitor.deadline", "must exceed the period of 5ms").to_string();
        assert_eq!(complaint, format!("{}:3: monitor.deadline: must exceed the period of 5ms", path.display()));
        let complaint = loaded.invalid("monitor.absent", "must be there").to_string();
        assert_eq!(complaint, format!("{}:1: monitor.absent: must be there", path.display()));
        assert!(load::<Config>(place.path().join("no.toml")).unwrap_err().to_string().starts_with("cannot read "));
    }
}
