//! The store: records with revisions, segment logs, a feed of changes; on disk, and as an in-memory twin with faults.
//!
//! Actors write through the group commit (`Commit` in `fleetd-sync-core`): whole turns, in the order of each actor,
//! answered once they are durable. Everybody reads through [`state_store::StateStore`]. The store knows bytes, not
//! what they mean: no domain type, no protobuf. Nothing here is async.
//!
//! Where to start reading: [`state_store`] (what a store can do), then `engine.rs` (one store over a table and
//! files), `commit_group.rs` (what a group of turns comes to) and `segment_log.rs` (how logs lie on disk). [`disk`]
//! and [`memory`] put the engine on fjall and on a medium that fails on demand. [`ab_file`] is apart: the few bytes
//! that must survive the loss of the database; [`copy`] is how a backup reads a store that runs, and [`examine`]
//! what a doctor asks of the disk.

pub mod ab_file;
pub mod copy;
pub mod disk;
pub mod examine;
pub mod feed;
pub mod memory;
pub mod open_error;
pub mod state_store;

mod commit_group;
mod engine;
mod record;
mod segment_log;
mod table;
mod unpoison;
