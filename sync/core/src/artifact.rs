//! Artifacts in groups of 16 KiB, each verified against the digest before a byte of it counts.
