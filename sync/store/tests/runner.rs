//! One binary for all integration tests of the store: two cores link slowly.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on should stop")]

mod conformance;
mod copies;
mod disk_faults;
mod material;
mod old_images;
mod reference;
mod twin_faults;
