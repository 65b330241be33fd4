//! The port of the API, called as its clients call it: gRPC, gRPC-Web and Connect over TLS on loopback.

pub(crate) mod client;
mod connect;
mod guard;
mod help;
mod limit;
mod method;
mod origin;
mod protocol;
mod service;
