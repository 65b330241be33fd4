//! The services of the API: each converts a request, asks the node, and converts the answer.

mod admission;
pub mod permission;
pub mod status;

pub use self::admission::admission_status;
