//! Enrolment tokens.

use std::collections::BTreeSet;

use fleetd_sync_core::enrolment::{
    Admission, AdmitError, EnrolmentToken, NewTokenError, ParseTokenError, ServerAddress, TokenHash, TokenSecret,
    TokenState,
};
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::{LocalId, TokenId};
use fleetd_sync_core::time::Wall;

use super::golden::check_golden;
use super::world::{chain, key};

fn addresses(texts: &[&str]) -> Vec<ServerAddress> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn token() -> EnrolmentToken {
    let mut entropy = Entropy::from_seed([21; 32]);
    let (id, secret) = (TokenId::random(&mut entropy), TokenSecret::draw(&mut entropy));
    EnrolmentToken::new(addresses(&["fleet.example.com:7878", "[fd00::1]:7878"]), chain().fleet(), id, secret).unwrap()
}

#[test]
fn a_token_survives_being_pasted() {
    let text = token().to_secret_text();
    for pasted in [text.clone(), text.to_uppercase(), format!("\n {} \r\n{}\n", &text[..70], &text[70..])] {
        let read: EnrolmentToken = pasted.parse().unwrap();
        assert_eq!(read.to_secret_text(), text);
        assert_eq!(read.fleet(), chain().fleet());
        assert_eq!(read.addresses(), addresses(&["fleet.example.com:7878", "[fd00::1]:7878"]));
        assert_eq!(read.secret().hash(), token().secret().hash());
    }
}

#[test]
fn a_mistyped_or_cut_token_is_damaged_and_nothing_else() {
    let text = token().to_secret_text();
    let digits = "abcdefghijklmnopqrstuvwxyz234567";
    for at in "fleetd-".len()..text.len() {
        let typed = text.as_bytes()[at];
        let other = digits.bytes().find(|digit| *digit != typed).unwrap();
        let mut wrong = text.clone().into_bytes();
        wrong[at] = other;
        let wrong = String::from_utf8(wrong).unwrap();
        assert_eq!(wrong.parse::<EnrolmentToken>().unwrap_err(), ParseTokenError::Damaged, "character {at}");
        assert_eq!(text[..at].parse::<EnrolmentToken>().unwrap_err(), ParseTokenError::Damaged, "cut at {at}");
    }
    let swapped = format!("{}{}{}{}", &text[..20], &text[21..22], &text[20..21], &text[22..]);
    assert_ne!(swapped, text);
    assert_eq!(swapped.parse::<EnrolmentToken>().unwrap_err(), ParseTokenError::Damaged);
    let odd = text.replacen(&text[30..31], "!", 1);
    assert!(matches!(odd.parse::<EnrolmentToken>(), Err(ParseTokenError::Character { .. })));
}

#[test]
fn what_is_no_token_or_a_newer_one_is_named_as_such() {
    for text in ["", "hello", "ghp_abc", "fleet-abc", "flt_0000"] {
        assert_eq!(text.parse::<EnrolmentToken>().unwrap_err(), ParseTokenError::NotAToken, "{text:?}");
    }
    let long = format!("fleetd-{}", "a".repeat(5000));
    assert!(matches!(long.parse::<EnrolmentToken>(), Err(ParseTokenError::TooLong { .. })));
    // The token of a later layout: its first byte differs, and its checksum is right.
    let mut bytes = data_encoding::BASE32_NOPAD
        .decode(token().to_secret_text()["fleetd-".len()..].to_uppercase().as_bytes())
        .unwrap();
    bytes.truncate(bytes.len() - 4);
    bytes[0] = 2;
    let mut hasher = blake3::Hasher::new();
    let sum = hasher.update(b"fleetd/token-checksum/1\0").update(&bytes).finalize();
    bytes.extend_from_slice(&sum.as_bytes()[..4]);
    let text = format!("fleetd-{}", data_encoding::BASE32_NOPAD.encode(&bytes).to_lowercase());
    assert_eq!(text.parse::<EnrolmentToken>().unwrap_err(), ParseTokenError::Newer { layout: 2 });
}

#[test]
fn an_address_is_a_host_and_a_port() {
    for good in ["localhost:1", "10.0.0.1:7878", "fleet.example.com:65535", "[::1]:7878"] {
        assert_eq!(good.parse::<ServerAddress>().unwrap().as_str(), good);
    }
    assert_eq!("[::1]:7878".parse::<ServerAddress>().unwrap().host(), "::1");
    for bad in
        ["", "host", ":1", "host:", "host:0", "host:65536", "host:+1", "::1:7878", "[::1]", "a b:1", "https://h:1"]
    {
        assert!(bad.parse::<ServerAddress>().is_err(), "{bad:?}");
    }
    let none = EnrolmentToken::new(Vec::new(), chain().fleet(), token().id(), token().secret().clone());
    assert!(matches!(none, Err(NewTokenError::Addresses { count: 0, .. })));
    let long = vec![format!("{}:1", "a".repeat(200)).parse().unwrap(); 8];
    let long = EnrolmentToken::new(long, chain().fleet(), token().id(), token().secret().clone());
    assert!(matches!(long, Err(NewTokenError::TooLong { .. })));
}

#[test]
fn a_token_does_not_print_its_secret() {
    let printed = format!("{:?}", token());
    let secret = token().secret().as_bytes().iter().map(|byte| format!("{byte}, ")).collect::<String>();
    assert!(!printed.contains(&secret[..20]) && printed.contains("TokenSecret"));
}

#[test]
fn a_token_admits_its_devices_until_it_is_used_up_expired_or_revoked() {
    let secret = token().secret().clone();
    let device = |name: &str| LocalId::from(key(name).id());
    let state = TokenState {
        secret_hash: secret.hash(),
        uses_max: 2,
        used_by: BTreeSet::from([device("first")]),
        needs_approval: false,
        expires_at: Some(Wall(1_000)),
        revoked_at: None,
    };
    let now = Wall(999);
    assert_eq!(state.admit(device("second"), &secret, now), Ok(Admission::Admitted));
    let full = TokenState { used_by: BTreeSet::from([device("first"), device("second")]), ..state.clone() };
    assert_eq!(full.admit(device("third"), &secret, now), Err(AdmitError::UsedUp { uses_max: 2 }));
    assert_eq!(full.admit(device("first"), &secret, now), Ok(Admission::Admitted));
    assert_eq!(state.admit(device("second"), &secret, Wall(1_000)), Err(AdmitError::Expired));
    let forever = TokenState { expires_at: None, ..state.clone() };
    assert_eq!(forever.admit(device("second"), &secret, Wall(i64::MAX)), Ok(Admission::Admitted));
    let approve = TokenState { needs_approval: true, ..state.clone() };
    assert_eq!(approve.admit(device("second"), &secret, now), Ok(Admission::NeedsApproval));
    let revoked = TokenState { revoked_at: Some(Wall(5)), ..state.clone() };
    assert_eq!(revoked.admit(device("first"), &secret, now), Err(AdmitError::Revoked));
    // Whoever lacks the secret learns nothing else.
    let wrong = TokenSecret::draw(&mut Entropy::from_seed([1; 32]));
    assert_eq!(revoked.admit(device("first"), &wrong, Wall(2_000)), Err(AdmitError::Secret));
}

#[test]
fn tokens_keep_their_text() {
    let token = token();
    let hash = token.secret().hash();
    assert_eq!(TokenHash::from_bytes(*hash.as_bytes()), hash);
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    check_golden(
        "token.txt",
        &[
            ("fleet", token.fleet().to_string()),
            ("id", token.id().to_string()),
            ("secret", hex(token.secret().as_bytes())),
            ("secret_hash", hex(hash.as_bytes())),
            ("text", token.to_secret_text()),
        ],
    );
}
