//! The fleet server: devices, releases and rollouts behind one API.

pub mod connect;
pub mod edge;
pub mod keys;
pub mod rpc;
