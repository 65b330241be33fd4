//! Pieces of a store in a backup, each with its length before it.

use fleetd_proto::fleetd::record::v1 as stored;
use fleetd_sync_store::copy::Piece;
use prost::Message as _;

use super::ReadRecordError;

/// Appends a piece.
pub fn encode_piece(piece: Piece, bytes: &mut Vec<u8>) {
    let piece = match piece {
        Piece::Record { key, value } => stored::backup_piece::Piece::Record(stored::BackupRecord { key, value }),
        Piece::Entry { log, sequence, entry } => {
            stored::backup_piece::Piece::Entry(stored::BackupLogEntry { log, sequence, entry })
        }
    };
    bytes.extend(stored::BackupPiece { piece: Some(piece) }.encode_length_delimited_to_vec());
}

/// Reads the first piece of `bytes`, and takes it from them.
///
/// # Errors
/// [`ReadRecordError`] when there is none.
pub fn decode_piece(bytes: &mut &[u8]) -> Result<Piece, ReadRecordError> {
    let message = stored::BackupPiece::decode_length_delimited(bytes)?;
    match message.piece {
        Some(stored::backup_piece::Piece::Record(record)) => Ok(Piece::Record { key: record.key, value: record.value }),
        Some(stored::backup_piece::Piece::Entry(entry)) => {
            Ok(Piece::Entry { log: entry.log, sequence: entry.sequence, entry: entry.entry })
        }
        None => Err(ReadRecordError::Field { field: "piece" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_read_one_after_the_other_as_they_were_written() {
        let pieces = [
            Piece::Record { key: vec![1, 2], value: vec![] },
            Piece::Entry { log: "log".to_owned(), sequence: 7, entry: vec![0; 300] },
            Piece::Record { key: vec![], value: vec![9] },
        ];
        let mut bytes = Vec::new();
        pieces.iter().cloned().for_each(|piece| encode_piece(piece, &mut bytes));
        let mut rest = bytes.as_slice();
        for piece in &pieces {
            assert_eq!(&decode_piece(&mut rest).unwrap(), piece);
        }
        assert!(rest.is_empty() && decode_piece(&mut rest).is_err());
        assert!(decode_piece(&mut &bytes[..3]).is_err());
    }
}
