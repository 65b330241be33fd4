//! Roles that the root gives to keys, and the words by which they are taken away.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::codec::{ReadError, Reader, Writer};
use crate::key::{ALGORITHM_ED25519, PublicKey};
use crate::limit;
use crate::name::{LabelValue, ParseNameError, WorkloadName};

/// How much an authority's word weighs beside another's: the higher wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank(pub u8);

impl Rank {
    /// The rank of the authority that a fleet starts with.
    pub const CENTRAL: Self = Self(100);
    /// The rank of a site's authority.
    pub const SITE: Self = Self(50);
}

/// The sites for whose devices an authority may write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sites {
    /// Every device of the fleet.
    All,
    /// The devices of the named sites.
    Only(BTreeSet<LabelValue>),
}

/// What a key may do, and how far that reaches. A key has one role only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Issues certificates to devices and servers.
    CertificateAuthority,
    /// Writes desired state and revocations.
    Authority {
        /// How much its word weighs.
        rank: Rank,
        /// For whose devices.
        sites: Sites,
    },
    /// Signs releases.
    Release {
        /// Of which workloads: the agent's own is one like any other, and must be named.
        workloads: BTreeSet<WorkloadName>,
    },
    /// Signs bundles.
    Bundle,
    /// Signs time beacons.
    Time,
    /// Signs that devices move to another fleet's servers.
    Drain,
    /// A role that this version does not know: kept, so that the record's bytes stay the signed ones.
    Unknown {
        /// Its number.
        code: u8,
        /// How far it reaches, as it was written.
        scope: Vec<u8>,
    },
}

impl Role {
    /// The word for the role, as the command line takes it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::CertificateAuthority => "ca",
            Self::Authority { .. } => "authority",
            Self::Release { .. } => "release",
            Self::Bundle => "bundle",
            Self::Time => "time",
            Self::Drain => "drain",
            Self::Unknown { .. } => "unknown",
        }
    }

    const fn code(&self) -> u8 {
        match self {
            Self::CertificateAuthority => 1,
            Self::Authority { .. } => 2,
            Self::Release { .. } => 3,
            Self::Bundle => 4,
            Self::Time => 5,
            Self::Drain => 6,
            Self::Unknown { code, .. } => *code,
        }
    }

    fn scope(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        match self {
            Self::CertificateAuthority | Self::Bundle | Self::Time | Self::Drain => {}
            Self::Authority { rank, sites } => {
                writer.u8(rank.0);
                match sites {
                    Sites::All => writer.u8(0),
                    Sites::Only(sites) => {
                        writer.u8(1).count(sites.len());
                        sites.iter().fold(&mut writer, |writer, site| writer.text(site.as_str()))
                    }
                };
            }
            Self::Release { workloads } => {
                writer.count(workloads.len());
                for workload in workloads {
                    writer.text(workload.as_str());
                }
            }
            Self::Unknown { scope, .. } => return scope.clone(),
        }
        writer.finish()
    }

    fn read(code: u8, scope: &[u8]) -> Result<Self, ReadError> {
        let mut reader = Reader::new(scope);
        let role = match code {
            1 => Self::CertificateAuthority,
            2 => {
                let rank = Rank(reader.u8("rank")?);
                let sites = match reader.u8("sites")? {
                    0 => Sites::All,
                    1 => Sites::Only(read_names(&mut reader, "site")?),
                    other => return Err(ReadError::Value { what: "sites", value: u64::from(other) }),
                };
                Self::Authority { rank, sites }
            }
            3 => Self::Release { workloads: read_names(&mut reader, "workload")? },
            4 => Self::Bundle,
            5 => Self::Time,
            6 => Self::Drain,
            code => return Ok(Self::Unknown { code, scope: scope.to_vec() }),
        };
        reader.finish()?;
        Ok(role)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Authority { rank, sites: Sites::All } => write!(f, " rank {}", rank.0),
            Self::Authority { rank, sites: Sites::Only(sites) } => {
                write!(f, " rank {} for {}", rank.0, joined(sites))
            }
            Self::Release { workloads } => write!(f, " for {}", joined(workloads)),
            Self::Unknown { code, .. } => write!(f, " ({code})"),
            Self::CertificateAuthority | Self::Bundle | Self::Time | Self::Drain => Ok(()),
        }
    }
}

fn joined<T: fmt::Display>(names: &BTreeSet<T>) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Reads names in strictly ascending order, of which there is at least one: a scope of none is no role.
fn read_names<T>(reader: &mut Reader<'_>, what: &'static str) -> Result<BTreeSet<T>, ReadError>
where
    T: FromStr<Err = ParseNameError> + Ord,
{
    let count = reader.count(what, limit::SCOPE_NAMES_MAX)?;
    let mut names = BTreeSet::new();
    for _ in 0..count {
        let name: T = reader
            .text(what, limit::LABEL_CHARS_MAX)?
            .parse()
            .map_err(|_: ParseNameError| ReadError::Value { what, value: 0 })?;
        if names.last().is_some_and(|last| *last >= name) {
            return Err(ReadError::Value { what, value: 1 });
        }
        names.insert(name);
    }
    if names.is_empty() { Err(ReadError::Value { what, value: 0 }) } else { Ok(names) }
}

/// What the root gives to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation {
    /// The key.
    pub key: PublicKey,
    /// What it may do, and how far.
    pub role: Role,
    /// Rises with each change of what this key may do; a record that would lower it is refused.
    pub generation: u64,
}

impl Delegation {
    pub(super) fn write(&self, writer: &mut Writer) {
        write_key(writer, &self.key);
        writer.u8(self.role.code()).varint(self.generation).bytes(&self.role.scope());
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ReadError> {
        let key = read_key(reader)?;
        let code = reader.u8("role")?;
        let generation = reader.varint("generation")?;
        let role = Role::read(code, reader.bytes("scope", limit::ROOT_RECORD_BYTES_MAX)?)?;
        Ok(Self { key, role, generation })
    }
}

pub(super) fn write_key(writer: &mut Writer, key: &PublicKey) {
    writer.u8(ALGORITHM_ED25519).array(key.as_bytes());
}

pub(super) fn read_key(reader: &mut Reader<'_>) -> Result<PublicKey, ReadError> {
    let algorithm = reader.u8("key algorithm")?;
    if algorithm != ALGORITHM_ED25519 {
        return Err(ReadError::Value { what: "key algorithm", value: u64::from(algorithm) });
    }
    let bytes = reader.array::<32>("key")?;
    PublicKey::from_slice(&bytes).map_err(|_| ReadError::Value { what: "key", value: 0 })
}

/// Why a key lost its role, from the mildest to the strongest; of several the strongest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Revocation {
    /// It is no longer used: what it signed stays good.
    Retired,
    /// Somebody else may hold it: nothing it signed is installed or restored any more.
    Compromised,
    /// Compromised, and what runs under its word must stop.
    Stopped,
}

impl Revocation {
    /// The word that stands in the trust document.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retired => "retired",
            Self::Compromised => "compromised",
            Self::Stopped => "stopped",
        }
    }

    /// Reads the word. One that this version does not know means [`Revocation::Compromised`]: a revocation that is
    /// not understood must not be without effect.
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        match word {
            "retired" => Self::Retired,
            "stopped" => Self::Stopped,
            _ => Self::Compromised,
        }
    }

    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Retired => 1,
            Self::Compromised => 2,
            Self::Stopped => 3,
        }
    }

    pub(super) const fn read(code: u8) -> Result<Self, ReadError> {
        match code {
            1 => Ok(Self::Retired),
            2 => Ok(Self::Compromised),
            3 => Ok(Self::Stopped),
            other => Err(ReadError::Value { what: "revocation", value: other as u64 }),
        }
    }
}

impl fmt::Display for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
