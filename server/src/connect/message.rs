//! Messages, from JSON to protobuf and back.

use bytes::Bytes;
use prost_reflect::prost::{DecodeError, Message as _};
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use tonic::Status;

use super::protocol::Encoding;

/// Why bytes are not the message that they should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TranscodeError {
    /// They are not the JSON of it.
    #[error("the JSON is no {message}")]
    Json {
        /// The message's full name.
        message: String,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// They are not the protobuf of it.
    #[error("the bytes are no {message}")]
    Proto {
        /// The message's full name.
        message: String,
        /// What is wrong.
        source: DecodeError,
    },
}

impl TranscodeError {
    /// Writes the error and what is underneath in one line.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Json { source, .. } => format!("{self}: {source}"),
            Self::Proto { source, .. } => format!("{self}: {source}"),
        }
    }

    /// The status when a client sent it.
    pub(crate) fn of_request(&self) -> Status {
        Status::invalid_argument(self.text())
    }

    /// The status when a service sent it.
    pub(crate) fn of_response(&self) -> Status {
        Status::internal(self.text())
    }
}

/// Reads a message in `encoding` and writes it as protobuf. Protobuf passes as it is once it has been read: what is none
/// would be called the server's own fault behind this. Of JSON,
/// fields that the schema does not have are ignored, as Connect's own servers do, and nothing at all is `{}`.
pub(crate) fn to_proto(
    encoding: Encoding,
    descriptor: &MessageDescriptor,
    bytes: Bytes,
) -> Result<Bytes, TranscodeError> {
    if encoding == Encoding::Proto {
        let read = DynamicMessage::decode(descriptor.clone(), bytes.clone());
        let error = |source| TranscodeError::Proto { message: descriptor.full_name().to_owned(), source };
        return read.map(|_| bytes).map_err(error);
    }
    let json: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let read = DynamicMessage::deserialize_with_options(descriptor.clone(), &mut deserializer, &options);
    let message = read.and_then(|message| deserializer.end().map(|()| message));
    let message =
        message.map_err(|source| TranscodeError::Json { message: descriptor.full_name().to_owned(), source })?;
    Ok(message.encode_to_vec().into())
}

/// Reads a message as protobuf and writes it in `encoding`.
pub(crate) fn from_proto(
    encoding: Encoding,
    descriptor: &MessageDescriptor,
    bytes: Bytes,
) -> Result<Bytes, TranscodeError> {
    if encoding == Encoding::Proto {
        return Ok(bytes);
    }
    let name = || descriptor.full_name().to_owned();
    let message = DynamicMessage::decode(descriptor.clone(), bytes)
        .map_err(|source| TranscodeError::Proto { message: name(), source })?;
    let mut json = Vec::new();
    message
        .serialize_with_options(&mut serde_json::Serializer::new(&mut json), &SerializeOptions::new())
        .map_err(|source| TranscodeError::Json { message: name(), source })?;
    Ok(json.into())
}

#[cfg(test)]
mod tests {
    use super::super::schemas;
    use super::*;

    fn descriptor(name: &str) -> MessageDescriptor {
        schemas().unwrap().get_message_by_name(name).unwrap()
    }

    #[track_caller]
    fn check_round_trip(name: &str, json: &str) {
        let descriptor = descriptor(name);
        let proto = to_proto(Encoding::Json, &descriptor, Bytes::copy_from_slice(json.as_bytes())).unwrap();
        let back = from_proto(Encoding::Json, &descriptor, proto).unwrap();
        assert_eq!(std::str::from_utf8(&back).unwrap(), json);
    }

    #[test]
    fn json_keeps_numbers_bytes_enums_maps_and_dates() {
        check_round_trip(
            "fleetd.artifact.v1.GetUploadResponse",
            r#"{"receivedBytes":"18446744073709551615","complete":true}"#,
        );
        check_round_trip("fleetd.trust.v1.AddRootRecordRequest", r#"{"requestId":"r","rootRecord":"AP8="}"#);
        check_round_trip(
            "fleetd.device.v1.Device",
            r#"{"id":"dev_1","labels":{"shop":"7"},"presence":"PRESENCE_ONLINE","lastHeardAt":"2026-03-01T12:00:00Z"}"#,
        );
    }

    #[test]
    fn fields_of_a_newer_client_are_ignored() {
        let descriptor = descriptor("fleetd.device.v1.GetDeviceRequest");
        let json = Bytes::from_static(br#"{"device":"brisk-otter","newerThanThisServer":{"a":[1]}}"#);
        let proto = to_proto(Encoding::Json, &descriptor, json).unwrap();
        let json = from_proto(Encoding::Json, &descriptor, proto).unwrap();
        assert_eq!(&json[..], br#"{"device":"brisk-otter"}"#);
    }

    #[test]
    fn what_is_no_message_is_refused_with_its_place() {
        let descriptor = descriptor("fleetd.device.v1.GetDeviceRequest");
        for json in ["{", "[]", "{} {}", r#"{"device": 7}"#, "\u{0}"] {
            let error = to_proto(Encoding::Json, &descriptor, Bytes::copy_from_slice(json.as_bytes())).unwrap_err();
            assert!(error.text().starts_with("the JSON is no fleetd.device.v1.GetDeviceRequest: "), "{}", error.text());
        }
        let deep = "[".repeat(100_000);
        assert!(to_proto(Encoding::Json, &descriptor, deep.into()).is_err());
    }
}
