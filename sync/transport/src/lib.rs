//! How nodes reach each other: frames over QUIC, and the identities that both ends prove.
//!
//! This crate moves bytes and decides nothing about them: what a message means is [`fleetd_sync_core::session`]'s
//! business. Where to start reading: [`link`] (the seam that nodes hold), then [`endpoint`] (QUIC
//! behind it). [`reach`] is what a doctor asks of the network.

pub mod clock;
pub mod endpoint;
pub mod examine;
pub mod frame;
pub mod identity;
pub mod link;
pub mod reach;
pub mod source;
