//! How a device tells that a workload is well.

use std::time::Duration;

use crate::codec::{ReadError, Reader, Writer};
use crate::limit;

/// What is asked of a running workload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeCheck {
    /// Nothing: it is well if it is alive through its grace time.
    Alive,
    /// It says so itself, with `READY=1` on the socket that `NOTIFY_SOCKET` names.
    Notify,
    /// A command exits with 0.
    Exec {
        /// The command and its arguments.
        argv: Vec<String>,
    },
    /// A port of this device takes a connection.
    Tcp {
        /// The port.
        port: u16,
    },
    /// A port of this device answers a GET with a status from 200 to 399.
    Http {
        /// The port.
        port: u16,
        /// The path, with its leading slash.
        path: String,
    },
}

/// How a device tells that a workload is well. Durations are whole milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probe {
    /// What is asked.
    pub check: ProbeCheck,
    /// Time from one question to the next.
    pub interval: Duration,
    /// Time in which it must be answered.
    pub timeout: Duration,
    /// Time after the start in which failures do not count and success must come.
    pub grace: Duration,
    /// Answers in a row that make it healthy.
    pub successes_min: u8,
    /// Failures in a row that make it unhealthy.
    pub failures_max: u8,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            check: ProbeCheck::Alive,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            grace: Duration::from_secs(10),
            successes_min: 1,
            failures_max: 3,
        }
    }
}

impl Probe {
    /// Entries that count against the manifest's limit.
    pub(super) fn entries(&self) -> usize {
        match &self.check {
            ProbeCheck::Exec { argv } => argv.len(),
            ProbeCheck::Alive | ProbeCheck::Notify | ProbeCheck::Tcp { .. } | ProbeCheck::Http { .. } => 1,
        }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        match &self.check {
            ProbeCheck::Alive => writer.u8(0),
            ProbeCheck::Notify => writer.u8(1),
            ProbeCheck::Exec { argv } => {
                writer.u8(2).count(argv.len());
                argv.iter().fold(&mut *writer, |writer, argument| writer.text(argument))
            }
            ProbeCheck::Tcp { port } => writer.u8(3).varint(u64::from(*port)),
            ProbeCheck::Http { port, path } => writer.u8(4).varint(u64::from(*port)).text(path),
        };
        for duration in [self.interval, self.timeout, self.grace] {
            write_ms(writer, duration);
        }
        writer.u8(self.successes_min).u8(self.failures_max);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ReadError> {
        let check = match reader.u8("probe")? {
            0 => ProbeCheck::Alive,
            1 => ProbeCheck::Notify,
            2 => ProbeCheck::Exec { argv: read_texts(reader, "probe argument")? },
            3 => ProbeCheck::Tcp { port: read_port(reader)? },
            4 => ProbeCheck::Http {
                port: read_port(reader)?,
                path: reader.text("probe path", limit::MANIFEST_BYTES_MAX)?.to_owned(),
            },
            other => return Err(ReadError::Value { what: "probe", value: u64::from(other) }),
        };
        Ok(Self {
            check,
            interval: read_ms(reader, "probe interval")?,
            timeout: read_ms(reader, "probe timeout")?,
            grace: read_ms(reader, "probe grace")?,
            successes_min: reader.u8("probe successes")?,
            failures_max: reader.u8("probe failures")?,
        })
    }
}

fn read_port(reader: &mut Reader<'_>) -> Result<u16, ReadError> {
    let port = reader.varint("probe port")?;
    u16::try_from(port).map_err(|_| ReadError::Value { what: "probe port", value: port })
}

pub(super) fn read_texts(reader: &mut Reader<'_>, what: &'static str) -> Result<Vec<String>, ReadError> {
    let count = reader.count(what, limit::MANIFEST_ENTRIES_MAX)?;
    (0..count).map(|_| Ok(reader.text(what, limit::MANIFEST_BYTES_MAX)?.to_owned())).collect()
}

pub(super) fn write_ms(writer: &mut Writer, duration: Duration) {
    writer.varint(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
}

pub(super) fn read_ms(reader: &mut Reader<'_>, what: &'static str) -> Result<Duration, ReadError> {
    Ok(Duration::from_millis(reader.varint(what)?))
}
