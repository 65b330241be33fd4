//! The services, called over the real port: a real node on real actors, with its store and artifacts in memory.

mod access;
mod audit;
mod configuration;
mod device;
mod enrolment;
pub(crate) mod field;
mod group;
mod log;
mod order;
mod packing;
mod presence;
mod release;
mod rollback;
mod rollout;
mod trust;
mod walk;
mod wave;
mod window;
pub(crate) mod world;
