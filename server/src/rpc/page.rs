//! Pages of lists: how large one is, and where the next begins.

use data_encoding::BASE32_NOPAD;
use fleetd_sync_core::commit::Revision;
use fleetd_sync_core::limit::PAGE_SIZE_MAX;
use fleetd_sync_store::state_store::StateStore;

use super::call_error::CallError;
use crate::history::History;

/// Entries of a page when the caller does not say.
const PAGE_SIZE: usize = 100;

/// Reads how many entries are asked for.
pub(crate) fn page_size(asked: u32) -> Result<usize, CallError> {
    match usize::try_from(asked).unwrap_or(usize::MAX) {
        0 => Ok(PAGE_SIZE),
        asked if asked <= PAGE_SIZE_MAX => Ok(asked),
        asked => {
            let cause = format!("{asked} entries; a page has at most {PAGE_SIZE_MAX}");
            Err(CallError::Invalid { field: "page_size", cause })
        }
    }
}

/// Bytes of a token that show that a server gave it.
const CHECK_BYTES: usize = 4;

fn check_bytes(key: &[u8]) -> [u8; CHECK_BYTES] {
    let [a, b, c, d, ..] = *blake3::hash(key).as_bytes();
    [a, b, c, d]
}

/// Writes a token: opaque to callers, who only hand it back. It is no secret; its check keeps what was mistyped, or is
/// no token, from being taken for a place in the list.
pub(crate) fn encode_token(key: &[u8]) -> String {
    BASE32_NOPAD.encode(&[key, &check_bytes(key)].concat()).to_ascii_lowercase()
}

/// Reads a token; `None` for an empty one.
pub(crate) fn decode_token(text: &str, field: &'static str) -> Result<Option<Vec<u8>>, CallError> {
    if text.is_empty() {
        return Ok(None);
    }
    let decoded = BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).ok();
    let given = decoded.as_deref().and_then(|bytes| bytes.split_last_chunk::<CHECK_BYTES>());
    match given.filter(|(key, check)| check_bytes(key) == **check) {
        Some((key, _)) => Ok(Some(key.to_vec())),
        None => Err(CallError::Invalid { field, cause: "no server gave it".to_owned() }),
    }
}

/// Cuts one page out of entries that are in the order of their keys: what comes behind the token, at most so many.
pub(crate) fn page<T>(
    entries: impl IntoIterator<Item = (Vec<u8>, T)>,
    size: u32,
    token: &str,
) -> Result<(Vec<T>, String), CallError> {
    let size = page_size(size)?;
    let after = decode_token(token, "page_token")?;
    let mut rest = entries.into_iter().filter(|(key, _)| after.as_ref().is_none_or(|after| key > after));
    let mut page = Vec::new();
    let mut last = Vec::new();
    for (key, entry) in rest.by_ref().take(size) {
        last = key;
        page.push(entry);
    }
    let next = if rest.next().is_some() { encode_token(&last) } else { String::new() };
    Ok((page, next))
}

/// The key that puts later moments first.
pub(crate) fn newest_first(at_ms: i64, id: &[u8]) -> Vec<u8> {
    [(i64::MAX - at_ms.max(0)).to_be_bytes().as_slice(), id].concat()
}

/// The revision of what a caller changes, who hands it back.
pub(crate) fn write_revision(revision: Revision) -> String {
    encode_token(&revision.0.to_be_bytes())
}

/// Places in watches of what a store holds: the newest change, or entry of its log, that was told, by its number in the
/// history in which it happened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    history: History,
    newest: u64,
}

impl Places {
    /// The places in a store's changes, up to what it holds now.
    pub(crate) fn of_changes(store: &dyn StateStore) -> Result<Self, CallError> {
        Self::of_log(store, store.revision().0)
    }

    /// The places in a log that a store holds, up to its last entry.
    pub(crate) fn of_log(store: &dyn StateStore, last: u64) -> Result<Self, CallError> {
        Ok(Self { history: History::of(store)?, newest: last })
    }

    /// The newest place when this was made.
    pub(crate) const fn newest(&self) -> u64 {
        self.newest
    }

    /// Writes a place.
    pub(crate) fn write(&self, number: u64) -> String {
        encode_token(&[self.history.as_bytes().as_slice(), &number.to_be_bytes()].concat())
    }

    /// Reads a place; `None` where the caller has none, and where it is one of another history, or of one that this
    /// store has not come to: whoever has it is told everything anew.
    pub(crate) fn read(&self, text: &str) -> Result<Option<u64>, CallError> {
        let field = "resume_token";
        let Some(bytes) = decode_token(text, field)? else { return Ok(None) };
        let place = bytes.split_first_chunk::<{ History::LENGTH }>();
        let place = place.and_then(|(history, number)| Some((history, u64::from_be_bytes(number.try_into().ok()?))));
        let invalid = || CallError::Invalid { field, cause: "it is no place in a watch".to_owned() };
        let (history, number) = place.ok_or_else(invalid)?;
        Ok((history == self.history.as_bytes() && number <= self.newest).then_some(number))
    }
}

#[cfg(test)]
mod tests {
    use fleetd_sync_core::entropy::Entropy;

    use super::*;

    fn numbers(size: u32, token: &str) -> (Vec<u8>, String) {
        page((0_u8..5).map(|number| (vec![number], number)), size, token).unwrap()
    }

    #[test]
    fn pages_follow_each_other_to_the_end() {
        let (first, token) = numbers(2, "");
        let (second, token) = numbers(2, &token);
        let (third, token) = numbers(2, &token);
        assert_eq!((first, second, third, token.as_str()), (vec![0, 1], vec![2, 3], vec![4], ""));
        assert_eq!(numbers(5, "").1, "", "a full last page is the last");
    }

    #[test]
    fn a_place_counts_in_its_own_history_and_as_far_as_that_has_come() {
        let history = |seed| History::draw(&mut Entropy::from_seed([seed; 32]));
        let places = |seed, newest| Places { history: history(seed), newest };
        let place = places(1, 7).write(5);
        assert_eq!(places(1, 7).read(&place).unwrap(), Some(5));
        assert_eq!(places(1, 5).read(&place).unwrap(), Some(5));
        assert_eq!(places(1, 4).read(&place).unwrap(), None, "a store that was set back");
        assert_eq!(places(2, 7).read(&place).unwrap(), None, "a restored one that has grown past it");
        assert_eq!(places(1, 7).read("").unwrap(), None);
        let invalid = |text: &str| matches!(places(1, 7).read(text), Err(CallError::Invalid { .. }));
        assert!(invalid("mzxw6ytb") && invalid(&write_revision(Revision(5))));
    }

    #[test]
    fn what_is_no_token_and_too_large_a_page_are_refused() {
        assert!(matches!(page_size(1001), Err(CallError::Invalid { field: "page_size", .. })));
        for token in ["!", "a", "mzxw6ytb", "mzxw6ytbojrgs3th", &encode_token(b"key").replace('a', "b")[1..]] {
            let refused = page([(vec![1], 1)], 0, token);
            assert!(matches!(refused, Err(CallError::Invalid { field: "page_token", .. })), "{token}");
        }
        assert_eq!(decode_token(&encode_token(b"key").to_ascii_uppercase(), "page_token").unwrap().unwrap(), b"key");
        assert!(newest_first(2, b"") < newest_first(1, b""));
    }
}
