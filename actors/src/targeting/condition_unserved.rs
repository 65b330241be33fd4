//! Stands where conditions are not built in: there is none that could be read, and so none that is ever asked.

use std::fmt;
use std::str::FromStr;

use super::{Answer, Described, ParseConditionError};

/// A condition: there is none without the feature `cel`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {}

impl Condition {
    /// Says whether it holds of a device.
    #[must_use]
    pub fn answer(&self, _: &dyn Described) -> Answer {
        match *self {}
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

impl FromStr for Condition {
    type Err = ParseConditionError;

    fn from_str(_: &str) -> Result<Self, ParseConditionError> {
        Err(ParseConditionError::NotServed)
    }
}
