//! What a failed command says, and how it ends.

use clap::Parser as _;
use expect_test::expect;
use fleetd::client::CallError;
use fleetd::client::api::common::v1::Error;
use fleetd::client::api::rollout::v1::{Rollout, RolloutDevice, RolloutDeviceState, RolloutState};
use fleetd::command::Cli;
use fleetd::command::rollout::watch::failure;
use fleetd::error::{CommandError, draw};
use fleetd::exit::Exit;
use fleetd::key_file;
use fleetd_sync_core::key::SecretKey;
use tonic::{Code, Status};

fn refusal(code: Code, error: &Error) -> CommandError {
    CallError::from(fleetd_server::rpc::status::status(code, error)).into()
}

#[test]
fn a_stale_plan_is_told_with_code_cause_and_next_command() {
    let error = refusal(
        Code::FailedPrecondition,
        &Error {
            code: "rollout.plan_stale".to_owned(),
            message: "plan pln_8h2 no longer matches the fleet".to_owned(),
            details: "3 devices joined since it was made".to_owned(),
            next_command: "fleetd rollout plan coffee@1.8.0 --all".to_owned(),
            ..Error::default()
        },
    );
    assert_eq!(error.exit, Exit::StalePlan);
    expect![[r#"
        error[rollout.plan_stale]: plan pln_8h2 no longer matches the fleet
          cause: 3 devices joined since it was made
          help:  fleetd rollout plan coffee@1.8.0 --all
          docs:  fleetd explain rollout.plan_stale
    "#]]
    .assert_eq(&draw(&error, false));
    expect![[r#"{"error":{"cause":"3 devices joined since it was made","code":"rollout.plan_stale","exitCode":6,"message":"plan pln_8h2 no longer matches the fleet","nextCommand":"fleetd rollout plan coffee@1.8.0 --all"}}"#]]
    .assert_eq(&error.to_json().to_string());
}

#[test]
fn a_command_line_that_is_not_understood_is_told_with_all_that_is_wrong() {
    for (line, message) in [
        (
            "rollout plan coffee@1.8.0",
            "the following required arguments were not provided: \
             <--selector <SELECTOR>|--where <CONDITION>|--group <GROUP>|--device <DEVICE>|--all>",
        ),
        (
            "rollout plan coffee --all",
            "invalid value 'coffee' for '<WORKLOAD@VERSION>': \"coffee\" is no WORKLOAD@VERSION",
        ),
        ("nonsense", "unrecognized subcommand 'nonsense'"),
        ("device", "the command is not complete"),
    ] {
        let error = Cli::try_parse_from(["fleetd"].into_iter().chain(line.split(' '))).unwrap_err();
        let error = CommandError::usage(&error);
        assert_eq!((error.code.as_str(), error.message.as_str(), error.exit), ("usage", message, Exit::Usage));
        assert!(error.next_command.is_some());
    }
}

#[test]
fn a_key_that_is_not_there_is_told_with_how_to_make_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ci.key");
    let error = CommandError::from(key_file::read_secret(&path).unwrap_err());
    let next = format!("fleetd key create '{}'", path.display());
    assert_eq!((error.code.as_str(), error.next_command.as_deref()), ("key.unreadable", Some(next.as_str())));
    let error = CommandError::from(key_file::create(&path.join("x"), &SecretKey::from_bytes([1; 32])).unwrap_err());
    assert!(error.next_command.is_some());
}

#[test]
fn a_refused_credential_ends_with_four_and_names_login() {
    for code in [Code::Unauthenticated, Code::PermissionDenied] {
        let bare = CommandError::from(CallError::from(Status::new(code, "no")));
        assert_eq!(bare.exit, Exit::Unauthenticated, "{code:?}");
        assert!(bare.next_command.is_some());
    }
    let named = Error { code: "auth.token_unknown".to_owned(), message: "x".to_owned(), ..Error::default() };
    assert_eq!(refusal(Code::Unauthenticated, &named).exit, Exit::Unauthenticated);
}

#[test]
fn a_status_without_words_still_has_a_code() {
    let error = CommandError::from(CallError::from(Status::new(Code::ResourceExhausted, "too much")));
    assert_eq!((error.code.as_str(), error.exit), ("rpc.resource_exhausted", Exit::Error));
    let error = CommandError::from(CallError::from(Status::cancelled("Timeout expired")));
    assert_eq!(error.code, "server.timed_out");
}

#[test]
fn a_failed_rollout_names_devices_and_ends_with_five() {
    let rollout = Rollout {
        id: "rol_41".to_owned(),
        workload: "coffee".to_owned(),
        version: "1.8.0".to_owned(),
        state: RolloutState::Failed.into(),
        ..Rollout::default()
    };
    let device = |name: &str, state: RolloutDeviceState, reason: &str| RolloutDevice {
        name: name.to_owned(),
        state: state.into(),
        reason: reason.to_owned(),
        ..RolloutDevice::default()
    };
    let devices = [
        device("calm-fox", RolloutDeviceState::Healthy, ""),
        device("brisk-otter", RolloutDeviceState::Restored, "exit 1 after 4 s"),
        device("sly-crow", RolloutDeviceState::Failed, ""),
    ];
    let error = failure(&rollout, &devices);
    assert_eq!(error.exit.code(), 5);
    expect![[r#"
        error[rollout.failed]: rol_41 of coffee 1.8.0 is failed
          cause: brisk-otter restored: exit 1 after 4 s
                 sly-crow failed
          help:  fleetd device why brisk-otter
          docs:  fleetd explain rollout.failed
    "#]]
    .assert_eq(&draw(&error, false));
}

#[test]
fn colours_are_for_terminals_only() {
    let error = CommandError::new("a.b", "c");
    assert!(!draw(&error, false).contains('\u{1b}'));
    assert!(draw(&error, true).contains('\u{1b}'));
}
