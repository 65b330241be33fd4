//! Releases: what a developer signs, and what a device checks before a byte of it runs.
