//! Gives devices the parts of artifacts that they ask for.

use std::sync::Arc;

use fleetd_sync_core::artifact::group_count;
use fleetd_sync_core::id::{ArtifactDigest, ConnectionId};
use fleetd_sync_core::limit;
use fleetd_sync_core::session::message::{
    ArtifactGroups, ArtifactRefusal, ArtifactRefused, ArtifactTree, ArtifactWant, WantedGroups,
};
use fleetd_sync_core::session::{Class, Message};

use super::send;
use crate::artifact_store::ArtifactError;
use crate::node::Shared;

/// Group values in one frame: with their framing they stay below the limit of a frame.
const VALUES_PER_FRAME: u64 = 1024;

/// Sends what was asked for, away from the actor.
pub(super) fn serve(shared: &Arc<Shared>, connection: ConnectionId, want: ArtifactWant) {
    let serving = Arc::clone(shared);
    shared.seams.blocking.run(Box::new(move || {
        let digest = want.digest;
        if let Err(reason) = answer(&serving, connection, &want) {
            let refused = Message::ArtifactRefused(ArtifactRefused { digest, reason });
            send(serving.seams.link.as_ref(), connection, Class::Artifacts, &refused);
        }
    }));
}

fn answer(shared: &Shared, connection: ConnectionId, want: &ArtifactWant) -> Result<(), ArtifactRefusal> {
    let artifacts = shared.seams.artifacts.as_ref();
    let tree = artifacts.tree(want.digest).map_err(|error| refusal(want.digest, &error))?;
    let groups = group_count(tree.size_bytes());
    let wanted: Vec<u64> = match &want.groups {
        WantedGroups::Run { group_first, group_count } => {
            (*group_first..group_first.saturating_add((*group_count).min(limit::ARTIFACT_WINDOW_GROUPS))).collect()
        }
        WantedGroups::List(groups) => groups.clone(),
    };
    if wanted.iter().any(|group| *group >= groups) {
        return Err(ArtifactRefusal::Range);
    }
    let link = shared.seams.link.as_ref();
    if want.tree {
        let mut group_first = match &want.groups {
            WantedGroups::Run { group_first, .. } => *group_first,
            WantedGroups::List(groups) => groups.first().copied().unwrap_or(0),
        };
        while group_first < groups {
            let values = tree.run(group_first, VALUES_PER_FRAME).to_vec();
            let part = ArtifactTree { digest: want.digest, size_bytes: tree.size_bytes(), group_first, values };
            send(link, connection, Class::Artifacts, &Message::ArtifactTree(part));
            group_first += VALUES_PER_FRAME;
        }
    }
    let length = usize::try_from(limit::ARTIFACT_GROUP_BYTES).unwrap_or(usize::MAX);
    for group_first in wanted.into_iter().take(usize::try_from(limit::ARTIFACT_WINDOW_GROUPS).unwrap_or(0)) {
        let offset = group_first.saturating_mul(limit::ARTIFACT_GROUP_BYTES);
        let content = artifacts.read(want.digest, offset, length).map_err(|error| refusal(want.digest, &error))?;
        let part = ArtifactGroups { digest: want.digest, group_first, content };
        send(link, connection, Class::Artifacts, &Message::ArtifactGroups(part));
    }
    Ok(())
}

fn refusal(digest: ArtifactDigest, error: &ArtifactError) -> ArtifactRefusal {
    match error {
        ArtifactError::Absent { .. } => ArtifactRefusal::Absent,
        ArtifactError::Range { .. } => ArtifactRefusal::Range,
        ArtifactError::Offset { .. }
        | ArtifactError::TooLarge { .. }
        | ArtifactError::Digest { .. }
        | ArtifactError::Failed { .. } => {
            tracing::error!(%digest, %error, "an artifact cannot be read");
            ArtifactRefusal::Busy
        }
    }
}
