//! The few file operations that segment logs need: the operating system's, or the twin's with its faults.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Files in one folder a log. What is not synced may be lost with the power, in part or whole.
pub(crate) trait Files: Send + Sync + 'static {
    /// The logs that have a folder, in order.
    fn logs(&self) -> io::Result<Vec<String>>;
    /// The names in a log's folder, in order; none when there is no folder.
    fn list(&self, log: &str) -> io::Result<Vec<String>>;
    /// A file's content.
    fn read(&self, log: &str, file: &str) -> io::Result<Vec<u8>>;
    /// Writes at an offset; makes the folder and the file where they are missing.
    fn write_at(&self, log: &str, file: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts a file.
    fn truncate(&self, log: &str, file: &str, length: u64) -> io::Result<()>;
    /// Makes a file's content durable.
    fn sync(&self, log: &str, file: &str) -> io::Result<()>;
    /// Makes the names in a log's folder durable, and the folder itself.
    fn sync_names(&self, log: &str) -> io::Result<()>;
    /// Renames a file in its folder, over another if need be.
    fn rename(&self, log: &str, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, log: &str, file: &str) -> io::Result<()>;
    /// Removes a log's folder with all that is in it.
    fn remove_log(&self, log: &str) -> io::Result<()>;
}

/// The operating system's files, below one folder.
#[derive(Debug)]
pub(crate) struct OsFiles {
    root: PathBuf,
}

impl OsFiles {
    /// Takes the folder that holds the logs' folders.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    fn path(&self, log: &str, file: &str) -> PathBuf {
        self.root.join(log).join(file)
    }
}

fn names(folder: PathBuf) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        // A name that is no text is none of ours.
        names.extend(entry?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

impl Files for OsFiles {
    fn logs(&self) -> io::Result<Vec<String>> {
        names(self.root.clone())
    }

    fn list(&self, log: &str) -> io::Result<Vec<String>> {
        names(self.root.join(log))
    }

    fn read(&self, log: &str, file: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path(log, file))
    }

    fn write_at(&self, log: &str, file: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(log, file);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let opened = match options.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(self.root.join(log))?;
                options.open(&path)?
            }
            opened => opened?,
        };
        opened.write_all_at(bytes, offset)
    }

    fn truncate(&self, log: &str, file: &str, length: u64) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.path(log, file))?.set_len(length)
    }

    fn sync(&self, log: &str, file: &str) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.path(log, file))?.sync_all()
    }

    fn sync_names(&self, log: &str) -> io::Result<()> {
        File::open(self.root.join(log))?.sync_all()?;
        File::open(&self.root)?.sync_all()
    }

    fn rename(&self, log: &str, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(log, from), self.path(log, to))
    }

    fn remove(&self, log: &str, file: &str) -> io::Result<()> {
        fs::remove_file(self.path(log, file))
    }

    fn remove_log(&self, log: &str) -> io::Result<()> {
        match fs::remove_dir_all(self.root.join(log)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}
