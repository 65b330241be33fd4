//! Names that people give: checked once, at the edge, so that no path, file or log line meets a surprising one.

use std::fmt;
use std::str::FromStr;

use crate::limit;

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseNameError {
    /// Too short or too long.
    #[error("{what} has {length} characters; it needs 1 to {length_max}")]
    Length {
        /// The kind of name.
        what: &'static str,
        /// What it has.
        length: usize,
        /// What it may have.
        length_max: usize,
    },
    /// A character that is not allowed there.
    #[error("{what} {text:?} has {character:?} at position {position}; {rule}")]
    Character {
        /// The kind of name.
        what: &'static str,
        /// What was given.
        text: String,
        /// The character that is not allowed.
        character: char,
        /// Where it stands, counted from 0.
        position: usize,
        /// What is allowed.
        rule: &'static str,
    },
    /// The name is kept for the system's own use.
    #[error("{what} {text:?} is reserved")]
    Reserved {
        /// The kind of name.
        what: &'static str,
        /// What was given.
        text: String,
    },
}

/// The workload that is the agent itself: no developer's release may take its name.
pub const AGENT_WORKLOAD: &str = "fleetd-agent";

macro_rules! define_name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $length_max:expr, $rule:literal, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ParseNameError;

            fn from_str(text: &str) -> Result<Self, ParseNameError> {
                let length = text.chars().count();
                if length == 0 || length > $length_max {
                    return Err(ParseNameError::Length { what: $what, length, length_max: $length_max });
                }
                let allowed: fn(&str, usize, char) -> bool = $allowed;
                match text.chars().enumerate().find(|(position, character)| !allowed(text, *position, *character)) {
                    Some((position, character)) => Err(ParseNameError::Character {
                        what: $what,
                        text: text.to_owned(),
                        character,
                        position,
                        rule: $rule,
                    }),
                    None => Ok(Self(text.to_owned())),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

define_name!(
    /// A workload's name (`coffee`): also a folder on every device.
    WorkloadName, "workload name", limit::WORKLOAD_NAME_CHARS_MAX,
    "use a-z, 0-9 and '-', starting with a letter",
    |_, position, character| match character {
        'a'..='z' => true,
        '0'..='9' | '-' => position > 0,
        _ => false,
    }
);
define_name!(
    /// A release's version (`1.8.0`, `2026-11-22.3+g1a2b`): compared for equality only.
    Version, "version", limit::VERSION_CHARS_MAX,
    "use letters, digits and '.', '-', '_', '+', starting with a letter or digit",
    |_, position, character| character.is_ascii_alphanumeric() || (position > 0 && ".-_+".contains(character))
);
define_name!(
    /// What a configuration of a workload is called (`roast-2`): compared for equality only.
    ConfigurationName, "configuration name", limit::VERSION_CHARS_MAX,
    "use letters, digits and '.', '-', '_', '+', starting with a letter or digit",
    |_, position, character| character.is_ascii_alphanumeric() || (position > 0 && ".-_+".contains(character))
);
define_name!(
    /// What a server calls a device (`brisk-otter`).
    DeviceName, "device name", limit::DEVICE_NAME_CHARS_MAX,
    "use a-z, 0-9 and '-', starting with a letter",
    |_, position, character| match character {
        'a'..='z' => true,
        '0'..='9' | '-' => position > 0,
        _ => false,
    }
);
define_name!(
    /// What a group of devices is called (`kiosks-north`).
    GroupName, "group name", limit::GROUP_NAME_CHARS_MAX,
    "use a-z, 0-9 and '-', starting with a letter",
    |_, position, character| match character {
        'a'..='z' => true,
        '0'..='9' | '-' => position > 0,
        _ => false,
    }
);
define_name!(
    /// The key of a label (`site`, `example.com/rack`).
    LabelKey, "label key", limit::LABEL_CHARS_MAX,
    "use letters, digits and '.', '-', '_', '/', starting with a letter or digit",
    |_, position, character| character.is_ascii_alphanumeric() || (position > 0 && ".-_/".contains(character))
);
define_name!(
    /// The value of a label.
    LabelValue, "label value", limit::LABEL_CHARS_MAX,
    "use letters, digits and '.', '-', '_'",
    |_, _, character| character.is_ascii_alphanumeric() || ".-_".contains(character)
);
define_name!(
    /// A platform that an artifact is for (`linux/arm64`), or `any`.
    Platform, "platform", limit::PLATFORM_CHARS_MAX,
    "use a-z, 0-9, '_' and one '/'",
    |text, position, character| match character {
        'a'..='z' | '0'..='9' | '_' => true,
        // What comes before has been found to be of one byte each.
        '/' => text.find('/') == Some(position),
        _ => false,
    }
);

impl WorkloadName {
    /// Takes a name for a developer's workload, which the agent's own is not.
    ///
    /// # Errors
    /// Those of parsing, and [`ParseNameError::Reserved`].
    pub fn for_release(text: &str) -> Result<Self, ParseNameError> {
        if text == AGENT_WORKLOAD {
            return Err(ParseNameError::Reserved { what: "workload name", text: text.to_owned() });
        }
        text.parse()
    }
}

impl Platform {
    /// The platform of scripts and data, which every device has.
    #[must_use]
    pub fn any() -> Self {
        Self("any".to_owned())
    }

    /// Says whether an artifact for `self` runs on a device of platform `device`.
    #[must_use]
    pub fn runs_on(&self, device: &Self) -> bool {
        self.0 == "any" || self == device
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_leave_its_folder_is_refused() {
        for text in ["", ".", "..", "../etc", "a/b", "Coffee", "-rf", "a\0b", "1st"] {
            assert!(text.parse::<WorkloadName>().is_err(), "{text:?}");
        }
        assert!("coffee-2".parse::<WorkloadName>().is_ok());
        assert!("..".parse::<Version>().is_err());
    }

    #[test]
    fn a_platform_has_one_slash_at_most() {
        assert!("linux/arm64".parse::<Platform>().is_ok() && "any".parse::<Platform>().is_ok());
        let refused = "linux//arm64".parse::<Platform>();
        assert!(matches!(refused, Err(ParseNameError::Character { character: '/', position: 6, .. })), "{refused:?}");
    }

    #[test]
    fn the_agents_own_name_is_reserved() {
        assert!(matches!(WorkloadName::for_release(AGENT_WORKLOAD), Err(ParseNameError::Reserved { .. })));
    }
}
