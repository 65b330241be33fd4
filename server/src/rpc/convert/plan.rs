//! Plans.

use fleetd_actors::rollout::plan::{self, Blocked};
use fleetd_actors::rollout::timing::ZoneOpening;
use fleetd_actors::targeting::UndecidedDevices;
use fleetd_proto::fleetd::rollout::v1::{self as rollout, BlockedReason, Verdict};
use fleetd_sync_core::id::ArtifactDigest;
use fleetd_sync_core::name::ConfigurationName;
use fleetd_sync_core::time::Wall;

use super::{count, strategy, targets};
use crate::record::rollout::SavedPlan;
use crate::record::timestamp;

/// A plan as the API shows it, with the digest of its document.
pub(crate) fn plan((plan, created_at, created_by): &SavedPlan, document: ArtifactDigest) -> rollout::Plan {
    let sites = plan.counts_by_site();
    rollout::Plan {
        id: plan.id.to_string(),
        workload: plan.release.workload.to_string(),
        version: plan.release.version.to_string(),
        manifest_digest: plan.release.manifest.to_string(),
        targets: Some(targets::show(&plan.targets)),
        created_at: Some(timestamp(*created_at)),
        created_by: created_by.clone(),
        fence: fence(plan),
        document_digest: document.to_string(),
        attempt: plan.attempt,
        configuration: text(plan.release.configuration.as_ref().map(|configuration| configuration.name())),
        rollback_of: plan.rollback.map(|rollback| rollback.of.to_string()).unwrap_or_default(),
        counts: Some(counts(&plan.counts())),
        traffic_bytes: plan.counts().traffic_bytes,
        sites: sites
            .into_iter()
            .map(|(site, of_site)| rollout::PlanSite {
                site: site.to_owned(),
                counts: Some(counts(&of_site)),
                traffic_bytes: of_site.traffic_bytes,
            })
            .collect(),
        strategy: Some(strategy::show(&plan.strategy)),
        waves: (1..)
            .zip(plan.counts_by_wave())
            .map(|(number, of_wave)| rollout::PlanWave {
                number,
                counts: Some(counts(&of_wave)),
                traffic_bytes: of_wave.traffic_bytes,
                ..opening_of(plan, number, *created_at)
            })
            .collect(),
        openings: openings(plan, None, *created_at).iter().map(opening).collect(),
        undecided: plan.undecided.iter().map(undecided).collect(),
    }
}

fn text(name: Option<&ConfigurationName>) -> String {
    name.map(ToString::to_string).unwrap_or_default()
}

/// When the devices of each zone may begin, as seen when the plan was made.
fn openings(plan: &plan::Plan, wave: Option<u32>, at: Wall) -> Vec<ZoneOpening> {
    plan.openings(wave, at).unwrap_or_default()
}

/// A wave, with nothing but when its first devices may begin.
fn opening_of(plan: &plan::Plan, number: u32, at: Wall) -> rollout::PlanWave {
    let first = openings(plan, Some(number.saturating_sub(1)), at).into_iter().next();
    rollout::PlanWave {
        opens_at: first.as_ref().map(|first| timestamp(first.opens)),
        opens_local: first.map(|first| first.shown).unwrap_or_default(),
        ..rollout::PlanWave::default()
    }
}

fn opening(opening: &ZoneOpening) -> rollout::PlanOpening {
    rollout::PlanOpening {
        zone: opening.zone.as_ref().map(ToString::to_string).unwrap_or_default(),
        devices: count(opening.devices),
        opens_at: Some(timestamp(opening.opens)),
        opens_local: opening.shown.clone(),
    }
}

fn undecided(undecided: &UndecidedDevices) -> rollout::UndecidedDevices {
    rollout::UndecidedDevices {
        reason: undecided.why.clone(),
        devices: count(undecided.devices),
        example: undecided.example.clone(),
    }
}

/// Names the revisions that a plan looked at, in one word.
fn fence(plan: &plan::Plan) -> String {
    let mut hasher = blake3::Hasher::new();
    for (local, revision) in plan.fence() {
        hasher.update(local.as_bytes()).update(&revision.0.to_be_bytes());
    }
    let mut word = [0; 16];
    hasher.finalize_xof().fill(&mut word);
    data_encoding::BASE32_NOPAD.encode(&word).to_ascii_lowercase()
}

fn counts(counts: &plan::PlanCounts) -> rollout::PlanCounts {
    rollout::PlanCounts {
        matched: count(counts.matched),
        update: count(counts.update),
        install: count(counts.install),
        unchanged: count(counts.unchanged),
        blocked: count(counts.blocked),
        offline: count(counts.offline),
    }
}

/// Says whether a plan's device is among those that are asked for.
pub(crate) const fn has_verdict(device: &plan::PlannedDevice, only: Verdict) -> bool {
    match only {
        Verdict::Unspecified => true,
        Verdict::Update => matches!(device.verdict, plan::Verdict::Update { .. }),
        Verdict::Install => matches!(device.verdict, plan::Verdict::Install),
        Verdict::Unchanged => matches!(device.verdict, plan::Verdict::Unchanged),
        Verdict::Blocked => matches!(device.verdict, plan::Verdict::Blocked { .. }),
    }
}

/// A plan's device as the API shows it.
pub(crate) fn device(device: &plan::PlannedDevice) -> rollout::PlannedDevice {
    let (verdict, blocked, reason) = match &device.verdict {
        plan::Verdict::Update { .. } => (Verdict::Update, BlockedReason::Unspecified, ""),
        plan::Verdict::Install => (Verdict::Install, BlockedReason::Unspecified, ""),
        plan::Verdict::Unchanged => (Verdict::Unchanged, BlockedReason::Unspecified, ""),
        plan::Verdict::Blocked { by, reason } => (Verdict::Blocked, blocked(*by), reason.as_str()),
    };
    let (from_version, from_configuration) = match &device.verdict {
        plan::Verdict::Update { from, configuration } => (from.to_string(), text(configuration.as_ref())),
        plan::Verdict::Install | plan::Verdict::Unchanged | plan::Verdict::Blocked { .. } => Default::default(),
    };
    rollout::PlannedDevice {
        device_id: device.device.to_string(),
        local_id: device.local.to_string(),
        name: device.name.to_string(),
        site: device.site.clone(),
        verdict: verdict.into(),
        blocked_reason: blocked.into(),
        reason: reason.to_owned(),
        from_version,
        from_configuration,
        artifact_digest: device.artifact.map(|(digest, _)| digest.to_string()).unwrap_or_default(),
        traffic_bytes: device.artifact.map_or(0, |(_, size_bytes)| size_bytes),
        offline_since: device.offline_since.map(timestamp),
        wave: device.place.map_or(0, |place| place.wave.saturating_add(1)),
        place: device.place.map_or(0, |place| place.order.saturating_add(1)),
        zone: device.zone.as_ref().map(ToString::to_string).unwrap_or_default(),
        supersedes: device.supersedes.map(|rollout| rollout.to_string()).unwrap_or_default(),
    }
}

const fn blocked(by: Blocked) -> BlockedReason {
    match by {
        Blocked::Held => BlockedReason::Held,
        Blocked::Platform => BlockedReason::Platform,
        Blocked::Storage => BlockedReason::Storage,
        Blocked::Membership => BlockedReason::Membership,
        Blocked::Conflict => BlockedReason::Conflict,
        Blocked::Busy => BlockedReason::Busy,
        Blocked::Denied => BlockedReason::Denied,
        Blocked::Unsigned => BlockedReason::Unsigned,
        Blocked::Pinned => BlockedReason::Pinned,
        Blocked::Site => BlockedReason::Site,
        Blocked::Room => BlockedReason::Room,
    }
}
