//! Whether a plan still fits its fleet, said once more: what would be done with each device is put into a word, by asking
//! one thing after the other, and the words are compared.

use std::collections::BTreeMap;

use fleetd_actors::rollout::plan::{Blocked, Plan, PlannedRelease, Verdict};
use fleetd_actors::rollout::strategy::Priority;
use fleetd_actors::targeting::DeviceRow;
use fleetd_sync_core::name::ConfigurationName;

/// What a plan for the whole fleet says otherwise than the fleet of today would have it, device by device.
#[must_use]
pub fn differences(plan: &Plan, rows: &[DeviceRow]) -> Vec<String> {
    let (mut words, mut takes) = (BTreeMap::new(), BTreeMap::new());
    for device in &plan.devices {
        let planned = match &device.verdict {
            Verdict::Update { from, configuration } => in_place_of(from.as_str(), configuration.as_ref()),
            Verdict::Install => "for the first time".to_owned(),
            Verdict::Unchanged => "has it".to_owned(),
            Verdict::Blocked { by, .. } => left_out(*by),
        };
        words.insert(device.name.to_string(), (planned, "gone".to_owned()));
        takes.extend(device.supersedes.map(|other| (device.name.to_string(), other)));
    }
    let gets = |word: &str| word.starts_with("in place of") || word.starts_with("for the first time");
    for row in rows {
        let mut today = today(&plan.release, plan.strategy.priority, row);
        let has_it = row.rollouts.get(&plan.release.workload).map(|at_work| at_work.rollout);
        if let Some(other) = has_it.filter(|other| takes.get(row.name.as_str()) != Some(other) && gets(&today)) {
            today = format!("{today}, taken from {other}");
        }
        words.entry(row.name.to_string()).or_insert_with(|| ("unknown".to_owned(), String::new())).1 = today;
    }
    let differs = |(planned, today): &(String, String)| match (planned.as_str(), today.as_str()) {
        // Nothing would happen to it, then or now.
        ("unknown", today) => gets(today),
        (planned, "gone") => gets(planned),
        (planned, today) => planned != today,
    };
    let differing = words.into_iter().filter(|(_, said)| differs(said));
    differing.map(|(name, (planned, today))| format!("{name}: {planned}, and today {today}")).collect()
}

fn in_place_of(version: &str, configuration: Option<&ConfigurationName>) -> String {
    match configuration {
        Some(name) => format!("in place of {version} and {name}"),
        None => format!("in place of {version}"),
    }
}

fn left_out(by: Blocked) -> String {
    format!("left out ({})", by.as_str())
}

/// What would be done with a device today.
fn today(release: &PlannedRelease, priority: Priority, row: &DeviceRow) -> String {
    if row.barred.is_some() {
        return left_out(Blocked::Membership);
    }
    let runs = row.releases.iter().find(|(workload, _)| **workload == release.workload).map(|(_, runs)| runs);
    if let Some(runs) = runs
        && runs.healthy
        && runs.manifest == release.digest()
    {
        return "has it".to_owned();
    }
    if let Some((by, _)) = row.refused {
        return left_out(by);
    }
    for (workload, _) in &row.holds {
        if workload.is_none() || workload.as_ref() == Some(&release.workload) {
            return left_out(Blocked::Held);
        }
    }
    if row.conflicts.iter().any(|disputed| *disputed == release.workload) {
        return left_out(Blocked::Conflict);
    }
    // Others give way to what is as urgent as they are.
    if row.rollouts.iter().any(|(busy, at_work)| *busy == release.workload && at_work.priority > priority) {
        return left_out(Blocked::Busy);
    }
    let built = |platform| release.artifacts.keys().any(|built| built == platform || built.runs_on(platform));
    if !row.platform.as_ref().is_some_and(built) {
        return left_out(Blocked::Platform);
    }
    match runs {
        Some(runs) => {
            in_place_of(runs.version.as_str(), runs.configuration.as_ref().map(|configuration| &configuration.name))
        }
        None => "for the first time".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fleetd_actors::rollout::plan::{check_fence, plan};
    use fleetd_actors::rollout::strategy::Strategy;
    use fleetd_actors::targeting::{AtWork, PresentRelease, Targets};
    use fleetd_sync_core::commit::Revision;
    use fleetd_sync_core::entropy::Entropy;
    use fleetd_sync_core::id::{ArtifactDigest, DeviceId, LocalId, PlanId, RolloutId};

    use super::*;
    use crate::fleet::coffee;

    /// A rollout that is more urgent than most, or as urgent as they are.
    fn at_work(entropy: &mut Entropy, way: u64) -> AtWork {
        let priority = if way == 8 { Priority::MAX } else { Priority::default() };
        AtWork { rollout: RolloutId::random(entropy), priority }
    }

    /// A device in one of the ways in which a planner tells them apart.
    fn row(number: u8, way: u64) -> DeviceRow {
        let mut entropy = Entropy::from_seed([number; 32]);
        let present = |version: &str, healthy| PresentRelease {
            version: version.parse().unwrap(),
            manifest: ArtifactDigest::of(version.as_bytes()),
            configuration: None,
            healthy,
        };
        let releases = match way {
            0 => Vec::new(),
            1 | 2 => vec![(coffee(), present("2.0.0", way == 1))],
            _ => vec![(coffee(), present("1.0.0", true))],
        };
        DeviceRow {
            local: LocalId::random(&mut entropy),
            device: DeviceId::random(&mut entropy),
            name: format!("otter-{number}").parse().unwrap(),
            site: String::new(),
            labels: BTreeMap::new(),
            facts: BTreeMap::new(),
            platform: (way != 3).then(|| "linux/amd64".parse().unwrap()),
            free_bytes: None,
            releases: releases.into_iter().collect(),
            barred: (way == 4).then(|| "its key is revoked".to_owned()),
            refused: (way == 5).then(|| (Blocked::Pinned, "pinned".to_owned())),
            holds: if way == 6 { vec![(None, "held".to_owned())] } else { Vec::new() },
            conflicts: if way == 7 { BTreeSet::from([coffee()]) } else { BTreeSet::new() },
            rollouts: (way >= 8).then(|| (coffee(), at_work(&mut entropy, way))).into_iter().collect(),
            offline_since: None,
            revision: Revision::default(),
        }
    }

    #[test]
    fn the_product_refuses_a_plan_where_the_naive_planner_sees_a_difference() {
        let release = PlannedRelease {
            workload: coffee(),
            version: "2.0.0".parse().unwrap(),
            manifest: ArtifactDigest::of(b"2.0.0"),
            artifacts: BTreeMap::from([("linux/amd64".parse().unwrap(), (ArtifactDigest::of(b"program"), 7))]),
            configuration: None,
        };
        let mut entropy = Entropy::from_seed([9; 32]);
        let (mut fresh, mut stale) = (0, 0);
        for _ in 0..400 {
            let ways: Vec<u64> = (0..3).map(|_| entropy.below(10)).collect();
            let rows = |ways: &[u64]| -> Vec<_> { (0..).zip(ways).map(|(number, way)| row(number, *way)).collect() };
            let id = PlanId::random(&mut entropy);
            let before = rows(&ways[..]);
            let planned = plan(id, release.clone(), Targets::All, 1, Strategy::default(), &before).unwrap();
            // One of them changes, one joins, or one leaves.
            let mut later = ways.clone();
            match entropy.below(3) {
                0 => later[0] = entropy.below(10),
                1 => later.push(entropy.below(10)),
                _ => later.truncate(2),
            }
            let (is_fresh, today) =
                (check_fence(&planned, &rows(&later)).is_ok(), differences(&planned, &rows(&later)));
            assert_eq!(is_fresh, today.is_empty(), "{ways:?} {later:?}: {today:?}");
            (fresh, stale) = (fresh + u32::from(is_fresh), stale + u32::from(!is_fresh));
        }
        assert!(fresh > 50 && stale > 50, "{fresh} {stale}");
    }
}
