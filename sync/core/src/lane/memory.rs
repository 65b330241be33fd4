//! What a lane remembers beyond its envelopes: by which openers it was taken over, the proof that it forked, and
//! what stays of branches that lost. It is stored as one record for each lane, and only where it has something to say.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fork::{ForkProof, Takeover, Takeovers};
use super::{Lane, Residue};
use crate::codec::{self, CLASS_PLAIN, DecodeEnvelopeError, ReadError, Reader, Writer};
use crate::envelope::{DocumentId, Head, Op, Path, Position};
use crate::id::{EnvelopeHash, KeyId, Stamp};
use crate::limit;

/// The first byte of a memory: no envelope has it as its version.
pub(crate) const MEMORY_VERSION: u8 = 0x81;

/// What can stay of branches that lost: no more than the lanes' states could hold.
const RESIDUE_MAX: usize = limit::SNAPSHOT_OPS_MAX;

/// A lane's memory as it comes from the store.
#[derive(Debug)]
pub(crate) struct LaneMemory {
    pub(crate) document: DocumentId,
    pub(crate) lane: KeyId,
    takeovers: Takeovers,
    proof: Option<ForkProof>,
    residue: BTreeMap<Path, Residue>,
}

impl LaneMemory {
    /// Says whether a stored record is a memory rather than an envelope.
    pub(crate) fn is_one(bytes: &[u8]) -> bool {
        bytes.first() == Some(&MEMORY_VERSION)
    }

    /// Decodes what [`Lane::memory`] made.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeEnvelopeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("version")?;
        if version != MEMORY_VERSION {
            return Err(DecodeEnvelopeError::Version { version });
        }
        let document = codec::read_document(&mut reader)?;
        let lane = KeyId::from_bytes(reader.array("lane")?);
        let mut takeovers = Takeovers::default();
        for bytes in read_envelopes(&mut reader)? {
            if let Some(takeover) = Takeover::of(&codec::decode(&bytes)?) {
                takeovers.keep(takeover);
            }
        }
        let proof = read_proof(&mut reader)?;
        let residue = read_residue(&mut reader)?;
        reader.finish()?;
        Ok(Self { document, lane, takeovers, proof, residue })
    }
}

impl Lane {
    /// Encodes what the lane remembers beyond its envelopes.
    pub(crate) fn memory(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(MEMORY_VERSION);
        codec::write_document(&mut writer, self.document);
        writer.array(self.writer.as_bytes());
        writer.count(self.takeovers.iter().count());
        self.takeovers.iter().for_each(|takeover| {
            writer.bytes(&takeover.bytes);
        });
        writer.u8(match self.proof.as_deref() {
            None => 0,
            Some(ForkProof::Rivals(_)) => 1,
            Some(ForkProof::Circle(_)) => 2,
        });
        if let Some(proof) = self.proof.as_deref() {
            writer.count(proof.envelopes().len());
            proof.envelopes().iter().for_each(|envelope| {
                writer.bytes(envelope);
            });
        }
        writer.count(self.residue.len());
        for (path, residue) in &self.residue {
            codec::write_op(&mut writer, &Op::Set { path: path.clone(), value: residue.value.clone() });
            let Position { epoch, stamp, seq } = residue.lost.position;
            writer.varint(epoch).fixed_u64(stamp.0).varint(seq).array(residue.lost.hash.as_bytes());
        }
        writer.finish()
    }

    /// Takes up what the lane remembered before a restart.
    pub(crate) fn recall(&mut self, memory: LaneMemory) {
        self.takeovers = memory.takeovers;
        self.proof = memory.proof.map(Arc::new);
        self.residue = memory.residue;
    }
}

fn read_envelopes(reader: &mut Reader<'_>) -> Result<Vec<Arc<[u8]>>, ReadError> {
    let count = reader.count("envelopes", limit::LANE_OPENERS_KEPT.saturating_add(1))?;
    (0..count).map(|_| reader.bytes("envelope", limit::SNAPSHOT_BYTES_MAX).map(Arc::from)).collect()
}

fn read_proof(reader: &mut Reader<'_>) -> Result<Option<ForkProof>, ReadError> {
    match reader.u8("fork proof")? {
        0 => Ok(None),
        1 => {
            let rivals = read_envelopes(reader)?;
            let count = u64::try_from(rivals.len()).unwrap_or(u64::MAX);
            let bad = ReadError::Value { what: "rivals", value: count };
            Ok(Some(ForkProof::Rivals(rivals.try_into().map_err(|_| bad)?)))
        }
        2 => Ok(Some(ForkProof::Circle(read_envelopes(reader)?))),
        other => Err(ReadError::Value { what: "fork proof", value: u64::from(other) }),
    }
}

fn read_residue(reader: &mut Reader<'_>) -> Result<BTreeMap<Path, Residue>, DecodeEnvelopeError> {
    let mut residue = BTreeMap::new();
    for _ in 0..reader.count("residue", RESIDUE_MAX)? {
        let class = reader.u8("op class")?;
        let op = codec::read_op(reader)?;
        let (CLASS_PLAIN, Op::Set { path, value }) = (class, op) else {
            return Err(ReadError::Value { what: "residue", value: u64::from(class) }.into());
        };
        let epoch = reader.varint("epoch")?;
        let stamp = Stamp(reader.fixed_u64("stamp")?);
        let position = Position { epoch, stamp, seq: reader.varint("seq")? };
        let lost = Head { position, hash: EnvelopeHash::from_bytes(reader.array("hash")?) };
        residue.insert(path, Residue { value, lost });
    }
    Ok(residue)
}
