//! `trust delegate`: what other keys may do.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use fleetd_sync_core::key::PublicKey;
use fleetd_sync_core::name::{LabelValue, WorkloadName};
use fleetd_sync_core::trust::{Change, Rank, Role, RootChain, Sites};

use super::draft::{Drafting, Drawn};
use crate::command::Session;
use crate::error::CommandError;
use crate::key_file;

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
  fleetd trust delegate site.pub --role authority --site rig-7 --rank 50 --root root.key
  fleetd trust delegate ci.pub --role release --workload coffee --draft next.record")]
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
    /// Who signs it, or where the draft goes.
    #[command(flatten)]
    pub drafting: Drafting,
}

impl Delegate {
    pub(super) async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let key = key_file::read_public(&self.key)?;
        let drawn = Drawn::on(session).await?;
        let role = self.role(&drawn.chain, &key);
        let what = format!("{} is {role}", key.id());
        let record = drawn.record([Change::Delegate { key, role }])?;
        self.drafting.finish(session, drawn, record, &what).await
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
