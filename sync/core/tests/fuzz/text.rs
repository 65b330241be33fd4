//! What people and programs write in a line: enrolment tokens, addresses, names, ids and paths.

use std::fmt::Display;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use fleetd_sync_core::enrolment::{EnrolmentToken, ServerAddress};
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::envelope::Path;
use fleetd_sync_core::id::{ArtifactDigest, DeviceId, FleetId, HoldId, KeyId, LocalId, PlanId, RolloutId, TokenId};
use fleetd_sync_core::limit;
use fleetd_sync_core::name::{DeviceName, LabelKey, LabelValue, Platform, Version, WorkloadName};
use fleetd_sync_core::resolve::read_hold_path;

use super::CASES;

/// Parses and prints; what is printed is what was written, and is parsed to the same.
fn one_spelling<T: FromStr + Display + PartialEq>(text: &str) -> Option<T> {
    let value: T = text.parse().ok()?;
    assert_eq!(value.to_string(), text, "one spelling");
    assert!(text.parse::<T>().is_ok_and(|again| again == value));
    Some(value)
}

/// What stands in a path of the file system stays in its folder.
fn stays_in_its_folder(text: &str) {
    assert!(!text.is_empty() && !text.contains(['/', '\0']) && !text.starts_with(['.', '-']), "{text:?}");
}

fn names(text: &str) -> bool {
    if let Some(name) = one_spelling::<WorkloadName>(text) {
        stays_in_its_folder(name.as_str());
        assert!(text.len() <= limit::WORKLOAD_NAME_CHARS_MAX);
        assert!(format!("workload/{name}/release").parse::<Path>().is_ok(), "every workload has its paths");
    }
    if let Some(version) = one_spelling::<Version>(text) {
        stays_in_its_folder(version.as_str());
        assert!(text.len() <= limit::VERSION_CHARS_MAX);
    }
    if let Some(name) = one_spelling::<DeviceName>(text) {
        stays_in_its_folder(name.as_str());
    }
    if let Some(platform) = one_spelling::<Platform>(text) {
        assert!(platform.runs_on(&platform));
        assert!(text.matches('/').count() <= 1, "{text:?} has one '/' at most");
    }
    let _ = one_spelling::<LabelKey>(text);
    let _ = one_spelling::<LabelValue>(text);
    if let Some(path) = one_spelling::<Path>(text) {
        assert!(text.len() <= limit::PATH_CHARS_MAX && path.segments().all(|segment| !segment.is_empty()));
        let _ = read_hold_path(&path);
    }
    [text.parse::<WorkloadName>().is_ok(), text.parse::<Path>().is_ok(), text.parse::<LabelValue>().is_ok()]
        .contains(&true)
}

fn ids(text: &str) -> bool {
    one_spelling::<FleetId>(text).is_some()
        || one_spelling::<KeyId>(text).is_some()
        || one_spelling::<LocalId>(text).is_some()
        || one_spelling::<DeviceId>(text).is_some()
        || one_spelling::<RolloutId>(text).is_some()
        || one_spelling::<PlanId>(text).is_some()
        || one_spelling::<HoldId>(text).is_some()
        || one_spelling::<TokenId>(text).is_some()
        || one_spelling::<ArtifactDigest>(text).is_some()
}

fn address(text: &str) -> bool {
    let Some(address) = one_spelling::<ServerAddress>(text) else { return false };
    assert!(text.len() <= limit::ADDRESS_CHARS_MAX && !address.host().is_empty());
    true
}

fn token(text: &str) -> bool {
    let Ok(token) = text.parse::<EnrolmentToken>() else { return false };
    assert!((1..=limit::TOKEN_ADDRESSES_MAX).contains(&token.addresses().len()));
    let canonical = token.to_secret_text();
    let again: EnrolmentToken = canonical.parse().unwrap();
    assert_eq!(again.to_secret_text(), canonical);
    let pasted: String = text.split_whitespace().collect::<String>().to_ascii_lowercase();
    assert_eq!(pasted, canonical, "a token has one spelling but for spaces and capitals");
    true
}

/// A token with these bytes in it, and the checksum that no random change gets right.
fn with_checksum(bytes: &[u8]) -> String {
    let mut sum = [0; 4];
    blake3::Hasher::new().update(b"fleetd/token-checksum/1\0").update(bytes).finalize_xof().fill(&mut sum);
    let digits = BASE32_NOPAD.encode(&[bytes, &sum].concat());
    format!("fleetd-{}", digits.to_ascii_lowercase())
}

/// The first byte says what the rest is taken for.
fn check(bytes: &[u8]) -> bool {
    let Some((kind, rest)) = bytes.split_first() else { return false };
    if *kind == 0 {
        return token(&with_checksum(rest));
    }
    let Ok(text) = std::str::from_utf8(rest) else { return false };
    match kind {
        b't' => token(text),
        b'a' => address(text),
        b'i' => ids(text),
        _ => names(text),
    }
}

fn samples() -> Vec<Vec<u8>> {
    let mut entropy = Entropy::from_seed([9; 32]);
    let fleet = FleetId::random(&mut entropy);
    let (id, secret) = (TokenId::random(&mut entropy), fleetd_sync_core::enrolment::TokenSecret::draw(&mut entropy));
    let addresses = ["fleet.example:4433", "[2001:db8::1]:4433"].map(|address| address.parse().unwrap());
    let token = EnrolmentToken::new(addresses.into(), fleet, id, secret).unwrap().to_secret_text();
    let digits = token.strip_prefix("fleetd-").unwrap().to_ascii_uppercase();
    let bytes = BASE32_NOPAD.decode(digits.as_bytes()).unwrap();
    let of = |kind: u8, text: &str| [&[kind], text.as_bytes()].concat();
    vec![
        [&[0], &bytes[..bytes.len() - 4]].concat(),
        of(b't', &token),
        of(b'a', "fleet.example:4433"),
        of(b'a', "[2001:db8::1]:1"),
        of(b'i', &fleet.to_string()),
        of(b'i', &DeviceId::random(&mut entropy).to_string()),
        of(b'i', &HoldId::random(&mut entropy).to_string()),
        of(b'n', "coffee-2"),
        of(b'n', "2026-11-22.3+g1a2b"),
        of(b'n', "example.com/rack"),
        of(b'n', "linux/arm64"),
        of(b'n', &format!("hold/{}", HoldId::random(&mut entropy))),
    ]
}

#[test]
fn every_sample_of_a_text_is_what_it_says() {
    for sample in samples() {
        assert!(check(&sample), "{:?}", String::from_utf8_lossy(&sample));
    }
}

#[test]
fn any_text_has_one_meaning_or_none() {
    bolero::check!(name = "text").with_iterations(CASES).for_each(|bytes| {
        check(bytes);
    });
}
