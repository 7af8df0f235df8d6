//! Measurements over Soft-RoCE as a part of `reproduce`, with a script of a few lines in place of the virtual machines:
//! it ends well, with a failed case, without having begun, with garbage, or has to be stopped.

use backdoor_experiments::figures::WITH_PNG;
use backdoor_experiments::interrupt::Interrupt;
use backdoor_experiments::progress::Progress;
use backdoor_experiments::report::Report;
use backdoor_experiments::results::{Manifest, ResultsDir, SoftRoce};
use backdoor_experiments::soft_roce::here::Here;
use backdoor_experiments::soft_roce::{Plan, QUICK_CASES, SoftRoceError, Source, present};
use backdoor_experiments::study::Profile;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const RUNS: &str = "run,failure,level,transport,deadline_ms,poll_ms,load,detected,detection_ms,false_positives,cause,\
    sessions,affected,recovered,recovered_ok,extraction_ms,bytes_read,injection_ms,healthy_ms,late_samples,\
    false_os,false_application,false_session,clock_error_ms,detector,queues\n\
    0,sigstop,application,verbs,200.0,5.0,0,true,217.2,0,application,8,8,8,8,9.9,17920,0.7,707.2,1,0,0,0,0.7,duty,true\n";

/// Results of all three cases.
const GOOD: &str = "case,metric,value,unit,bound,ok\n\
    13-speed,read_8B_ratio,1.075,ours/perftest,<=1.15,yes\n\
    13-speed,duration,23.9,s,,\n\
    20-detect,runs,1,runs,=1,yes\n\
    40-detect-node,runs,4,runs,=4,yes\n";

/// A checkout with a script, a build beside it, and a results directory to be filled.
struct Place(tempfile::TempDir);

impl Place {
    /// `body` is what the script does in a run, with its output directory in `$out`.
    fn new(body: &str) -> Self {
        let place = Place(tempfile::tempdir().unwrap());
        let soft_roce = place.path("checkout/transports/soft-roce");
        fs::create_dir_all(soft_roce.join("cases")).unwrap();
        for case in QUICK_CASES.iter().chain(&["00-device"]) {
            fs::write(soft_roce.join("cases").join(format!("{case}.sh")), "").unwrap();
        }
        place.script(&format!(
            "[ \"$1\" != --check ] || exit 0\n\
             [ \"$1 $2 $3\" = '--no-install --no-build --out' ] || exit 2\n\
             out=$4; shift 4; echo \"$*\" >\"$out/asked\"\n{body}"
        ));
        fs::create_dir_all(place.path("build/release/examples")).unwrap();
        fs::write(place.path("build/release/examples/verbs_check"), "").unwrap();
        fs::create_dir(place.path("checkout/deep")).unwrap();
        place
    }

    fn script(&self, text: &str) {
        let path = self.path("checkout/transports/soft-roce/run");
        fs::write(&path, format!("#!/bin/bash\n{text}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn here(&self) -> Here {
        Here {
            directory: self.path("checkout/deep"),
            program: self.path("build/release/backdoor"),
            with_verbs: true,
            only_simulated: false,
        }
    }

    fn plan(&self) -> Plan {
        Plan::make(&Source::Auto, &self.here(), Profile::Quick).unwrap()
    }

    fn results(&self) -> ResultsDir {
        let manifest = Manifest::new(["backdoor".to_string()], 1, [("e", "")]);
        ResultsDir::create(self.path("results"), &manifest).unwrap()
    }

    /// Carries the plan out and presents it: the line for the console, whether all is well, and the report.
    fn reproduce(&self, plan: Plan) -> (String, bool, String) {
        let mut dir = self.results();
        plan.carry_out(&mut dir, &Interrupt::new(), &Progress::hidden()).unwrap();
        presented(&dir)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }
}

fn presented(dir: &ResultsDir) -> (String, bool, String) {
    let mut report = Report::new("R", dir.manifest());
    let (line, good) = present::present(dir, &mut report).unwrap().unwrap();
    (line, good, report.to_html())
}

/// What a run leaves.
fn leaves(results: &str) -> String {
    format!(
        "mkdir -p $out/cases/20-detect; printf '%s' '{results}' >$out/results.csv\n\
         printf '%s' '{RUNS}' >$out/cases/20-detect/detect.csv\n"
    )
}

#[test]
fn a_run_is_shown_and_drawn_again_from_its_tables() {
    let says = "for case in $(cat $out/asked); do echo \"soft-roce: $case\" >&2; done; echo table\n";
    let place = Place::new(&format!("{says}[ \"$CARGO_TARGET_DIR\" ] || exit 9\n{}", leaves(GOOD)));
    let plan = place.plan();
    assert_eq!(plan.cases(), 3);
    let (line, good, html) = place.reproduce(plan);
    assert_eq!((line.as_str(), good), ("Soft-RoCE: 3 cases held: 13-speed, 20-detect, 40-detect-node", true));
    assert_eq!(place.read("results/soft-roce/asked"), "13-speed 20-detect 40-detect-node\n");
    assert!(place.read("results/soft-roce/run.log").contains("soft-roce: 20-detect\n"));
    assert_eq!(
        (place.read("results/soft_roce.csv").as_str(), place.read("results/live_verbs.csv").as_str()),
        (GOOD, RUNS)
    );
    assert!(html.matches("<svg").count() == 2 && html.contains("not with hardware"), "{html}");
    assert!(place.read("results/manifest.json").contains("\"ran\""));

    // Nothing but the tables is needed to draw it again.
    fs::remove_dir_all(place.path("results/soft-roce")).unwrap();
    fs::remove_dir_all(place.path("results/figures")).unwrap();
    let dir = ResultsDir::open(place.path("results")).unwrap();
    assert_eq!(presented(&dir).0, line);
    assert_eq!(place.path("results/figures/soft-roce-detection.png").exists(), WITH_PNG);
    assert!(place.path("results/figures/soft-roce-speed.svg").exists());

    // A damaged table is named, and nothing is drawn over.
    fs::write(place.path("results/live_verbs.csv"), RUNS.replace("217.2", "soon")).unwrap();
    let error = present::present(&dir, &mut Report::new("R", dir.manifest())).unwrap_err().to_string();
    assert!(error.ends_with("live_verbs.csv: line 2: column 'detection_ms': invalid float literal"), "{error}");
}

#[test]
fn the_full_profile_runs_every_case() {
    let place = Place::new("");
    let Plan::Run(_, cases) = Plan::make(&Source::Auto, &place.here(), Profile::Full).unwrap() else { panic!() };
    assert_eq!(cases, ["00-device", "13-speed", "20-detect", "40-detect-node"]);
}

#[test]
fn a_failed_case_is_named_and_the_rest_is_shown() {
    let failed = GOOD.replace("20-detect,runs,1,runs,=1,yes", "20-detect,failure,it hung,,,no");
    let failed = failed.replace("40-detect-node,runs,4,runs,=4,yes\n", "");
    // And left half a table, which does not take the rest with it.
    let half = format!("{}truncate -s -20 $out/cases/20-detect/detect.csv; exit 1", leaves(&failed));
    let place = Place::new(&half);
    let (line, good, html) = place.reproduce(place.plan());
    assert!(!good && html.contains("it hung") && html.contains("read_8B_ratio"), "{html}");
    assert_eq!(
        line,
        "Soft-RoCE: failed: 20-detect: it hung; 20-detect: detect.csv is left out: line 2: 21 cells instead of 26; \
         40-detect-node: it has no result"
    );
}

#[test]
fn a_script_that_cannot_begin_is_no_failure() {
    let place = Place::new("echo 'soft-roce: first this' >&2; echo 'soft-roce: the guest did not start' >&2; exit 3");
    let (line, good, html) = place.reproduce(place.plan());
    assert!(good && line.starts_with("Soft-RoCE: skipped: the guest did not start; do: run transports/soft-roce/run"));
    assert!(html.contains(&line) && !html.contains("<svg"), "{html}");
    place.script("echo 'soft-roce: missing packages: perftest' >&2; exit 3");
    let Plan::Skip(unready) = place.plan() else { panic!("it said that it can't begin") };
    assert_eq!(unready.why, "missing packages: perftest");
    place.script("exit 7");
    let Plan::Skip(unready) = place.plan() else { panic!("it said nothing") };
    assert!(unready.why.ends_with("run --check ended with exit status: 7"), "{unready:?}");
}

#[test]
fn what_is_missing_is_said() {
    let place = Place::new("");
    let why = |here: Here| match here.ready() {
        Ok(ready) => panic!("{ready:?}"),
        Err(unready) => unready.why,
    };
    assert_eq!(why(Here { with_verbs: false, ..place.here() }), "this program was built without verbs");
    assert_eq!(why(Here { only_simulated: true, ..place.here() }), "by --no-live");
    assert!(
        why(Here { directory: place.path("build"), ..place.here() })
            .starts_with("there is no transports/soft-roce/run")
    );
    assert!(
        why(Here { program: "/usr/bin/backdoor".into(), ..place.here() }).contains("is not in the release directory")
    );
    fs::remove_file(place.path("build/release/examples/verbs_check")).unwrap();
    assert!(why(place.here()).ends_with("examples/verbs_check"));
}

#[test]
fn garbage_is_a_failure_and_leaves_no_tables() {
    for (body, why) in [
        ("head -c 2000000 /dev/zero >$out/results.csv".to_owned(), "has more than 1048576 bytes"),
        (
            "printf 'hello\\n\\377' >$out/results.csv; head -c 100000 /dev/zero".to_owned(),
            "results.csv: line 1: the columns",
        ),
        (leaves(GOOD) + "echo , >$out/cases/20-detect/detect.csv", "20-detect/detect.csv: line 1: the columns are not"),
        (leaves(GOOD) + "exit 1", "says that a case failed, and not which one"),
        ("exit 2".to_owned(), "ended with status 2"),
        ("kill -KILL $$".to_owned(), "ended with signal: 9"),
        ("exit 0".to_owned(), "cannot read"),
    ] {
        let place = Place::new(&body);
        let (line, good, html) = place.reproduce(place.plan());
        assert!(!good && line.starts_with("Soft-RoCE: failed: ") && line.contains(why), "{line}");
        assert!(line.ends_with("; see soft-roce/run.log in the results directory"), "{line}");
        assert!(html.contains("Soft-RoCE: failed") && !place.path("results/soft_roce.csv").exists(), "{line}");
    }
}

#[test]
fn an_interruption_waits_until_the_script_has_cleaned_up() {
    let place = Place::new(
        "trap 'sleep 0.3; echo cleaned >$out/cleaned; exit 143' TERM\ntouch $out/begun; while :; do sleep 0.02; done",
    );
    let (interrupt, asks, begun) = (Interrupt::new(), Interrupt::new(), place.path("results/soft-roce/begun"));
    let asks = {
        drop(asks);
        interrupt.clone()
    };
    let asking = std::thread::spawn(move || {
        let end = Instant::now() + Duration::from_secs(20);
        while !begun.exists() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        asks.request();
    });
    let mut dir = place.results();
    let outcome = place.plan().carry_out(&mut dir, &interrupt, &Progress::hidden());
    assert!(matches!(outcome, Err(SoftRoceError::Interrupted)), "{outcome:?}");
    assert_eq!(place.read("results/soft-roce/cleaned"), "cleaned\n");
    assert_eq!(dir.manifest().soft_roce, None, "a resumed run does it again");
    place.script("exit 0");
    place.plan().carry_out(&mut dir, &Interrupt::new(), &Progress::hidden()).unwrap();
    assert!(!place.path("results/soft-roce/cleaned").exists(), "what it left became a part of the next run");
    asking.join().unwrap();
}

#[test]
fn resuming_keeps_what_is_there() {
    let place = Place::new(&leaves(GOOD));
    let mut dir = place.results();
    place.plan().carry_out(&mut dir, &Interrupt::new(), &Progress::hidden()).unwrap();
    drop(dir);
    let manifest = Manifest::new(["backdoor".to_string()], 1, [("e", "")]);
    let mut dir = ResultsDir::resume(place.path("results"), &manifest).unwrap();
    for plan in [place.plan(), Plan::make(&Source::Never, &place.here(), Profile::Quick).unwrap()] {
        let plan = plan.unless_done(&dir);
        assert!(matches!(plan, Plan::Keep));
        plan.carry_out(&mut dir, &Interrupt::new(), &Progress::hidden()).unwrap();
    }
    assert!(matches!(dir.manifest().soft_roce, Some(SoftRoce::Ran { .. })));
    let named = Plan::make(&Source::Dir(place.path("results/soft-roce")), &place.here(), Profile::Quick).unwrap();
    assert!(matches!(named.unless_done(&dir), Plan::Take(..)));
}

#[test]
fn an_earlier_run_is_taken_over() {
    let place = Place::new("");
    let earlier = place.path("earlier");
    fs::create_dir(&earlier).unwrap();
    // Without the runs of detection there is no figure of them.
    fs::write(earlier.join("results.csv"), GOOD.replace("<=1.15,yes", "<=1.15,no")).unwrap();
    let plan = Plan::make(&Source::Dir(earlier.clone()), &place.here(), Profile::Quick).unwrap();
    let (line, good, html) = place.reproduce(plan);
    let expected =
        format!("Soft-RoCE: failed, taken from {}: 13-speed: read_8B_ratio is 1.075, not <=1.15", earlier.display());
    assert!(!good && line == expected && html.matches("<svg").count() == 1, "{line}");
    assert_eq!(Some(place.read("results/live_verbs.csv").as_str()), RUNS.split_inclusive('\n').next());
}

#[test]
fn never_is_said_too() {
    let place = Place::new("exit 9");
    let (line, good, _) = place.reproduce(Plan::make(&Source::Never, &place.here(), Profile::Quick).unwrap());
    assert_eq!((line.as_str(), good), ("Soft-RoCE: skipped: by --soft-roce never; do: leave that out", true));
}

#[test]
fn the_command_refuses_bad_directories_before_it_begins() {
    let place = Place::new("");
    let refused = |dir: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backdoor"));
        let output = command.args(["reproduce", "--soft-roce"]).arg(dir).arg("--out").arg(place.path("out")).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(!place.path("out").exists(), "refused, and begun all the same");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused(&place.path("none")).contains("/none: there is no results.csv; name a directory that"));
    fs::write(place.path("results.csv"), "case,metric\n").unwrap();
    let message = refused(&place.path(""));
    assert!(
        message.ends_with("results.csv: line 1: the columns are not case,metric,value,unit,bound,ok\n"),
        "{message}"
    );
}
