//! A world to run the product's own nodes in: one thread, one queue of events, virtual time.
//!
//! The world replaces the seams of a node (clock, entropy, link, store, runner) and nothing else. What happens in it
//! depends on its seed alone: two processes that run the same scenario get the same trace hash.
//!
//! Where to start reading: [`world`] (the queue and the clock), [`engine::direct`] (bare cells), [`network`] (links
//! with delay and cuts) or [`quic`] (the product's own transport), then the seam test under `tests/`.

pub mod agenda;
pub mod blocking;
pub mod checker;
pub mod clock;
pub mod coverage;
pub mod crypto;
pub mod determinism;
pub mod engine;
pub mod fault;
pub mod fleet;
pub mod flight;
pub mod fuse;
pub mod hostile;
pub mod links;
pub mod mark;
pub mod network;
pub mod observation;
pub mod origin;
pub mod quic;
pub mod reference;
pub mod rehearsal;
pub mod report;
pub mod run;
pub mod runner;
pub mod scenario;
pub mod set;
pub mod shrink;
pub mod span;
pub mod store;
pub mod swarm;
pub mod tapped_link;
pub mod trace;
pub mod watch;
pub mod world;
