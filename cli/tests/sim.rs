//! The simulator as its user meets it: processes, files, exit codes and words.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Two devices, five minutes and one release: small enough to run often.
const SMALL: &str = "\
name = \"small\"
devices = 2
duration = \"5m\"
deadline = \"5m\"

[[act]]
at = \"30s\"
roll_out = \"1.0.0\"

[swarm.link_cut]
per_day = [200, 400]
lasting_s = [5, 60]
";

/// A scenario that cannot converge: what is rolled out is due, and the deadline is over at once.
fn hopeless() -> String {
    let text = SMALL.replace("deadline = \"5m\"", "deadline = \"0s\"");
    format!("{text}\n[[fault]]\nat = \"3m\"\non = \"device-1\"\nkind = \"power_cut\"\nlasting = \"10m\"\n")
}

fn fleetd(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetd"));
    command.args(arguments).current_dir(folder).env_clear().env("FLEETD_CONFIG_DIR", folder.join("config"));
    command.output().unwrap()
}

fn folder(scenario: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.toml"), scenario).unwrap();
    folder
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {}", said(bytes)))
}

#[test]
fn seeds_run_in_processes_and_are_reported_in_words_in_json_and_as_a_page() {
    let folder = folder(SMALL);
    let run = ["sim", "run", "--scenario", "a.toml", "--seed", "3", "--seeds", "3", "--jobs", "2"];
    let output = fleetd(folder.path(), &[&run[..], &["--report", "a.html"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output.stderr));
    assert!(said(&output.stdout).starts_with("3 of 3 seeds of small hold every invariant and converge\n"));
    let notes = said(&output.stderr);
    for seed in 3..6 {
        assert_eq!(notes.matches(&format!("seed {seed}: holds, converged after")).count(), 1, "{notes}");
    }
    let page = std::fs::read_to_string(folder.path().join("a.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.contains("Simulation of small"));

    let output = fleetd(folder.path(), &[&["--json"], &run[..]].concat());
    let report = json(&output.stdout);
    let seeds: Vec<_> = report["runs"].as_array().unwrap().iter().map(|run| run["seed"].as_u64().unwrap()).collect();
    assert_eq!(seeds, [3, 4, 5]);
    assert_eq!((&report["isPartial"], &report["failures"]), (&false.into(), &Value::Array(Vec::new())));
    assert_eq!(report["build"]["arch"], std::env::consts::ARCH);
}

#[test]
fn a_failure_begins_with_its_replay_command_which_fails_again_and_shrinks() {
    let folder = folder(&hopeless());
    let output = fleetd(folder.path(), &["sim", "run", "--scenario", "a.toml", "--seed", "7", "--seeds", "1"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output.stderr));
    let text = said(&output.stdout);
    let replay: Vec<&str> = text.lines().next().unwrap().split(' ').collect();
    assert_eq!(replay[..3], ["fleetd", "sim", "replay"]);
    assert!(replay[3].starts_with("7@") && replay[4..] == ["--scenario", "a.toml"], "{replay:?}");

    let again = fleetd(folder.path(), &replay[1..]);
    assert_eq!(again.status.code(), Some(1));
    assert!(said(&again.stdout).starts_with("seed 7: FAILED: "), "{}", said(&again.stdout));
    assert!(said(&again.stderr).contains("error[sim.violation]"), "{}", said(&again.stderr));

    let small = fleetd(folder.path(), &["sim", "shrink", replay[3], "--scenario", "a.toml", "--out", "b.toml"]);
    assert_eq!(small.status.code(), Some(0), "{}", said(&small.stderr));
    let written = std::fs::read_to_string(folder.path().join("b.toml")).unwrap();
    assert!(written.starts_with("# fleetd sim replay 7@"), "{written}");
    let replay = written.lines().next().unwrap().trim_start_matches("# fleetd ").split(' ').collect::<Vec<_>>();
    let again = fleetd(folder.path(), &replay);
    assert_eq!(again.status.code(), Some(1), "what was written fails as well: {}", said(&again.stdout));
}

#[test]
fn a_trace_tells_one_node_only_and_what_changed_in_it() {
    let folder = folder(SMALL);
    let run = fleetd(folder.path(), &["--json", "sim", "run", "--scenario", "a.toml", "--seed", "1", "--seeds", "1"]);
    let report = json(&run.stdout);
    let name = format!("1@{}", report["build"]["commit"].as_str().unwrap());
    let replay = ["sim", "replay", &name, "--scenario", "a.toml", "--trace", "device-1"];
    let output = fleetd(folder.path(), &[&["--json"], &replay[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output.stderr));
    let text = said(&output.stdout);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (outcome, events) = lines.split_last().unwrap();
    assert_eq!(outcome["trace"], report["runs"][0]["trace"], "a run that is watched is the same run");
    assert!(events.len() > 50, "{}", events.len());
    assert!(events.iter().all(|event| event["subject"].as_str().unwrap().starts_with("device-1")));
    assert!(events.iter().any(|event| event["changes"].as_array().is_some_and(|changes| !changes.is_empty())));
    assert!(events.iter().any(|event| event["what"] == "an operator rolls out coffee@1.0.0 (Good)"));

    let until = fleetd(folder.path(), &[&["--json"], &replay[..5], &["--until", "1m"]].concat());
    assert_eq!(until.status.code(), Some(0));
    let outcome = json(&until.stdout);
    assert!(
        outcome["isPartial"].as_bool().unwrap() && outcome["events"].as_u64() < report["runs"][0]["events"].as_u64()
    );
}

#[test]
fn two_processes_of_a_seed_are_the_same_run() {
    let folder = folder(SMALL);
    let output =
        fleetd(folder.path(), &["sim", "check", "--determinism", "--engines", "--scenario", "a.toml", "--seeds", "2"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output.stderr));
    assert_eq!(
        said(&output.stdout),
        "2 seeds of small are the same run in two processes each\n2 seeds of small are the same run on two engines each\n"
    );
}

#[test]
fn two_processes_of_a_seed_send_the_same_packets_over_quic() {
    let folder = folder(SMALL);
    let check = ["sim", "check", "--determinism", "--scenario", "a.toml", "--seeds", "1", "--engine", "quic"];
    let output = fleetd(folder.path(), &check);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output.stderr));
    assert_eq!(said(&output.stdout), "1 seeds of small are the same run in two processes each\n");
}

/// TLS draws from the operating system: the bytes differ, unless that is a seed's as well.
#[test]
#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
fn packets_have_the_same_bytes_where_all_randomness_is_a_seed_s_and_only_there() {
    build_shim();
    let folder = folder(SMALL);
    let check = ["sim", "check", "--determinism", "--scenario", "a.toml", "--seeds", "1", "--engine"];
    let output = fleetd(folder.path(), &[&check[..], &["quic", "--bytes"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output.stderr));
    let output = fleetd(folder.path(), &[&check[..], &["quic-bytes"]].concat());
    assert_eq!(output.status.code(), Some(1), "without the library the bytes are chance's");
    let words = said(&output.stderr);
    assert!(words.contains("error[sim.not_deterministic]") && words.contains(" to server/udp at "), "{words}");
}

/// Builds the library that a worker preloads, beside the program: no program depends on it, so cargo has not.
#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
fn build_shim() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--package", "fleetd-simulator-shim"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(built.status.success(), "{}", said(&built.stderr));
}

/// Runs something wrong, and gives its exit code and its words.
fn refused(scenario: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let output = fleetd(folder(scenario).path(), arguments);
    assert_eq!(said(&output.stdout), "", "nothing is run");
    (output.status.code(), said(&output.stderr))
}

#[test]
fn what_is_wrong_with_a_scenario_is_told_with_its_line() {
    for (scenario, code, place) in [
        (SMALL.replace("devices", "device"), "sim.scenario_invalid", "a.toml, line 2: unknown field `device`"),
        (SMALL.replace("= 2", "= 0"), "sim.scenario_invalid", "a.toml, line 2: `devices` is 0"),
        (SMALL.replace("[200, 400]", "[4, 2]"), "sim.scenario_invalid", "a.toml, line 11: `per_day` runs backwards"),
        (SMALL.replace("\"30s\"", "\"soon\""), "sim.scenario_invalid", "a.toml, line 7: `soon` is no span of time"),
    ] {
        let (exit, words) = refused(&scenario, &["sim", "run", "--scenario", "a.toml"]);
        assert_eq!(exit, Some(2), "{words}");
        assert!(words.contains(&format!("error[{code}]: {place}")), "{words}");
        assert!(words.contains("help:  fleetd sim run"), "{words}");
    }
}

#[test]
fn what_is_not_there_or_not_built_is_refused_with_what_there_is() {
    for (arguments, exit, words) in [
        (vec!["run", "--scenario", "b.toml"], 2, "error[sim.scenario_missing]: there is no scenario `b.toml`"),
        (
            vec!["run", "--scenario", "a.toml", "--for", "10s"],
            2,
            "error[sim.scenario_range]: with these flags, `at` of a.toml",
        ),
        (vec!["run", "--engine", "pigeon"], 2, "`pigeon` is none of direct, ractor, quic"),
        (vec!["check", "--determinism", "--bytes"], 2, "error[usage]: only the engine quic has packets"),
        (vec!["check"], 2, "error[usage]: nothing was asked to be checked"),
        (vec!["replay", "17"], 2, "`17` is no SEED@COMMIT: there is no @"),
        (
            vec!["replay", "17@0000000"],
            1,
            "error[sim.foreign_seed]: the seed is of another commit: it is from 17@0000000",
        ),
        (vec!["shrink", "17@0000000"], 1, "error[sim.foreign_seed]"),
    ] {
        let (code, said) = refused(SMALL, &[&["sim"], &arguments[..]].concat());
        assert_eq!(code, Some(exit), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}

#[test]
fn a_seed_of_another_architecture_or_profile_is_refused_unless_it_is_asked_for() {
    let folder = folder(SMALL);
    let run = fleetd(folder.path(), &["--json", "sim", "run", "--scenario", "a.toml", "--seed", "1", "--seeds", "1"]);
    let build = json(&run.stdout)["build"].clone();
    let (commit, arch) = (build["commit"].as_str().unwrap(), build["arch"].as_str().unwrap());
    for (name, part) in [(format!("1@{commit}.pdp11"), "architecture"), (format!("1@{commit}.{arch}.small"), "profile")]
    {
        let output = fleetd(folder.path(), &["sim", "replay", &name, "--scenario", "a.toml"]);
        let words = said(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{words}");
        assert!(
            words.contains(&format!("of another {part}: it is from {name}, and this program is {commit}")),
            "{words}"
        );
        let output = fleetd(folder.path(), &["sim", "replay", &name, "--scenario", "a.toml", "--any-build"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output.stderr));
        assert!(said(&output.stderr).contains("warning: the seed is of another"));
    }
}

#[test]
fn seeds_that_were_not_begun_in_time_are_counted() {
    let folder = folder(SMALL);
    let run = ["sim", "run", "--scenario", "a.toml", "--seed", "1", "--jobs", "1", "--seeds"];
    let output = fleetd(folder.path(), &[&run[..], &["1000000", "--within", "1s"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output.stderr));
    let text = said(&output.stdout);
    let counts: Vec<u64> = text.lines().next().unwrap().split(' ').filter_map(|word| word.parse().ok()).collect();
    let [held, asked, not_begun] = counts[..] else { panic!("{text}") };
    assert_eq!((asked, held + not_begun), (1_000_000, 1_000_000), "{text}");
    assert!(text.contains(" seeds of small hold every invariant and converge; "), "{text}");
    assert!(text.lines().next().unwrap().ends_with(" were not begun in time"), "{text}");
}

#[test]
fn ctrl_c_prints_what_there_is() {
    let folder = folder(SMALL);
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetd"));
    command.args(["sim", "run", "--scenario", "a.toml", "--seed", "1", "--seeds", "100000", "--jobs", "1"]);
    command.current_dir(folder.path()).env_clear().stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut notes = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("seed 1: holds") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut notes, &mut line).unwrap() > 0, "it ended before a seed was over");
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut notes, &mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{rest}");
    assert!(rest.contains("error[interrupted]"), "{rest}");
    let text = said(&output.stdout);
    assert!(text.contains("of 100000 seeds of small hold every invariant and converge; the set was stopped"), "{text}");
}
