//! Facts: names and values inside, fields outside.

use fleetd_proto::fleetd::common::v1 as common;
use fleetd_sync_core::session::message::Facts;

/// Facts as the API shows them. A device names some of them more closely than the schema does.
pub(crate) fn show(facts: &Facts) -> common::Facts {
    let text = |names: &[&str]| names.iter().find_map(|name| facts.get(*name)).cloned().unwrap_or_default();
    let number = |names: &[&str]| {
        let found = names.iter().find_map(|name| facts.get(*name)?.parse::<u64>().ok());
        found.unwrap_or_default()
    };
    common::Facts {
        platform: text(&["platform"]),
        os: text(&["os_name", "os"]),
        kernel: text(&["kernel"]),
        hostname: text(&["hostname"]),
        cpu: text(&["cpu_model", "cpu"]),
        cpu_cores: u32::try_from(number(&["cpu_count", "cpu_cores"])).unwrap_or(u32::MAX),
        memory_bytes: number(&["ram_bytes", "memory_bytes"]),
        disk_bytes: number(&["disk_bytes"]),
        disk_free_bytes: number(&["disk_free_bytes"]),
        agent_version: text(&["agent_version"]),
        model: text(&["model"]),
        serial: text(&["serial"]),
    }
}

/// Facts as a device gives them when it registers; what is empty was not said.
pub(crate) fn read(facts: &common::Facts) -> Facts {
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
    let texts = texts.map(|(name, value)| (name.to_owned(), value.clone()));
    texts.chain(numbers.map(|(name, value)| (name.to_owned(), value.to_string()))).collect()
}
