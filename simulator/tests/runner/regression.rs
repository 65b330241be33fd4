//! Scenarios that once failed: one for each defect of the product that the simulator has found.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use fleetd_simulator::run::{RunPlan, run};
use fleetd_simulator::scenario::Scenario;

const DOCUMENT: &str = include_str!("../../../docs/simulator.md");
/// Seeds of each: what is drawn besides its faults differs, and the defect was not a matter of luck.
const SEEDS: u64 = 3;

fn scenarios() -> Vec<(String, Scenario)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/regression");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let read =
        |path: &Path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap());
    let mut scenarios: Vec<_> = files.map(|path| read(&path)).collect();
    scenarios.sort();
    let parse = |text: &str, name: &str| Scenario::parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    scenarios.into_iter().map(|(name, text)| (name.clone(), parse(&text, &name))).collect()
}

#[test]
fn what_once_failed_holds() {
    let scenarios = scenarios();
    assert!(!scenarios.is_empty());
    for (name, scenario) in scenarios {
        for seed in 1..=SEEDS {
            let outcome = run(RunPlan::drawn(scenario.clone(), seed), &mut |_| ControlFlow::Continue(())).unwrap();
            let failure = outcome.violation.map(|failure| failure.to_string());
            assert_eq!(failure, None, "simulator/scenarios/regression/{name}.toml, seed {seed}");
        }
    }
}

#[test]
fn each_says_what_it_was_and_is_listed() {
    for (name, scenario) in scenarios() {
        assert_eq!(scenario.name, name);
        assert!(scenario.about.len() > 40, "{name} does not say what it was");
        assert!(!scenario.faults.is_empty(), "the faults of {name} depend on a seed");
        let is_listed = DOCUMENT.lines().any(|line| line.starts_with(&format!("| `{name}` |")));
        assert!(is_listed, "{name} is not in docs/simulator.md");
    }
}
