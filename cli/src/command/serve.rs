//! `serve`: a fleet's server, on this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use etcetera::BaseStrategy as _;
use fleetd_server::keys::{OpenKeysError, RootKey};
use fleetd_server::serve::{Announcement, ServeError, ServeOptions, serve};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::Session;
use crate::context::{Context, ContextFile, ContextFileError};
use crate::error::{CommandError, chain};
use crate::output::Output;

/// What the context of a server on this machine is called.
const OWN_CONTEXT: &str = "local";

/// Serve a fleet from this machine
///
/// The first start makes the fleet: its root key, its CA, an empty store. Later ones take up what is there. Whoever
/// runs it is logged in here, as the context `local`. Ctrl-C or SIGTERM ends it in order.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd serve
  fleetd serve --data ./fleet --advertise fleet.example:4433
  fleetd serve --data ./fleet --api-address 127.0.0.1:0 --sync-address 127.0.0.1:0 --json | jq -r .apiAddress")]
pub struct Serve {
    /// Where keys, store and artifacts are kept; below the XDG data folder when left out
    #[arg(long, value_name = "PATH", env = "FLEETD_DATA", hide_env_values = true)]
    pub data: Option<PathBuf>,
    /// Where the API listens, by TCP; port 0 chooses a free one
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:4800")]
    pub api_address: SocketAddr,
    /// Where devices sync, by UDP; port 0 chooses a free one
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:4433")]
    pub sync_address: SocketAddr,
    /// Where devices find this server: it goes into enrolment tokens (repeat for more)
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Vec<String>,
}

impl Serve {
    /// Runs the command.
    ///
    /// # Errors
    /// When the server does not start.
    pub async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let mut terminate = signal(SignalKind::terminate())
            .map_err(|error| CommandError::new("serve.signal", "signals cannot be waited for").caused_by(&error))?;
        let data = match self.data {
            Some(data) => data,
            None => default_data()?,
        };
        let data = std::path::absolute(&data).map_err(|error| {
            CommandError::new("serve.no_data", format!("{} is no path", data.display())).caused_by(&error)
        })?;
        let options = ServeOptions {
            data,
            api_address: self.api_address,
            sync_address: self.sync_address,
            advertise: self.advertise,
            own_tokens: own_tokens(),
        };
        let shutdown = async {
            tokio::select! {
                biased;
                () = session.interrupt.pressed() => {}
                _ = terminate.recv() => {}
            }
        };
        let mut told = Ok(());
        serve(options, |announcement| told = tell(session.output, &announcement), shutdown).await?;
        told
    }
}

fn default_data() -> Result<PathBuf, CommandError> {
    let base = etcetera::base_strategy::Xdg::new();
    let base = base.map_err(|_| {
        CommandError::new("serve.no_data", "there is no folder for data").next_command("fleetd serve --data PATH")
    })?;
    Ok(base.data_dir().join("fleetd").join("server"))
}

/// The tokens of the contexts of servers on this machine; none when they cannot be read, which is told later.
fn own_tokens() -> Vec<String> {
    let Ok(file) = ContextFile::open() else { return Vec::new() };
    let own = file.iter().filter(|(name, _)| name.starts_with(OWN_CONTEXT));
    own.filter_map(|(_, context)| context.token.clone()).collect()
}

/// Logs whoever runs the server in, and says where it is.
fn tell(output: &Output, announcement: &Announcement) -> Result<(), CommandError> {
    let context = match log_in(announcement) {
        Ok(name) => Some(name),
        Err(error) => {
            output.note(&format!("warning: {} (nobody is logged in here)", chain(&error)));
            None
        }
    };
    let object = json!({
        "apiAddress": announcement.api_address.to_string(),
        "syncAddress": announcement.sync_address.to_string(),
        "advertised": announcement.advertised.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "fleetId": announcement.fleet.to_string(),
        "isNewFleet": announcement.is_new_fleet,
        "rootKeyPath": announcement.root_key_path.display().to_string(),
        "rootKey": match announcement.root_key {
            RootKey::Here => "here",
            RootKey::Spent => "spent",
            RootKey::Away => "away",
        },
        "contextName": context,
        "quarantined": announcement.quarantined.as_ref().map(|path| path.display().to_string()),
    });
    output.answer(&object, || render(announcement, context.as_deref()))
}

fn render(announcement: &Announcement, context: Option<&str>) -> String {
    let mut text = String::new();
    if let Some(path) = &announcement.quarantined {
        text.push_str(&format!("the store was damaged and lies in {}; devices come back by themselves and wait for your word:\n  fleetd enroll approve --all-recovered\n", path.display()));
    }
    let made = if announcement.is_new_fleet { "  (made just now)" } else { "" };
    let advertised: Vec<String> = announcement.advertised.iter().map(ToString::to_string).collect();
    text.push_str(&format!("fleet      {}{made}\n", announcement.fleet));
    text.push_str(&format!("API        {}\n", url(announcement.api_address)));
    text.push_str(&format!(
        "devices    {} (QUIC), told to dial {}\n",
        announcement.sync_address,
        advertised.join(", ")
    ));
    let root = announcement.root_key_path.display();
    match announcement.root_key {
        RootKey::Here => {
            text.push_str(&format!("root key   {root}\n"));
            text.push_str(&format!(
                "           only `fleetd trust` needs it: mv '{root}' to a medium that you lock away\n"
            ));
        }
        RootKey::Spent => {
            text.push_str(&format!("root key   {root} is of no use any more, the root has other keys: rm '{root}'\n"))
        }
        RootKey::Away => text.push_str("root key   was moved away, as it should be\n"),
    }
    if let Some(context) = context {
        text.push_str(&format!("logged in  as context {context}\n"));
    }
    text
}

/// Keeps how to reach the server for whoever runs it, and gives the context's name.
fn log_in(announcement: &Announcement) -> Result<String, ContextFileError> {
    let mut file = ContextFile::open()?;
    let fleet = announcement.fleet.to_string();
    let of_fleet = |context: &Context| context.fleet == fleet;
    let known = file.iter().find(|(name, context)| name.starts_with(OWN_CONTEXT) && of_fleet(context));
    let (name, known) = match known {
        Some((name, context)) => (name.to_owned(), Some(context.clone())),
        // Another fleet of this machine keeps its name.
        None if file.iter().any(|(name, _)| name == OWN_CONTEXT) => {
            let digits: String = fleet.chars().skip_while(|character| *character != '_').skip(1).take(6).collect();
            (format!("{OWN_CONTEXT}-{digits}"), None)
        }
        None => (OWN_CONTEXT.to_owned(), None),
    };
    let token = announcement.admin_token.clone().or_else(|| known.as_ref().and_then(|known| known.token.clone()));
    let context = Context {
        url: url(announcement.api_address),
        fleet,
        token,
        ca_certificate_pem: announcement.ca_certificate_pem.clone(),
    };
    if known.as_ref() == Some(&context) {
        return Ok(name);
    }
    let current = file.current().filter(|_| known.is_some()).map(ToOwned::to_owned);
    file.put(&name, context);
    // What a person has chosen since stays chosen.
    if let Some(current) = current
        && file.make_current(&current).is_err()
    {
        tracing::warn!(current, "the current context is gone");
    }
    file.save()?;
    Ok(name)
}

/// Where this machine reaches the API.
fn url(mut address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    format!("https://{address}")
}

impl From<ServeError> for CommandError {
    fn from(error: ServeError) -> Self {
        use fleetd_server::serve::{ListenError, OpenStoreError};
        let (code, next) = match &error {
            ServeError::ApiInUse { .. } => ("serve.port_in_use", "fleetd serve --api-address IP:0"),
            ServeError::Sync(ListenError::InUse { .. }) => ("serve.port_in_use", "fleetd serve --sync-address IP:0"),
            ServeError::Store(OpenStoreError::Locked { .. }) | ServeError::Keys(OpenKeysError::InUse { .. }) => {
                ("serve.data_in_use", "end the server that uses it, or name another --data PATH")
            }
            ServeError::Store(OpenStoreError::Newer { .. }) => ("serve.store_newer", "run the fleetd that wrote it"),
            ServeError::Store(_) | ServeError::Quarantine { .. } => ("serve.store", ""),
            ServeError::StoreFailed { .. } => ("serve.store_failed", "see to the disk, then start it again"),
            ServeError::Keys(_) | ServeError::Role(_) | ServeError::Certificate(_) | ServeError::OwnCertificate(_) => {
                ("serve.keys", "")
            }
            ServeError::Advertise(_) => ("serve.advertise", "fleetd serve --advertise HOST:PORT"),
            ServeError::ApiAddress { .. } | ServeError::Sync(_) => ("serve.address", "fleetd serve --help"),
            _ => ("serve.failed", "FLEETD_LOG=debug fleetd serve"),
        };
        Self::new(code, error.to_string()).cause(sources(&error)).next_command(next)
    }
}

fn sources(error: &ServeError) -> String {
    std::error::Error::source(error).map(chain).unwrap_or_default()
}
