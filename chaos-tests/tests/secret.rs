//! Secrets are in nothing that anybody writes down, however much they are asked to say.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use fleetd_chaos_tests::cluster::{Cluster, is_online, runs, with_cluster};
use fleetd_chaos_tests::secret::Secret;
use fleetd_sync_core::enrolment::EnrolmentToken;
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::trust::read_armour;
use serde_json::Value;

use crate::material::brewing;

/// What was said on the way, each with who said it.
type Said = Vec<(String, Vec<u8>)>;

#[test]
fn no_secret_is_written_where_others_read_it() {
    with_cluster(|cluster| {
        // The first server said what it says by default, and made the keys and the first token.
        cluster.kill_server()?;
        cluster.log_everything();
        cluster.start_server()?;
        let mut said = Said::new();
        let mut secrets = Vec::new();

        cluster.delegate()?;
        let enrolment = cluster.token(&["--uses", "1", "--label", "place=0"])?;
        let made = cluster.json(&["access", "create", "ci", "--role", "deployer"])?;
        let access = made["text"].as_str().context("a token without its text")?.to_owned();
        cluster.push("1.0.0", &brewing("1.0.0"), &["--grace", "1s"])?;
        let number = cluster.prepare_agent(&enrolment)?;
        cluster.start_agent(number)?;
        cluster.until_device(number, "it to be online", is_online)?;
        cluster.roll_out("1.0.0")?;
        cluster.until_device(number, "it to run", |device| runs(device, "1.0.0"))?;

        let (backup, bundle) = (text(&cluster.path("fleet.backup")), text(&cluster.path("support.tar")));
        let configuration = text(&cluster.agent(number)?.configuration());
        for command in [
            vec!["whoami"],
            vec!["access", "list"],
            vec!["enroll", "token", "list"],
            vec!["trust", "show"],
            vec!["audit", "list", "--last", "0"],
            vec!["audit", "verify"],
            vec!["doctor"],
            vec!["backup", "--out", &backup],
            vec!["agent", "config", "show", "--origin", "--config", &configuration],
            vec!["agent", "status", "--config", &configuration],
            vec!["agent", "support-bundle", "--config", &configuration, "--out", &bundle],
            vec!["support", "replay", &bundle],
            // Nobody is there to be told a token.
            vec!["login", "https://127.0.0.1:1", "--token", "-"],
            // One on a command line is refused, and not repeated.
            vec!["login", "https://127.0.0.1:1", "--token", &access],
        ] {
            hear(cluster, &command, &mut said)?;
        }
        log_in(cluster, &access, &mut said)?;
        said.push(("the backup".to_owned(), unpacked(&backup)?));
        said.push(("the support bundle".to_owned(), fs::read(&bundle)?));
        cluster.kill_agent(number)?;
        cluster.kill_server()?;

        secrets_of(cluster, number, (&enrolment, &access), &mut secrets)?;
        ensure!(secrets.len() > 10, "only {secrets:?} were found");
        for file in files(&cluster.path(""))? {
            if !is_keeper_of_secrets(&file) {
                said.push((text(&file), fs::read(&file)?));
            }
        }
        let total: usize = said.iter().map(|(_, bytes)| bytes.len()).sum();
        let logged: usize = said.iter().filter(|(who, _)| who.ends_with(".log")).map(|(_, bytes)| bytes.len()).sum();
        ensure!(logged > 100_000, "nobody was asked to say everything: {logged} bytes of {total}");
        let leaks = leaks(&said, &secrets);
        ensure!(leaks.is_empty(), "{leaks:#?}");

        // What is looked for would be found: a command that repeats what it is given is told a secret.
        let mut told = Said::new();
        hear(cluster, &["explain", &access], &mut told)?;
        ensure!(!self::leaks(&told, &secrets).is_empty(), "a token that was written down was not found");
        Ok(())
    });
}

fn leaks(said: &Said, secrets: &[Secret]) -> Vec<String> {
    let found = said.iter().flat_map(|(who, bytes)| {
        secrets.iter().filter_map(move |secret| {
            secret.found_in(bytes).map(|form| format!("{} has {} as {form}", who, secret.name()))
        })
    });
    found.collect()
}

/// Runs a command, and keeps what it says, however it ends.
fn hear(cluster: &Cluster, arguments: &[&str], said: &mut Said) -> anyhow::Result<()> {
    let output = cluster.run(arguments)?;
    said.push((format!("fleetd {}", arguments.join(" ")), [output.stdout, output.stderr].concat()));
    Ok(())
}

/// Logs in with a token, as another operator does.
fn log_in(cluster: &Cluster, token: &str, said: &mut Said) -> anyhow::Result<()> {
    let announced = fs::read_to_string(cluster.path("serve.json"))?;
    let announced: Value = serde_json::from_str(announced.lines().next().context("nothing was announced")?)?;
    let (address, fleet) = (announced["apiAddress"].as_str().context("no address")?, &announced["fleetId"]);
    let url = format!("https://{address}");
    let mut command = cluster.command();
    command.args([
        "--json",
        "login",
        &url,
        "--fleet",
        fleet.as_str().unwrap_or_default(),
        "--name",
        "other",
        "--token",
        "-",
    ]);
    command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = command.spawn()?;
    std::io::Write::write_all(&mut child.stdin.take().context("no standard input")?, token.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    said.push(("fleetd login".to_owned(), [output.stdout, output.stderr].concat()));
    Ok(())
}

/// Every secret that this fleet has.
fn secrets_of(
    cluster: &mut Cluster,
    number: usize,
    (enrolment, access): (&str, &str),
    secrets: &mut Vec<Secret>,
) -> anyhow::Result<()> {
    let token: EnrolmentToken = enrolment.parse()?;
    secrets.push(Secret::text("the enrolment token", enrolment));
    secrets.push(Secret::bytes("the enrolment token's secret", token.secret().as_bytes()));
    let mut access_token = |name: &str, text: &str| -> anyhow::Result<()> {
        let digits = text.rsplit('_').next().unwrap_or_default();
        secrets.push(Secret::text(name, text));
        secrets.push(Secret::text(name, digits));
        let bytes = data_encoding::BASE32_NOPAD.decode(digits.to_ascii_uppercase().as_bytes())?;
        secrets.push(Secret::bytes(name, &bytes));
        Ok(())
    };
    access_token("the access token", access)?;
    access_token("the first admin's token", &own_token(cluster)?)?;

    let device_key = fs::read(cluster.agent(number)?.data_directory().join("identity").join("device-key.a"))?;
    secrets.push(Secret::bytes("the device's key", key_in(&device_key).context("there is no key in the file")?));
    let mut keys = files(&cluster.path("server").join("keys"))?;
    keys.push(cluster.path("release.key"));
    for path in keys {
        let name = text(&path);
        let content = fs::read(&path)?;
        let armoured = std::str::from_utf8(&content).ok().and_then(|text| read_armour::<SecretKey>(text).ok());
        if let Some(key) = armoured {
            secrets.push(Secret::bytes(&name, &key.to_bytes()));
        } else if let Some(key) = key_in(&content) {
            secrets.push(Secret::bytes(&name, key));
        }
    }
    Ok(())
}

/// In PKCS#8 a key of Ed25519 is an octet string of 32 bytes in another one.
fn key_in(bytes: &[u8]) -> Option<&[u8]> {
    let at = bytes.windows(4).position(|bytes| bytes == [4, 34, 4, 32])? + 4;
    bytes.get(at..at + 32)
}

/// The token that `serve` made for the operator on its machine.
fn own_token(cluster: &Cluster) -> anyhow::Result<String> {
    for file in files(&cluster.path("config"))? {
        let text = fs::read_to_string(&file)?;
        if let Some(at) = text.find("fdt_") {
            let token = text[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_');
            return Ok(token.collect());
        }
    }
    anyhow::bail!("the operator has no token")
}

/// Where secrets are kept on purpose, for their owners only.
fn is_keeper_of_secrets(file: &Path) -> bool {
    let path = text(file);
    let keeps = ["/config/", "/server/keys/", "/identity/", "/agent.toml", "/release.key"];
    keeps.iter().any(|part| path.contains(part))
}

/// Every file below a folder.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let (path, kind) = {
            let entry = entry?;
            (entry.path(), entry.file_type()?)
        };
        if kind.is_dir() {
            found.extend(files(&path)?);
        } else if kind.is_file() {
            found.push(path);
        }
    }
    Ok(found)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// What a backup holds, without its compression.
fn unpacked(path: &str) -> anyhow::Result<Vec<u8>> {
    Ok(zstd::decode_all(fs::File::open(path)?)?)
}
