//! Which devices are meant.

use std::collections::BTreeSet;

use fleetd_actors::device::record::DeviceRecord;
use fleetd_actors::selector::Selector;
use fleetd_actors::targeting::Targets;
use fleetd_proto::fleetd::common::v1 as common;
use fleetd_sync_core::commit::Revision;

use super::super::call_error::CallError;
use crate::device_row;

/// Reads targets of a request. What is left out never means all devices.
pub(crate) fn read(targets: Option<&common::Targets>) -> Result<Targets, CallError> {
    let targets = targets.ok_or(CallError::Missing { field: "targets" })?;
    let names_some = !targets.selector.is_empty() || !targets.devices.is_empty();
    match (targets.all, names_some) {
        (true, false) => Ok(Targets::All),
        (true, true) => {
            let cause = "all devices are meant, and some are named besides".to_owned();
            Err(CallError::Invalid { field: "targets", cause })
        }
        (false, false) => Err(CallError::Missing { field: "targets" }),
        (false, true) => {
            let devices: BTreeSet<String> = targets.devices.iter().cloned().collect();
            if devices.iter().any(String::is_empty) {
                return Err(CallError::Missing { field: "targets.devices" });
            }
            Ok(Targets::Some { selector: selector(&targets.selector)?, devices })
        }
    }
}

/// Reads a selector that may be left out. One that is only blank is not left out.
pub(crate) fn selector(text: &str) -> Result<Option<Selector>, CallError> {
    if text.is_empty() { Ok(None) } else { Ok(Some(text.parse()?)) }
}

/// Says whether a selector matches a device.
pub(crate) fn matches(selector: &Selector, record: &DeviceRecord) -> bool {
    let row = device_row::of(record, Revision::default(), None);
    let id = row.device.to_string();
    selector.matches(|key| if key == "id" { Some(&id) } else { row.value_of(key) })
}

/// Targets as the API shows them.
pub(crate) fn show(targets: &Targets) -> common::Targets {
    match targets {
        Targets::All => common::Targets { all: true, ..common::Targets::default() },
        Targets::Some { selector, devices } => common::Targets {
            selector: selector.as_ref().map(ToString::to_string).unwrap_or_default(),
            devices: devices.iter().cloned().collect(),
            all: false,
        },
    }
}
