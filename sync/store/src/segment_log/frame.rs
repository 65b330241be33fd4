//! How entries lie in a segment: framed one by one while it is open, packed together once it is sealed.

/// Begins a frame, so that reading finds the next one behind damage.
const MARKER: [u8; 4] = [0xF1, 0xEE, 0x7D, 0x01];
/// Marker, length, checksum and sequence.
const FRAME_HEADER_BYTES: usize = 4 + 4 + 4 + 8;
/// Begins a sealed segment; the last byte is its layout's number.
const SEALED_MAGIC: [u8; 4] = *b"fls\x01";
/// Magic, length before compression, checksum.
const SEALED_HEADER_BYTES: usize = 4 + 4 + 4;
/// Level 3 is zstd's default: higher ones gain a few per cent on log lines for several times the work.
const ZSTD_LEVEL: i32 = 3;
/// Bytes that a sealed segment may unpack to: one entry can be as large as a batch. More is damage.
const SEALED_BYTES_MAX: u32 = 64 << 20;

/// An entry of an open segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) sequence: u64,
    pub(super) entry: &'a [u8],
    /// Where the frame ends in its file.
    pub(super) end: usize,
}

fn checksum(length: u32, sequence: u64, entry: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length.to_le_bytes());
    hasher.update(&sequence.to_le_bytes());
    hasher.update(entry);
    hasher.finalize()
}

/// Appends a frame to `bytes`; `None` when the entry is too long for one.
pub(super) fn push_frame(bytes: &mut Vec<u8>, sequence: u64, entry: &[u8]) -> Option<()> {
    let length = u32::try_from(entry.len()).ok().filter(|length| *length < SEALED_BYTES_MAX / 2)?;
    bytes.extend_from_slice(&MARKER);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&checksum(length, sequence, entry).to_le_bytes());
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(entry);
    Some(())
}

fn frame_at(bytes: &[u8], start: usize) -> Option<Frame<'_>> {
    let rest = bytes.get(start..)?;
    let (marker, rest) = rest.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let length = u32::from_le_bytes(*length);
    let sequence = u64::from_le_bytes(*sequence);
    let entry = rest.get(..usize::try_from(length).ok()?)?;
    let is_whole = *marker == MARKER && u32::from_le_bytes(*sum) == checksum(length, sequence, entry);
    is_whole.then_some(Frame { sequence, entry, end: start + FRAME_HEADER_BYTES + entry.len() })
}

/// Reads the frames of an open segment whose numbers rise and stay below `next`. Damaged ones are passed over; a
/// frame at or above `next` was never committed, and neither was anything behind it.
pub(super) fn frames(bytes: &[u8], next: u64) -> Vec<Frame<'_>> {
    let mut frames: Vec<Frame<'_>> = Vec::new();
    let mut position = 0;
    while position < bytes.len() {
        match frame_at(bytes, position) {
            Some(frame) if frame.sequence >= next => break,
            Some(frame) if frames.last().is_none_or(|last| last.sequence < frame.sequence) => {
                position = frame.end;
                frames.push(frame);
            }
            _ => position += 1,
        }
    }
    frames
}

/// Packs entries that follow each other without a gap into a sealed segment.
pub(super) fn seal<'a>(entries: impl Iterator<Item = &'a [u8]>) -> std::io::Result<Vec<u8>> {
    let mut packed = Vec::new();
    for entry in entries {
        push_varint(&mut packed, entry.len());
        packed.extend_from_slice(entry);
    }
    let length = u32::try_from(packed.len()).ok().filter(|length| *length <= SEALED_BYTES_MAX);
    let length = length.ok_or_else(|| std::io::Error::other("a segment is too large to be sealed"))?;
    let body = zstd::bulk::compress(&packed, ZSTD_LEVEL)?;
    let mut bytes = Vec::with_capacity(SEALED_HEADER_BYTES + body.len());
    bytes.extend_from_slice(&SEALED_MAGIC);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&sealed_checksum(length, &body).to_le_bytes());
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

fn sealed_checksum(length: u32, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

/// Unpacks a sealed segment of `count` entries; `None` when it is not what was sealed.
pub(super) fn unseal(bytes: &[u8], count: u64) -> Option<Vec<Vec<u8>>> {
    let (magic, rest) = bytes.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (sum, body) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length);
    let is_whole = *magic == SEALED_MAGIC
        && length <= SEALED_BYTES_MAX
        && u32::from_le_bytes(*sum) == sealed_checksum(length, body);
    if !is_whole {
        return None;
    }
    let packed = zstd::bulk::decompress(body, usize::try_from(length).ok()?).ok()?;
    let mut rest = packed.as_slice();
    let mut entries = Vec::new();
    while !rest.is_empty() {
        // Before it is taken: a page of empty entries packs to nothing, and unpacks to far more than its bytes.
        if entries.len() as u64 >= count {
            return None;
        }
        let (length, behind) = take_varint(rest)?;
        let (entry, behind) = behind.split_at_checked(length)?;
        entries.push(entry.to_vec());
        rest = behind;
    }
    (entries.len() as u64 == count).then_some(entries)
}

/// Puts the checksum of a sealed segment right, for tests that change what is behind it.
#[cfg(test)]
pub(super) fn resum(bytes: &[u8]) -> Vec<u8> {
    let length = bytes.first_chunk::<4>().map_or(0, |length| u32::from_le_bytes(*length));
    let body = bytes.get(4..).unwrap_or_default();
    [&SEALED_MAGIC, length.to_le_bytes().as_slice(), &sealed_checksum(length, body).to_le_bytes(), body].concat()
}

fn push_varint(bytes: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        bytes.push((number & 0x7F) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push((number & 0x7F) as u8);
}

fn take_varint(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut number = 0;
    for (index, byte) in bytes.iter().take(5).enumerate() {
        number |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((number, bytes.get(index + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three_frames() -> Vec<u8> {
        let mut bytes = Vec::new();
        for (sequence, entry) in [(5, b"first".as_slice()), (6, b"second"), (7, b"third")] {
            push_frame(&mut bytes, sequence, entry).unwrap();
        }
        bytes
    }

    fn sequences(bytes: &[u8], next: u64) -> Vec<u64> {
        frames(bytes, next).iter().map(|frame| frame.sequence).collect()
    }

    #[test]
    fn a_flipped_bit_costs_one_entry_and_no_other() {
        let bytes = three_frames();
        assert_eq!(sequences(&bytes, 8), [5, 6, 7]);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let left = sequences(&flipped, 8);
            assert_eq!(left.len(), 2, "bit {bit}: {left:?}");
        }
    }

    #[test]
    fn a_torn_tail_ends_at_the_last_whole_entry() {
        let bytes = three_frames();
        let whole: Vec<usize> = frames(&bytes, 8).iter().map(|frame| frame.end).collect();
        for length in 0..=bytes.len() {
            let expected = whole.iter().filter(|end| **end <= length).count();
            assert_eq!(frames(&bytes[..length], 8).len(), expected, "cut at {length}");
        }
    }

    #[test]
    fn what_was_never_committed_is_not_read() {
        assert_eq!(sequences(&three_frames(), 7), [5, 6]);
        assert_eq!(sequences(&three_frames(), 5), [0_u64; 0]);
    }

    #[test]
    fn a_sealed_segment_gives_back_its_entries_or_nothing() {
        let entries: [&[u8]; 4] = [b"one", b"", &[7; 300], b"four"];
        let bytes = seal(entries.into_iter()).unwrap();
        assert_eq!(unseal(&bytes, 4).unwrap(), entries);
        assert_eq!(unseal(&bytes, 3), None);
        for index in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[index] ^= 0x10;
            assert_eq!(unseal(&flipped, 4), None, "byte {index}");
            assert_eq!(unseal(&bytes[..index], 4), None, "cut at {index}");
        }
    }
}
