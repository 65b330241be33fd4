//! Reference models: what fleetd promises, written down once more, as plainly as it can be said.
//!
//! Nothing here shares code with what it is compared with beyond the values that both speak of: a mistake would have
//! to be made twice to go unseen. None of it is fast, and none of it is shipped.

pub mod lane;
pub mod log;
pub mod order;
pub mod plan;
pub mod resolve;
pub mod trust;
pub mod window;
