//! The points of the curve that this thread found lately: a fleet has few keys that everybody reads and checks with again
//! and again, those of its root, its CAs, its authorities and its releases, and to find a key's point takes some 5 µs.

use std::cell::RefCell;

use ed25519_dalek::VerifyingKey;

use super::ParseKeyError;

/// Points that a thread keeps, 192 bytes each. Each has one place, by its key's first byte, so that none displaces more
/// than one other.
const PLACES: u8 = 64;

thread_local! {
    /// No place, until the first point is kept: most threads need none.
    static RECENT: RefCell<Vec<Option<VerifyingKey>>> = const { RefCell::new(Vec::new()) };
}

/// The point of a key.
///
/// # Errors
/// [`ParseKeyError::Point`] when the bytes are none, or a weak one.
pub(super) fn point(bytes: &[u8; 32]) -> Result<VerifyingKey, ParseKeyError> {
    RECENT.with_borrow_mut(|recent| {
        let [first, ..] = bytes;
        let place = usize::from(first % PLACES);
        if let Some(kept) = recent.get(place).copied().flatten()
            && kept.as_bytes() == bytes
        {
            return Ok(kept);
        }
        let found = VerifyingKey::from_bytes(bytes).ok().filter(|point| !point.is_weak());
        let found = found.ok_or(ParseKeyError::Point)?;
        recent.resize(usize::from(PLACES), None);
        if let Some(place) = recent.get_mut(place) {
            *place = Some(found);
        }
        Ok(found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::Entropy;
    use crate::key::SecretKey;

    #[test]
    fn a_key_has_its_own_point_whatever_was_found_before_it() {
        let mut entropy = Entropy::from_seed([3; 32]);
        let keys: Vec<[u8; 32]> = (0..200).map(|_| *SecretKey::generate(&mut entropy).public().as_bytes()).collect();
        for bytes in keys.iter().chain(&keys).chain(keys.iter().rev()) {
            assert_eq!(point(bytes).map(|point| point.to_bytes()), Ok(*bytes));
        }
        let kept = RECENT.with_borrow(|recent| recent.iter().flatten().count());
        assert!((32..=usize::from(PLACES)).contains(&kept), "{kept}");
        // No point is kept of what is none, and it takes nobody's place.
        assert_eq!(point(&[0; 32]), Err(ParseKeyError::Point));
        assert_eq!(RECENT.with_borrow(|recent| recent.iter().flatten().count()), kept);
    }
}
