//! Every id of the system, in one registry. An id is opaque: it can be compared, printed and parsed, not computed with.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use data_encoding::Encoding;

use crate::entropy::Entropy;

/// Why a text is no id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// The prefix names another kind of id.
    #[error("{text:?} does not start with {prefix:?}")]
    Prefix {
        /// What was given.
        text: String,
        /// What it should start with.
        prefix: &'static str,
    },
    /// The part after the prefix is not the right number of base 32 digits.
    #[error("{text:?} is not {prefix:?} and {digits} base 32 digits")]
    Digits {
        /// What was given.
        text: String,
        /// What it should start with.
        prefix: &'static str,
        /// How many digits should follow.
        digits: usize,
    },
}

/// Made once: a plan of a hundred thousand devices spells four times as many ids.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    // Crockford's alphabet in lower case: no letter is taken for a digit when an id is read aloud.
    let mut specification = data_encoding::Specification::new();
    specification.symbols.push_str("0123456789abcdefghjkmnpqrstvwxyz");
    #[expect(clippy::expect_used, reason = "the alphabet above is a valid one, as every test of this file shows")]
    specification.encoding().expect("32 distinct symbols make an encoding")
});

macro_rules! define_id {
    ($(#[$doc:meta])* $name:ident, $length:literal, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $length]);

        impl $name {
            /// What the id starts with when it is printed.
            pub const PREFIX: &'static str = $prefix;
            /// How many bytes it has on the wire and on disk.
            pub const LENGTH: usize = $length;

            /// Takes the id's bytes, from a hash, the wire or the disk.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $length]) -> Self {
                Self(bytes)
            }

            /// Takes the id's bytes from a slice of exactly its length.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// Draws a new id.
            #[must_use]
            pub fn random(entropy: &mut Entropy) -> Self {
                Self(entropy.bytes())
            }

            /// The id's bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                BASE32.encode_display(&self.0).fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let digits = text.strip_prefix($prefix)
                    .ok_or_else(|| ParseIdError::Prefix { text: text.to_owned(), prefix: $prefix })?;
                BASE32.decode(digits.as_bytes()).ok()
                    .and_then(|bytes| Self::from_slice(&bytes))
                    .ok_or_else(|| ParseIdError::Digits {
                        text: text.to_owned(),
                        prefix: $prefix,
                        digits: ($length * 8_usize).div_ceil(5),
                    })
            }
        }
    };
}

define_id!(
    /// A fleet: the hash of the body of its first root record.
    FleetId, 16, "flt_"
);
define_id!(
    /// A public key: the hash of a domain tag, an algorithm byte and the key.
    KeyId, 16, "key_"
);
define_id!(
    /// A device as every document, lane and stream names it: the hash of its key. Also called its *local id*.
    LocalId, 16, "loc_"
);
define_id!(
    /// A device as one server names it, given at registration.
    DeviceId, 10, "dev_"
);
define_id!(
    /// A rollout.
    RolloutId, 10, "rol_"
);
define_id!(
    /// A saved plan of a rollout.
    PlanId, 10, "pln_"
);
define_id!(
    /// A hold, and the lift that ends it.
    HoldId, 10, "hld_"
);
define_id!(
    /// An enrolment token, without its secret.
    TokenId, 10, "tok_"
);
define_id!(
    /// An access token of the API, without its secret.
    AccessId, 10, "acc_"
);
define_id!(
    /// Work that a machine started and that ends as an input.
    OperationId, 8, "op_"
);
define_id!(
    /// One mutation of the API, whose repetition changes nothing.
    RequestId, 16, "req_"
);
define_id!(
    /// One connection of two nodes.
    ConnectionId, 8, "con_"
);
define_id!(
    /// One start of a device's operating system.
    BootId, 16, "boot_"
);
define_id!(
    /// A hash over the signed body of an envelope or root record, by which its successor names it.
    EnvelopeHash, 16, "env_"
);
define_id!(
    /// The BLAKE3 digest that names an artifact.
    ArtifactDigest, 32, "b3_"
);

impl ArtifactDigest {
    /// Names `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl From<KeyId> for LocalId {
    /// Names the device that holds a key.
    fn from(key: KeyId) -> Self {
        Self(*key.as_bytes())
    }
}

impl From<LocalId> for KeyId {
    /// Names the key that a device holds.
    fn from(device: LocalId) -> Self {
        Self(*device.as_bytes())
    }
}

/// One writer's right to write: drawn at random when it is taken, and kept in memory only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(pub u64);

impl Stamp {
    /// Takes the right to write.
    #[must_use]
    pub fn draw(entropy: &mut Entropy) -> Self {
        Self(entropy.next_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_printing_and_parsing() {
        let mut entropy = Entropy::from_seed([3; 32]);
        let device = DeviceId::random(&mut entropy);
        assert!(device.to_string().starts_with("dev_"));
        assert_eq!(device.to_string().parse::<DeviceId>(), Ok(device));
        let digest = ArtifactDigest::of(b"coffee");
        assert_eq!(digest.to_string().parse::<ArtifactDigest>(), Ok(digest));
    }

    #[test]
    fn an_id_of_another_kind_is_refused() {
        let mut entropy = Entropy::from_seed([3; 32]);
        let rollout = RolloutId::random(&mut entropy).to_string();
        assert!(matches!(rollout.parse::<DeviceId>(), Err(ParseIdError::Prefix { .. })));
        assert!(matches!("dev_0".parse::<DeviceId>(), Err(ParseIdError::Digits { .. })));
        assert!(matches!("dev_öäü".parse::<DeviceId>(), Err(ParseIdError::Digits { .. })));
    }
}
