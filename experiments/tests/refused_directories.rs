//! Directories that a run must not touch: each refused with one sentence, and not a byte changed.

use backdoor_experiments::results::{Manifest, ResultsDir, ResultsError, Table};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn manifest(seed: u64, config: &str) -> Manifest {
    Manifest::new(["backdoor".to_string()], seed, [("e", config)])
}

/// Every file under a directory with its contents.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(contents(&entry.path())),
            false => drop(found.insert(entry.path(), fs::read(entry.path()).unwrap())),
        }
    }
    found
}

/// The message of a refusal that left the directory as it was.
fn refusal(dir: &Path, attempt: impl FnOnce() -> Result<ResultsDir, ResultsError>) -> String {
    let before = contents(dir);
    let message = attempt().expect_err("must be refused").to_string();
    assert_eq!(contents(dir), before, "a refused directory was changed");
    assert!(!message.contains('\n'));
    message
}

#[test]
fn somebody_elses_files() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path();
    fs::write(path.join("thesis.tex"), "years of work").unwrap();
    for attempt in [ResultsDir::create, ResultsDir::resume] {
        let message = refusal(path, || attempt(path, &manifest(1, "")));
        assert_eq!(
            message,
            format!(
                "{} is not empty and holds no results of ours; nothing was changed, choose another directory",
                path.display()
            )
        );
    }
}

#[test]
fn somebody_elses_manifest() {
    let place = tempfile::tempdir().unwrap();
    for text in ["{\"name\": \"a web app\"}", "", "{\"format\""] {
        fs::write(place.path().join("manifest.json"), text).unwrap();
        let message = refusal(place.path(), || ResultsDir::create(place.path(), &manifest(1, "")));
        assert!(message.contains("holds no results of ours"), "{message}");
        assert!(ResultsDir::open(place.path()).is_err());
    }
}

#[test]
fn manifests_of_another_format_and_damaged_ones() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("manifest.json"), "{\"format\": \"backdoor-results/2\", \"new\": []}").unwrap();
    let message = refusal(place.path(), || ResultsDir::open(place.path()));
    assert!(message.contains("'backdoor-results/2'") && message.contains("'backdoor-results/1'"), "{message}");
    fs::write(place.path().join("manifest.json"), "{\"format\": \"backdoor-results/1\", \"seed\": -1}").unwrap();
    for attempt in [ResultsDir::create, ResultsDir::resume] {
        let message = refusal(place.path(), || attempt(place.path(), &manifest(1, "")));
        assert!(message.contains("manifest.json is damaged: "), "{message}");
    }
}

#[test]
fn our_own_results() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("deep/out");
    let mut dir = ResultsDir::create(&path, &manifest(1, "a = 1")).unwrap();
    let mut table = Table::new(["x"]);
    table.row().number(1.0);
    dir.write_csv("e", &table).unwrap();
    dir.finish().unwrap();

    // In use by this process; the lock belongs to the open file, so another opening meets it all the same.
    let message = refusal(&path, || ResultsDir::resume(&path, &manifest(1, "a = 1")));
    assert!(message.contains("is in use by another run"), "{message}");
    drop(dir);

    let message = refusal(&path, || ResultsDir::create(&path, &manifest(1, "a = 1")));
    assert!(message.contains("--resume") && message.contains("--out"), "{message}");
    let message = refusal(&path, || ResultsDir::create(&path, &manifest(2, "a = 1")));
    assert!(message.contains("(seed 1, not 2)"), "{message}");
    let message = refusal(&path, || ResultsDir::resume(&path, &manifest(1, "a = 2")));
    assert!(message.contains("(another config of e)"), "{message}");

    let dir = ResultsDir::resume(&path, &manifest(1, "a = 1")).unwrap();
    assert_eq!((dir.manifest().resumed, dir.manifest().finished_unix_s), (1, None));
    assert_eq!(dir.read_csv("e").unwrap(), table);
}

#[test]
fn nothing_there() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("none");
    assert!(matches!(ResultsDir::resume(&path, &manifest(1, "")), Err(ResultsError::NoResults(_))));
    assert!(matches!(ResultsDir::open(&path), Err(ResultsError::NoResults(_))));
    assert!(!path.exists());
    // Killed before its manifest was there: as good as new.
    fs::create_dir(&path).unwrap();
    fs::write(path.join(".lock"), "").unwrap();
    fs::write(path.join(".manifest.json.partial"), "{\"form").unwrap();
    assert!(ResultsDir::resume(&path, &manifest(1, "")).is_ok());
}

#[test]
fn places_that_cannot_be_written() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    fs::write(&file, "x").unwrap();
    for path in [file.clone(), file.join("below")] {
        let message = ResultsDir::create(&path, &manifest(1, "")).unwrap_err().to_string();
        assert!(message.contains(&path.display().to_string()) && message.contains("not a directory"), "{message}");
    }
    // Not even root can make directories here.
    let path = Path::new("/proc/backdoor-results");
    let message = ResultsDir::create(path, &manifest(1, "")).unwrap_err().to_string();
    assert!(message.starts_with("cannot create /proc/backdoor-results: "), "{message}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_directory_without_write_permission() {
    use std::os::unix::fs::PermissionsExt;
    if rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: root may write everywhere; run this test as an ordinary user");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let message = ResultsDir::create(place.path().join("out"), &manifest(1, "")).unwrap_err().to_string();
    assert!(message.ends_with("permission denied"), "{message}");
}
