//! Errors are explained without a server.

use std::process::{Command, Output};

use fleetd::error::{CommandError, draw};
use fleetd::exit::Exit;
use fleetd_server::error_page::{page, pages};
use serde_json::Value;

fn explain(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fleetd")).arg("explain").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_code_is_explained_by_its_page() {
    let told = explain(&["rollout.plan_stale"]);
    assert_eq!((told.status.code(), text(&told.stdout)), (Some(0), page("rollout.plan_stale").unwrap()));
    let told: Value = serde_json::from_slice(&explain(&["context.none", "--json"]).stdout).unwrap();
    assert_eq!((&told["code"], told["page"].as_str()), (&"context.none".into(), page("context.none")));
}

#[test]
fn without_a_code_all_are_listed() {
    let told = explain(&[]);
    let lines: Vec<&str> = text(&told.stdout).lines().collect();
    assert_eq!(lines.len(), pages().count());
    for (line, (code, _)) in lines.iter().zip(pages()) {
        assert!(line.starts_with(&format!("{code} ")), "{line}");
    }
    let told: Value = serde_json::from_slice(&explain(&["--json"]).stdout).unwrap();
    assert_eq!(told["codes"].as_array().unwrap().len(), pages().count());
}

#[test]
fn an_unknown_code_is_told_with_how_to_list_them() {
    let told = explain(&["rollout.plan"]);
    assert_eq!(told.status.code(), Some(2));
    let expected = "error[explain.unknown]: there is no page about \"rollout.plan\"\n  help:  fleetd explain\n  docs:  \
                    fleetd explain explain.unknown\n";
    assert_eq!(text(&told.stderr), expected);
}

#[test]
fn an_error_names_the_servers_page_or_the_command_that_explains_it() {
    let mut error = CommandError::new("device.unknown", "there is no device \"x\"");
    assert!(draw(&error, false).ends_with("  docs:  fleetd explain device.unknown\n"));
    error.help_url = Some("https://fleet.example:4800/errors/device.unknown".into());
    assert!(draw(&error, false).ends_with("  docs:  https://fleet.example:4800/errors/device.unknown\n"));
    // Another version's code is not promised a page, and who pressed Ctrl-C knows why.
    assert!(!draw(&CommandError::told("device.later".to_owned(), "x"), false).contains("docs:"));
    assert!(!draw(&CommandError::new("interrupted", "x").exit(Exit::Interrupted), false).contains("docs:"));
}
