//! The third engine's network: the product's own QUIC endpoint over UDP that exists only in the world.
//!
//! What runs is `sync/transport`'s endpoint as it ships, with quinn, rustls, its certificates and its frames. It stands
//! on a [`Ground`](fleetd_sync_transport::endpoint::Ground) of the world in place of the operating system's: sockets
//! whose packets are events of the world's queue ([`network`], [`socket`]), and timers that are too ([`timer`]).
//!
//! # Time
//! There is one clock, the world's. A paused tokio clock, which a director moves along with the queue, would do as well,
//! but it is a second clock that could be off by what moves it, it knows whole milliseconds only, and its timers are
//! not in the trace. So the transport waits on its ground's timers only, and the runtime of the simulated actors has no
//! timers at all: whatever asks tokio for one panics, and the run ends with it.
//!
//! # What is the same every time
//! Times, ends and sizes of packets, and so everything above them: keys and certificates are Ed25519, whose signatures
//! have one size, and quinn draws from the endpoint's own stream. The bytes are not the same: TLS draws its key shares
//! and randoms from the operating system. Packets are told apart by their bytes only where a run is asked to.

pub mod bench;
pub mod condition;
mod firewall;
mod ground;
pub mod link;
pub mod network;
mod socket;
mod timer;
