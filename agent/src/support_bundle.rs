//! A support bundle: one file that tells those who help from afar how a device is, and what its workloads did last.
//!
//! It is a tar: `README.txt`, `about.json`, `config.json`, `doctor.json`, `status.json`, and one recording for each
//! workload as `flight/NAME.pb` ([`crate::record::decode_flight`]). A server's is of the same form, with other parts.
//! Whoever reads one takes it for what anybody may have written.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::record::{DecodeRecordError, WorkloadFlight, decode_flight};

/// Bytes of a bundle that is read: dozens of workloads with the longest recordings.
const BUNDLE_BYTES_MAX: u64 = 64 << 20;
/// Where recordings lie in it, and how they are called.
const FLIGHTS: &str = "flight/";
const FLIGHT_SUFFIX: &str = ".pb";

/// What a device's bundle says of itself.
pub const README: &[u8] = b"\
A fleetd support bundle: how a device is, and what its workloads did last.

about.json    which device and which program, and when this was written
config.json   the agent's configuration, each value with its origin; secrets are left out
doctor.json   everything that the agent needs, and what is wrong with it
status.json   what the agent runs, and how it stands with its server; missing when no agent ran
flight/       the last steps of each workload; missing when no agent ran

To step through a workload's last steps, on any machine with the same version of fleetd:

    fleetd support replay THIS_FILE

There are no keys, no tokens and no log lines in it. The names of workloads, their signed manifests and the device's
configuration are.
";

/// A bundle that is being written.
#[derive(Debug, Default)]
pub struct Bundle {
    files: Vec<(String, Vec<u8>)>,
}

/// Why a bundle was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteBundleError {
    /// Something is there already.
    #[error("{} is there already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The disk failed.
    #[error("{} cannot be written", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl Bundle {
    /// A bundle that explains itself.
    #[must_use]
    pub fn new(readme: &[u8]) -> Self {
        Self { files: vec![("README.txt".to_owned(), readme.to_vec())] }
    }

    /// Adds a part.
    pub fn add(&mut self, name: String, bytes: Vec<u8>) {
        self.files.push((name, bytes));
    }

    /// Adds a document.
    pub fn add_json(&mut self, name: &str, value: &serde_json::Value) {
        self.add(format!("{name}.json"), format!("{value:#}\n").into_bytes());
    }

    /// Adds a workload's recording.
    pub fn add_flight(&mut self, workload: &str, recording: Vec<u8>) {
        self.add(format!("{FLIGHTS}{workload}{FLIGHT_SUFFIX}"), recording);
    }

    /// Writes it to a file that is not there yet, which nobody but this user may read.
    ///
    /// # Errors
    /// As [`WriteBundleError`] says; no part of a file is left then.
    pub fn write(&self, path: &Path) -> Result<(), WriteBundleError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => WriteBundleError::Exists { path: path.to_owned() },
            _ => WriteBundleError::Disk { path: path.to_owned(), source },
        };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        let written = self.archive().and_then(|bytes| file.write_all(&bytes)).and_then(|()| file.sync_all());
        written.map_err(|source| {
            let _ = fs::remove_file(path); // What could not be written may be impossible to remove as well.
            failed(source)
        })
    }

    fn archive(&self) -> io::Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, bytes) in &self.files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o600);
            archive.append_data(&mut header, name, bytes.as_slice())?;
        }
        archive.into_inner()
    }
}

/// Why a bundle cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadBundleError {
    /// The file cannot be read.
    #[error("{} cannot be read", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It is larger than a bundle can be.
    #[error("{} has {length} bytes; a bundle has at most {BUNDLE_BYTES_MAX}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What it has.
        length: u64,
    },
    /// It is no tar, or is cut.
    #[error("{} is no support bundle, or is cut", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// A recording in it is none.
    #[error("{name} in {} is no recording that this program reads", path.display())]
    Flight {
        /// The file.
        path: PathBuf,
        /// Which part.
        name: String,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Reads the parts of a bundle, in the order in which they lie there, each by its name.
///
/// # Errors
/// As [`ReadBundleError`] says.
pub fn read_parts(path: &Path) -> Result<Vec<(String, Vec<u8>)>, ReadBundleError> {
    let file = |source| ReadBundleError::File { path: path.to_owned(), source };
    let length = fs::metadata(path).map_err(file)?.len();
    if length > BUNDLE_BYTES_MAX {
        return Err(ReadBundleError::TooLarge { path: path.to_owned(), length });
    }
    let bytes = fs::read(path).map_err(file)?;
    let damaged = |source| ReadBundleError::Archive { path: path.to_owned(), source };
    let mut archive = tar::Archive::new(bytes.as_slice());
    let mut parts = Vec::new();
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mut part = Vec::new();
        // Never more than the file has: a tar is not compressed.
        entry.read_to_end(&mut part).map_err(damaged)?;
        parts.push((name, part));
    }
    if parts.is_empty() {
        return Err(damaged(io::Error::new(io::ErrorKind::InvalidData, "there is nothing in it")));
    }
    Ok(parts)
}

/// Reads the recordings of workloads among the parts of a bundle, in the order in which they lie there.
///
/// # Errors
/// [`ReadBundleError::Flight`].
pub fn read_flights(path: &Path, parts: &[(String, Vec<u8>)]) -> Result<Vec<WorkloadFlight>, ReadBundleError> {
    let flights = parts.iter().filter(|(name, _)| name.starts_with(FLIGHTS) && name.ends_with(FLIGHT_SUFFIX));
    let read = |(name, part): &(String, Vec<u8>)| {
        let refused = |source: DecodeRecordError| ReadBundleError::Flight {
            path: path.to_owned(),
            name: name.clone(),
            source: Box::new(source),
        };
        decode_flight(part).map_err(refused)
    };
    flights.map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(bytes: &[u8], folder: &tempfile::TempDir) -> Result<Vec<WorkloadFlight>, ReadBundleError> {
        let path = folder.path().join("cut.tar");
        fs::write(&path, bytes).unwrap();
        read(&path)
    }

    fn read(path: &Path) -> Result<Vec<WorkloadFlight>, ReadBundleError> {
        read_flights(path, &read_parts(path)?)
    }

    #[test]
    fn a_bundle_is_written_once_for_this_user_alone_and_explains_itself() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bundle.tar");
        let mut bundle = Bundle::new(README);
        bundle.add_json("about", &serde_json::json!({ "version": "1" }));
        bundle.write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(String::from_utf8_lossy(&fs::read(&path).unwrap()).contains("fleetd support replay"));
        assert!(read(&path).unwrap().is_empty());
        assert!(matches!(bundle.write(&path), Err(WriteBundleError::Exists { .. })));
    }

    #[test]
    fn what_is_no_bundle_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let mut bundle = Bundle::new(README);
        bundle.add_flight("coffee", b"\xff no recording".to_vec());
        let whole = bundle.archive().unwrap();
        let error = cut(&whole, &folder).unwrap_err().to_string();
        assert!(error.contains("flight/coffee.pb"), "{error}");
        assert!(matches!(cut(&[], &folder), Err(ReadBundleError::Archive { .. })));
        assert!(matches!(cut(&[7; 4096], &folder), Err(ReadBundleError::Archive { .. })));
        assert!(matches!(read(folder.path().join("none").as_path()), Err(ReadBundleError::File { .. })));
        for length in (1..whole.len()).step_by(97) {
            assert!(cut(&whole[..length], &folder).map_or(true, |flights| flights.is_empty()), "cut at {length}");
        }
    }
}
