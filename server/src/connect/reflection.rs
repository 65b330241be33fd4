//! What the API says about itself: gRPC reflection over the same schemas.

use tonic::service::Routes;
use tonic_reflection::pb;
use tonic_reflection::server::{Builder, Error};

use crate::rpc::PACKED;

/// Adds reflection of `services` to `routes`, in both versions that clients ask for.
///
/// # Errors
/// [`Error`] when the committed descriptors are no valid set, which a test excludes.
pub fn with_reflection(routes: Routes, services: impl Iterator<Item = &'static str>) -> Result<Routes, Error> {
    let names: Vec<&str> = services.collect();
    let builder = || {
        // Each version describes both, since it lists both.
        let sets = [fleetd_proto::DESCRIPTORS, pb::v1::FILE_DESCRIPTOR_SET, pb::v1alpha::FILE_DESCRIPTOR_SET];
        let builder = Builder::configure().include_reflection_service(false);
        let builder = sets.into_iter().fold(builder, Builder::register_encoded_file_descriptor_set);
        names.iter().copied().fold(builder, Builder::with_service_name)
    };
    let (newer, older) = (builder().build_v1()?, builder().build_v1alpha()?);
    Ok(routes.add_service(newer.accept_compressed(PACKED)).add_service(older.accept_compressed(PACKED)))
}
