//! Watching a rollout: as it stands, then each change, to its end.

use std::collections::BTreeSet;
use std::sync::Arc;

use fleetd_proto::fleetd::rollout::v1::watch_rollout_response::Event;
use fleetd_proto::fleetd::rollout::v1::{self as api, SnapshotComplete, WatchRolloutResponse};
use fleetd_sync_core::commit::{Revision, Space};
use fleetd_sync_core::id::{LocalId, RolloutId};
use fleetd_sync_store::state_store::{Change, Changed};

use super::super::backend::Backend;
use super::super::call_error::{CallError, parsed};
use super::super::follower::{Follower, Messages, Outlet, StreamEnd, stream};
use super::super::page::Places;
use super::standing::Standing;

/// Opens a watch.
pub(super) fn watch(
    backend: &Arc<Backend>,
    asked: &api::WatchRolloutRequest,
) -> Result<Messages<WatchRolloutResponse>, CallError> {
    let rollout: RolloutId = parsed(&asked.rollout_id, "rollout_id")?;
    // It is followed first, so that nothing falls between what is read and what is followed.
    let follower = Follower::start(Arc::clone(&backend.shared().seams.store));
    let places = Places::of_changes(backend.store())?;
    let after = places.read(&asked.resume_token)?.map(Revision);
    let standing = Standing::load(backend, rollout)?;
    let watch = Watch { backend: Arc::clone(backend), standing, places, told: None };
    Ok(stream(|outlet| watch.run(after, follower, outlet)))
}

struct Watch {
    backend: Arc<Backend>,
    standing: Standing,
    places: Places,
    /// The rollout as the caller was told last.
    told: Option<api::Rollout>,
}

impl Watch {
    async fn run(
        mut self,
        after: Option<Revision>,
        mut follower: Follower,
        outlet: Outlet<WatchRolloutResponse>,
    ) -> Result<(), StreamEnd> {
        self.tell_rollout(String::new(), &outlet).await?;
        let is_new = |standing: &Standing, device: &LocalId| {
            // What a plan left as it is has no record of its own, and came with the first snapshot.
            after.is_none_or(|after| standing.revisions.get(device).is_some_and(|revision| *revision > after))
        };
        let devices: Vec<LocalId> = self.standing.progress.keys().copied().collect();
        for device in devices.iter().filter(|device| is_new(&self.standing, device)) {
            self.tell_device(*device, String::new(), &outlet).await?;
        }
        let event = Some(Event::SnapshotComplete(SnapshotComplete {}));
        outlet.send(WatchRolloutResponse { event, resume_token: self.places.write(self.places.newest()) }).await?;
        while self.standing.header.ended_at.is_none() {
            match outlet.next_changes(&mut follower).await? {
                Ok(changes) => self.tell_changes(&changes, &outlet).await?,
                Err(_) => self.tell_missed(&outlet).await?,
            }
        }
        Ok(())
    }

    async fn tell_changes(
        &mut self,
        changes: &[Change],
        outlet: &Outlet<WatchRolloutResponse>,
    ) -> Result<(), StreamEnd> {
        let rollout = self.standing.header.rollout;
        let (mut devices, mut last) = (BTreeSet::new(), None);
        for change in changes {
            let Changed::Record { space, key, .. } = &change.changed else { continue };
            let rest = key.strip_prefix(rollout.as_bytes());
            match (space, rest) {
                (Space::Rollout, Some([])) => last = Some(change.revision),
                (Space::Assignment, Some(device)) => {
                    devices.extend(LocalId::from_slice(device));
                    last = Some(change.revision);
                }
                _ => {}
            }
        }
        let Some(last) = last else { return Ok(()) };
        self.standing.read_header(&self.backend)?;
        for device in devices {
            if self.standing.read_device(&self.backend, device)? {
                self.tell_device(device, String::new(), outlet).await?;
            }
        }
        self.tell_rollout(self.places.write(last.0), outlet).await
    }

    /// Reads all of it again: changes were missed.
    async fn tell_missed(&mut self, outlet: &Outlet<WatchRolloutResponse>) -> Result<(), StreamEnd> {
        let now = Standing::load(&self.backend, self.standing.header.rollout)?;
        let before = std::mem::replace(&mut self.standing, now);
        let changed = self.standing.progress.iter().filter(|(device, now)| before.progress.get(*device) != Some(*now));
        let changed: Vec<LocalId> = changed.map(|(device, _)| *device).collect();
        for device in changed {
            self.tell_device(device, String::new(), outlet).await?;
        }
        self.tell_rollout(String::new(), outlet).await
    }

    async fn tell_device(
        &self,
        device: LocalId,
        resume_token: String,
        outlet: &Outlet<WatchRolloutResponse>,
    ) -> Result<(), StreamEnd> {
        if let Some(device) = self.standing.device(device) {
            outlet.send(WatchRolloutResponse { event: Some(Event::Device(device)), resume_token }).await?;
        }
        Ok(())
    }

    /// Tells of the rollout itself, if it differs from what was told.
    async fn tell_rollout(
        &mut self,
        resume_token: String,
        outlet: &Outlet<WatchRolloutResponse>,
    ) -> Result<(), StreamEnd> {
        let now = self.standing.rollout(self.backend.now());
        // What is said of the time that is left is no change.
        let is_same =
            |told: &api::Rollout| *told == api::Rollout { explanation: told.explanation.clone(), ..now.clone() };
        if !self.told.as_ref().is_some_and(is_same) {
            self.told = Some(now.clone());
            outlet.send(WatchRolloutResponse { event: Some(Event::Rollout(now)), resume_token }).await?;
        }
        Ok(())
    }
}
