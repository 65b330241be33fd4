//! `rollout diff`: what has changed since a plan was made, or how two plans differ.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use fleetd_proto::fleetd::common::v1::Targets;
use fleetd_proto::fleetd::rollout::v1::wave_size::Size;
use fleetd_proto::fleetd::rollout::v1::{
    CheckPlanRequest, GetPlanRequest, GetRolloutRequest, Plan, PlannedDevice, Strategy, Verdict, check_plan_request,
    start_rollout_request,
};
use fleetd_sync_core::id::{PlanId, RolloutId};
use serde_json::json;

use super::start::{read_plan, sendable};
use super::view;
use crate::client::FleetClient;
use crate::command::{Session, login, wording};
use crate::error::CommandError;
use crate::output::table;

/// Differences that are shown before the rest is counted.
const SHOWN: usize = 50;

/// Say what has changed since a plan was made, or how two plans differ.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd rollout diff p.json
  fleetd rollout diff pln_9d1f3h5k7n9q1s3v pln_2c4f6h8k0m2p4r6t
  fleetd rollout diff rol_6b8d0f2h4k6n8q0s p.json
  fleetd rollout diff p.json --json | jq -r '.changes[]'")]
pub struct Diff {
    /// A plan: its id (`pln_…`), the file that `rollout plan --out` wrote, or a rollout (`rol_…`) that carries it out
    #[arg(value_name = "PLAN")]
    pub one: String,
    /// Another; without it the plan is compared with the fleet as it is now
    #[arg(value_name = "OTHER")]
    pub other: Option<String>,
}

impl Diff {
    pub(super) async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let client = session.client().await?;
        let Some(other) = &self.other else { return since(session, &client, &self.one).await };
        let (one, other) = (whole(&client, &self.one).await?, whole(&client, other).await?);
        let differences = differences(&one, &other);
        let object = json!({
            "one": one.plan.id,
            "other": other.plan.id,
            "differences": differences.iter().map(Difference::json).collect::<Vec<_>>(),
        });
        session.output.answer(&object, || show(&one.plan.id, &other.plan.id, &differences))
    }
}

/// Shows what has changed since a plan was made.
async fn since(session: &Session<'_>, client: &FleetClient, plan: &str) -> Result<(), CommandError> {
    let id = plan_id(client, plan).await?;
    let request = CheckPlanRequest { plan: Some(check_plan_request::Plan::PlanId(id.clone())) };
    let answer = client.check_plan(request).await?;
    let object = json!({ "planId": id, "changes": answer.changes, "rolloutId": answer.rollout_id });
    session.output.answer(&object, || {
        if !answer.rollout_id.is_empty() {
            return format!("{id} is carried out by {0}\nSee it: fleetd rollout show {0}\n", answer.rollout_id);
        }
        if answer.changes.is_empty() {
            return format!("Nothing has changed since {id} was made.\nStart it: fleetd rollout start {id}\n");
        }
        let mut text: String = answer.changes.iter().take(SHOWN).map(|change| format!("{change}\n")).collect();
        if answer.changes.len() > SHOWN {
            text.push_str(&format!("and {} more (--json names all)\n", answer.changes.len() - SHOWN));
        }
        text + &format!("A start is refused. With what still holds: fleetd rollout start {id} --only-planned\n")
    })
}

/// The id of the plan that is meant: a file must be what the server saved.
async fn plan_id(client: &FleetClient, asked: &str) -> Result<String, CommandError> {
    if asked.parse::<RolloutId>().is_ok() {
        let request = GetRolloutRequest { rollout_id: asked.to_owned(), page_size: 1, ..Default::default() };
        return Ok(login::need(client.get_rollout(request).await?.rollout, "rollout")?.plan_id);
    }
    if asked.parse::<PlanId>().is_ok() {
        return Ok(asked.to_owned());
    }
    match sendable(client, read_plan(asked)?).await? {
        start_rollout_request::Plan::PlanId(id) => Ok(id),
        start_rollout_request::Plan::Document(document) => {
            let request = CheckPlanRequest { plan: Some(check_plan_request::Plan::Document(document)) };
            Ok(client.check_plan(request).await?.plan_id)
        }
    }
}

/// A plan with all of its devices.
pub struct WholePlan {
    /// The plan.
    pub plan: Plan,
    /// Its devices.
    pub devices: Vec<PlannedDevice>,
}

async fn whole(client: &FleetClient, asked: &str) -> Result<WholePlan, CommandError> {
    let plan_id = plan_id(client, asked).await?;
    let request = GetPlanRequest { plan_id, page_size: 1, ..Default::default() };
    let plan = login::need(client.get_plan(request.clone()).await?.plan, "plan")?;
    Ok(WholePlan { plan, devices: client.all_planned_devices(request).await? })
}

/// One thing in which two plans differ.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    /// What: a word of the plan, or the name of a device.
    pub what: String,
    /// What the one says of it; `-` for nothing.
    pub one: String,
    /// What the other says.
    pub other: String,
}

impl Difference {
    fn json(&self) -> serde_json::Value {
        json!({ "what": self.what, "one": self.one, "other": self.other })
    }
}

/// How two plans differ: the release first, then whom they mean and how they go about it, then device by device.
#[must_use]
pub fn differences(one: &WholePlan, other: &WholePlan) -> Vec<Difference> {
    let mut differences = Vec::new();
    let mut compare = |what: &str, one: String, other: String| {
        if one != other {
            differences.push(Difference { what: what.to_owned(), one, other });
        }
    };
    for (what, say) in HEADS {
        compare(what, say(&one.plan), say(&other.plan));
    }
    let named = |whole: &WholePlan| -> BTreeMap<(String, String), String> {
        let said = whole.devices.iter().map(|device| {
            let key = (device.name.clone(), device.local_id.clone());
            (key, said_of(device, &whole.plan))
        });
        said.collect()
    };
    let (ones, others) = (named(one), named(other));
    let keys: BTreeSet<_> = ones.keys().chain(others.keys()).collect();
    let said = |of: &BTreeMap<_, String>, key| of.get(key).map_or_else(|| wording::or_dash(""), String::clone);
    for key in keys {
        compare(&key.0, said(&ones, key), said(&others, key));
    }
    differences
}

/// Says one thing of a plan.
type Say = fn(&Plan) -> String;

/// What is compared of plans besides their devices.
const HEADS: [(&str, Say); 7] = [
    ("release", |plan| format!("{} {}", plan.workload, plan.version)),
    ("configuration", |plan| wording::or_dash(&plan.configuration)),
    ("manifest", |plan| plan.manifest_digest.clone()),
    ("targets", |plan| targets(&plan.targets.clone().unwrap_or_default())),
    ("waves", |plan| waves(&plan.strategy.clone().unwrap_or_default())),
    ("limits", |plan| wording::or_dash(view::limits(&plan.strategy.clone().unwrap_or_default()).trim_end())),
    ("windows", |plan| windows(&plan.strategy.clone().unwrap_or_default())),
];

fn targets(targets: &Targets) -> String {
    if targets.all {
        return "all".to_owned();
    }
    let asked = [("", &targets.selector), ("where ", &targets.condition)];
    let asked = asked.into_iter().filter(|(_, text)| !text.is_empty()).map(|(word, text)| format!("{word}{text}"));
    let groups = targets.groups.iter().map(|group| format!("group {group}"));
    asked.chain(groups).chain(targets.devices.iter().cloned()).collect::<Vec<_>>().join(", ")
}

fn waves(strategy: &Strategy) -> String {
    let canary = Some(&strategy.canary_selector).filter(|selector| !selector.is_empty());
    let sizes = strategy.waves.iter().filter_map(|wave| wave.size).map(|size| match size {
        Size::Count(count) => count.to_string(),
        Size::Percent(percent) => format!("{percent}%"),
        Size::Rest(_) => "rest".to_owned(),
    });
    let waves: Vec<_> = canary.map(|selector| format!("canary {selector}")).into_iter().chain(sizes).collect();
    if waves.is_empty() { "all at once".to_owned() } else { waves.join(", ") }
}

fn windows(strategy: &Strategy) -> String {
    let blackouts = strategy.blackouts.iter().map(|days| format!("not on {days}"));
    let windows: Vec<_> = strategy.windows.iter().cloned().chain(blackouts).collect();
    if windows.is_empty() { "always".to_owned() } else { format!("{} ({})", windows.join(", "), strategy.window_zone) }
}

/// What a plan says of a device.
fn said_of(device: &PlannedDevice, plan: &Plan) -> String {
    let wave = if plan.waves.len() > 1 { format!(", wave {}", device.wave) } else { String::new() };
    let brought = wording::with_configuration(&plan.version, &plan.configuration);
    match device.verdict() {
        Verdict::Update => {
            let from = wording::with_configuration(&device.from_version, &device.from_configuration);
            format!("update {from} -> {brought}{wave}")
        }
        Verdict::Install => format!("install {brought}{wave}"),
        Verdict::Unchanged => format!("unchanged {brought}"),
        Verdict::Blocked | Verdict::Unspecified => format!("blocked: {}", device.reason),
    }
}

/// Draws the differences of two plans.
#[must_use]
pub fn show(one: &str, other: &str, differences: &[Difference]) -> String {
    if differences.is_empty() {
        return format!("{one} and {other} do the same.\n");
    }
    let rows = differences.iter().take(SHOWN);
    let rows = rows.map(|difference| [difference.what.clone(), difference.one.clone(), difference.other.clone()]);
    let mut text = table(["WHAT", one, other], rows);
    if differences.len() > SHOWN {
        text.push_str(&format!("and {} more (--json names all)\n", differences.len() - SHOWN));
    }
    text
}
