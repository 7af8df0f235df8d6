//! Config errors as one sentence: file, line, key, what is wrong, and a guess at what was meant.

use std::path::PathBuf;

/// A config that can't be used. The text is one sentence for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file can't be read.
    #[error("cannot read {}: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        reason: String,
    },
    /// The file's contents are wrong.
    #[error("{file}{}: {message}", line.map(|line| format!(":{line}")).unwrap_or_default())]
    Content {
        /// The file as named by the user.
        file: String,
        /// Line, counted from 1, where one can be told.
        line: Option<usize>,
        /// Key and complaint.
        message: String,
    },
}

impl ConfigError {
    /// Text that is no TOML.
    pub(super) fn syntax(file: &str, text: &str, error: &toml::de::Error) -> Self {
        let line = error.span().map(|span| line_of(text, span.start));
        Self::content(file, line, error.message().to_string())
    }

    /// TOML that doesn't fit the config's type.
    pub(super) fn value(file: &str, text: &str, error: &serde_path_to_error::Error<toml::de::Error>) -> Self {
        let inner = error.inner();
        let path = error.path().to_string();
        let path = if path == "." { "" } else { path.as_str() };
        // A key missing at the top is reported at the whole file, which is no line worth naming.
        let whole_file = path.is_empty() && inner.message().starts_with("missing field");
        let line = inner.span().filter(|_| !whole_file).map(|span| line_of(text, span.start));
        Self::content(file, line, explain(path, inner.message()))
    }

    /// Bytes that are no text.
    pub(super) fn not_text(file: &str, bytes: &[u8], valid: usize) -> Self {
        let line = bytes.iter().take(valid).filter(|byte| **byte == b'\n').count() + 1;
        Self::content(file, Some(line), "this is not UTF-8 text".into())
    }

    /// A value that makes no sense together with others.
    pub(crate) fn invalid(file: &str, text: &str, key: &str, message: String) -> Self {
        Self::content(file, find(text, key).map(|start| line_of(text, start)), format!("{}{message}", prefix(key)))
    }

    fn content(file: &str, line: Option<usize>, message: String) -> Self {
        ConfigError::Content { file: file.to_string(), line, message: message.replace('\n', " ") }
    }
}

/// Rewrites serde's complaint in words for somebody who edits a config.
fn explain(path: &str, message: &str) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if let (true, Some((wrong, known))) = (message.starts_with("unknown field"), quoted.split_first()) {
        // The path already ends in the unknown key.
        let table = path.strip_suffix(wrong).unwrap_or(path).trim_end_matches('.');
        return format!("unknown key '{wrong}'{}; {}", in_table(table), suggest(wrong, known, "keys"));
    }
    if let (true, Some((wrong, known))) = (message.starts_with("unknown variant"), quoted.split_first()) {
        let key = path.strip_suffix(wrong).unwrap_or(path).trim_end_matches('.');
        return format!("{}unknown value '{wrong}'; {}", prefix(key), suggest(wrong, known, "values"));
    }
    if let (true, Some(missing)) = (message.starts_with("missing field"), quoted.first()) {
        return format!("missing key '{missing}'{}", in_table(path));
    }
    format!("{}{}", prefix(path), in_words(message))
}

/// Names of types as somebody would say them who doesn't know Rust.
fn in_words(message: &str) -> String {
    let whole = "a whole number, not negative";
    let types = [("u64", whole), ("u32", whole), ("usize", whole), ("f64", "a number"), ("f32", "a number")];
    for (name, words) in types {
        if let Some(start) = message.strip_suffix(&format!("expected {name}")) {
            return format!("{}expected {words}", start.replace(" as i128", ""));
        }
    }
    message.to_string()
}

fn in_table(table: &str) -> String {
    if table.is_empty() { String::new() } else { format!(" in [{table}]") }
}

fn prefix(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!("{key}: ") }
}

/// The nearest known name if it is near, else all of them.
fn suggest(wrong: &str, known: &[&str], what: &str) -> String {
    let distance = |name: &&&str| strsim::damerau_levenshtein(&wrong.to_lowercase(), &name.to_lowercase());
    match known.iter().min_by_key(distance) {
        Some(near) if distance(&near) <= 1 + near.len() / 4 => format!("did you mean '{near}'?"),
        Some(_) => format!("the {what} are {}", known.join(", ")),
        None => format!("there are no {what} here"),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// Where in the text the value of a dotted key stands; if it isn't there, the table that it would stand in.
fn find(text: &str, key: &str) -> Option<usize> {
    let root = toml::de::DeTable::parse(text).ok()?;
    let mut table = root.get_ref();
    let mut found = None;
    for key in key.split('.') {
        let Some(value) = table.get(key) else { break };
        found = Some(value.span().start);
        let Some(inner) = value.get_ref().as_table() else { break };
        table = inner;
    }
    found
}
