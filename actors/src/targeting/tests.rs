//! Which devices of a small fleet are meant.

use super::*;

pub(crate) fn row(index: u8) -> DeviceRow {
    DeviceRow {
        local: LocalId::from_bytes([index; 16]),
        device: DeviceId::from_bytes([index; 10]),
        name: format!("otter-{index}").parse().unwrap(),
        site: if index.is_multiple_of(2) { "berlin".to_owned() } else { String::new() },
        labels: BTreeMap::from([("rack".parse().unwrap(), index.to_string().parse().unwrap())]),
        facts: BTreeMap::new(),
        platform: Some("linux/arm64".parse().unwrap()),
        free_bytes: Some(1 << 30),
        releases: BTreeMap::new(),
        barred: None,
        refused: None,
        holds: vec![],
        conflicts: BTreeSet::new(),
        rollouts: BTreeMap::new(),
        offline_since: None,
        revision: Revision(u64::from(index)),
    }
}
