//! A share of a fleet, as people write it: `20%`.

use std::fmt;
use std::str::FromStr;

use fleetd_sync_core::entropy::Entropy;
use serde::{Deserialize, Serialize};

const WHOLE: u32 = 1_000_000;
/// Millionths in a hundredth.
const PERCENT: u32 = WHOLE / 100;
/// Digits behind the point that a hundredth has room for.
const DIGITS: usize = 4;

/// A share from 0% to 100%, exact to a millionth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Share(u32);

/// Why a text is no share.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseShareError {
    /// It has no percent sign, or no number before it.
    #[error("`{0}` is no share: write it in percent, as `20%` or `0.5%`")]
    Form(String),
    /// It is more than all.
    #[error("`{0}` is more than all: a share goes from 0% to 100%")]
    Range(String),
}

impl Share {
    /// Nothing of it.
    pub const NONE: Self = Self(0);

    /// A share of so many millionths; what is more than all is all.
    #[must_use]
    pub const fn from_millionths(millionths: u32) -> Self {
        Self(if millionths > WHOLE { WHOLE } else { millionths })
    }

    /// How many millionths it is.
    #[must_use]
    pub const fn millionths(self) -> u32 {
        self.0
    }

    /// Says whether it is nothing.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Draws whether one thing is of the share.
    pub fn draw(self, entropy: &mut Entropy) -> bool {
        entropy.below(u64::from(WHOLE)) < u64::from(self.0)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / PERCENT, self.0 % PERCENT);
        if rest == 0 {
            return write!(f, "{whole}%");
        }
        let digits = format!("{rest:0DIGITS$}");
        write!(f, "{whole}.{}%", digits.trim_end_matches('0'))
    }
}

impl FromStr for Share {
    type Err = ParseShareError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || ParseShareError::Form(text.to_owned());
        let number = text.trim().strip_suffix('%').ok_or_else(form)?;
        let (whole, rest) = number.split_once('.').unwrap_or((number, ""));
        let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !is_number(whole) || !is_number(rest) || rest.len() > DIGITS || number.ends_with('.') {
            return Err(form());
        }
        let range = || ParseShareError::Range(text.to_owned());
        let whole: u32 = whole.parse().map_err(|_| range())?;
        let rest: u32 = if rest.is_empty() { 0 } else { format!("{rest:0<DIGITS$}").parse().map_err(|_| form())? };
        let millionths = whole.checked_mul(PERCENT).and_then(|whole| whole.checked_add(rest)).ok_or_else(range)?;
        if millionths > WHOLE { Err(range()) } else { Ok(Self(millionths)) }
    }
}

impl TryFrom<String> for Share {
    type Error = ParseShareError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Share> for String {
    fn from(share: Share) -> Self {
        share.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_read_as_they_are_written() {
        for (text, millionths) in [("0%", 0), ("1%", 10_000), ("0.5%", 5000), ("12.0125%", 120_125), ("100%", WHOLE)] {
            assert_eq!(text.parse(), Ok(Share(millionths)), "{text}");
            assert_eq!(Share(millionths).to_string(), text);
        }
        assert_eq!("20.50%".parse::<Share>().unwrap().to_string(), "20.5%");
    }

    #[test]
    fn what_is_no_share_is_refused_with_the_reason() {
        for text in ["20", "", "%", "-1%", "1.%", "1,5%", "0.00001%", "a%", "1 %"] {
            assert_eq!(text.parse::<Share>(), Err(ParseShareError::Form(text.to_owned())), "{text}");
        }
        for text in ["101%", "100.1%", "99999999999%"] {
            assert_eq!(text.parse::<Share>(), Err(ParseShareError::Range(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn all_and_nothing_are_drawn_as_such() {
        let mut entropy = Entropy::from_seed([1; 32]);
        assert!((0..1000).all(|_| Share::from_millionths(WHOLE).draw(&mut entropy)));
        assert!((0..1000).all(|_| !Share::NONE.draw(&mut entropy)));
    }
}
