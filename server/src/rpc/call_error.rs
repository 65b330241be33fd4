//! Why a call is refused, and the one table that says how each refusal looks from outside.

use std::collections::BTreeSet;

use fleetd_actors::authority::AuthorityError;
use fleetd_actors::device::command::CommandError as DeviceError;
use fleetd_actors::orders::{OrderError, Standstill};
use fleetd_actors::registration::token::{self, CommandError as RegistrationError};
use fleetd_actors::rollout::RolloutError;
use fleetd_actors::rollout::plan::{PlanError, ReadPlanError, StaleReason};
use fleetd_actors::rollout::strategy::StrategyError;
use fleetd_actors::selector::ParseSelectorError;
use fleetd_actors::targeting::ParseConditionError;
use fleetd_actors::window::ParseTermsError;
use fleetd_proto::fleetd::common::v1::Error;
use fleetd_sync_core::commit::CommitError;
use fleetd_sync_core::configuration::{InvalidConfiguration, UndeclaredError};
use fleetd_sync_core::id::{AccessId, PlanId, RolloutId};
use fleetd_sync_core::limit::REASON_BYTES_MAX;
use fleetd_sync_core::name::{ConfigurationName, DeviceName, GroupName, ParseNameError, WorkloadName};
use fleetd_sync_core::release::{ReadReleaseError, VerifyReleaseError};
use fleetd_sync_core::session::message::Refusal;
use fleetd_sync_core::trust::ReadRecordError as ReadRootRecordError;
use fleetd_sync_store::state_store::ReadError;
use tonic::{Code, Status};

use super::status::status;
use crate::artifact_store::ArtifactError;
use crate::audit::UnauditedError;
use crate::backup::WriteBackupError;
use crate::record::ReadRecordError;

/// Differences between a plan and today's fleet that an error names; planning again shows the rest.
const STALE_NAMED: usize = 10;

/// Workloads that an error names; `device show` lists the rest.
const WORKLOADS_NAMED: usize = 10;

/// Why a call is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("{field} is missing")]
    Missing { field: &'static str },
    #[error("{field} is invalid")]
    Invalid { field: &'static str, cause: String },
    #[error("the selector cannot be read")]
    Selector(#[from] ParseSelectorError),
    #[error("the condition cannot be read")]
    Condition(#[from] ParseConditionError),
    #[error("the windows cannot be read")]
    Window(#[from] ParseTermsError),
    #[error("there is no group {group}")]
    UnknownGroup { group: GroupName },
    #[error("there is a group {group} already")]
    GroupTaken { group: GroupName },
    #[error("{group} has no list of devices")]
    DynamicGroup { group: GroupName },
    #[error("request {request_id:?} was made before, with other content")]
    OtherRequest { request_id: String },
    #[error("request {request_id:?} was carried out before, and its answer was lost")]
    AnswerLost { request_id: String },
    #[error("request {request_id:?} was answered before, with a secret that is shown once")]
    SecretShown { request_id: String },
    #[error("there is no device {device:?}")]
    UnknownDevice { device: String },
    #[error("{} no workload {workload}", have(devices))]
    UnknownWorkload { devices: Vec<String>, workload: WorkloadName, known: BTreeSet<WorkloadName> },
    #[error("another device is called {name}")]
    NameTaken { name: DeviceName },
    #[error("the device refuses that")]
    Device(#[from] DeviceError),
    #[error("there is no release {workload}@{version}")]
    UnknownRelease { workload: String, version: String },
    #[error("{workload}@{version} exists with other content")]
    DuplicateRelease { workload: String, version: String },
    #[error("the name is not for releases")]
    ReservedName(#[source] ParseNameError),
    #[error("the release cannot be read")]
    UnreadableRelease(#[from] ReadReleaseError),
    #[error("no device would run that release")]
    Release(#[from] VerifyReleaseError),
    #[error("{workload}@{version} is not complete")]
    IncompleteRelease { workload: String, version: String, missing: Vec<String> },
    #[error("{workload} has no configuration {name}")]
    UnknownConfiguration { workload: WorkloadName, name: ConfigurationName },
    #[error("configuration {name} of {workload} exists with other content")]
    DuplicateConfiguration { workload: WorkloadName, name: ConfigurationName },
    #[error("that is no configuration")]
    Configuration(#[from] InvalidConfiguration),
    #[error("the configuration does not fit the release")]
    Undeclared(#[from] UndeclaredError),
    #[error("configuration {name} of {workload} is not complete")]
    IncompleteConfiguration { workload: WorkloadName, name: ConfigurationName, missing: Vec<String> },
    #[error("there is no plan {plan}")]
    UnknownPlan { plan: PlanId },
    #[error("there is nothing to plan")]
    Plan(#[from] PlanError),
    #[error("the plan cannot be read")]
    UnreadablePlan(#[source] ReadPlanError),
    #[error("the document of {plan} is not the one that was saved")]
    EditedPlan { plan: PlanId },
    #[error("{plan} does not fit the fleet any more")]
    StalePlan { plan: PlanId, reasons: Vec<StaleReason> },
    #[error("{plan} cannot be started: no device would get the release")]
    BlockedPlan { plan: PlanId, blocked: Vec<String>, first: DeviceName },
    #[error("{plan} was started already, as {rollout}")]
    StartedPlan { plan: PlanId, rollout: RolloutId },
    #[error("there is no rollout {rollout}")]
    UnknownRollout { rollout: RolloutId },
    #[error("the rollout refuses that")]
    Rollout(#[source] RolloutError),
    #[error("{}", .0.reason)]
    Standstill(Standstill),
    #[error("that does not stand")]
    Order(#[from] OrderError),
    #[error("there is no way back from {rollout}")]
    NoWayBack { rollout: RolloutId, left_out: Vec<String> },
    #[error("the artifact is not taken or given")]
    Artifact(#[from] ArtifactError),
    #[error("{bytes} bytes at once; send at most {bytes_max}")]
    ArtifactPart { bytes: usize, bytes_max: usize },
    #[error("there is no access token {id}")]
    UnknownAccess { id: AccessId },
    #[error("the root record cannot be read")]
    UnreadableRootRecord(#[source] ReadRootRecordError),
    #[error("trust does not take that")]
    Authority(#[from] AuthorityError),
    #[error("the registration refuses that")]
    Registration(#[from] RegistrationError),
    #[error("the device may not join")]
    Refused(Refusal),
    #[error("the call is not carried out")]
    Unaudited(#[from] UnauditedError),
    #[error("the audit log did not take how the call ended; repeat it to hear that")]
    Unconcluded,
    #[error("the server did not come to an answer in time")]
    TimedOut,
    #[error("the store cannot be read")]
    Read(#[from] ReadError),
    #[error("the store does not take the change")]
    Commit(#[from] CommitError),
    #[error("what is stored cannot be read")]
    Record(#[from] ReadRecordError),
    #[error("the backup cannot be written")]
    Backup(#[from] WriteBackupError),
    #[error("the server failed on this request")]
    Internal { cause: String },
}

/// How a refusal looks from outside: its kind for gRPC, its name for programs, and the command that helps.
struct Row(Code, &'static str, String);

impl CallError {
    /// The table.
    fn row(&self) -> Row {
        let row = |code, name, next: &str| Row(code, name, next.to_owned());
        match self {
            Self::Missing { .. } => row(Code::InvalidArgument, "request.field.missing", ""),
            Self::Invalid { .. } => row(Code::InvalidArgument, "request.field.invalid", ""),
            Self::Selector(error) => selector_row(error),
            Self::Condition(error) => condition_row(error),
            Self::Window(_) => row(Code::InvalidArgument, "rollout.window_invalid", WINDOW_HELP),
            Self::UnknownGroup { .. } => row(Code::NotFound, "group.unknown", "fleetd group list"),
            Self::GroupTaken { group } => group_row(Code::AlreadyExists, "group.taken", group),
            Self::DynamicGroup { group } => group_row(Code::FailedPrecondition, "group.dynamic", group),
            Self::OtherRequest { .. } => row(Code::AlreadyExists, "request.repeated_otherwise", ""),
            Self::AnswerLost { .. } => row(Code::AlreadyExists, "request.answer_lost", ""),
            Self::SecretShown { .. } => row(Code::AlreadyExists, "request.secret_shown", ""),
            Self::UnknownDevice { .. } => row(Code::NotFound, "device.unknown", "fleetd device list"),
            Self::UnknownWorkload { devices, .. } => {
                let device = devices.first().filter(|_| devices.len() == 1).map_or("DEVICE", String::as_str);
                Row(Code::NotFound, "device.workload_unknown", format!("fleetd device show {device}"))
            }
            Self::NameTaken { .. } => row(Code::AlreadyExists, "device.name_taken", "fleetd device list"),
            Self::Device(error) => device_row(error),
            Self::UnknownRelease { .. } => row(Code::NotFound, "release.unknown", "fleetd release list"),
            Self::DuplicateRelease { workload, version } => {
                Row(Code::AlreadyExists, "release.duplicate", format!("fleetd release show {workload}@{version}"))
            }
            Self::ReservedName(_) => row(Code::InvalidArgument, "release.reserved", ""),
            Self::UnreadableRelease(_) => row(Code::InvalidArgument, "release.unreadable", ""),
            Self::Release(error) => release_row(error),
            Self::IncompleteRelease { .. }
            | Self::UnknownConfiguration { .. }
            | Self::DuplicateConfiguration { .. }
            | Self::Configuration(_)
            | Self::Undeclared(_)
            | Self::IncompleteConfiguration { .. } => self.content_row(),
            Self::UnknownPlan { .. } => row(Code::NotFound, "rollout.plan_unknown", "fleetd rollout plan …"),
            Self::Plan(error) => plan_row(error),
            Self::UnreadablePlan(ReadPlanError::Edited { .. }) | Self::EditedPlan { .. } => {
                row(Code::InvalidArgument, "rollout.plan_edited", "fleetd rollout plan …")
            }
            Self::UnreadablePlan(_) => row(Code::InvalidArgument, "rollout.plan_unreadable", "fleetd rollout plan …"),
            Self::StalePlan { .. } => row(Code::FailedPrecondition, "rollout.plan_stale", "fleetd rollout plan …"),
            Self::BlockedPlan { first, .. } => {
                Row(Code::FailedPrecondition, "rollout.plan_blocked", format!("fleetd device why {first}"))
            }
            Self::StartedPlan { rollout, .. } => {
                Row(Code::AlreadyExists, "rollout.plan_started", format!("fleetd rollout watch {rollout}"))
            }
            Self::UnknownRollout { .. } => row(Code::NotFound, "rollout.unknown", "fleetd rollout list"),
            Self::Rollout(error) => rollout_row(error),
            Self::Standstill(order) => Row(Code::FailedPrecondition, "rollout.standstill", order.lift.clone()),
            Self::NoWayBack { .. } => row(Code::FailedPrecondition, "rollout.no_way_back", "fleetd rollout list"),
            Self::Order(error) => order_row(error),
            Self::Artifact(error) => artifact_row(error),
            Self::ArtifactPart { .. } => row(Code::InvalidArgument, "artifact.part_too_large", ""),
            Self::UnknownAccess { .. } => row(Code::NotFound, "access.unknown", "fleetd access list"),
            Self::UnreadableRootRecord(_) => row(Code::InvalidArgument, "trust.record_unreadable", ""),
            Self::Authority(error) => authority_row(error),
            Self::Registration(error) => registration_row(error),
            // It has a name already, which the registration gave it.
            Self::Refused(_) => row(Code::PermissionDenied, "", ""),
            Self::Unaudited(_) | Self::Unconcluded => row(Code::Unavailable, "audit.unavailable", "fleetd doctor"),
            Self::TimedOut => row(Code::DeadlineExceeded, "server.timed_out", "fleetd doctor"),
            Self::Commit(CommitError::Full) => row(Code::ResourceExhausted, "store.full", ""),
            Self::Commit(CommitError::Stale { .. }) => row(Code::Aborted, "store.changed_meanwhile", ""),
            Self::Read(_) | Self::Commit(_) => row(Code::Unavailable, "store.failed", "fleetd doctor"),
            Self::Record(_) => row(Code::DataLoss, "store.unreadable", "fleetd doctor"),
            Self::Backup(_) => row(Code::Internal, "backup.failed", "fleetd doctor"),
            Self::Internal { .. } => row(Code::Internal, "server.failed", "fleetd doctor"),
        }
    }

    /// The row of what is wrong with a configuration, or with what was pushed of a release.
    fn content_row(&self) -> Row {
        match self {
            Self::IncompleteRelease { workload, version, .. } => {
                let next = format!("fleetd release push {workload}@{version} …");
                Row(Code::FailedPrecondition, "release.incomplete", next)
            }
            Self::UnknownConfiguration { workload, .. } => {
                Row(Code::NotFound, "configuration.unknown", format!("fleetd config list {workload}"))
            }
            Self::DuplicateConfiguration { workload, name } => {
                Row(Code::AlreadyExists, "configuration.duplicate", format!("fleetd config show {workload} {name}"))
            }
            Self::Undeclared(error) => {
                let next = format!("fleetd release show …@{}", error.release);
                Row(Code::FailedPrecondition, "configuration.undeclared", next)
            }
            Self::IncompleteConfiguration { workload, name, .. } => {
                let next = format!("fleetd config push {workload} {name} …");
                Row(Code::FailedPrecondition, "configuration.incomplete", next)
            }
            _ => Row(Code::InvalidArgument, "configuration.invalid", String::new()),
        }
    }

    /// Its name for programs.
    pub(crate) fn code(&self) -> String {
        match self {
            // What a device reads is the registration's own name for it.
            Self::Refused(refusal) => refusal.code.clone(),
            _ => self.row().1.to_owned(),
        }
    }

    /// What lies underneath, with the values that were seen.
    fn details(&self) -> String {
        match self {
            Self::Invalid { cause, .. } | Self::Internal { cause } => cause.clone(),
            Self::IncompleteRelease { missing, .. } | Self::IncompleteConfiguration { missing, .. } => {
                format!("missing: {}", missing.join(", "))
            }
            Self::StalePlan { reasons, .. } => first_few(reasons),
            Self::BlockedPlan { blocked, .. } => {
                format!("each device that lacks the release is blocked\n{}", blocked.join("\n"))
            }
            Self::UnknownWorkload { known, .. } if known.is_empty() => "there is none yet".to_owned(),
            Self::UnknownWorkload { known, .. } => {
                let mut names: Vec<&str> = known.iter().take(WORKLOADS_NAMED).map(WorkloadName::as_str).collect();
                if known.len() > WORKLOADS_NAMED {
                    names.push("…");
                }
                format!("there is {}", names.join(", "))
            }
            Self::Refused(refusal) => refusal.message.clone(),
            Self::NoWayBack { left_out, .. } if left_out.is_empty() => "it reached no device that is meant".to_owned(),
            Self::NoWayBack { left_out, .. } => first_few(left_out),
            Self::Standstill(standstill) => {
                format!("nothing goes on and nothing is started while the hold {} stands", standstill.hold)
            }
            Self::AnswerLost { .. } => "the change was made, and is not made again: look at what it changed".to_owned(),
            Self::DynamicGroup { .. } => "its devices are those that its selector and its condition mean".to_owned(),
            Self::SecretShown { .. } => "revoke what was made then, and ask under another request id".to_owned(),
            _ => sources(self),
        }
    }
}

/// The first of many sentences, one a line.
fn first_few<T: std::fmt::Display>(sentences: &[T]) -> String {
    let mut lines: Vec<String> = sentences.iter().take(STALE_NAMED).map(ToString::to_string).collect();
    if sentences.len() > STALE_NAMED {
        lines.push(format!("and {} more", sentences.len() - STALE_NAMED));
    }
    lines.join("\n")
}

/// Devices as the subject of a sentence about what they have.
fn have(devices: &[String]) -> String {
    match devices {
        [device] => format!("{device} has"),
        devices => format!("the {} devices that are meant have", devices.len()),
    }
}

/// The texts of an error's sources, outermost first.
fn sources(error: &dyn std::error::Error) -> String {
    let mut texts = Vec::new();
    let mut source = error.source();
    while let Some(below) = source {
        texts.push(below.to_string());
        source = below.source();
    }
    texts.join(": ")
}

impl From<RolloutError> for CallError {
    fn from(error: RolloutError) -> Self {
        match error {
            RolloutError::Ordered { standstill, .. } => Self::Standstill(standstill),
            RolloutError::Blocked { plan, blocked, first, .. } => Self::BlockedPlan { plan, blocked, first },
            error => Self::Rollout(error),
        }
    }
}

fn condition_row(error: &ParseConditionError) -> Row {
    let name = match error {
        ParseConditionError::Empty => "condition.empty",
        ParseConditionError::TakesTooLong { .. } => "condition.too_long",
        ParseConditionError::TooLong { .. }
        | ParseConditionError::TooDeep { .. }
        | ParseConditionError::Syntax { .. }
        | ParseConditionError::NotServed => "condition.invalid",
    };
    Row(Code::InvalidArgument, name, "fleetd device list --help".to_owned())
}

fn device_row(error: &DeviceError) -> Row {
    let (code, name, next) = match error {
        DeviceError::Unknown => (Code::NotFound, "device.unknown", "fleetd device list"),
        DeviceError::Revoked => (Code::FailedPrecondition, "device.revoked", ""),
        DeviceError::Recovered => (Code::FailedPrecondition, "device.recovered", "fleetd enroll approve DEVICE"),
        DeviceError::NotRecovered => (Code::FailedPrecondition, "device.not_recovered", "fleetd device show DEVICE"),
        DeviceError::NoWorkload { .. } => (Code::NotFound, "device.workload_unknown", "fleetd device show DEVICE"),
        DeviceError::NoHold { .. } => (Code::NotFound, "device.hold_unknown", "fleetd device show DEVICE"),
        DeviceError::NotPinned { .. } => (Code::FailedPrecondition, "device.not_pinned", "fleetd device show DEVICE"),
        DeviceError::Holds { .. } => (Code::FailedPrecondition, "device.holds_full", "fleetd device lift DEVICE HOLD"),
        DeviceError::Labels { .. } => (Code::InvalidArgument, "device.too_many_labels", ""),
    };
    Row(code, name, next.to_owned())
}

fn release_row(error: &VerifyReleaseError) -> Row {
    let delegate = "fleetd trust delegate KEY.pub --role release --workload NAME --root ROOT.key";
    let (code, name, next) = match error {
        VerifyReleaseError::ForeignFleet { .. } => (Code::InvalidArgument, "release.foreign_fleet", "fleetd whoami"),
        VerifyReleaseError::WrongWorkload { .. } => (Code::InvalidArgument, "release.other_workload", ""),
        VerifyReleaseError::Undelegated { .. } => (Code::PermissionDenied, "release.key_undelegated", delegate),
        VerifyReleaseError::Retired { .. } => {
            (Code::PermissionDenied, "release.key_retired", "fleetd key create NAME.key")
        }
        VerifyReleaseError::Compromised { .. } => {
            (Code::PermissionDenied, "release.key_compromised", "fleetd key create NAME.key")
        }
        VerifyReleaseError::Denied { .. } => (Code::FailedPrecondition, "release.denied", "fleetd release list"),
        VerifyReleaseError::Signature { .. } => (Code::InvalidArgument, "release.signature", ""),
    };
    Row(code, name, next.to_owned())
}

/// How windows are written.
const WINDOW_HELP: &str = "fleetd rollout plan … --window '0 2 * * * 3h' --blackout 2026-12-24..2026-12-26";

fn selector_row(error: &ParseSelectorError) -> Row {
    let (name, next) = match error {
        ParseSelectorError::Empty => ("selector.empty", "fleetd device list"),
        _ => ("selector.invalid", "fleetd device list --help"),
    };
    Row(Code::InvalidArgument, name, next.to_owned())
}

fn plan_row(error: &PlanError) -> Row {
    let (code, name) = match error {
        PlanError::NoTargets => (Code::InvalidArgument, "rollout.no_targets"),
        PlanError::UnknownDevice { .. } => (Code::NotFound, "device.unknown"),
        PlanError::NoMatch { .. } => (Code::FailedPrecondition, "rollout.no_match"),
        PlanError::Strategy(StrategyError::Uncovered { .. }) => (Code::InvalidArgument, "rollout.waves_uncovered"),
        PlanError::Strategy(StrategyError::NoCanary { .. }) => (Code::FailedPrecondition, "rollout.no_canary"),
        PlanError::Strategy(StrategyError::Terms(_)) => (Code::InvalidArgument, "rollout.window_invalid"),
        PlanError::Strategy(_) => (Code::InvalidArgument, "rollout.waves_invalid"),
    };
    if matches!(error, PlanError::Strategy(StrategyError::Terms(_))) {
        return Row(code, name, WINDOW_HELP.to_owned());
    }
    if matches!(error, PlanError::Strategy(_)) {
        return Row(code, name, "fleetd rollout plan … --wave 1 --wave 10% --wave rest".to_owned());
    }
    Row(code, name, "fleetd device list".to_owned())
}

fn rollout_row(error: &RolloutError) -> Row {
    let (code, name, rollout) = match error {
        RolloutError::OtherPlan { rollout, .. } => (Code::AlreadyExists, "rollout.other_plan", rollout),
        RolloutError::Blocked { rollout, .. } => (Code::FailedPrecondition, "rollout.plan_blocked", rollout),
        RolloutError::Ordered { rollout, .. } => (Code::FailedPrecondition, "rollout.standstill", rollout),
        RolloutError::NotStarted { rollout } => (Code::NotFound, "rollout.unknown", rollout),
        RolloutError::NothingToApprove { rollout, .. } => {
            return Row(Code::FailedPrecondition, "rollout.not_awaited", format!("fleetd rollout why {rollout}"));
        }
        RolloutError::Ended { rollout, .. } => (Code::FailedPrecondition, "rollout.ended", rollout),
    };
    Row(code, name, format!("fleetd rollout show {rollout}"))
}

fn group_row(code: Code, name: &'static str, group: &GroupName) -> Row {
    Row(code, name, format!("fleetd group show {group}"))
}

fn order_row(error: &OrderError) -> Row {
    let (code, name, next) = match error {
        OrderError::NoStop { .. } => (Code::NotFound, "fleet.stop_unknown", "fleetd rollout list"),
        OrderError::NotDenied => (Code::FailedPrecondition, "release.not_denied", "fleetd release list"),
    };
    Row(code, name, next.to_owned())
}

fn artifact_row(error: &ArtifactError) -> Row {
    let (code, name, next) = match error {
        ArtifactError::Offset { .. } => (Code::OutOfRange, "artifact.offset", "repeat the push: it goes on"),
        ArtifactError::TooLarge { .. } => (Code::InvalidArgument, "artifact.too_large", ""),
        ArtifactError::Digest { .. } => (Code::InvalidArgument, "artifact.digest", "repeat the push"),
        ArtifactError::Absent { .. } => (Code::NotFound, "artifact.unknown", "fleetd release push …"),
        ArtifactError::Range { .. } => (Code::OutOfRange, "artifact.range", ""),
        ArtifactError::Failed { .. } => (Code::Unavailable, "artifact.failed", "fleetd doctor"),
    };
    Row(code, name, next.to_owned())
}

fn authority_row(error: &AuthorityError) -> Row {
    let (code, name) = match error {
        AuthorityError::Record(_) => (Code::InvalidArgument, "trust.record_refused"),
        AuthorityError::Contradiction { .. } => (Code::AlreadyExists, "trust.record_contradicts"),
        AuthorityError::Write(_) => (Code::FailedPrecondition, "trust.unwritable"),
        AuthorityError::Path(_) => (Code::InvalidArgument, "trust.key_invalid"),
        AuthorityError::Keep { .. } => (Code::Unavailable, "trust.not_kept"),
        AuthorityError::Busy { .. } => (Code::ResourceExhausted, "trust.busy"),
    };
    Row(code, name, "fleetd trust show".to_owned())
}

fn registration_row(error: &RegistrationError) -> Row {
    let (code, name, next) = match error {
        RegistrationError::NoUses => (Code::InvalidArgument, "enrolment.no_uses", ""),
        RegistrationError::ExpiresInThePast { .. } => (Code::InvalidArgument, "enrolment.expired_already", ""),
        RegistrationError::TooManyLabels { .. } => (Code::InvalidArgument, "enrolment.too_many_labels", ""),
        RegistrationError::NameTaken { .. } => (Code::AlreadyExists, "device.name_taken", "fleetd device list"),
        RegistrationError::UnknownToken { .. } => {
            (Code::NotFound, "enrolment.token.unknown", "fleetd enroll token list")
        }
        RegistrationError::TokenEnded { cause, .. } => {
            (Code::FailedPrecondition, token::code_of(cause), "fleetd enroll token create")
        }
        RegistrationError::NotPending { .. } => (Code::NotFound, "enrolment.not_pending", "fleetd enroll list"),
    };
    Row(code, name, next.to_owned())
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        let Row(code, _, next_command) = error.row();
        if matches!(code, Code::Internal | Code::Unavailable | Code::DataLoss) {
            tracing::error!(error = %error, details = error.details(), "a call failed");
        }
        let words = Error {
            code: error.code(),
            message: error.to_string(),
            details: error.details(),
            next_command,
            ..Error::default()
        };
        status(code, &words)
    }
}

/// A field that a request must have.
pub(crate) fn required<'a>(text: &'a str, field: &'static str) -> Result<&'a str, CallError> {
    if text.is_empty() { Err(CallError::Missing { field }) } else { Ok(text) }
}

/// A field that a request must have, read as what it stands for.
pub(crate) fn parsed<T>(text: &str, field: &'static str) -> Result<T, CallError>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    required(text, field)?.parse().map_err(|error: T::Err| CallError::Invalid { field, cause: error.to_string() })
}

/// Why somebody does something, in their own words.
pub(crate) fn reason(text: &str) -> Result<String, CallError> {
    if text.len() > REASON_BYTES_MAX {
        let cause = format!("it has {} bytes; it may have {REASON_BYTES_MAX}", text.len());
        return Err(CallError::Invalid { field: "reason", cause });
    }
    Ok(text.to_owned())
}

/// A field that a request may leave empty.
pub(crate) fn optional<T>(text: &str, field: &'static str) -> Result<Option<T>, CallError>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    if text.is_empty() { Ok(None) } else { parsed(text, field).map(Some) }
}
