//! Amounts as people read them.

/// Writes an amount of bytes with a binary unit (`14.2 MiB`).
#[must_use]
pub fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}
