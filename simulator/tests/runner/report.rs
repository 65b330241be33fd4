//! What a set of runs is reported as.

use std::ops::ControlFlow;

use fleetd_simulator::checker::Violation;
use fleetd_simulator::crypto::Crypto;
use fleetd_simulator::origin::Build;
use fleetd_simulator::report::page;
use fleetd_simulator::run::{Failure, Outcome, RunPlan, run};
use fleetd_simulator::scenario::{Scenario, builtin};
use fleetd_simulator::set::{SetFacts, SetReport, Spent};

fn calm(seed: u64) -> Outcome {
    run(RunPlan::drawn(builtin("calm").unwrap(), seed), &mut |_| ControlFlow::Continue(())).unwrap()
}

fn report(scenario: Scenario, runs: Vec<Outcome>) -> SetReport {
    let [commit, arch, profile] = ["3a4e9abcdef0", "x86_64", "debug"].map(ToOwned::to_owned);
    let facts = SetFacts {
        build: Build { commit, arch, profile },
        engine: "direct".to_owned(),
        crypto: Crypto::Real,
        spent: Spent::default(),
        scenario,
        seeds_asked: runs.len(),
        is_partial: false,
        wall_ms: 1000,
        unrun: Vec::new(),
        flags: " --scenario calm",
        marks_known: &["something that never happens"],
    };
    SetReport::new(facts, runs)
}

#[test]
fn a_page_needs_no_network_and_shows_every_part() {
    let page = page(&report(builtin("calm").unwrap(), vec![calm(2), calm(1)]));
    for part in
        ["2 of 2 seeds hold every invariant", "Rollout burn-down", "site-0", "site-1", "Traffic", "Coverage", "Runs"]
    {
        assert!(page.contains(part), "{part}");
    }
    for outside in ["http://", "https://", "<script", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("title=\"watch, Run: 2 seeds\""), "each square of the coverage says what it stands for");
    assert!(page.contains("something that never happens"), "a mark that was never reached is told");
    assert!(!page.contains("NaN") && !page.contains("inf"), "every place in a picture is a number");
}

#[test]
fn a_failure_is_told_with_its_command_and_its_device_and_cannot_break_the_page() {
    let mut failed = calm(3);
    failed.violation = Some(Failure {
        at_ms: 61_000,
        event: 17,
        violation: Violation {
            invariant: 3,
            checker: "position".to_owned(),
            node: "device-4".to_owned(),
            seen: "</pre><script>alert(1)</script>".to_owned(),
        },
    });
    let scenario = Scenario { name: "<b>".to_owned(), ..builtin("calm").unwrap() };
    let report = report(scenario, vec![calm(1), failed]);
    let page = page(&report);
    assert!(page.contains("1 of 2 seeds failed") && page.contains("invariant 3 (position)"));
    assert!(page.contains("fleetd sim replay 3@3a4e9abcdef0.x86_64.debug --scenario calm"));
    assert!(page.contains("First diverging device: <strong>device-4</strong>"));
    assert!(!page.contains("<script") && !page.contains("<b>"), "a text stays a text");

    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["failures"][0]["replay"], "fleetd sim replay 3@3a4e9abcdef0.x86_64.debug --scenario calm");
    assert_eq!(json["runs"][0]["seed"], 1, "runs are in the order of their seeds");
    let read: Outcome = serde_json::from_value(json["runs"][1].clone()).unwrap();
    assert_eq!(read, report.runs[1], "an outcome reads as it is written");
}
