//! How much memory and how many threads a store may take: an agent's share of a small device, or a server's.

use fjall::config::CompressionPolicy;
use fjall::{CompressionType, KeyspaceCreateOptions};

/// Whose store it is.
///
/// # Source
/// Measured with fjall 3.1.13: the whole agent process stays at 7 to 9 MB with batched slow writes; with the
/// defaults of fjall it reaches 144 MB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Small memory: a device's.
    Agent,
    /// A server's.
    Server,
}

impl Profile {
    /// Bytes of blocks that are cached.
    pub(super) fn cache_bytes(self) -> u64 {
        match self {
            Self::Agent => 512 << 10,
            Self::Server => 64 << 20,
        }
    }

    /// Bytes of written values that are gathered before they are sorted into a file.
    pub(super) fn memtable_bytes(self) -> u64 {
        match self {
            Self::Agent => 1 << 20,
            Self::Server => 16 << 20,
        }
    }

    /// Bytes of gathered values above which the writer pauses: fjall does not bound them by itself.
    pub(super) fn write_buffer_bytes_max(self) -> u64 {
        match self {
            Self::Agent => 3 << 20,
            Self::Server => 64 << 20,
        }
    }

    /// Background threads: with a single one, fjall's can wait for itself for ever (fjall issue 260).
    pub(super) fn workers(self) -> usize {
        match self {
            Self::Agent => 2,
            Self::Server => 4,
        }
    }

    /// Files that are kept open.
    pub(super) fn open_files(self) -> usize {
        match self {
            Self::Agent => 16,
            Self::Server => 256,
        }
    }

    /// Bytes of journals: fjall preallocates 64 MiB for each, as a sparse file.
    pub(super) fn journal_bytes(self) -> u64 {
        match self {
            Self::Agent => 64 << 20,
            Self::Server => 512 << 20,
        }
    }

    /// Bytes of turns that one group commits at once.
    pub(super) fn group_bytes(self) -> usize {
        match self {
            Self::Agent => 512 << 10,
            Self::Server => 8 << 20,
        }
    }

    /// Changes that the feed keeps.
    pub(super) fn feed_changes(self) -> usize {
        match self {
            Self::Agent => 256,
            Self::Server => 65_536,
        }
    }

    /// How the records' keyspace is made.
    pub(super) fn keyspace(self) -> KeyspaceCreateOptions {
        KeyspaceCreateOptions::default()
            .max_memtable_size(self.memtable_bytes())
            .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
    }
}
