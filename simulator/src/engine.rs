//! How actors run in the world.

pub mod direct;
