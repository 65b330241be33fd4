//! The agent's own record, and the device's root records.

use std::collections::BTreeMap;

use fleetd_actors::agent::record::{AgentRecord, Membership, TrustFloor};
use fleetd_proto::fleetd::record::v1 as stored;
use fleetd_sync_core::id::{DeviceId, FleetId};
use fleetd_sync_core::time::{ClockFloor, Wall};
use prost::Message as _;
use stored::membership_record::Standing;

use super::{DecodeRecordError, fixed, named, required};

/// Writes an agent's record.
#[must_use]
pub fn encode_agent(record: &AgentRecord) -> Vec<u8> {
    let standing = match &record.membership {
        Membership::Unknown => None,
        Membership::Pending { fleet } => {
            Some(Standing::Pending(stored::PendingRecord { fleet_id: fleet.as_bytes().to_vec() }))
        }
        Membership::Enrolled { fleet, device, name, certificates } => {
            Some(Standing::Enrolled(stored::EnrolledRecord {
                fleet_id: fleet.as_bytes().to_vec(),
                device_id: device.as_bytes().to_vec(),
                name: name.to_string(),
                certificates: certificates.clone(),
            }))
        }
        Membership::Refused { code, message } => {
            Some(Standing::Refused(stored::RefusedRecord { code: code.clone(), message: message.clone() }))
        }
    };
    let message = stored::AgentRecord {
        address: record.address.clone().unwrap_or_default(),
        dial_failures: record.dial_failures,
        membership: standing.map(|standing| stored::MembershipRecord { standing: Some(standing) }),
    };
    message.encode_to_vec()
}

/// Reads an agent's record.
///
/// # Errors
/// [`DecodeRecordError`] when the bytes are no such record.
pub fn decode_agent(bytes: &[u8]) -> Result<AgentRecord, DecodeRecordError> {
    let message = stored::AgentRecord::decode(bytes)?;
    let membership = match message.membership {
        None => Membership::Unknown,
        Some(membership) => match required("membership.standing", membership.standing)? {
            Standing::Pending(pending) => {
                Membership::Pending { fleet: FleetId::from_bytes(fixed("pending.fleet_id", &pending.fleet_id)?) }
            }
            Standing::Enrolled(enrolled) => Membership::Enrolled {
                fleet: FleetId::from_bytes(fixed("enrolled.fleet_id", &enrolled.fleet_id)?),
                device: DeviceId::from_bytes(fixed("enrolled.device_id", &enrolled.device_id)?),
                name: named("enrolled.name", &enrolled.name)?,
                certificates: enrolled.certificates,
            },
            Standing::Refused(refused) => Membership::Refused { code: refused.code, message: refused.message },
        },
    };
    let address = Some(message.address).filter(|address| !address.is_empty());
    Ok(AgentRecord { membership, dial_failures: message.dial_failures, address })
}

/// Writes root records, in order of their versions.
#[must_use]
pub fn encode_root_chain(records: Vec<Vec<u8>>) -> Vec<u8> {
    stored::RootChainRecord { records }.encode_to_vec()
}

/// Reads root records as they were signed. Whether they are a chain is for their reader to find out.
///
/// # Errors
/// [`DecodeRecordError::Protobuf`] when the bytes are none.
pub fn decode_root_chain(bytes: &[u8]) -> Result<Vec<Vec<u8>>, DecodeRecordError> {
    Ok(stored::RootChainRecord::decode(bytes)?.records)
}

/// Writes the trust version that a device has reached.
#[must_use]
pub fn encode_trust_floor(floor: &TrustFloor) -> Vec<u8> {
    stored::TrustFloorRecord { fleet_id: floor.fleet.as_bytes().to_vec(), version: floor.version }.encode_to_vec()
}

/// Reads the trust version that a device has reached.
///
/// # Errors
/// [`DecodeRecordError`] when the bytes are no such record.
pub fn decode_trust_floor(bytes: &[u8]) -> Result<TrustFloor, DecodeRecordError> {
    let message = stored::TrustFloorRecord::decode(bytes)?;
    let fleet = FleetId::from_bytes(fixed("trust_floor.fleet_id", &message.fleet_id)?);
    Ok(TrustFloor { fleet, version: message.version })
}

/// Writes the date that is known to have passed on a device, as a `google.protobuf.Timestamp`.
#[must_use]
pub fn encode_clock_floor(floor: ClockFloor) -> Vec<u8> {
    let Wall(ms) = floor.0;
    let nanos = i32::try_from(ms.rem_euclid(1000) * 1_000_000).unwrap_or_default();
    prost_types::Timestamp { seconds: ms.div_euclid(1000), nanos }.encode_to_vec()
}

/// Reads the date that is known to have passed on a device.
///
/// # Errors
/// [`DecodeRecordError::Protobuf`] when the bytes are none.
pub fn decode_clock_floor(bytes: &[u8]) -> Result<ClockFloor, DecodeRecordError> {
    let prost_types::Timestamp { seconds, nanos } = prost_types::Timestamp::decode(bytes)?;
    Ok(ClockFloor(Wall(seconds.saturating_mul(1000).saturating_add(i64::from(nanos / 1_000_000)))))
}

/// Writes records as one file holds them, by their keys.
#[must_use]
pub fn encode_kept(records: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
    let kept = |(key, value): (&Vec<u8>, &Vec<u8>)| stored::KeptRecord { key: key.clone(), value: value.clone() };
    stored::KeptRecords { records: records.iter().map(kept).collect() }.encode_to_vec()
}

/// Reads the records of one file.
///
/// # Errors
/// [`DecodeRecordError::Protobuf`] when the bytes are none.
pub fn decode_kept(bytes: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, DecodeRecordError> {
    let records = stored::KeptRecords::decode(bytes)?.records;
    Ok(records.into_iter().map(|record| (record.key, record.value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_record_survives_its_bytes() {
        let fleet = FleetId::from_bytes([1; 16]);
        let memberships = [
            Membership::Unknown,
            Membership::Pending { fleet },
            Membership::Enrolled {
                fleet,
                device: DeviceId::from_bytes([2; 10]),
                name: "brisk-otter".parse().unwrap(),
                certificates: vec![vec![3; 40], vec![4; 50]],
            },
            Membership::Refused { code: "enrolment.token.expired".to_owned(), message: "too late".to_owned() },
        ];
        for membership in memberships {
            for address in [None, Some("fleet.example.com:4433".to_owned())] {
                let record = AgentRecord { membership: membership.clone(), dial_failures: 3, address };
                assert_eq!(decode_agent(&encode_agent(&record)).unwrap(), record);
            }
        }
    }

    #[test]
    fn a_trust_floor_survives_its_bytes() {
        let floor = TrustFloor { fleet: FleetId::from_bytes([1; 16]), version: 7 };
        assert_eq!(decode_trust_floor(&encode_trust_floor(&floor)).unwrap(), floor);
        let short = stored::TrustFloorRecord { fleet_id: vec![1], version: 7 }.encode_to_vec();
        assert!(matches!(decode_trust_floor(&short), Err(DecodeRecordError::Length { .. })));
    }

    #[test]
    fn a_date_survives_its_bytes() {
        for ms in [0, 1, 999, 1_800_000_000_123, -1, i64::from(i32::MIN)] {
            let floor = ClockFloor(Wall(ms));
            assert_eq!(decode_clock_floor(&encode_clock_floor(floor)).unwrap(), floor);
        }
        assert!(matches!(decode_clock_floor(&[0xff]), Err(DecodeRecordError::Protobuf(_))));
    }

    #[test]
    fn a_record_of_other_bytes_is_refused() {
        let short = stored::MembershipRecord {
            standing: Some(Standing::Pending(stored::PendingRecord { fleet_id: vec![1; 15] })),
        };
        let bytes = stored::AgentRecord { membership: Some(short), ..Default::default() }.encode_to_vec();
        assert!(matches!(decode_agent(&bytes), Err(DecodeRecordError::Length { length: 15, expected: 16, .. })));
        assert!(matches!(decode_agent(b"\xff"), Err(DecodeRecordError::Protobuf(_))));
    }
}
