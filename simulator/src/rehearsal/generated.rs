//! A fleet that nobody has: what a rehearsal of any size is measured with.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetd_actors::rollout::plan::{PlannedRelease, plan};
use fleetd_actors::rollout::strategy::Strategy;
use fleetd_actors::targeting::Targets;
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::{ArtifactDigest, DeviceId, LocalId, PlanId};

use super::{CopiedCheck, CopiedDevice, CopiedProbe, CopiedRelease, Rehearsal, RehearsalError};
use crate::fleet::coffee;
use crate::scenario::Scenario;

/// Sites over which the devices are spread.
const SITES: u32 = 20;
/// The size of the new release's artifact.
const ARTIFACT_BYTES: u64 = 3 << 20;
/// How long the rollout is looked at, at most.
const DURATION: Duration = Duration::from_secs(3600);

/// A rehearsal of one wave over a fleet of so many devices: all of them run one release, and get the next.
///
/// # Errors
/// [`RehearsalError`] when no such fleet can be planned.
pub fn one_wave(devices: u32) -> Result<Scenario, RehearsalError> {
    let release = PlannedRelease {
        workload: coffee(),
        version: parsed("2.0.0")?,
        manifest: ArtifactDigest::of(b"coffee 2.0.0"),
        artifacts: BTreeMap::from([(
            parsed("linux/amd64")?,
            (ArtifactDigest::of(b"an artifact of coffee 2.0.0"), ARTIFACT_BYTES),
        )]),
        configuration: None,
    };
    let probe = CopiedProbe {
        check: CopiedCheck::Notify,
        grace: Duration::from_secs(10),
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        successes_min: 1,
        failures_max: 3,
    };
    let mut rehearsal = Rehearsal::new(String::new(), 0, probe, (0..devices).map(device).collect());
    let rows = rehearsal.rows(&Targets::All, &release.workload)?;
    let id = PlanId::random(&mut Entropy::from_seed([1; 32]));
    rehearsal.plan = plan(id, release, Targets::All, 1, Strategy::default(), &rows)?.to_text();
    rehearsal.into_scenario(None, DURATION)
}

fn device(number: u32) -> CopiedDevice {
    let mut entropy = Entropy::from_seed([2; 32]).stream(&format!("device {number}"));
    CopiedDevice {
        name: format!("device-{number}"),
        id: DeviceId::random(&mut entropy).to_string(),
        local: LocalId::random(&mut entropy).to_string(),
        site: format!("site-{}", number % SITES),
        platform: Some("linux/amd64".to_owned()),
        present: Some(CopiedRelease {
            version: "1.0.0".to_owned(),
            manifest: Some(ArtifactDigest::of(b"coffee 1.0.0").to_string()),
            configuration: None,
            healthy: true,
        }),
        ..CopiedDevice::default()
    }
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, RehearsalError> {
    super::planning::parsed(&CopiedDevice::default(), text)
}
