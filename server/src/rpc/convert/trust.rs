//! Whose word counts.

use fleetd_actors::authority::Trust;
use fleetd_proto::fleetd::trust::v1::{self as trust, DelegationRole, RevocationKind};
use fleetd_sync_core::id::{KeyId, LocalId};
use fleetd_sync_core::trust::{Delegation, Revocation, Role, Sites};

/// Trust as the API shows it; `is_device` says which keys are devices'.
pub(crate) fn trust(now: &Trust, is_device: impl Fn(LocalId) -> bool) -> trust::Trust {
    let body = now.chain.newest().body();
    let revocations = now.roster.revoked().map(|(key, revocation)| {
        let local = LocalId::from(key);
        trust::Revocation {
            key_id: if is_device(local) { local.to_string() } else { key.to_string() },
            kind: kind(revocation).into(),
        }
    });
    trust::Trust {
        fleet_id: now.chain.fleet().to_string(),
        version: body.version,
        root_key_ids: body.keys.iter().map(|key| key.id().to_string()).collect(),
        threshold: u32::from(body.threshold),
        delegations: body.delegations.iter().map(|(key, given)| delegation(*key, given)).collect(),
        revocations: revocations.collect(),
        alarms: Vec::new(),
    }
}

fn delegation(key: KeyId, given: &Delegation) -> trust::Delegation {
    let mut shown = trust::Delegation {
        key_id: key.to_string(),
        role: role(&given.role).into(),
        generation: given.generation,
        public_key: given.key.as_bytes().to_vec(),
        ..trust::Delegation::default()
    };
    match &given.role {
        Role::Authority { rank, sites } => {
            shown.rank = u32::from(rank.0);
            if let Sites::Only(sites) = sites {
                shown.sites = sites.iter().map(ToString::to_string).collect();
            }
        }
        Role::Release { workloads } => shown.workloads = workloads.iter().map(ToString::to_string).collect(),
        Role::CertificateAuthority | Role::Bundle | Role::Time | Role::Drain | Role::Unknown { .. } => {}
    }
    shown
}

const fn role(role: &Role) -> DelegationRole {
    match role {
        Role::CertificateAuthority => DelegationRole::Ca,
        Role::Authority { .. } => DelegationRole::Authority,
        Role::Release { .. } => DelegationRole::Release,
        Role::Bundle => DelegationRole::Bundle,
        Role::Time => DelegationRole::Time,
        Role::Drain => DelegationRole::Drain,
        Role::Unknown { .. } => DelegationRole::Unspecified,
    }
}

const fn kind(revocation: Revocation) -> RevocationKind {
    match revocation {
        Revocation::Retired => RevocationKind::Retired,
        Revocation::Compromised | Revocation::Stopped => RevocationKind::Compromised,
    }
}
