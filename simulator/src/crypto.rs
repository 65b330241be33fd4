//! Whether a run computes its signatures, or counts them.

use std::fmt;
use std::str::FromStr;

use fleetd_sync_core::key::counted;
use serde::{Deserialize, Serialize};

/// What becomes of signatures in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Crypto {
    /// Ed25519, as in the product.
    #[default]
    Real,
    /// Envelopes, releases, root records and certificates carry a hash of the size of a signature, which is counted.
    Counted,
}

impl Crypto {
    /// Begins a run on this thread with such signatures. A thread that has counted once goes on counting.
    pub(crate) fn begin(self) {
        if self == Self::Counted {
            counted::begin();
        }
    }
}

impl fmt::Display for Crypto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Real => "real",
            Self::Counted => "counted",
        })
    }
}

/// Why a text names no kind of signatures.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of real, counted")]
pub struct ParseCryptoError(String);

impl FromStr for Crypto {
    type Err = ParseCryptoError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "real" => Ok(Self::Real),
            "counted" => Ok(Self::Counted),
            _ => Err(ParseCryptoError(text.to_owned())),
        }
    }
}
