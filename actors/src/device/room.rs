//! What has room in a device's document. A server's lane of it holds [`limit::SNAPSHOT_BYTES_MAX`] bytes: what rollouts
//! assign may take most of them, and the rest is kept for holds, so that a stop is never the one that does not fit.

use std::collections::BTreeMap;

use fleetd_sync_core::configuration::Configuration;
use fleetd_sync_core::envelope::{Op, Path, Value};
use fleetd_sync_core::limit;
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::resolve;

use super::wanted::{self, Wanted};
use crate::window::{Terms, Zone};

/// Bytes that a row takes beside its path and its value, as [`limit::OP_BYTES_MAX`] counts them.
const FRAMING_BYTES: usize = limit::OP_BYTES_MAX - limit::VALUE_BYTES_MAX - limit::PATH_CHARS_MAX;
/// Bytes of an assignment's digest, of its rollout's name, and of its attempt.
const FIXED_VALUE_BYTES: usize = 32 + 32 + 9;
/// Bytes of what a device's terms say beyond those of its rollout: its zone, its priority, and whether a site waits.
const OWN_TERMS_BYTES: usize = 96;

/// Bytes that an assignment takes at most, of `workload` with this configuration and under these terms.
#[must_use]
pub fn assignment_bytes(workload: &WorkloadName, configuration: Option<&Configuration>, terms: &Terms) -> usize {
    let paths =
        wanted::ASSIGNMENT_FIELDS.map(|field| resolve::workload_path(workload, field).as_str().len() + FRAMING_BYTES);
    let terms = terms.of(&Zone::default()).to_string().len() + OWN_TERMS_BYTES;
    let configuration = configuration.map_or(0, |configuration| configuration.encode().len());
    paths.iter().sum::<usize>() + limit::VERSION_CHARS_MAX + FIXED_VALUE_BYTES + terms + configuration
}

/// Bytes that would be missing, if an assignment of `bytes` took the place of what stands for `workload` in the rows;
/// `None` when it has room.
#[must_use]
pub fn missing_bytes(wanted: &Wanted, workload: &WorkloadName, bytes: usize) -> Option<usize> {
    let others = wanted.iter().filter(|(path, _)| resolve::read_workload_path(path) != Some(workload.as_str()));
    let taken: usize = others.filter(|(path, _)| !is_hold(path)).map(row_bytes).sum();
    taken.saturating_add(bytes).checked_sub(limit::ASSIGNED_BYTES_MAX).filter(|missing| *missing > 0)
}

/// Bytes of the holds in the rows.
#[must_use]
pub fn hold_bytes(wanted: &Wanted) -> usize {
    wanted.iter().filter(|(path, _)| is_hold(path)).map(row_bytes).sum()
}

/// Changes of a lane, in the order in which they are written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Writes {
    /// The changes of one write each.
    pub steps: Vec<Vec<Op>>,
    /// The workloads whose change has no room.
    pub left_out: Vec<String>,
}

/// Orders the changes that make a lane's `state` what `asked` says, as far as they have room.
///
/// What fits one envelope is one. Else holds are placed first, then comes what makes room, then what takes it, and holds
/// end last: between two steps no device is freer than before the first or after the last. The assignment of one workload
/// stands in one step.
pub(super) fn writes(asked: &Wanted, state: &Wanted) -> Writes {
    let all = wanted::difference(asked, state);
    let mut writes = Writes::default();
    if all.is_empty() {
        return writes;
    }
    if all.len() <= limit::ENVELOPE_OPS_MAX && assigned_bytes(asked) <= limit::ASSIGNED_BYTES_MAX {
        writes.steps.push(all);
        return writes;
    }
    let (holds, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(wanted::is_about_hold);
    let fitting = fitting(rest, state, &mut writes.left_out);
    let (placed, mut ended): (Vec<_>, Vec<_>) = holds.into_iter().partition(|op| matches!(op, Op::Set { .. }));
    // Where the new release has no room, the former one stays as held as it is.
    ended.retain(|op| {
        let held = op.path().and_then(resolve::read_hold_path).and_then(|(_, workload)| workload);
        held.is_none_or(|held| !writes.left_out.iter().any(|left_out| left_out == held.as_str()))
    });
    for group in placed.into_iter().map(|op| vec![op]).chain(fitting).chain(ended.into_iter().map(|op| vec![op])) {
        match writes.steps.last_mut().filter(|step| step.len() + group.len() <= limit::ENVELOPE_OPS_MAX) {
            Some(step) => step.extend(group),
            None => writes.steps.push(group),
        }
    }
    writes
}

/// The changes of each workload that have room, those first that make some.
fn fitting(ops: Vec<Op>, state: &Wanted, left_out: &mut Vec<String>) -> Vec<Vec<Op>> {
    let mut groups = BTreeMap::<String, Vec<Op>>::new();
    let mut fitting = Vec::new();
    for op in ops {
        match op.path().and_then(assigned_workload) {
            Some(workload) => groups.entry(workload.to_owned()).or_default().push(op),
            // Whether it runs is a few bytes, and an operator's word.
            None => fitting.push(vec![op]),
        }
    }
    let mut groups: Vec<_> = groups
        .into_iter()
        .map(|(workload, ops)| {
            let before = ops.iter().filter_map(|op| state.get_key_value(op.path()?)).map(row_bytes).sum::<usize>();
            let after = ops.iter().map(set_bytes).sum::<usize>();
            (after > before, after, before, workload, ops)
        })
        .collect();
    groups.sort_by_key(|(grows, after, ..)| (*grows, *after));
    let mut taken = assigned_bytes(state);
    for (grows, after, before, workload, ops) in groups {
        let next = taken.saturating_sub(before).saturating_add(after);
        if grows && next > limit::ASSIGNED_BYTES_MAX {
            left_out.push(workload);
        } else {
            taken = next;
            fitting.push(ops);
        }
    }
    fitting
}

/// The workload whose assignment a path is a part of.
fn assigned_workload(path: &Path) -> Option<&str> {
    let workload = resolve::read_workload_path(path)?;
    let field = path.segments().last()?;
    wanted::ASSIGNMENT_FIELDS.contains(&field).then_some(workload)
}

fn assigned_bytes(rows: &Wanted) -> usize {
    rows.iter().filter(|(path, _)| !is_hold(path)).map(row_bytes).sum()
}

fn is_hold(path: &Path) -> bool {
    resolve::read_hold_path(path).is_some()
}

fn row_bytes((path, value): (&Path, &Value)) -> usize {
    let value_bytes = match value {
        Value::Boolean(_) => 1,
        Value::Integer(_) => 9,
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
    };
    path.as_str().len() + value_bytes + FRAMING_BYTES
}

fn set_bytes(op: &Op) -> usize {
    match op {
        Op::Set { path, value } => row_bytes((path, value)),
        Op::Delete { .. } | Op::Unknown { .. } => 0,
    }
}
