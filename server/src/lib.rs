//! The fleet server: devices, releases and rollouts behind one API.
//!
//! [`node`] wires the machines of `fleetd-actors` to the drivers of [`driver`], on whatever engine and seams it is
//! given. [`edge`] opens the API's port, [`connect`] speaks its protocols, and [`rpc`] answers its calls.
//!
//! Where to start reading: [`node`], then one driver, then one service of [`rpc`].

pub mod access;
pub mod answers;
pub mod artifact_store;
pub mod audit;
pub mod backup;
pub mod blocking;
pub mod commit;
pub mod connect;
pub mod connection_table;
pub mod device_row;
pub mod driver;
pub mod edge;
pub mod error_page;
pub mod examine;
pub mod flights;
pub mod history;
pub mod keys;
mod memory;
pub mod node;
pub mod own_certificate;
pub mod presence;
mod receipt;
pub mod record;
pub mod rpc;
pub mod serve;
pub mod support;
pub mod trust_file;
