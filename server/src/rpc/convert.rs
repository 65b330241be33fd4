//! What is stored and decided, as the API's messages, and the other way round.

pub(crate) mod audit;
pub(crate) mod configuration;
pub(crate) mod device;
pub(crate) mod explanation;
pub(crate) mod facts;
pub(crate) mod log;
pub(crate) mod plan;
pub(crate) mod release;
pub(crate) mod rollout;
pub(crate) mod strategy;
pub(crate) mod targets;
pub(crate) mod trust;

/// How many, where the API has 32 bits.
pub(crate) fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
