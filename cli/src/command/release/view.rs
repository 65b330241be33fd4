//! Releases as people read them.

use fleetd_proto::fleetd::release::v1::probe::Kind;
use fleetd_proto::fleetd::release::v1::{Probe, Release};
use fleetd_proto::fleetd::trust::v1::RevocationKind;

use crate::command::wording;
use crate::output::{Moment, bytes, table};

/// Draws a list of releases.
#[must_use]
pub fn releases(releases: &[Release], now: Moment) -> String {
    let rows = releases.iter().map(|release| {
        let platforms: Vec<&str> = release.artifacts.iter().map(|artifact| artifact.platform.as_str()).collect();
        [
            format!("{}@{}", release.workload, release.version),
            platforms.join(", "),
            state(release).to_owned(),
            wording::moment(release.created_at.as_ref()).relative(now),
            release.signed_manifest.as_ref().map(|signed| signed.key_id.clone()).unwrap_or_default(),
        ]
    });
    table(["RELEASE", "PLATFORMS", "STATE", "PUSHED", "SIGNED BY"], rows)
}

fn state(release: &Release) -> &'static str {
    match (&release.denied_at, release.signer_revocation(), release.complete) {
        (Some(_), ..) => "denied",
        (None, RevocationKind::Compromised, _) => "key compromised",
        (None, RevocationKind::Retired, _) => "key retired",
        (None, RevocationKind::Unspecified, true) => "complete",
        (None, RevocationKind::Unspecified, false) => "incomplete",
    }
}

/// Draws one release.
#[must_use]
pub fn release(release: &Release, now: Moment) -> String {
    let mut text = format!("{} {}  {}\n", release.workload, release.version, state(release));
    let key = release.signed_manifest.as_ref().map(|signed| signed.key_id.as_str()).unwrap_or_default();
    let environment: Vec<String> = release.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let grace = release.grace.map(|grace| format!("{}.{:03} s", grace.seconds, grace.nanos / 1_000_000));
    let created = wording::moment(release.created_at.as_ref());
    let lines = [
        ("manifest", release.manifest_digest.clone()),
        ("signed by", key.to_owned()),
        ("pushed", format!("{} by {}", created.relative(now), wording::or_dash(&release.created_by))),
        ("arguments", wording::or_dash(&release.arguments.join(" "))),
        ("environment", wording::or_dash(&environment.join(" "))),
        ("probe", probe(release.probe.as_ref())),
        ("grace", grace.unwrap_or_else(|| "-".to_owned())),
        ("user", wording::or_dash(&release.user)),
    ];
    if let Some(denied_at) = &release.denied_at {
        let since = wording::moment(Some(denied_at)).relative(now);
        text.push_str(&format!("  {:<11} {since}: {}\n", "denied", wording::or_dash(&release.denied_reason)));
    }
    for (name, value) in lines {
        text.push_str(&format!("  {name:<11} {value}\n"));
    }
    for artifact in &release.artifacts {
        let size = bytes(artifact.size_bytes);
        text.push_str(&format!("  {:<11} {} {size}\n", artifact.platform, artifact.digest));
    }
    text
}

fn probe(probe: Option<&Probe>) -> String {
    match probe.and_then(|probe| probe.kind.as_ref()) {
        None => "alive".to_owned(),
        Some(Kind::TcpPort(port)) => format!("tcp:{port}"),
        Some(Kind::HttpUrl(url)) => url.clone(),
        Some(Kind::Command(command)) => format!("exec:{}", command.arguments.join(" ")),
        Some(Kind::Notify(_)) => "notify".to_owned(),
    }
}
