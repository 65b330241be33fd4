//! fleetd-agent.
fn main() {}
