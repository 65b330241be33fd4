//! Operations and the values that they set.

use super::DecodeEnvelopeError;
use super::{ReadError, Reader, Writer};
use crate::envelope::{Op, Path, Value};
use crate::limit;

/// The class of changes that a reader may skip when it does not know their code.
pub(crate) const CLASS_PLAIN: u8 = 1;

const CODE_SET: u8 = 1;
const CODE_DELETE: u8 = 2;

const VALUE_FALSE: u8 = 0;
const VALUE_TRUE: u8 = 1;
const VALUE_INTEGER: u8 = 2;
const VALUE_TEXT: u8 = 3;
const VALUE_BYTES: u8 = 4;

/// Appends one operation with its class.
pub(crate) fn write_op(writer: &mut Writer, op: &Op) {
    writer.u8(CLASS_PLAIN);
    match op {
        Op::Set { path, value } => {
            let mut payload = Writer::new();
            payload.text(path.as_str());
            write_value(&mut payload, value);
            writer.u8(CODE_SET).bytes(&payload.finish());
        }
        Op::Delete { path } => {
            writer.u8(CODE_DELETE).text(path.as_str());
        }
        Op::Unknown { code, bytes } => {
            writer.u8(*code).bytes(bytes);
        }
    }
}

fn write_value(payload: &mut Writer, value: &Value) {
    match value {
        Value::Boolean(false) => payload.u8(VALUE_FALSE),
        Value::Boolean(true) => payload.u8(VALUE_TRUE),
        Value::Integer(number) => payload.u8(VALUE_INTEGER).signed(*number),
        Value::Text(text) => payload.u8(VALUE_TEXT).raw(text.as_bytes()),
        Value::Bytes(bytes) => payload.u8(VALUE_BYTES).raw(bytes),
    };
}

/// Takes one operation, whose class the caller has read.
pub(crate) fn read_op(reader: &mut Reader<'_>) -> Result<Op, DecodeEnvelopeError> {
    let code = reader.u8("op code")?;
    let payload = reader.bytes("op", limit::OP_BYTES_MAX)?;
    match code {
        CODE_SET => read_set(payload),
        CODE_DELETE => {
            let text = std::str::from_utf8(payload).map_err(|_| ReadError::Text { what: "path" })?;
            Ok(Op::Delete { path: text.parse()? })
        }
        _ => Ok(Op::Unknown { code, bytes: payload.to_vec() }),
    }
}

fn read_set(payload: &[u8]) -> Result<Op, DecodeEnvelopeError> {
    let mut reader = Reader::new(payload);
    let path: Path = reader.text("path", limit::PATH_CHARS_MAX)?.parse()?;
    let value = match reader.u8("value type")? {
        VALUE_FALSE => Value::Boolean(false),
        VALUE_TRUE => Value::Boolean(true),
        VALUE_INTEGER => Value::Integer(reader.signed("integer")?),
        VALUE_TEXT => {
            let bytes = read_value_bytes(&mut reader, "text")?;
            let text = std::str::from_utf8(bytes).map_err(|_| ReadError::Text { what: "text" })?;
            Value::Text(text.to_owned())
        }
        VALUE_BYTES => Value::Bytes(read_value_bytes(&mut reader, "bytes")?.to_vec()),
        other => return Err(ReadError::Value { what: "value type", value: u64::from(other) }.into()),
    };
    reader.finish()?;
    Ok(Op::Set { path, value })
}

fn read_value_bytes<'a>(reader: &mut Reader<'a>, what: &'static str) -> Result<&'a [u8], ReadError> {
    let length = reader.left();
    if length > limit::VALUE_BYTES_MAX {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        return Err(ReadError::TooLong { what, length, length_max: limit::VALUE_BYTES_MAX });
    }
    reader.take(what, length)
}
