//! Values of flags and arguments, and the first bytes of a program, which are read where no flag says its platform.

use std::collections::BTreeSet;
use std::time::Duration;

use fleetd_simulator::rehearsal::Share;
use fleetd_sync_core::release::{EnvironmentValue, ProbeCheck};
use tonic::codegen::http::Uri;

use super::CASES;
use crate::client::server_url::ServerUrl;
use crate::command::release::{ArtifactArgument, EnvironmentArgument, ProbeArgument};
use crate::command::value::{self, DeviceWorkload, Place, ReleaseName};
use crate::output::Moment;
use crate::platform::{Header, known, read_header};

/// Bytes of a header that count; whatever follows them is of no interest.
const HEADER_BYTES: usize = 64;

/// A URL names a host and nothing more, and others read it as this program does.
fn server_url(text: &str) -> bool {
    let Ok(url) = text.parse::<ServerUrl>() else { return false };
    let printed = url.to_string();
    assert_eq!(printed.parse().as_ref(), Ok(&url), "what is printed is parsed the same");
    let uri: Uri = printed.parse().unwrap_or_else(|error| panic!("{printed:?} is no URI: {error}"));
    assert_eq!((uri.scheme_str(), uri.port_u16()), (Some("https"), Some(url.port())));
    let host = uri.host().unwrap();
    assert_eq!(host.trim_start_matches('[').trim_end_matches(']'), url.host());
    assert!(!url.host().is_empty() && matches!(uri.path(), "" | "/") && uri.query().is_none());
    assert!(!printed.contains('@'), "{printed:?} has somebody's name in it");
    true
}

fn names(text: &str) -> bool {
    let release = text.parse::<ReleaseName>();
    if let Ok(release) = &release {
        assert_eq!(format!("{}@{}", release.workload, release.version), text);
    }
    let place = text.parse::<Place>();
    if let Ok(Place { device, workload }) = &place {
        let again = if workload.is_empty() { device.clone() } else { format!("{device}/{workload}") };
        assert_eq!(again, text);
    }
    if let Ok(DeviceWorkload { device, workload }) = text.parse() {
        assert!(!device.is_empty() && !workload.is_empty() && place.is_ok());
    }
    let label = value::label(text);
    if let Ok((key, value)) = &label {
        assert_eq!(format!("{key}={value}"), text);
    }
    assert_eq!(value::selector(text).is_ok(), !text.trim().is_empty());
    release.is_ok() || label.is_ok() || text.parse::<DeviceWorkload>().is_ok()
}

/// Whatever is taken for a point in time is one: none would mean no bound.
fn times(text: &str) -> bool {
    let past = value::past(text);
    if let Ok(moment) = &past {
        assert!(moment.parts().is_some(), "{text:?}");
    }
    let lifetime = value::lifetime(text);
    if let Ok(lifetime) = &lifetime {
        assert!(Moment::now().after(*lifetime).parts().is_some(), "{text:?}");
        let again = humantime::format_duration(*lifetime).to_string();
        assert_eq!(value::duration(&again).as_ref(), Ok(lifetime));
    }
    let share = text.parse::<Share>();
    if let Ok(share) = &share {
        assert_eq!(share.to_string().parse().as_ref(), Ok(share));
    }
    past.is_ok() || lifetime.is_ok() || share.is_ok()
}

fn release(text: &str) -> bool {
    let artifact = text.parse::<ArtifactArgument>();
    if let Ok(ArtifactArgument { platform, path }) = &artifact {
        let path = path.to_str().unwrap();
        let again = platform.as_ref().map_or_else(|| path.to_owned(), |platform| format!("{platform}={path}"));
        assert_eq!(again, text);
    }
    let EnvironmentArgument { name, value } = text.parse().unwrap();
    match value {
        EnvironmentValue::Fixed(value) => assert_eq!(format!("{name}={value}"), text),
        EnvironmentValue::FromConfig => assert_eq!(name, text),
    }
    let probe = text.parse::<ProbeArgument>();
    if let Ok(ProbeArgument(check)) = &probe {
        let again = match check {
            ProbeCheck::Alive => "alive".to_owned(),
            ProbeCheck::Notify => "notify".to_owned(),
            ProbeCheck::Tcp { port } => format!("tcp:{port}"),
            ProbeCheck::Http { port, path } => format!("http:{port}{path}"),
            ProbeCheck::Exec { argv } => format!("exec:{}", argv.join(" ")),
        };
        assert_eq!(again.parse().as_ref(), Ok(&ProbeArgument(check.clone())));
    }
    artifact.is_ok() && probe.is_ok()
}

/// A header names a platform that there is, and only its first bytes count.
fn header(bytes: &[u8]) -> bool {
    let header = read_header(bytes);
    assert_eq!(read_header(bytes.get(..HEADER_BYTES).unwrap_or(bytes)), header);
    match &header {
        Header::Program(platform) => {
            let known: BTreeSet<String> = known().collect();
            assert!(known.contains(platform.as_str()) && platform.as_str().starts_with("linux/"), "{platform}");
            assert!(bytes.starts_with(b"\x7fELF"));
        }
        Header::OtherMachine(_) => assert!(bytes.starts_with(b"\x7fELF")),
        Header::Script => assert!(bytes.starts_with(b"#!")),
        Header::Unknown => {}
    }
    header != Header::Unknown
}

/// The first byte says what the rest is taken for.
fn check(bytes: &[u8]) -> bool {
    let Some((kind, rest)) = bytes.split_first() else { return false };
    if *kind == b'h' {
        return header(rest);
    }
    let Ok(text) = std::str::from_utf8(rest) else { return false };
    match kind {
        b'u' => server_url(text),
        b't' => times(text),
        b'r' => release(text),
        _ => names(text),
    }
}

fn samples() -> Vec<Vec<u8>> {
    let mut samples: Vec<Vec<u8>> = [
        "uhttps://fleet.example:4801/",
        "ufleet.example",
        "uhttps://[::1]:9",
        "u127.0.0.1:80",
        "t30m",
        "t1h 20s",
        "t2026-03-01T12:00:00Z",
        "t0.5%",
        "ralive",
        "rtcp:80",
        "rhttp:80/a/b?c",
        "rexec:/bin/true -v",
        "ncoffee@1.8.0",
        "nbrisk-otter/coffee",
        "nshop=7",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    let mut wide = vec![0; HEADER_BYTES];
    wide[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    wide[18] = 62;
    let mut narrow = vec![0; 52];
    narrow[..7].copy_from_slice(b"\x7fELF\x01\x02\x01");
    narrow[19] = 8;
    samples.extend([wide, narrow, b"#!/bin/sh\n".to_vec()].map(|header| [b"h", header.as_slice()].concat()));
    samples
}

#[test]
fn every_sample_of_an_argument_is_one() {
    for sample in samples() {
        assert!(check(&sample), "{}", String::from_utf8_lossy(&sample));
    }
}

#[test]
fn a_time_that_cannot_be_told_is_none_and_not_no_bound() {
    for text in ["99999y", "584000000000y"] {
        assert!(value::past(text).is_err(), "{text}");
        assert!(value::lifetime(text).is_err(), "{text}");
    }
    assert_eq!(value::lifetime("1h"), Ok(Duration::from_secs(3600)));
}

#[test]
fn any_argument_has_one_meaning_or_none() {
    bolero::check!(name = "argument").with_iterations(CASES).for_each(|bytes| {
        check(bytes);
    });
}
