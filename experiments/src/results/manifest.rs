//! What was run, on what, with which seed: the head of a results directory.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::time::{SystemTime, UNIX_EPOCH};

/// The layout of a results directory; a directory of another layout is not touched.
pub(super) const FORMAT: &str = "backdoor-results/1";
/// What the name of every layout begins with.
const FAMILY: &str = "backdoor-results/";

/// What was run: the contents of `manifest.json`.
///
/// Times and the host live here and only here, so that CSV files of two machines can be compared byte by byte. The
/// *identity* of a run, which resuming insists on, is its experiments with their configs, the seed and the version;
/// the command line, the host and the number of threads may differ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    format: String,
    /// The command as typed.
    pub command: Vec<String>,
    /// Version of the crate that computed the results.
    pub version: String,
    /// The master seed, from which every random stream is derived.
    pub seed: u64,
    /// What was run, in order.
    pub experiments: Vec<ExperimentConfig>,
    /// The machine.
    pub host: Host,
    /// When the run (or its latest resumption) started, seconds since the Unix epoch.
    pub started_unix_s: u64,
    /// When it finished; absent while it runs and after an interruption.
    pub finished_unix_s: Option<u64>,
    /// How often it was resumed.
    pub resumed: u32,
    /// What became of the measurements over Soft-RoCE; absent until they have had their turn, and where they have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft_roce: Option<SoftRoce>,
}

/// Where measurements over Soft-RoCE came from, or why there are none. No part of a run's identity: it depends on the
/// machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SoftRoce {
    /// They were made.
    Ran {
        /// The cases that were asked for.
        cases: Vec<String>,
    },
    /// They are those of an earlier run.
    TakenFrom {
        /// Its output directory, as named.
        dir: String,
    },
    /// They could not be made, or were not to be.
    Skipped {
        /// Why.
        why: String,
        /// What to do about it.
        remedy: String,
    },
    /// They were made, and left nothing that can be used.
    Broken {
        /// Why.
        why: String,
    },
}

/// One experiment and the text of its config.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExperimentConfig {
    /// Name of the experiment; also the stem of its files.
    pub name: String,
    /// The config file's text, whole.
    pub config: String,
    /// SHA-256 of that text, in hex.
    pub config_sha256: String,
}

/// The machine that ran it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Operating system, such as `linux x86_64`.
    pub os: String,
    /// Kernel name and release.
    pub kernel: String,
    /// Model name of the first processor; empty when the system doesn't tell.
    pub cpu: String,
    /// Logical processors available to this process.
    pub cores: usize,
}

impl Manifest {
    /// A manifest of a run that starts now on this machine; `experiments` are pairs of name and config text.
    pub fn new<N: Into<String>, C: Into<String>>(
        command: impl IntoIterator<Item = String>,
        seed: u64,
        experiments: impl IntoIterator<Item = (N, C)>,
    ) -> Self {
        let experiments = experiments
            .into_iter()
            .map(|(name, config)| {
                let config = config.into();
                ExperimentConfig { name: name.into(), config_sha256: sha256_hex(config.as_bytes()), config }
            })
            .collect();
        Manifest {
            format: FORMAT.to_string(),
            command: command.into_iter().collect(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            seed,
            experiments,
            host: Host::current(),
            started_unix_s: now_unix_s(),
            finished_unix_s: None,
            resumed: 0,
            soft_roce: None,
        }
    }

    /// The config of one experiment.
    pub fn experiment(&self, name: &str) -> Option<&ExperimentConfig> {
        self.experiments.iter().find(|experiment| experiment.name == name)
    }

    /// The first difference in identity, in words: "it has …, this run has …". `None` means that they may be mixed.
    pub(crate) fn difference(&self, other: &Manifest) -> Option<String> {
        let pair = |what: &str, theirs: &str, ours: &str| Some(format!("{what} {theirs}, not {ours}"));
        if self.version != other.version {
            return pair("version", &self.version, &other.version);
        }
        if self.seed != other.seed {
            return pair("seed", &self.seed.to_string(), &other.seed.to_string());
        }
        let names =
            |manifest: &Manifest| manifest.experiments.iter().map(|e| e.name.as_str()).collect::<Vec<_>>().join(" ");
        if names(self) != names(other) {
            return pair("experiments", &names(self), &names(other));
        }
        let changed = self.experiments.iter().zip(&other.experiments).find(|(a, b)| a.config != b.config)?;
        Some(format!("another config of {}", changed.0.name))
    }
}

/// Why a manifest is none that can be used.
pub(super) enum Unreadable {
    /// Somebody else's file.
    Foreign,
    /// One of ours, in a layout that this program doesn't know.
    OtherFormat(String),
    /// One of ours, with fields that are missing or wrong.
    Damaged(String),
}

/// Reads a manifest from the bytes of its file. The format comes first: all else may be different in another one.
pub(super) fn read(bytes: &[u8]) -> Result<Manifest, Unreadable> {
    #[derive(Deserialize)]
    struct Head {
        format: String,
    }
    let head = serde_json::from_slice::<Head>(bytes).map_err(|_| Unreadable::Foreign)?;
    match head.format {
        format if format == FORMAT => {
            serde_json::from_slice(bytes).map_err(|error| Unreadable::Damaged(error.to_string()))
        }
        format if format.starts_with(FAMILY) => Err(Unreadable::OtherFormat(format.chars().take(40).collect())),
        _ => Err(Unreadable::Foreign),
    }
}

impl Host {
    /// This machine, as far as it tells.
    pub fn current() -> Self {
        let uname = rustix::system::uname();
        let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(':'));
        Host {
            os: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            kernel: format!("{} {}", text(uname.sysname()), text(uname.release())),
            cpu: model.map(|(_, name)| name.trim().to_string()).unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// Seconds since the Unix epoch.
pub(crate) fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

/// SHA-256 in hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(seed: u64, config: &str) -> Manifest {
        Manifest::new(["backdoor".to_string()], seed, [("e1", config)])
    }

    #[test]
    fn identity_is_config_seed_and_version() {
        let base = manifest(1, "a = 1");
        let mut moved = base.clone();
        moved.host.cores = 99;
        moved.command.push("--threads=3".into());
        assert_eq!(base.difference(&moved), None);
        assert_eq!(base.difference(&manifest(2, "a = 1")).as_deref(), Some("seed 1, not 2"));
        assert_eq!(base.difference(&manifest(1, "a = 2")).as_deref(), Some("another config of e1"));
        moved.version = "9.9.9".into();
        assert!(base.difference(&moved).unwrap().starts_with("version "));
    }

    #[test]
    fn manifests_without_a_word_on_soft_roce_stay_as_they_were() {
        let mut manifest = manifest(1, "a = 1");
        let text = serde_json::to_string(&manifest).unwrap();
        assert!(!text.contains("soft_roce"), "{text}");
        assert!(read(text.as_bytes()).is_ok_and(|found| found == manifest));
        manifest.soft_roce = Some(SoftRoce::TakenFrom { dir: "d".into() });
        let text = serde_json::to_string(&manifest).unwrap();
        assert!(text.ends_with(r#""soft_roce":{"taken_from":{"dir":"d"}}}"#), "{text}");
        assert!(read(text.as_bytes()).is_ok_and(|found| found == manifest));
    }

    #[test]
    fn hash_is_sha256() {
        assert_eq!(sha256_hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
