//! What a server's store says: whether each release has its bytes, and when it was last saved elsewhere.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use fleetd_sync_core::commit::Space;
use fleetd_sync_core::counted::Counted;
use fleetd_sync_core::finding::Finding;
use fleetd_sync_core::id::ArtifactDigest;
use fleetd_sync_core::time::Now;
use fleetd_sync_store::state_store::{KeyRange, ReadError, StateStore};
use fleetd_sync_transport::examine::date;

use crate::artifact_store::{ArtifactStore, Held};
use crate::backup::taken_at;
use crate::record;

/// Time after which a backup is called old: what it does not have is a week of a fleet's life.
const BACKUP_OLD_AFTER: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Releases that a finding names.
const NAMED_MAX: usize = 3;

/// Looks at what is stored. Without an artifact store there are no artifacts at all.
pub(super) fn examine(store: &dyn StateStore, artifacts: Option<&dyn ArtifactStore>, now: Now) -> Vec<Finding> {
    vec![of_artifacts(store, artifacts), of_backup(store, now)]
}

fn unread(check: &'static str, error: &ReadError) -> Finding {
    Finding::fail(check, format!("the store cannot be read: {error}"), "fleetd restore BACKUP --data DIR")
}

fn of_artifacts(store: &dyn StateStore, artifacts: Option<&dyn ArtifactStore>) -> Finding {
    let check = "artifacts";
    // A release by each artifact: what several have in common is looked for once.
    let mut wanted = BTreeMap::<ArtifactDigest, String>::new();
    let visited = store.visit(Space::Release, KeyRange::all(), &mut |_, found| {
        if let Ok(release) = record::release::decode(&found.value) {
            let manifest = release.signed.claims();
            for artifact in manifest.artifacts.values() {
                wanted.entry(artifact.digest).or_insert_with(|| format!("{} {}", manifest.workload, manifest.version));
            }
        }
        ControlFlow::Continue(())
    });
    let visited = visited.and_then(|()| {
        store.visit(Space::Configuration, KeyRange::all(), &mut |_, found| {
            if let Ok(found) = record::configuration::decode(&found.value) {
                let configuration = found.configuration;
                for file in configuration.files().values() {
                    let called = || format!("{} {}", configuration.workload(), configuration.name());
                    wanted.entry(file.digest).or_insert_with(called);
                }
            }
            ControlFlow::Continue(())
        })
    });
    if let Err(error) = visited {
        return unread(check, &error);
    }
    let mut missing = Vec::new();
    for (digest, release) in &wanted {
        match artifacts.map_or(Ok(Held::Nothing), |artifacts| artifacts.held(*digest)) {
            Ok(Held::Whole { .. }) => {}
            Ok(Held::Part { .. } | Held::Nothing) => missing.push(release.as_str()),
            Err(error) => return Finding::fail(check, error.to_string(), "look at the disk: df -h; dmesg | tail"),
        }
    }
    if missing.is_empty() {
        return Finding::ok(check, format!("{}, each whole", Counted(wanted.len(), "artifact")));
    }
    missing.sort_unstable();
    missing.dedup();
    let named = missing.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    let more =
        if missing.len() > NAMED_MAX { format!(" and {} more", missing.len() - NAMED_MAX) } else { String::new() };
    let found = format!("the bytes of {named}{more} are not here: no device can fetch them");
    Finding::fail(
        check,
        found,
        "push the same release again: fleetd release push …; or copy them from a backup of artifacts/",
    )
}

fn of_backup(store: &dyn StateStore, now: Now) -> Finding {
    let (check, remedy) = ("backup", "fleetd backup --out FILE");
    let at = match taken_at(store) {
        Ok(Some(at)) => at,
        Ok(None) => return Finding::warn(check, "none was taken since this store was made", remedy),
        Err(error) => return unread(check, &error),
    };
    let says = format!("the last one was taken at {}", date(at));
    if now.wall - at > BACKUP_OLD_AFTER {
        let found = format!("{says}, more than {} days ago", BACKUP_OLD_AFTER.as_secs() / 86_400);
        return Finding::warn(check, found, remedy);
    }
    Finding::ok(check, says)
}
