//! Which devices are meant.

use std::collections::{BTreeMap, BTreeSet};

use fleetd_actors::device::record::DeviceRecord;
use fleetd_actors::selector::Selector;
use fleetd_actors::targeting::{Chosen, Condition, Group, Matcher, Targets};
use fleetd_proto::fleetd::common::v1 as common;
use fleetd_sync_core::commit::Revision;
use fleetd_sync_core::name::GroupName;

use super::super::backend::Backend;
use super::super::call_error::{CallError, parsed};
use crate::connection_table::Connection;
use crate::device_row;

/// Reads targets of a request, and looks up their groups. What is left out never means all devices.
pub(crate) fn read(backend: &Backend, targets: Option<&common::Targets>) -> Result<Targets, CallError> {
    let targets = targets.ok_or(CallError::Missing { field: "targets" })?;
    let common::Targets { selector, devices, condition, groups, all } = targets;
    let chosen = chosen(backend, (selector, condition), groups, devices)?;
    match (all, chosen.is_empty()) {
        (true, true) => Ok(Targets::All),
        (true, false) => {
            let cause = "all devices are meant, and some are named besides".to_owned();
            Err(CallError::Invalid { field: "targets", cause })
        }
        (false, true) => Err(CallError::Missing { field: "targets" }),
        (false, false) => Ok(Targets::Some(chosen)),
    }
}

/// Reads which devices of a list are meant: all, if nothing is asked for.
pub(crate) fn filter(
    backend: &Backend,
    (selector, condition): (&str, &str),
    groups: &[String],
    devices: &[String],
) -> Result<Targets, CallError> {
    let chosen = chosen(backend, (selector, condition), groups, devices)?;
    Ok(if chosen.is_empty() { Targets::All } else { Targets::Some(chosen) })
}

fn chosen(
    backend: &Backend,
    (selector_text, condition_text): (&str, &str),
    groups: &[String],
    devices: &[String],
) -> Result<Chosen, CallError> {
    let devices: BTreeSet<String> = devices.iter().cloned().collect();
    if devices.iter().any(String::is_empty) {
        return Err(CallError::Missing { field: "targets.devices" });
    }
    let groups = groups.iter().map(|name| {
        let name: GroupName = parsed(name, "targets.groups")?;
        let (group, revision) = backend.group(&name)?;
        Ok((name, Group { revision, members: group.members }))
    });
    Ok(Chosen {
        selector: selector(selector_text)?,
        condition: condition(condition_text)?,
        groups: groups.collect::<Result<BTreeMap<_, _>, CallError>>()?,
        devices,
    })
}

/// Reads a selector that may be left out. One that is only blank is not left out.
pub(crate) fn selector(text: &str) -> Result<Option<Selector>, CallError> {
    if text.is_empty() { Ok(None) } else { Ok(Some(text.parse()?)) }
}

/// Reads a condition that may be left out. One that is only blank is not left out.
pub(crate) fn condition(text: &str) -> Result<Option<Condition>, CallError> {
    if text.is_empty() { Ok(None) } else { Ok(Some(text.parse()?)) }
}

/// Says whether a device is meant, as its record and its connection show it.
pub(crate) fn matches(matcher: &Matcher<'_>, record: &DeviceRecord, connection: Option<&Connection>) -> bool {
    matcher.matches(&device_row::of(record, Revision::default(), connection))
}

/// Targets as the API shows them.
pub(crate) fn show(targets: &Targets) -> common::Targets {
    match targets {
        Targets::All => common::Targets { all: true, ..common::Targets::default() },
        Targets::Some(chosen) => common::Targets {
            selector: chosen.selector.as_ref().map(ToString::to_string).unwrap_or_default(),
            devices: chosen.devices.iter().cloned().collect(),
            all: false,
            condition: chosen.condition.as_ref().map(ToString::to_string).unwrap_or_default(),
            groups: chosen.groups.keys().map(ToString::to_string).collect(),
        },
    }
}
