//! What a device should run: a pure function of lane states.
