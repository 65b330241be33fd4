//! The product's own nodes in a simulated world.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot set itself up should stop")]

mod runner {
    mod atlas;
    mod complaint;
    mod determinism;
    mod disk;
    mod figures;
    mod lost_store;
    mod quic;
    mod regression;
    mod rehearsal;
    mod renewal;
    mod report;
    mod seam;
    mod shrink;
    mod swarm;
    mod trust;
    mod waves;
}
