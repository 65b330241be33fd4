//! Message brokers, which keep connections to many idle clients too: the peers of the rows about these.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use xshell::{Shell, cmd};

use super::Workshop;
use super::process::{Clients, Process};
use crate::ci::root;

/// Where the clients of all of them are, relative to the root.
const CLIENTS: &str = "xtask/src/bench/fleet/idle_clients.py";
/// Where they listen: no port that a broker of the machine's own would have.
const PORT: u16 = 48_883;

/// A broker that can be had by the name of its package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broker {
    Mosquitto,
    Nats,
}

impl Broker {
    pub(super) const ALL: [Self; 2] = [Self::Mosquitto, Self::Nats];

    /// The package, which is the program too.
    pub(super) const fn package(self) -> &'static str {
        match self {
            Self::Mosquitto => "mosquitto",
            Self::Nats => "nats-server",
        }
    }

    const fn protocol(self) -> &'static str {
        match self {
            Self::Mosquitto => "mqtt",
            Self::Nats => "nats",
        }
    }

    /// How the row calls it: with the version that is here.
    ///
    /// # Errors
    /// When it is not installed.
    pub(super) fn name(self) -> anyhow::Result<String> {
        let flag = match self {
            Self::Mosquitto => "-h",
            Self::Nats => "-v",
        };
        let output = Command::new(self.path()).arg(flag).output().context("not installed")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = said.split_whitespace().find(|word| word.trim_start_matches('v').starts_with(char::is_numeric));
        Ok(format!("{} {}, mutual TLS", self.package(), version.unwrap_or("?").trim_start_matches('v')))
    }

    fn path(self) -> PathBuf {
        // Packages put servers where users do not look.
        let at_system = PathBuf::from("/usr/sbin").join(self.package());
        if at_system.exists() { at_system } else { self.package().into() }
    }

    /// Serves clients that show a certificate, and lets them connect; none does yet.
    pub(super) fn start(self, workshop: &Workshop, shell: &Shell) -> anyhow::Result<(Process, Clients)> {
        let directory = workshop.empty_directory(self.package())?;
        make_certificates(shell, &directory.display().to_string())?;
        let file = |name: &str| directory.join(name).display().to_string();
        let (ca, certificate, key) = (file("ca.pem"), file("server.pem"), file("server.key"));
        let configuration = match self {
            Self::Mosquitto => format!(
                "listener {PORT} 127.0.0.1\ncafile {ca}\ncertfile {certificate}\nkeyfile {key}\nuser root\n\
                 require_certificate true\nallow_anonymous true\npersistence false\nlog_type error\nlog_type warning\n"
            ),
            Self::Nats => format!(
                "listen: \"127.0.0.1:{PORT}\"\nping_interval: \"10m\"\n\
                 tls {{ ca_file: \"{ca}\", cert_file: \"{certificate}\", key_file: \"{key}\", verify: true }}\n"
            ),
        };
        fs::write(directory.join("broker.conf"), configuration)?;
        let mut command = Command::new(self.path());
        command.arg("-c").arg(directory.join("broker.conf")).stdin(Stdio::null()).stdout(Stdio::null());
        let broker = Process::start(&mut command, &directory.join("broker.log"))?;
        std::thread::sleep(super::SOON);
        let mut clients = Command::new("python3");
        clients.arg(root().join(CLIENTS)).args([self.protocol(), "--port", &PORT.to_string(), "--ca", &ca]);
        clients.args(["--certificate", &file("client.pem"), "--key", &file("client.key")]);
        let clients = Clients::start(&mut clients, &directory.join("clients.log"))?;
        Ok((broker, clients))
    }
}

/// A CA, a server of the name `localhost` and a client, with keys of the same kind as ours.
fn make_certificates(shell: &Shell, directory: &str) -> anyhow::Result<()> {
    let _inside = shell.push_dir(directory);
    shell.write_file("names", "subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n")?;
    let ca = ["-x509", "-days", "30", "-nodes", "-newkey", "ed25519", "-subj", "/CN=bench"];
    cmd!(shell, "openssl req {ca...} -keyout ca.key -out ca.pem").quiet().ignore_stderr().run()?;
    for who in ["server", "client"] {
        let subject = format!("/CN={who}");
        cmd!(shell, "openssl req -nodes -newkey ed25519 -subj {subject} -keyout {who}.key -out {who}.csr")
            .quiet()
            .ignore_stderr()
            .run()?;
        let sign = ["-days", "30", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names"];
        cmd!(shell, "openssl x509 -req {sign...} -in {who}.csr -out {who}.pem").quiet().ignore_stderr().run()?;
    }
    Ok(())
}
