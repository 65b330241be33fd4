//! Log lines and gaps.

use fleetd_actors::log_record::{GapReason, LogRecord, LogSource};
use fleetd_proto::fleetd::common::v1::ClockQuality;
use fleetd_proto::fleetd::log::v1::{self as log, read_logs_response::Entry};
use fleetd_sync_core::session::LogStream;
use fleetd_sync_core::time;

use crate::record::timestamp;

/// Whose a record is, for people.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// The device's id.
    pub(crate) device_id: String,
    /// The device's name.
    pub(crate) device_name: String,
}

/// A record as the API shows it.
pub(crate) fn entry(origin: &Origin, stream: &LogStream, sequence: u64, record: &LogRecord) -> Entry {
    let (device_id, device_name) = (origin.device_id.clone(), origin.device_name.clone());
    let (workload, boot, stamp) = (stream.workload.to_string(), stream.boot.to_string(), stream.stamp.0);
    match record {
        LogRecord::Line(line) => Entry::Line(log::LogLine {
            device_id,
            device_name,
            workload,
            source: source(line.source).into(),
            boot,
            stamp,
            sequence,
            time: Some(timestamp(line.time)),
            quality: quality(line.quality).into(),
            severity: line.source.severity_number(),
            line: String::from_utf8_lossy(&line.body).into_owned(),
            truncated: line.cut,
            preview: false,
        }),
        LogRecord::Gap { count, reason } => Entry::Gap(log::LogGap {
            device_id,
            device_name,
            workload,
            boot,
            stamp,
            sequence_first: sequence,
            sequence_last: sequence.saturating_add(count.saturating_sub(1)),
            reason: gap_reason(*reason).into(),
        }),
    }
}

const fn source(source: LogSource) -> log::LogSource {
    match source {
        LogSource::Stdout => log::LogSource::Stdout,
        LogSource::Stderr => log::LogSource::Stderr,
    }
}

const fn quality(quality: time::ClockQuality) -> ClockQuality {
    match quality {
        time::ClockQuality::None => ClockQuality::Unspecified,
        time::ClockQuality::Floor => ClockQuality::Floor,
        time::ClockQuality::Beacon => ClockQuality::Beacon,
        time::ClockQuality::Synced => ClockQuality::Synced,
    }
}

const fn gap_reason(reason: GapReason) -> log::LogGapReason {
    match reason {
        GapReason::SpoolFull => log::LogGapReason::SpoolFull,
        GapReason::Rate => log::LogGapReason::Rate,
        GapReason::Damaged => log::LogGapReason::Damaged,
        GapReason::RestoredServer => log::LogGapReason::RestoredServer,
    }
}
