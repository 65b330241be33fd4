//! `trust`: whose word counts in the fleet.
//!
//! A root record is drafted and signed here: the root's secret key is read from its file and never sent anywhere.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use fleetd_proto::fleetd::trust::v1::{
    AddRootRecordRequest, GetTrustRequest, GetTrustResponse, RevocationKind, RevokeKeyRequest, Trust as TrustMessage,
};
use fleetd_sync_core::id::{FleetId, KeyId};
use fleetd_sync_core::key::{PublicKey, SecretKey};
use fleetd_sync_core::name::{LabelValue, WorkloadName};
use fleetd_sync_core::trust::{Change, Rank, Role, RootChain, RootRecord, Sites};

use super::{Session, login, wording};
use crate::client::json::json as message_json;
use crate::client::request_id;
use crate::confirm::Confirm;
use crate::error::CommandError;
use crate::exit::Exit;
use crate::key_file;
use crate::output::{Moment, table};

/// Whose word counts in the fleet.
#[derive(Debug, Subcommand)]
pub enum Trust {
    /// Show the root's keys, what it delegated, and what was revoked
    #[command(after_help = "\
Examples:
  fleetd trust show
  fleetd trust show --json | jq -r '.delegations[] | select(.role == \"DELEGATION_ROLE_RELEASE\").keyId'")]
    Show,
    /// Give a key a role, by a root record that is signed here
    Delegate(Delegate),
    /// Revoke a key; it cannot be undone
    Revoke(Revoke),
}

/// The roles that a root gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleName {
    /// Sign releases of the named workloads
    Release,
    /// Write desired state
    Authority,
    /// Issue certificates
    Ca,
    /// Sign bundles
    Bundle,
    /// Sign beacons of the time
    Time,
    /// Sign that devices move to another fleet's servers
    Drain,
}

/// Give a key a role, by a root record that is signed here.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd trust delegate ci.pub --role release --workload coffee --root root.key
  fleetd trust delegate ci.pub --role release --workload coffee --workload grinder --root a.key --root b.key
  fleetd trust delegate site.pub --role authority --site rig-7 --rank 50 --root root.key")]
pub struct Delegate {
    /// The public key's file
    #[arg(value_name = "PUBLIC_KEY")]
    pub key: PathBuf,
    /// What it may do
    #[arg(long, value_enum)]
    pub role: RoleName,
    /// A workload whose releases it may sign, for the role release (repeat for more)
    #[arg(long = "workload", value_name = "NAME", required_if_eq("role", "release"))]
    pub workloads: Vec<WorkloadName>,
    /// A site that it may write for, for the role authority (repeat for more; all when left out)
    #[arg(long = "site", value_name = "SITE")]
    pub sites: Vec<LabelValue>,
    /// How much its word weighs, for the role authority
    #[arg(long, default_value_t = Rank::SITE.0)]
    pub rank: u8,
    /// A secret key of the root, as many as must sign (`serve` printed where the first one lies)
    #[arg(long = "root", value_name = "PATH", required = true)]
    pub roots: Vec<PathBuf>,
}

/// How a key came to count no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// It signs nothing new; what it signed may still be restored
    Retired,
    /// Somebody else may hold it: nothing that it signed is installed or restored
    Compromised,
}

/// Revoke a key; it cannot be undone.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd trust revoke key_7n9q2s4v6x8z0b3d5f7h9k1m3m --kind retired --reason 'new build machine'
  fleetd trust revoke key_7n9q2s4v6x8z0b3d5f7h9k1m3m --kind compromised --yes")]
pub struct Revoke {
    /// The key (`key_…`)
    pub key: KeyId,
    /// How it came to that
    #[arg(long, value_enum)]
    pub kind: Kind,
    /// Why, for those who look later
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reason: String,
    /// The answer beforehand.
    #[command(flatten)]
    pub confirm: Confirm,
}

impl Trust {
    /// Runs the command.
    ///
    /// # Errors
    /// When a key cannot be read, or the server cannot be reached or refuses.
    pub async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        match self {
            Self::Show => {
                let client = session.client().await?;
                let answer = client.get_trust(GetTrustRequest {}).await?;
                chain(client.fleet(), &answer)?;
                show(session, answer.trust)
            }
            Self::Delegate(command) => command.run(session).await,
            Self::Revoke(command) => command.run(session).await,
        }
    }
}

fn show(session: &Session<'_>, trust: Option<TrustMessage>) -> Result<(), CommandError> {
    let trust = login::need(trust, "trust")?;
    session.output.answer(&message_json(&trust), || render(&trust, Moment::now()))
}

/// Takes the root chain from an answer; it must be the fleet's.
///
/// # Errors
/// When the records are not those of the fleet.
pub fn chain(fleet: FleetId, answer: &GetTrustResponse) -> Result<RootChain, CommandError> {
    RootChain::load(fleet, &answer.root_records).map_err(|error| {
        CommandError::new("trust.chain", format!("the server's root records are not those of fleet {fleet}"))
            .caused_by(&error)
            .next_command("fleetd doctor")
    })
}

impl Delegate {
    async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let key = key_file::read_public(&self.key)?;
        let roots = self.roots.iter().map(|path| key_file::read_secret(path)).collect::<Result<Vec<_>, _>>()?;
        let client = session.client().await?;
        let chain = chain(client.fleet(), &client.get_trust(GetTrustRequest {}).await?)?;
        let record = sign_next(&chain, key, self.role(&chain, &key), &roots)?;
        let request = AddRootRecordRequest { request_id: request_id(), root_record: record.encode() };
        let answer = client.add_root_record(request).await?;
        let version = record.body().version;
        session.output.note(&format!("{} is {} from root record {version} on", key.id(), self.role(&chain, &key)));
        show(session, answer.trust)
    }

    /// The role that is asked for. Workloads are added to those that the key has.
    fn role(&self, chain: &RootChain, key: &PublicKey) -> Role {
        match self.role {
            RoleName::Release => {
                let mut workloads: BTreeSet<WorkloadName> = self.workloads.iter().cloned().collect();
                let present = chain.newest().body().delegations.get(&key.id()).map(|delegation| &delegation.role);
                if let Some(Role::Release { workloads: present }) = present {
                    workloads.extend(present.iter().cloned());
                }
                Role::Release { workloads }
            }
            RoleName::Authority => {
                let sites =
                    if self.sites.is_empty() { Sites::All } else { Sites::Only(self.sites.iter().cloned().collect()) };
                Role::Authority { rank: Rank(self.rank), sites }
            }
            RoleName::Ca => Role::CertificateAuthority,
            RoleName::Bundle => Role::Bundle,
            RoleName::Time => Role::Time,
            RoleName::Drain => Role::Drain,
        }
    }
}

/// Drafts the root record that gives `role` to `key`, and signs it with `roots`.
///
/// # Errors
/// When no root may say so, or too few of the root's keys sign.
pub fn sign_next(
    chain: &RootChain,
    key: PublicKey,
    role: Role,
    roots: &[SecretKey],
) -> Result<RootRecord, CommandError> {
    let draft = chain.draft_next([Change::Delegate { key, role }]).map_err(|error| {
        CommandError::new("trust.draft", "the root cannot say that").caused_by(&error).next_command("fleetd trust show")
    })?;
    let body = chain.newest().body();
    for root in roots {
        if !body.keys.contains(&root.public()) {
            let keys: Vec<String> = body.keys.iter().map(|key| key.id().to_string()).collect();
            return Err(CommandError::new("trust.not_root", format!("{} is no key of this fleet's root", root.id()))
                .cause(format!("the root of {} has {}", chain.fleet(), keys.join(", ")))
                .next_command("name the root key's file that `fleetd serve` printed with --root"));
        }
    }
    let signers: BTreeSet<KeyId> = roots.iter().map(SecretKey::id).collect();
    if signers.len() < usize::from(body.threshold) {
        return Err(CommandError::new(
            "trust.threshold",
            format!("{} of the root's keys must sign, and {} did", body.threshold, signers.len()),
        )
        .next_command("repeat --root for each of them")
        .exit(Exit::Usage));
    }
    Ok(roots.iter().fold(draft, |record, root| record.sign(root)))
}

impl Revoke {
    async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let what = match self.kind {
            Kind::Retired => format!("retire {}: it signs nothing new, for ever", self.key),
            Kind::Compromised => {
                format!("declare {} compromised: nothing that it signed is installed or restored, for ever", self.key)
            }
        };
        self.confirm.ask(session.output, &what)?;
        let kind = match self.kind {
            Kind::Retired => RevocationKind::Retired,
            Kind::Compromised => RevocationKind::Compromised,
        };
        let request = RevokeKeyRequest {
            request_id: request_id(),
            key_id: self.key.to_string(),
            kind: kind.into(),
            reason: self.reason,
        };
        let answer = session.client().await?.revoke_key(request).await?;
        show(session, answer.trust)
    }
}

/// Draws whose word counts.
#[must_use]
pub fn render(trust: &TrustMessage, now: Moment) -> String {
    let mut text = format!("fleet {}, root record {}\n", trust.fleet_id, trust.version);
    text.push_str(&format!("root: {} of {}\n\n", trust.threshold, trust.root_key_ids.join(", ")));
    let rows = trust.delegations.iter().map(|delegation| {
        let scope: Vec<&str> = delegation.workloads.iter().chain(&delegation.sites).map(String::as_str).collect();
        let rank = if delegation.rank == 0 { String::new() } else { delegation.rank.to_string() };
        [
            delegation.key_id.clone(),
            wording::delegation_role(delegation.role),
            wording::or_dash(&scope.join(", ")),
            wording::or_dash(&rank),
        ]
    });
    text.push_str(&table(["KEY", "ROLE", "FOR", "RANK"], rows));
    if !trust.revocations.is_empty() {
        let rows = trust.revocations.iter().map(|revocation| {
            let when = wording::moment(revocation.revoked_at.as_ref()).relative(now);
            let kind = wording::revocation_kind(revocation.kind);
            [revocation.key_id.clone(), kind, when, wording::or_dash(&revocation.reason)]
        });
        text.push('\n');
        text.push_str(&table(["REVOKED", "KIND", "WHEN", "REASON"], rows));
    }
    for alarm in &trust.alarms {
        text.push_str(&format!("ALARM: {alarm}\n"));
    }
    text
}
