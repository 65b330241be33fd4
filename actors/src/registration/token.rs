//! Enrolment tokens as a server keeps them, devices that wait for approval, and what operators may ask for.

use std::collections::BTreeMap;

use fleetd_sync_core::enrolment::{AdmitError, TokenSecret, TokenState};
use fleetd_sync_core::id::{DeviceId, LocalId, TokenId};
use fleetd_sync_core::key::PublicKey;
use fleetd_sync_core::name::{DeviceName, LabelKey, LabelValue};
use fleetd_sync_core::session::message::Facts;
use fleetd_sync_core::time::Wall;

use crate::device::record::Membership;

/// An enrolment token. Its secret is kept nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// Its id, which is no secret.
    pub token: TokenId,
    /// What it is for, in the operator's words.
    pub note: String,
    /// The labels that devices get.
    pub labels: BTreeMap<LabelKey, LabelValue>,
    /// The site that devices get; empty for none.
    pub site: String,
    /// Whom it admits, and whom it has. Its uses are remembered one by one: see [`super::Record::TokenUsed`].
    pub state: TokenState,
    /// When it was made.
    pub created_at: Wall,
    /// Who made it.
    pub created_by: String,
}

/// What an operator wants a token to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenWish {
    /// What it is for.
    pub note: String,
    /// The labels that devices get.
    pub labels: BTreeMap<LabelKey, LabelValue>,
    /// The site that devices get; empty for none.
    pub site: String,
    /// How many devices may register with it.
    pub uses_max: u32,
    /// From when on it is refused.
    pub expires_at: Option<Wall>,
    /// Whether devices wait for approval; by default those of a token for several do.
    pub needs_approval: Option<bool>,
}

/// A device that showed a good token and waits for an operator's word.
#[derive(Clone, PartialEq, Eq)]
pub struct PendingDevice {
    /// The hash of its key: to be compared with what the device prints.
    pub local: LocalId,
    /// Its key.
    pub key: PublicKey,
    /// The token that it showed.
    pub token: TokenId,
    /// What it says about itself.
    pub facts: Facts,
    /// When it first asked.
    pub requested_at: Wall,
    /// What an operator said.
    pub decision: Decision,
    /// What it gets besides its token's, once it was let in.
    pub given: Given,
}

/// What an operator gives a device with the approval.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Its name; the server draws one without.
    pub name: Option<DeviceName>,
    /// Labels besides its token's, and before them where both name a key.
    pub labels: BTreeMap<LabelKey, LabelValue>,
}

impl std::fmt::Debug for PendingDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PendingDevice({}, {:?})", self.local, self.decision)
    }
}

/// What an operator said of a device that asks to join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing yet.
    Waiting,
    /// It may join: it does when it asks again.
    Approved,
    /// It may not.
    Denied,
}

/// A device that a server knows already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownDevice {
    /// The id that the server gave.
    pub device: DeviceId,
    /// Its name.
    pub name: DeviceName,
    /// Whether it is of the fleet.
    pub membership: Membership,
}

/// What an operator may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Make a token.
    CreateToken(TokenWish),
    /// List all tokens.
    ListTokens,
    /// Refuse a token from now on; devices that have used it stay.
    RevokeToken(TokenId),
    /// List the devices that wait.
    ListPending,
    /// Let a device join. The caller has made sure that no device has the name.
    Approve {
        /// The device.
        device: LocalId,
        /// What it gets with that.
        given: Given,
    },
    /// Turn a device away.
    Deny(LocalId),
}

/// What an operator gets.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A token was made: this is the only time that its secret is seen.
    Created {
        /// The token.
        token: Box<TokenRecord>,
        /// Its secret.
        secret: TokenSecret,
    },
    /// All tokens, by id.
    Tokens(Vec<TokenRecord>),
    /// The devices that wait, by the time that they asked.
    Pending(Vec<PendingDevice>),
    /// It is done.
    Done,
}

/// The code by which a device, or an operator who approves it, is told why its token admits nobody.
#[must_use]
pub const fn code_of(error: &AdmitError) -> &'static str {
    match error {
        AdmitError::Secret => "enrolment.token.wrong",
        AdmitError::Revoked => "enrolment.token.revoked",
        AdmitError::Expired => "enrolment.token.expired",
        AdmitError::UsedUp { .. } => "enrolment.token.used_up",
    }
}

/// Why an operator's wish was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// A token for nobody.
    #[error("a token needs at least one use")]
    NoUses,
    /// A token that would be refused at once.
    #[error("the token would expire at {expires_at}, and it is {now}")]
    ExpiresInThePast {
        /// When it would expire.
        expires_at: Wall,
        /// What time it is.
        now: Wall,
    },
    /// Too many labels.
    #[error("{count} labels; a device may have {count_max}")]
    TooManyLabels {
        /// How many.
        count: usize,
        /// How many there may be.
        count_max: usize,
    },
    /// Another device that was let in gets that name when it asks again, or is getting it.
    #[error("another device that joins is called {name}")]
    NameTaken {
        /// The name.
        name: DeviceName,
    },
    /// There is no such token.
    #[error("there is no token {token}")]
    UnknownToken {
        /// The token.
        token: TokenId,
    },
    /// The device would be turned away when it asks again.
    #[error("{device} asked with {token}, and {cause}")]
    TokenEnded {
        /// The device.
        device: LocalId,
        /// Its token.
        token: TokenId,
        /// Why that admits nobody.
        cause: AdmitError,
    },
    /// No such device waits.
    #[error("{device} does not wait for approval")]
    NotPending {
        /// The device.
        device: LocalId,
    },
}
