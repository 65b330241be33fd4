//! The device's own API (`agent.lifecycle.v1`): who may open the socket in the run directory may look and steer.
//!
//! `serve` answers; `client` asks, for the commands. Both speak gRPC over a Unix socket of mode 0600. The peer's user
//! is checked besides: root and the agent's own user count, nobody else does.

mod client;
mod serve;
mod status;
mod update;

pub use client::{
    AskAgentError, LocalClient, RecordedFlight, ShownConfiguration, ShownFailure, ShownMoment, ShownStatus,
    ShownWorkload,
};
pub use serve::{LocalApi, ServeLocalApiError, bind};
pub(crate) use status::APPROVAL_AWAITED;
