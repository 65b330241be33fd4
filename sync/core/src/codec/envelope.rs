//! Envelopes and their bodies.

use super::op::{CLASS_PLAIN, read_op, write_op};
use super::{ReadError, Reader, Writer};
use crate::envelope::{Body, DocumentId, Envelope, Head, Kind, Need, ParsePathError, Position, Previous};
use crate::id::{EnvelopeHash, FleetId, KeyId, LocalId, Stamp};
use crate::key::{Domain, SecretKey, Signature};
use crate::limit;
use crate::time::{ClockQuality, Wall};

/// The version of the layout that this code writes, and the only one that it reads.
pub const VERSION: u8 = 1;

const HASH_TAG: &[u8] = b"fleetd/envelope-hash/1\0";

const DOCUMENT_TRUST: u8 = 0;
const DOCUMENT_DESIRED: u8 = 1;
const DOCUMENT_ACTUAL: u8 = 2;

const SHAPE_DELTA: u8 = 0;
const SHAPE_FIRST: u8 = 1;
const SHAPE_ABOVE: u8 = 2;

const NEED_HEAD: u8 = 0;
const NEED_TRUST_VERSION: u8 = 1;

/// Why bytes are no envelope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeEnvelopeError {
    /// More bytes than an envelope of its kind may have.
    #[error("the envelope has {bytes} bytes, the limit is {bytes_max}")]
    Size {
        /// What it has.
        bytes: usize,
        /// What it may have.
        bytes_max: usize,
    },
    /// A version of the layout that only a newer agent reads.
    #[error("the envelope has layout version {version}, this agent reads {VERSION}")]
    Version {
        /// What it says.
        version: u8,
    },
    /// An operation of a class that may not be skipped and that only a newer agent knows.
    #[error("an operation in lane {lane} of {document} has class {class}, this agent knows {CLASS_PLAIN}")]
    Class {
        /// Its class.
        class: u8,
        /// Of which document it says to be.
        document: DocumentId,
        /// Of which lane it says to be.
        lane: KeyId,
    },
    /// A path that is none.
    #[error("an operation names no path")]
    Path(#[from] ParsePathError),
    /// A field that is not as the layout says.
    #[error("a field is malformed")]
    Read(#[from] ReadError),
}

impl DecodeEnvelopeError {
    /// Says whether a newer agent could read the bytes.
    #[must_use]
    pub const fn needs_agent(&self) -> bool {
        matches!(self, Self::Version { .. } | Self::Class { .. })
    }
}

const fn document_tag(document: DocumentId) -> u8 {
    match document {
        DocumentId::Trust => DOCUMENT_TRUST,
        DocumentId::Desired(_) => DOCUMENT_DESIRED,
        DocumentId::Actual(_) => DOCUMENT_ACTUAL,
    }
}

/// Appends a document as its byte and its device.
pub(crate) fn write_document(writer: &mut Writer, document: DocumentId) {
    writer.u8(document_tag(document));
    if let Some(device) = document.device() {
        writer.array(device.as_bytes());
    }
}

/// Takes a document as its byte and its device.
pub(crate) fn read_document(reader: &mut Reader<'_>) -> Result<DocumentId, ReadError> {
    match reader.u8("document")? {
        DOCUMENT_TRUST => Ok(DocumentId::Trust),
        DOCUMENT_DESIRED => Ok(DocumentId::Desired(LocalId::from_bytes(reader.array("device")?))),
        DOCUMENT_ACTUAL => Ok(DocumentId::Actual(LocalId::from_bytes(reader.array("device")?))),
        other => Err(ReadError::Value { what: "document", value: u64::from(other) }),
    }
}

fn write_need(writer: &mut Writer, need: &Need) {
    match need {
        Need::Head { document, lane, position } => {
            writer.u8(NEED_HEAD);
            write_document(writer, *document);
            if !matches!(document, DocumentId::Actual(_)) {
                writer.array(lane.as_bytes());
            }
            writer.varint(position.epoch).fixed_u64(position.stamp.0).varint(position.seq);
        }
        Need::TrustVersion(version) => {
            writer.u8(NEED_TRUST_VERSION).varint(*version);
        }
    }
}

fn read_need(reader: &mut Reader<'_>) -> Result<Need, ReadError> {
    match reader.u8("need")? {
        NEED_HEAD => {
            let document = read_document(reader)?;
            let lane = match document {
                DocumentId::Actual(device) => device.into(),
                DocumentId::Trust | DocumentId::Desired(_) => KeyId::from_bytes(reader.array("lane")?),
            };
            let epoch = reader.varint("epoch")?;
            let stamp = Stamp(reader.fixed_u64("stamp")?);
            let position = Position { epoch, stamp, seq: reader.varint("seq")? };
            Ok(Need::Head { document, lane, position })
        }
        NEED_TRUST_VERSION => Ok(Need::TrustVersion(reader.varint("trust version")?)),
        other => Err(ReadError::Value { what: "need", value: u64::from(other) }),
    }
}

const fn quality_tag(quality: ClockQuality) -> u8 {
    match quality {
        ClockQuality::None => 0,
        ClockQuality::Floor => 1,
        ClockQuality::Beacon => 2,
        ClockQuality::Synced => 3,
    }
}

/// Encodes a body, without a signature.
///
/// # Panics
/// When the body contradicts itself in a way that the layout cannot express: an actual document in another lane
/// than its device's, a delta that does not follow an envelope, or an opener that is not one epoch above its
/// parent. No body that was decoded does, and none that a lane writes.
#[must_use]
pub fn encode(body: &Body) -> Vec<u8> {
    let mut writer = Writer::new();
    let Position { epoch, stamp, seq } = body.position;
    let shape = match (body.kind, &body.previous) {
        (Kind::Delta, Previous::Link(_)) => SHAPE_DELTA,
        (Kind::Snapshot, Previous::Start) => SHAPE_FIRST,
        (Kind::Snapshot, Previous::Parent(_)) => SHAPE_ABOVE,
        (kind, previous) => panic!("a {kind:?} cannot follow {previous:?}"),
    };
    writer.u8(VERSION).array(body.fleet.as_bytes());
    writer.u8(document_tag(body.document) | shape << 2 | quality_tag(body.quality) << 4);
    match body.document {
        DocumentId::Trust => {}
        DocumentId::Desired(device) => {
            writer.array(device.as_bytes());
        }
        DocumentId::Actual(device) => assert_eq!(KeyId::from(device), body.lane, "a device's own lane"),
    }
    writer.array(body.lane.as_bytes()).varint(epoch).fixed_u64(stamp.0);
    match &body.previous {
        Previous::Link(hash) => {
            assert!(seq > 0, "a delta has a number above its opener's");
            writer.varint(seq).array(hash.as_bytes());
        }
        Previous::Start => assert!(epoch == 1 && seq == 0, "the first opener is at epoch 1"),
        Previous::Parent(parent) => {
            assert!(seq == 0 && parent.position.epoch.checked_add(1) == Some(epoch), "one epoch above the parent");
            writer.fixed_u64(parent.position.stamp.0).varint(parent.position.seq).array(parent.hash.as_bytes());
        }
    }
    writer.signed(body.wall.0).count(body.needs.len());
    body.needs.iter().for_each(|need| write_need(&mut writer, need));
    writer.count(body.ops.len());
    body.ops.iter().for_each(|op| write_op(&mut writer, op));
    writer.finish()
}

fn hash(body: &[u8]) -> EnvelopeHash {
    let mut hash = [0; EnvelopeHash::LENGTH];
    blake3::Hasher::new().update(HASH_TAG).update(body).finalize_xof().fill(&mut hash);
    EnvelopeHash::from_bytes(hash)
}

/// Signs a body with its lane's key.
///
/// # Panics
/// As [`encode`] does.
#[must_use]
pub fn seal(body: Body, key: &SecretKey) -> Envelope {
    let mut bytes = encode(&body);
    let (signature, hash) = (key.sign(Domain::Envelope, &bytes), hash(&bytes));
    bytes.extend_from_slice(signature.as_bytes());
    Envelope { body, signature, bytes: bytes.into(), hash }
}

/// Decodes an envelope. Whether its signature counts is not looked at here.
///
/// # Errors
/// [`DecodeEnvelopeError`]; for `Version` and `Class`, [`DecodeEnvelopeError::needs_agent`] is true.
pub fn decode(bytes: &[u8]) -> Result<Envelope, DecodeEnvelopeError> {
    check_size(bytes, limit::SNAPSHOT_BYTES_MAX)?;
    let version = Reader::new(bytes).u8("version")?;
    if version != VERSION {
        return Err(DecodeEnvelopeError::Version { version });
    }
    let end = ReadError::End { what: "signature", wanted: Signature::LENGTH, left: bytes.len() };
    let (signed, signature) = bytes.split_last_chunk::<{ Signature::LENGTH }>().ok_or(end.clone())?;
    let body = read_body(signed)?;
    if body.kind == Kind::Delta {
        check_size(bytes, limit::DELTA_BYTES_MAX)?;
    }
    let signature = Signature::from_slice(signature).ok_or(end)?;
    Ok(Envelope { body, signature, bytes: bytes.into(), hash: hash(signed) })
}

const fn check_size(bytes: &[u8], bytes_max: usize) -> Result<(), DecodeEnvelopeError> {
    if bytes.len() > bytes_max {
        return Err(DecodeEnvelopeError::Size { bytes: bytes.len(), bytes_max });
    }
    Ok(())
}

fn read_body(signed: &[u8]) -> Result<Body, DecodeEnvelopeError> {
    let mut reader = Reader::new(signed);
    reader.u8("version")?;
    let fleet = FleetId::from_bytes(reader.array("fleet")?);
    let shape = reader.u8("shape")?;
    let quality = match shape >> 4 {
        0 => ClockQuality::None,
        1 => ClockQuality::Floor,
        2 => ClockQuality::Beacon,
        3 => ClockQuality::Synced,
        _ => return Err(ReadError::Value { what: "shape", value: u64::from(shape) }.into()),
    };
    let (document, lane) = read_lane(&mut reader, shape & 3)?;
    let (position, previous) = read_place(&mut reader, shape >> 2 & 3)?;
    let kind = if matches!(previous, Previous::Link(_)) { Kind::Delta } else { Kind::Snapshot };
    let wall = Wall(reader.signed("wall")?);
    let needs = reader.count("needs", limit::ENVELOPE_NEEDS_MAX)?;
    let needs = (0..needs).map(|_| read_need(&mut reader)).collect::<Result<_, _>>()?;
    let ops_max = if kind == Kind::Delta { limit::ENVELOPE_OPS_MAX } else { limit::SNAPSHOT_OPS_MAX };
    let mut ops = Vec::new();
    for _ in 0..reader.count("ops", ops_max)? {
        let class = reader.u8("op class")?;
        if class != CLASS_PLAIN {
            return Err(DecodeEnvelopeError::Class { class, document, lane });
        }
        ops.push(read_op(&mut reader)?);
    }
    reader.finish()?;
    Ok(Body { fleet, document, lane, position, previous, wall, quality, needs, kind, ops })
}

fn read_lane(reader: &mut Reader<'_>, document: u8) -> Result<(DocumentId, KeyId), ReadError> {
    match document {
        DOCUMENT_TRUST => Ok((DocumentId::Trust, KeyId::from_bytes(reader.array("lane")?))),
        DOCUMENT_DESIRED => {
            let device = LocalId::from_bytes(reader.array("device")?);
            Ok((DocumentId::Desired(device), KeyId::from_bytes(reader.array("lane")?)))
        }
        DOCUMENT_ACTUAL => {
            let lane = KeyId::from_bytes(reader.array("lane")?);
            Ok((DocumentId::Actual(lane.into()), lane))
        }
        other => Err(ReadError::Value { what: "document", value: u64::from(other) }),
    }
}

fn read_place(reader: &mut Reader<'_>, shape: u8) -> Result<(Position, Previous), ReadError> {
    let epoch = reader.varint("epoch")?;
    let stamp = Stamp(reader.fixed_u64("stamp")?);
    let bad_epoch = ReadError::Value { what: "epoch", value: epoch };
    match shape {
        SHAPE_DELTA => {
            let seq = reader.varint("seq")?;
            if seq == 0 || epoch == 0 {
                return Err(ReadError::Value { what: "seq", value: seq });
            }
            let link = EnvelopeHash::from_bytes(reader.array("link")?);
            Ok((Position { epoch, stamp, seq }, Previous::Link(link)))
        }
        SHAPE_FIRST if epoch == 1 => Ok((Position { epoch, stamp, seq: 0 }, Previous::Start)),
        SHAPE_ABOVE if epoch > 1 => {
            let parent_stamp = Stamp(reader.fixed_u64("parent stamp")?);
            let seq = reader.varint("parent seq")?;
            let hash = EnvelopeHash::from_bytes(reader.array("parent hash")?);
            // The epoch is above 1, so that the parent's is above 0.
            let position = Position { epoch: epoch.saturating_sub(1), stamp: parent_stamp, seq };
            Ok((Position { epoch, stamp, seq: 0 }, Previous::Parent(Head { position, hash })))
        }
        SHAPE_FIRST | SHAPE_ABOVE => Err(bad_epoch),
        other => Err(ReadError::Value { what: "shape", value: u64::from(other) }),
    }
}
