//! Messages as JSON: the canonical encoding of protobuf, so that fields and times read as they do over HTTP.

use std::sync::OnceLock;

use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::Value;

fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| DescriptorPool::decode(fleetd_proto::DESCRIPTORS).unwrap_or_default())
}

/// Writes a message as JSON. Every field is there, also an empty one, so that programs need not ask for it.
///
/// A message that the schemas do not know is `null`; there is none among those that the API gives.
#[must_use]
pub fn json<M: prost::Message + prost::Name>(message: &M) -> Value {
    let encode = || {
        let descriptor = pool().get_message_by_name(&M::full_name())?;
        let message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).ok()?;
        let options = SerializeOptions::new().skip_default_fields(false);
        message.serialize_with_options(serde_json::value::Serializer, &options).ok()
    };
    encode().unwrap_or_default()
}
