//! Whose word counts: the root chain, its delegations, and revocations.
//!
//! A fleet has one root: a chain of [`RootRecord`]s, each signed by a threshold of the keys of the record before it
//! and of its own. The hash of the first names the fleet. Only the root gives roles to keys; what authorities write
//! into the trust document can only take away. [`Roster`] is what both say together of every key, and depends on
//! what was said, never on the order in which it arrived.
//!
//! Start with [`RootChain`], then [`Roster`].

mod armour;
mod chain;
mod record;
mod role;
mod roster;

pub use armour::{Armoured, ReadArmourError, read_all_armour, read_armour};
pub use chain::{ExtendError, Extension, LoadChainError, RootChain, SignatureCount, SignerCount};
pub use record::{Change, DraftError, OtherRecord, ReadRecordError, RootBody, RootRecord};
pub use role::{Delegation, Rank, Revocation, Role, Sites};
pub use roster::{Authority, ReleaseKey, Roster, RosterParts, Standing, Statement, deny_path, revoke_path};
