//! What the API says about itself: gRPC reflection over the same schemas.

use tonic::service::Routes;
use tonic_reflection::server::{Builder, Error};

/// Adds reflection of `services` to `routes`, in both versions that clients ask for.
///
/// # Errors
/// [`Error`] when the committed descriptors are no valid set, which a test excludes.
pub fn with_reflection(routes: Routes, services: impl Iterator<Item = &'static str>) -> Result<Routes, Error> {
    let names: Vec<&str> = services.collect();
    let builder = || {
        let builder = Builder::configure().register_encoded_file_descriptor_set(fleetd_proto::DESCRIPTORS);
        names.iter().copied().fold(builder, Builder::with_service_name)
    };
    Ok(routes.add_service(builder().build_v1()?).add_service(builder().build_v1alpha()?))
}
