//! What the documentation says of scenarios and faults.

use fleetd_simulator::fault::FaultKind;
use fleetd_simulator::scenario::{Scenario, builtin_names};

const DOCUMENT: &str = include_str!("../../../docs/simulator.md");

fn has_row(name: &str) -> bool {
    DOCUMENT.lines().any(|line| line.starts_with(&format!("| `{name}` |")))
}

#[test]
fn the_atlas_has_every_fault_and_every_scenario() {
    for kind in FaultKind::ALL {
        assert!(has_row(&kind.to_string()), "{kind} is not in the atlas");
    }
    for name in builtin_names() {
        assert!(has_row(name), "{name} is not described");
    }
}

/// A scenario with every key, as its file is written, names each key that the document has to explain.
#[test]
fn every_key_of_a_scenario_is_explained() {
    let everything = "\
name = \"a\"\nabout = \"b\"\ndevices = 3\nsites = 1\nduration = \"1h\"\ndeadline = \"5m\"\nlatency_ms = [1, 2]\n\
arm64_percent = 1\nno_rtc_percent = 1\nlate_devices = 1\n\
[[act]]\nat = \"1m\"\nroll_out = \"1.0.0\"\nworkload = \"tea\"\nsites = [0]\nplanned_ahead = \"1s\"\nprogram = \"crashes\"\nafter = \"1s\"\nonly_on = \"linux/arm64\"\n\
[swarm.crash]\nper_day = [1, 2]\nlasting_s = [1, 2]\nvalue = [1, 2]\non = \"server\"\n\
[[fault]]\nat = \"1m\"\non = \"server\"\nkind = \"crash\"\nlasting = \"1s\"\nvalue = 1\n";
    let written = Scenario::parse(everything).unwrap().to_toml().unwrap();
    let table: toml::Table = written.parse().unwrap();
    let keys = |table: &toml::Table, prefix: &str| table.keys().map(|key| format!("{prefix}{key}")).collect::<Vec<_>>();
    let first = |key: &str| table[key].as_array().unwrap()[0].as_table().unwrap().clone();
    let top = keys(&table, "").into_iter().filter(|key| !["act", "fault", "swarm"].contains(&key.as_str()));
    let swarm = table["swarm"]["crash"].as_table().unwrap().clone();
    let all = top
        .chain(keys(&first("act"), "act."))
        .chain(keys(&first("fault"), "fault."))
        .chain(keys(&swarm, "swarm.KIND."));
    for key in all {
        assert!(has_row(&key), "{key} is not explained");
    }
}
