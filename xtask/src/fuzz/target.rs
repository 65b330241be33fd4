//! The fuzz targets, by name. A test holds the table to the tests that there are.

/// What can be run for long.
pub(crate) struct Target {
    /// Its name, and its folder's.
    pub(crate) name: &'static str,
    /// The crate that it is in.
    pub(crate) package: &'static str,
    /// The folder of its source file, from the root.
    source: &'static str,
    /// The test.
    pub(crate) test: &'static str,
    /// Bytes of an input: somewhat more than what is read has at most, or than what is interesting.
    pub(crate) bytes_max: u32,
    /// What it reads.
    pub(crate) what: &'static str,
}

impl Target {
    /// Where its corpus and its crashes lie, from the root, as `bolero` looks for them.
    pub(crate) fn folder(&self) -> String {
        format!("{}/__fuzz__/{}", self.source, self.name)
    }

    /// How cargo is told which binary has it. A package with a program has its targets among its unit tests: for others,
    /// cargo would link the program too, which has the counters and no fuzzer.
    pub(crate) fn binary(&self) -> &'static [&'static str] {
        if self.source.contains("/tests/") { &["--test", "runner"] } else { &["--lib"] }
    }

    /// The features that its binary asks for.
    pub(crate) fn features(&self) -> &'static [&'static str] {
        if self.package == "fleetd-actors" { &["--features", "shell,cel"] } else { &[] }
    }
}

/// Every target, those first that a peer reaches who has proven nothing.
pub(crate) const TARGETS: [Target; 25] = [
    Target {
        name: "frame",
        package: "fleetd-sync-transport",
        source: "sync/transport/tests/fuzz",
        test: "fuzz::frame::any_bytes_are_one_message_or_none",
        bytes_max: 66_000,
        what: "frames of a connection",
    },
    Target {
        name: "stream",
        package: "fleetd-sync-transport",
        source: "sync/transport/src/endpoint/reader",
        test: "endpoint::reader::fuzz::any_stream_has_the_same_frames_wherever_it_is_cut",
        bytes_max: 70_000,
        what: "frames off a stream, cut at any byte",
    },
    Target {
        name: "session",
        package: "fleetd-sync-transport",
        source: "sync/transport/tests/fuzz",
        test: "fuzz::session::whatever_a_peer_says_a_session_keeps_its_rules",
        bytes_max: 20_000,
        what: "frames in any order, and time, into a session of either side",
    },
    Target {
        name: "certificate",
        package: "fleetd-sync-transport",
        source: "sync/transport/tests/fuzz",
        test: "fuzz::certificate::any_bytes_are_one_certificate_or_request_or_none",
        bytes_max: 5_000,
        what: "certificates, and the requests for them",
    },
    Target {
        name: "connect",
        package: "fleetd-server",
        source: "server/tests/fuzz",
        test: "fuzz::connect::no_request_makes_a_handler_fail",
        bytes_max: 8_000,
        what: "requests of gRPC, gRPC-Web and Connect into the handlers of a server",
    },
    Target {
        name: "envelope",
        package: "fleetd-sync-core",
        source: "sync/core/tests/fuzz",
        test: "fuzz::envelope::any_bytes_are_one_envelope_or_none",
        bytes_max: 17_000,
        what: "signed envelopes",
    },
    Target {
        name: "replica",
        package: "fleetd-sync-core",
        source: "sync/core/tests/fuzz",
        test: "fuzz::replica::what_a_writer_sends_is_stored_and_loads_as_it_was",
        bytes_max: 40_000,
        what: "envelopes of a writer who may write, and stored lanes",
    },
    Target {
        name: "trust",
        package: "fleetd-sync-core",
        source: "sync/core/tests/fuzz",
        test: "fuzz::trust::any_bytes_are_one_root_record_or_block_or_none",
        bytes_max: 20_000,
        what: "root records, chains, and armoured blocks of every kind",
    },
    Target {
        name: "release",
        package: "fleetd-sync-core",
        source: "sync/core/tests/fuzz",
        test: "fuzz::release::any_bytes_are_one_release_or_none",
        bytes_max: 17_000,
        what: "manifests and signed releases",
    },
    Target {
        name: "configuration",
        package: "fleetd-sync-core",
        source: "sync/core/tests/fuzz",
        test: "fuzz::configuration::any_bytes_are_one_configuration_or_none",
        bytes_max: 3_000,
        what: "configurations of workloads",
    },
    Target {
        name: "audit",
        package: "fleetd-sync-core",
        source: "sync/core/tests/fuzz",
        test: "fuzz::audit::any_bytes_are_one_entry_or_none",
        bytes_max: 12_000,
        what: "entries of the audit log, and chains of them",
    },
    Target {
        name: "text",
        package: "fleetd-sync-core",
        source: "sync/core/tests/fuzz",
        test: "fuzz::text::any_text_has_one_meaning_or_none",
        bytes_max: 4_000,
        what: "enrolment tokens, addresses, names, ids and paths",
    },
    Target {
        name: "plan",
        package: "fleetd-actors",
        source: "actors/tests/fuzz",
        test: "fuzz::plan::any_text_is_one_plan_or_selector_or_none",
        bytes_max: 8_000,
        what: "saved plans, selectors, conditions, and the windows of a device's document",
    },
    Target {
        name: "report",
        package: "fleetd-actors",
        source: "actors/tests/fuzz",
        test: "fuzz::report::any_bytes_are_one_report_or_none",
        bytes_max: 20_000,
        what: "batches of log lines, and what a device says of itself",
    },
    Target {
        name: "device",
        package: "fleetd-agent",
        source: "agent/src/fuzz",
        test: "fuzz::device::any_bytes_are_a_devices_file_or_none",
        bytes_max: 20_000,
        what: "an agent's records, configuration, lines, and support bundles",
    },
    Target {
        name: "workload",
        package: "fleetd-agent",
        source: "agent/src/fuzz",
        test: "fuzz::workload::whatever_a_workload_says_is_understood_or_not",
        bytes_max: 8_000,
        what: "what a workload and its shim tell their agent, and verdicts beside releases",
    },
    Target {
        name: "segment",
        package: "fleetd-sync-store",
        source: "sync/store/src/segment_log",
        test: "segment_log::fuzz::any_bytes_are_one_segment_or_damage",
        bytes_max: 20_000,
        what: "segments of logs, open and sealed",
    },
    Target {
        name: "store",
        package: "fleetd-sync-store",
        source: "sync/store/src/memory",
        test: "memory::fuzz::any_bytes_are_a_store_or_refused",
        bytes_max: 40_000,
        what: "whole stores, and copies of stores in a backup",
    },
    Target {
        name: "ab_file",
        package: "fleetd-sync-store",
        source: "sync/store/src",
        test: "ab_file::fuzz::any_bytes_are_one_slot_or_torn",
        bytes_max: 4_000,
        what: "slots of the files that a device's identity and floors lie in",
    },
    Target {
        name: "server_record",
        package: "fleetd-server",
        source: "server/tests/fuzz",
        test: "fuzz::record::any_bytes_are_a_record_or_none",
        bytes_max: 20_000,
        what: "a server's records",
    },
    Target {
        name: "trust_file",
        package: "fleetd-server",
        source: "server/src/trust_file",
        test: "trust_file::fuzz::any_bytes_are_one_copy_of_trust_or_none",
        bytes_max: 20_000,
        what: "the copy of trust beside a server's keys",
    },
    Target {
        name: "backup",
        package: "fleetd-server",
        source: "server/tests/fuzz",
        test: "fuzz::backup::any_file_is_restored_whole_or_leaves_nothing",
        bytes_max: 40_000,
        what: "whole backup files, as a server is restored of them",
    },
    Target {
        name: "operator_file",
        package: "fleetd",
        source: "cli/src/fuzz",
        test: "fuzz::operator_file::any_file_of_an_operator_is_read_again_as_it_was_written",
        bytes_max: 8_000,
        what: "an operator's contexts and keys, and drafts of root records",
    },
    Target {
        name: "argument",
        package: "fleetd",
        source: "cli/src/fuzz",
        test: "fuzz::argument::any_argument_has_one_meaning_or_none",
        bytes_max: 500,
        what: "what flags and arguments say, and the headers of programs",
    },
    Target {
        name: "scenario",
        package: "fleetd",
        source: "cli/src/fuzz",
        test: "fuzz::scenario::any_text_is_one_scenario_or_none",
        bytes_max: 8_000,
        what: "scenarios of the simulator, and the faults that a seed draws",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ci::root;
    use crate::source::Tree;

    #[test]
    fn every_target_is_in_the_table_and_has_a_corpus() {
        let tree = Tree::read(root()).unwrap();
        let mut found = Vec::new();
        for file in tree.rust.iter().filter(|file| !file.path.starts_with("xtask/")) {
            let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let names = file.text.split("bolero::check!(name = \"").skip(1).filter_map(|rest| rest.split('"').next());
            found.extend(names.map(|name| format!("{folder}/__fuzz__/{name}")));
        }
        let mut known: Vec<String> = TARGETS.iter().map(Target::folder).collect();
        found.sort();
        known.sort();
        assert_eq!(found, known);
        for target in &TARGETS {
            let corpus = std::fs::read_dir(root().join(target.folder()).join("corpus"));
            assert!(corpus.is_ok_and(|mut files| files.next().is_some()), "`{}` has no corpus", target.name);
        }
    }
}
