//! What a workload and its shim tell the agent, and what lies beside an installed release.

use fleetd_sync_core::id::ArtifactDigest;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::CASES;
use crate::install::folder::verdict::Verdict;
use crate::probe::ask::parse_status;
use crate::shim::hold::notify;
use crate::shim::process::ProcessIdentity;
use crate::shim::protocol::{Request, STATUS_TEXT_BYTES_MAX, ShimState, StartReport, encode_line};
use crate::shim::spec::{ExitRecord, RunRecord, ShimSpec};

/// Bytes of the checksum that ends a verdict.
const CHECKSUM_BYTES: usize = 16;

/// A value that can be read is written and read again.
fn again<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return false };
    let line = encode_line(&value);
    assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1, "a message is one line");
    assert_eq!(serde_json::from_slice::<T>(&line).unwrap(), value);
    true
}

/// A workload that may be anybody's says something of itself.
fn notification(bytes: &[u8]) -> bool {
    let mut state = ShimState::default();
    let changed = notify::take(bytes, &mut state);
    assert_eq!(changed, state != ShimState::default());
    assert!(state.status_text.as_ref().is_none_or(|text| text.len() <= STATUS_TEXT_BYTES_MAX && !text.contains('\n')));
    let was_ready = state.ready;
    notify::take(bytes, &mut state);
    assert!(state.ready == was_ready, "ready is for good");
    changed
}

fn status(bytes: &[u8]) -> bool {
    let Some(status) = parse_status(bytes) else { return false };
    let text = String::from_utf8_lossy(bytes);
    assert!(
        text.split(' ').nth(1).is_some_and(|word| word.starts_with(&format!("{status:03}"))),
        "{status} of {text:?}"
    );
    true
}

fn verdict(bytes: &[u8]) -> bool {
    let Some(verdict) = Verdict::decode(bytes) else { return false };
    assert_eq!(verdict.encode(), bytes, "a verdict has one encoding");
    true
}

/// Puts the checksum right, which no random change would.
fn verdict_of(body: &[u8]) -> bool {
    let checksum = blake3::hash(body);
    let checksum = checksum.as_bytes().get(..CHECKSUM_BYTES).unwrap();
    verdict(&[body, checksum].concat())
}

/// The first byte says what the rest is taken for.
fn check(bytes: &[u8]) -> bool {
    let Some((kind, rest)) = bytes.split_first() else { return false };
    match kind {
        b'n' => notification(rest),
        b'h' => status(rest),
        b'v' => verdict(rest),
        b'V' => verdict_of(rest),
        b'q' => again::<Request>(rest),
        b's' => again::<ShimState>(rest),
        b'r' => again::<RunRecord>(rest),
        b't' => again::<StartReport>(rest),
        _ => again::<ShimSpec>(rest),
    }
}

fn samples() -> Vec<Vec<u8>> {
    let of = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    let json = |kind: u8, bytes: Vec<u8>| of(kind, bytes.trim_ascii_end());
    let verdict = |configuration| Verdict {
        artifact: ArtifactDigest::of(b"program"),
        artifact_bytes: 7,
        manifest_hash: [1; 32],
        configuration,
        statement: b"verified".to_vec(),
    };
    let [plain, configured] = [None, Some(ArtifactDigest::of(b"values"))].map(|of| verdict(of).encode());
    let state = ShimState { run: "op_1".to_owned(), pid: Some(7), lines_through: 3, ..ShimState::default() };
    let process = ProcessIdentity { pid: 7, start_ticks: 9 };
    let run = |child, exit| RunRecord { run: "op_1".to_owned(), boot: "b".to_owned(), shim: process, child, exit };
    let cause = || "no such file".to_owned();
    vec![
        of(b'n', b"READY=1\nSTATUS=brewing\nWATCHDOG=1"),
        of(b'h', b"HTTP/1.1 204 No Content\r\n"),
        of(b'v', &plain),
        of(b'v', &configured),
        of(b'V', &plain[..plain.len() - CHECKSUM_BYTES]),
        json(b'q', encode_line(&Request::Stop { grace_ms: 10_000 })),
        json(b'q', encode_line(&Request::Watch)),
        json(b'q', encode_line(&Request::ExecuteFailed { cause: cause() })),
        json(b's', encode_line(&state)),
        json(b'r', encode_line(&run(None, None))),
        json(b'r', encode_line(&run(Some(process), Some(ExitRecord::Signal(9))))),
        json(b't', encode_line(&StartReport::Started { pid: 7 })),
        json(b't', encode_line(&StartReport::ShimFailed { cause: cause() })),
    ]
}

#[test]
fn every_sample_of_what_a_workload_says_is_one() {
    for (index, sample) in samples().iter().enumerate() {
        assert!(check(sample), "sample {index}");
    }
}

#[test]
fn whatever_a_workload_says_is_understood_or_not() {
    bolero::check!(name = "workload").with_iterations(CASES).for_each(|bytes| {
        check(bytes);
    });
}
