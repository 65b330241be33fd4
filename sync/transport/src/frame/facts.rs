//! What a device says about itself: names and values here, fields on the wire. A name that the schema does not know
//! is left out.

use fleetd_proto::fleetd::common::v1 as wire;
use fleetd_sync_core::limit;
use fleetd_sync_core::session::message::Facts;
use prost::Message as _;

use super::DecodeFrameError;

pub(super) fn encode(facts: &Facts) -> wire::Facts {
    let text = |name: &str| facts.get(name).cloned().unwrap_or_default();
    let number = |name: &str| facts.get(name).and_then(|value| value.parse::<u64>().ok()).unwrap_or_default();
    wire::Facts {
        platform: text("platform"),
        os: text("os"),
        kernel: text("kernel"),
        hostname: text("hostname"),
        cpu: text("cpu"),
        cpu_cores: u32::try_from(number("cpu_cores")).unwrap_or(u32::MAX),
        memory_bytes: number("memory_bytes"),
        disk_bytes: number("disk_bytes"),
        disk_free_bytes: number("disk_free_bytes"),
        agent_version: text("agent_version"),
        model: text("model"),
        serial: text("serial"),
    }
}

pub(super) fn decode(facts: &wire::Facts) -> Result<Facts, DecodeFrameError> {
    let bytes = facts.encoded_len();
    if bytes > limit::FACTS_BYTES_MAX {
        return Err(DecodeFrameError::TooMany { field: "facts", count: bytes, count_max: limit::FACTS_BYTES_MAX });
    }
    let texts = [
        ("platform", &facts.platform),
        ("os", &facts.os),
        ("kernel", &facts.kernel),
        ("hostname", &facts.hostname),
        ("cpu", &facts.cpu),
        ("agent_version", &facts.agent_version),
        ("model", &facts.model),
        ("serial", &facts.serial),
    ];
    let numbers = [
        ("cpu_cores", u64::from(facts.cpu_cores)),
        ("memory_bytes", facts.memory_bytes),
        ("disk_bytes", facts.disk_bytes),
        ("disk_free_bytes", facts.disk_free_bytes),
    ];
    let texts = texts.into_iter().filter(|(_, value)| !value.is_empty());
    let numbers = numbers.into_iter().filter(|(_, value)| *value != 0);
    Ok(texts
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .chain(numbers.map(|(name, value)| (name.to_owned(), value.to_string())))
        .collect())
}
