//! Whether a fleet has come to where it should be: not only what devices say of themselves, but what they are.
//!
//! A device has converged when it is linked, holds the same lanes as the server, has left its lines there, runs what
//! [`resolve`] selects from them, and the server says of it what it says of itself. Devices that are broken for good are nobody's business.
//!
//! [`resolve`]: fleetd_sync_core::resolve

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use fleetd_actors::device::record::Membership;
use fleetd_actors::report::{self, FaultKind as ReportedFault, Phase, WorkloadReport};
use fleetd_agent::record as agent_record;
use fleetd_server::record as server_record;
use fleetd_sync_core::commit::Space;
use fleetd_sync_core::configuration::pair_digest;
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::envelope::DocumentId;
use fleetd_sync_core::id::{ArtifactDigest, LocalId};
use fleetd_sync_core::key::PublicKey;
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::replica::{Replica, document_prefix};
use fleetd_sync_core::resolve::{Assignment, Desired, Run};
use fleetd_sync_core::trust::{RootChain, Roster};
use fleetd_sync_store::state_store::{KeyRange, StateStore};

use super::{Fleet, SimulatedDevice};

/// Lines of a device that may be on their way while its program goes on writing: they are there in a moment.
const LINES_ON_THEIR_WAY_MAX: u64 = 8;

impl Fleet {
    /// The devices that are not where they should be, each with the reason.
    #[must_use]
    pub fn laggards(&self) -> Vec<(String, String)> {
        self.core().filter_map(|number| self.lag(number)).collect()
    }

    /// The first device that is not where it should be. Cheaper than all of them while many are not.
    #[must_use]
    pub fn first_laggard(&self) -> Option<(String, String)> {
        let shallow = |number: usize| Some((self.devices.get(number)?.name.clone(), self.is_away(number)?));
        self.core().find_map(shallow).or_else(|| self.core().find_map(|number| self.lag(number)))
    }

    /// The devices that have to converge: those that nothing broke for good.
    pub fn core(&self) -> impl Iterator<Item = usize> + use<'_> {
        (0..self.devices.len()).filter(|number| !self.broken.contains_key(number))
    }

    fn lag(&self, number: usize) -> Option<(String, String)> {
        let device = self.devices.get(number)?;
        let why = self.is_away(number).or_else(|| self.differs(number, device))?;
        Some((device.name.clone(), why))
    }

    /// Why a device is not there at all, or not at rest.
    fn is_away(&self, number: usize) -> Option<String> {
        if !self.is_linked(number) {
            return Some("it is not linked to the server".to_owned());
        }
        let record = self.record(number)?;
        if record.membership != Membership::Enrolled {
            return Some(format!("the server counts it as {:?}", record.membership));
        }
        record.reports.iter().find_map(|(workload, report)| {
            let phase = report.phase?;
            let waits = matches!(report.error.as_ref().map(|error| &error.kind), Some(fault) if is_patient(fault));
            (!phase.is_final() && !waits).then(|| format!("its {workload} is in phase {phase:?}"))
        })
    }

    /// What is not as it should be on a device that is there and at rest.
    fn differs(&self, number: usize, device: &SimulatedDevice) -> Option<String> {
        let (Some(node), Some(store)) = (self.server.node(), device.whole_store()) else {
            return Some("it is down".to_owned());
        };
        let chain = &node.shared.trust().chain;
        let key = device.key().public();
        let own = replica_of(store.as_ref(), chain, key);
        let servers = replica_of(node.shared.seams.store.as_ref(), chain, key);
        let (Some(own), Some(servers)) = (own, servers) else { return Some("its lanes cannot be read".to_owned()) };
        if own.digest(&[]) != servers.digest(&[]) {
            return Some(format!("it holds {:?} where the server holds {:?}", own.heads(), servers.heads()));
        }
        let state = own.lane_state(DocumentId::Actual(device.local()), device.local().into());
        let mut said = state.map(report::read_workloads).unwrap_or_default();
        let mut known = self.record(number).map(|record| record.reports).unwrap_or_default();
        let resolved = own.resolve(device.local());
        self.operator.workloads().iter().find_map(|workload| {
            let (said, known) = (said.remove(workload), known.remove(workload));
            if said != known {
                return Some(format!("it says {said:?} of {workload}, and the server says {known:?}"));
            }
            let desired = resolved.workloads.get(workload);
            let otherwise = || self.runs_otherwise((device, workload), desired?, said.as_ref());
            keeps_lines(store.as_ref(), node.shared.seams.store.as_ref(), (device.local(), workload)).or_else(otherwise)
        })
    }

    /// What a device runs in place of what its documents select.
    fn runs_otherwise(
        &self,
        (device, workload): (&SimulatedDevice, &WorkloadName),
        desired: &Desired,
        said: Option<&WorkloadReport>,
    ) -> Option<String> {
        let running = device.runner.running(workload);
        if desired.run == Some(Run::Stopped) {
            return running.map(|artifact| format!("it runs {artifact}, and an operator stopped it"));
        }
        let Some(Assignment::Install { version, manifest, configuration, attempt, .. }) = &desired.assignment else {
            return None;
        };
        if desired.held || desired.conflict {
            return None;
        }
        let Some(said) = said else { return Some(format!("it should have {version}, and says nothing of it")) };
        let pair = pair_digest(*manifest, configuration.as_ref().map(|configuration| configuration.digest()));
        if said.digest != Some(pair) || u64::from(said.attempt) != *attempt {
            return Some(format!("it should have {version} (attempt {attempt}), and speaks of another: {said:?}"));
        }
        let selected = self.artifact(*manifest, device);
        match said.phase {
            Some(Phase::Healthy) if running.is_none() => Some("what it says is healthy does not run".to_owned()),
            Some(Phase::Healthy) if selected.is_some() && running != selected => {
                Some(format!("it runs {running:?}, and {version} is {selected:?}"))
            }
            // What runs may be the same program, with the configuration of before.
            Some(Phase::Restored | Phase::Failed)
                if running.is_some()
                    && running == selected
                    && said.configuration == configuration.as_ref().map(|configuration| configuration.id()) =>
            {
                Some(format!("it runs {version}, which it says has failed"))
            }
            Some(Phase::Restored) if running.is_none() => Some("it runs nothing, and says it was restored".to_owned()),
            _ => None,
        }
    }

    /// The artifact of a release for a device, of those that operators pushed.
    fn artifact(&self, manifest: ArtifactDigest, device: &SimulatedDevice) -> Option<ArtifactDigest> {
        let known = self.operator.releases.iter().find(|known| known.signed.digest() == manifest)?;
        known.signed.claims().artifact_for(&device.platform).map(|(_, artifact)| artifact.digest)
    }
}

/// Why a device that is linked still has lines which the server has not.
fn keeps_lines(
    own: &dyn StateStore,
    servers: &dyn StateStore,
    (local, workload): (LocalId, &WorkloadName),
) -> Option<String> {
    let found = own.get(Space::LogPosition, workload.as_str().as_bytes()).ok().flatten()?;
    let Ok((spool, _)) = agent_record::decode_spool(workload, &found.value) else {
        return Some(format!("what it remembers of the lines of {workload} cannot be read"));
    };
    let stored = server_record::log::positions(servers, local).unwrap_or_default();
    spool.streams.iter().find_map(|position| {
        let stored = stored.iter().find(|known| known.stream == position.stream).map_or(0, |known| known.sequence);
        // What the server had and lost again stands as a gap there with the next line.
        let through = stored.max(position.acked);
        let waits = position.last.saturating_sub(through);
        (waits > LINES_ON_THEIR_WAY_MAX).then(|| format!("{waits} of its lines are not at the server"))
    })
}

/// Says whether a device rests where it is until somebody decides.
fn is_patient(fault: &ReportedFault) -> bool {
    matches!(fault, ReportedFault::Held | ReportedFault::Conflict)
}

/// A device's documents as a store has them.
fn replica_of(store: &dyn StateStore, chain: &RootChain, key: PublicKey) -> Option<Replica> {
    let local: LocalId = key.id().into();
    // Nothing is written with it.
    let mut replica = Replica::new(chain.fleet(), None, &mut Entropy::from_seed([0; 32]));
    for document in [DocumentId::Trust, DocumentId::Desired(local), DocumentId::Actual(local)] {
        replica.hold(document);
        let range = KeyRange::prefix(&document_prefix(document));
        let visited = store.visit(Space::Envelope, range, &mut |_, found| {
            // A lane's memory lies beside its envelopes, and is loaded as they are.
            let _ = replica.load(&found.value);
            ControlFlow::Continue(())
        });
        visited.ok()?;
    }
    let roster = Roster::of(chain, &replica);
    drop(replica.set_writers(roster.writers(BTreeMap::from([(key.id().into(), key)]), BTreeMap::new())));
    Some(replica)
}
