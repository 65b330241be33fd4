//! The API's enums and times in words.

use fleetd_proto::fleetd::{access, common, device, log, rollout, trust};

use crate::output::Moment;

macro_rules! words {
    ($($name:ident: $type:path, $prefix:literal;)*) => {
        $(
            #[doc = concat!("Says a `", stringify!($type), "` in a word.")]
            #[must_use]
            pub fn $name(number: i32) -> String {
                use $type as Enum;
                Enum::try_from(number).map_or_else(
                    |_| format!("unknown ({number})"),
                    |value| match value.as_str_name().strip_prefix($prefix).unwrap_or_default() {
                        "UNSPECIFIED" => "-".to_owned(),
                        word => word.to_ascii_lowercase().replace('_', " "),
                    },
                )
            }
        )*
    };
}

words! {
    role: access::v1::Role, "ROLE_";
    phase: common::v1::WorkloadPhase, "WORKLOAD_PHASE_";
    run_state: common::v1::RunState, "RUN_STATE_";
    device_state: device::v1::DeviceState, "DEVICE_STATE_";
    presence: device::v1::Presence, "PRESENCE_";
    change: device::v1::DeviceChange, "DEVICE_CHANGE_";
    reason_kind: device::v1::ReasonKind, "REASON_KIND_";
    gap_reason: log::v1::LogGapReason, "LOG_GAP_REASON_";
    verdict: rollout::v1::Verdict, "VERDICT_";
    blocked_reason: rollout::v1::BlockedReason, "BLOCKED_REASON_";
    rollout_state: rollout::v1::RolloutState, "ROLLOUT_STATE_";
    rollout_wave_state: rollout::v1::RolloutWaveState, "ROLLOUT_WAVE_STATE_";
    rollout_device_state: rollout::v1::RolloutDeviceState, "ROLLOUT_DEVICE_STATE_";
    delegation_role: trust::v1::DelegationRole, "DELEGATION_ROLE_";
    revocation_kind: trust::v1::RevocationKind, "REVOCATION_KIND_";
}

/// Takes a message's time.
#[must_use]
pub fn moment(time: Option<&prost_types::Timestamp>) -> Moment {
    Moment::from_parts(time.map(|time| (time.seconds, time.nanos)))
}

/// Gives a time to a message.
#[must_use]
pub fn timestamp(moment: Moment) -> Option<prost_types::Timestamp> {
    moment.parts().map(|(seconds, nanos)| prost_types::Timestamp { seconds, nanos })
}

/// Writes labels as they are typed (`shop=7,channel=stable`); `-` for none.
#[must_use]
pub fn labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    let labels: Vec<String> = labels.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    or_dash(&labels.join(","))
}

/// The text, or `-` for an empty one.
#[must_use]
pub fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// A version, and the configuration that goes with it, if one does: `1.8.0 with roast-2`.
#[must_use]
pub fn with_configuration(version: &str, configuration: &str) -> String {
    if configuration.is_empty() { version.to_owned() } else { format!("{version} with {configuration}") }
}
