//! A library to preload into the process of a simulated run: what the C library would ask the kernel's randomness for
//! comes from a seed, and the wall clock stands still.
//!
//! The simulator needs none of it for its results. TLS draws its keys from the operating system, deep inside libraries
//! that take no stream of ours; so the bytes of packets differ from run to run, though their times, ends and sizes do
//! not. `fleetd sim check --engine quic --bytes` starts its workers with this library in `LD_PRELOAD`, to see that the
//! bytes are the only thing that chance decides. No binary is linked with it.
//!
//! # What it replaces
//! - `getrandom`, `getentropy`, and `syscall` where it is asked for the same: ring reaches the kernel through the last,
//!   past the first. Each thread has the same stream from its own beginning, so that threads cannot disturb each other.
//! - `clock_gettime` of the wall clock, which stands at 2026-01-01. The monotonic clock stays: only pauses of threads
//!   depend on it, and they must end.
//!
//! It does so while [`SEED_VARIABLE`] has a value, on Linux with glibc on x86-64; elsewhere the library is empty.
#![cfg_attr(
    all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"),
    expect(unsafe_code, reason = "replacing functions of the C library is what this library is for")
)]

/// The environment variable with the seed, in decimal.
pub const SEED_VARIABLE: &str = "FLEETD_SIM_SHIM_SEED";

#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
mod replaced;
