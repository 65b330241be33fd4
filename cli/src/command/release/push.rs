//! `release push`: from files to a signed release that the server has.

use fleetd_proto::fleetd::release::v1::CreateReleaseRequest;
use fleetd_proto::fleetd::trust::v1::{GetTrustRequest, Trust};
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::trust::{Roster, Standing};

use super::{Push, artifact, manifest, view};
use crate::client::json::json as message_json;
use crate::client::{request_id, upload};
use crate::command::{Session, login, trust, wording};
use crate::error::CommandError;
use crate::key_file;
use crate::output::{Moment, bytes};

impl Push {
    pub(super) async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        WorkloadName::for_release(self.release.workload.as_str()).map_err(|error| {
            CommandError::new("release.reserved", "this name is not for releases").caused_by(&error)
        })?;
        let key = key_file::read_secret(&self.key)?;
        let artifacts = artifact::inspect(&self.artifacts)?;
        let client = session.client().await?;
        let signed = manifest::compose(&self, client.fleet(), &artifacts)
            .sign(&key)
            .map_err(|error| CommandError::new("release.invalid", "no release may say this").caused_by(&error))?;
        let answer = client.get_trust(GetTrustRequest {}).await?;
        let chain = trust::chain(client.fleet(), &answer)?;
        self.check_delegated(&Roster::new(&chain, []), &key)?;
        check_revoked(&answer.trust.unwrap_or_default(), &key)?;
        for artifact in &artifacts {
            upload::upload(&client, &artifact.path, artifact.measured, session.output).await?;
            session.output.note(&format!(
                "{} {} {} {}",
                artifact.platform,
                artifact.path.display(),
                bytes(artifact.measured.size_bytes),
                artifact.measured.digest
            ));
        }
        let signed_manifest = manifest::to_message(&signed)
            .map_err(|error| CommandError::new("release.invalid", "no release may say this").caused_by(&error))?;
        let request = CreateReleaseRequest { request_id: request_id(), signed_manifest: Some(signed_manifest) };
        let answer = client.create_release(request).await?;
        let release = login::need(answer.release, "release")?;
        session.output.answer(&message_json(&release), || {
            format!(
                "{}Next: fleetd rollout plan {}@{} --all\n",
                view::release(&release, Moment::now()),
                release.workload,
                release.version
            )
        })
    }

    /// Says before anything is sent that the key may not sign this; the server and every device check it again.
    fn check_delegated(&self, roster: &Roster, key: &SecretKey) -> Result<(), CommandError> {
        let workload = &self.release.workload;
        let public = self.key.with_extension("pub");
        match roster.release_key(key.id(), workload) {
            Some((_, Standing::Active)) => Ok(()),
            Some((_, standing)) => Err(revoked(key, &format!("{standing:?}").to_lowercase())),
            None => Err(CommandError::new(
                "release.key_undelegated",
                format!("{} may not sign releases of {workload}", key.id()),
            )
            .cause("the newest root record does not delegate that to it")
            .next_command(format!(
                "fleetd trust delegate '{}' --role release --workload {workload} --root ROOT.key",
                public.display()
            ))),
        }
    }
}

/// The trust document's word, which the root chain does not have. The server may lie about it, and judges itself.
fn check_revoked(trust: &Trust, key: &SecretKey) -> Result<(), CommandError> {
    let id = key.id().to_string();
    match trust.revocations.iter().find(|revocation| revocation.key_id == id) {
        Some(revocation) => Err(revoked(key, &wording::revocation_kind(revocation.kind))),
        None => Ok(()),
    }
}

fn revoked(key: &SecretKey, how: &str) -> CommandError {
    CommandError::new("release.key_revoked", format!("{} is revoked", key.id()))
        .cause(format!("it is {how} and signs no new release"))
        .next_command("fleetd key create NAME.key")
}
