//! What a lane says: the envelopes from its last opener on, one after the other.

use std::collections::BTreeMap;

use fleetd_sync_core::envelope::{Envelope, Head, Kind, Op, Previous, Value};

/// What a lane says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneWord {
    /// Its last envelope.
    pub head: Head,
    /// Each path with its value.
    pub entries: BTreeMap<String, Value>,
    /// Whether some of it waits for something else, and has no effect here yet.
    pub waits: bool,
}

/// Reads a lane from what a node holds of it, in the order of positions; `None` when that is nothing.
///
/// # Errors
/// What is wrong with the lane: it does not begin with an opener, or one envelope does not follow the one before it.
pub fn read(held: &[&Envelope]) -> Result<Option<LaneWord>, String> {
    let Some(last) = held.last() else { return Ok(None) };
    let Some(opener) = held.iter().rposition(|envelope| envelope.body.kind == Kind::Snapshot) else {
        return Err(format!("nothing of what is held up to {:?} opens the lane", last.body.position));
    };
    let mut word = LaneWord { head: last.head(), entries: BTreeMap::new(), waits: false };
    let mut before: Option<&Envelope> = None;
    for envelope in held.iter().skip(opener) {
        if let Some(before) = before {
            let is_next = envelope.body.position.seq == before.body.position.seq + 1
                && envelope.body.position.epoch == before.body.position.epoch
                && envelope.body.position.stamp == before.body.position.stamp
                && envelope.body.previous == Previous::Link(before.hash);
            if !is_next {
                return Err(format!("{:?} does not follow {:?}", envelope.body.position, before.body.position));
            }
        }
        before = Some(envelope);
        word.waits |= !envelope.body.needs.is_empty();
        for op in &envelope.body.ops {
            match op {
                Op::Set { path, value } => drop(word.entries.insert(path.to_string(), value.clone())),
                Op::Delete { path } => drop(word.entries.remove(path.as_str())),
                Op::Unknown { .. } => {}
            }
        }
    }
    Ok(Some(word))
}

#[cfg(test)]
mod tests {
    use fleetd_sync_core::codec;
    use fleetd_sync_core::entropy::Entropy;
    use fleetd_sync_core::envelope::{Body, DocumentId, Position};
    use fleetd_sync_core::id::{FleetId, Stamp};
    use fleetd_sync_core::key::SecretKey;
    use fleetd_sync_core::time::{ClockQuality, Wall};

    use super::*;

    fn envelope(key: &SecretKey, seq: u64, previous: Previous, ops: Vec<Op>) -> Envelope {
        let body = Body {
            fleet: FleetId::from_bytes([1; FleetId::LENGTH]),
            document: DocumentId::Trust,
            lane: key.id(),
            position: Position { epoch: 1, stamp: Stamp(7), seq },
            previous,
            wall: Wall(0),
            quality: ClockQuality::None,
            needs: Vec::new(),
            kind: if seq == 0 { Kind::Snapshot } else { Kind::Delta },
            ops,
        };
        codec::seal(body, key)
    }

    #[test]
    fn a_lane_is_its_last_opener_and_what_follows_it() {
        let key = SecretKey::generate(&mut Entropy::from_seed([1; 32]));
        let set = |path: &str, number| Op::Set { path: path.parse().unwrap(), value: Value::Integer(number) };
        let opener = envelope(&key, 0, Previous::Start, vec![set("a", 1), set("b", 2)]);
        let delete = Op::Delete { path: "a".parse().unwrap() };
        let delta = envelope(&key, 1, Previous::Link(opener.hash), vec![delete, set("c", 3)]);
        let word = read(&[&opener, &delta]).unwrap().unwrap();
        assert_eq!(word.head, delta.head());
        assert_eq!(word.entries.keys().collect::<Vec<_>>(), ["b", "c"]);
        assert!(read(&[&delta]).is_err());
        let stranger = envelope(&key, 2, Previous::Link(opener.hash), Vec::new());
        assert!(read(&[&opener, &stranger]).is_err());
        assert_eq!(read(&[]).unwrap(), None);
    }
}
