//! The pure heart of fleetd: what every node agrees on, and how it decides.
//!
//! Nothing in this crate does IO, awaits, reads a clock, draws randomness that was not handed to it, or iterates
//! a map in an order that depends on the process. It names neither protobuf nor serde. The same code therefore
//! runs in the product and in the simulator, and gives the same answer in both.
//!
//! Where to start reading: [`machine`] (how a decision is made), then [`envelope`] and [`lane`] (what travels),
//! [`resolve`] (what a device should run), [`trust`] (whose word counts) and [`session`] (how two nodes meet).

pub mod artifact;
pub mod audit;
pub mod blocking;
pub mod codec;
pub mod commit;
pub mod configuration;
pub mod counted;
pub mod document;
pub mod enrolment;
pub mod entropy;
pub mod envelope;
pub mod finding;
pub mod id;
pub mod key;
pub mod lane;
pub mod limit;
pub mod machine;
pub mod name;
pub mod planted;
pub mod release;
pub mod replica;
pub mod resolve;
pub mod session;
pub mod time;
pub mod trust;
pub mod view;
