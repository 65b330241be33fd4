//! `login`, `logout`, `whoami`: which server, and who we are there.

use std::io::{IsTerminal as _, Read as _};

use clap::Args;
use fleetd_proto::fleetd::access::v1::{WhoAmIRequest, WhoAmIResponse};
use fleetd_sync_core::id::FleetId;
use serde_json::json;

use super::{Session, wording};
use crate::client::json::json as message_json;
use crate::client::login::introduce;
use crate::client::server_url::ServerUrl;
use crate::client::{CallError, FleetClient};
use crate::context::{Context, ContextFile, TOKEN_VARIABLE};
use crate::error::CommandError;
use crate::exit::Exit;
use crate::output::Moment;

/// Get to know a server, and keep a credential for it
///
/// The server must first prove that it serves the fleet whose id `fleetd serve` printed. Only then is it told the
/// token. What is learned is kept as a context, which later commands use.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd login https://fleet.example:4800 --fleet flt_5x3c9q0r6t8v1w2y4z7a9b1c2c
  fleetd login fleet.example --fleet \"$FLEET\" --token - < token.txt
  FLEETD_TOKEN=… fleetd login fleet.example --fleet flt_5x3c9q0r6t8v1w2y4z7a9b1c2c --name shop")]
pub struct Login {
    /// Where the server's API is
    pub url: ServerUrl,
    /// The fleet id that `fleetd serve` printed; asked for when it is left out
    #[arg(long, value_name = "FLEET")]
    pub fleet: Option<FleetId>,
    /// Read the token from standard input: `-` (or set FLEETD_TOKEN); asked for when it is left out
    #[arg(long, value_name = "-")]
    pub token: Option<String>,
    /// What to call this server here; its host name when left out
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

/// A token on a command line can be read by every process of the machine. It is not repeated: what is printed is kept
/// for longer.
fn require_dash(token: &str) -> Result<(), CommandError> {
    if token == "-" {
        return Ok(());
    }
    Err(CommandError::new("login.token_shown", "a token does not belong on a command line, where others can read it")
        .next_command("fleetd login URL --token - < FILE   (and make another token in place of this one)")
        .exit(Exit::Usage))
}

impl Login {
    /// Runs the command.
    ///
    /// # Errors
    /// When the server does not prove what it is, or does not take the token.
    pub async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        self.token.as_deref().map_or(Ok(()), require_dash)?;
        let mut file = ContextFile::open()?;
        let fleet = match self.fleet {
            Some(fleet) => fleet,
            None => known_fleet(&file, &self.url).map_or_else(ask_fleet, Ok)?,
        };
        let introduction = introduce(&self.url, fleet).await?;
        session.output.note(&format!("{} serves fleet {fleet}", self.url));
        let token = read_token(self.token.is_some())?;
        let client = FleetClient::connect(&introduction.target(Some(token.clone()))).await?;
        let answer = client.who_am_i(WhoAmIRequest {}).await?;
        let name = self.name.unwrap_or_else(|| self.url.host().to_owned());
        let context = Context {
            url: self.url.to_string(),
            fleet: fleet.to_string(),
            token: Some(token),
            ca_certificate_pem: introduction.answer.ca_certificate_pem.clone(),
        };
        file.put(&name, context);
        file.save()?;
        let mut object = message_json(&answer);
        if let Some(fields) = object.as_object_mut() {
            fields.insert("context".to_owned(), name.clone().into());
            fields.insert("url".to_owned(), self.url.to_string().into());
        }
        session.output.answer(&object, || format!("{}\ncontext {name} is current", render_who(&answer, Moment::now())))
    }
}

/// The fleet that this server had to prove before, where somebody logs in anew.
fn known_fleet(file: &ContextFile, url: &ServerUrl) -> Option<FleetId> {
    let url = url.to_string();
    let mut fleets = file.iter().filter(|(_, context)| context.url == url).map(|(_, context)| context.fleet.parse());
    let fleet = fleets.next()?.ok()?;
    // Two that were believed at one address: only a person knows which is meant.
    fleets.all(|other| other.is_ok_and(|other: FleetId| other == fleet)).then_some(fleet)
}

fn ask_fleet() -> Result<FleetId, CommandError> {
    if !std::io::stdin().is_terminal() {
        return Err(CommandError::new("login.no_fleet", "the fleet id is missing")
            .cause("without it, any server could claim to be yours; `fleetd serve` printed it")
            .next_command("repeat the command with --fleet flt_…")
            .exit(Exit::Usage));
    }
    let text = ask("Fleet id that `fleetd serve` printed: ", false)?;
    text.trim()
        .parse()
        .map_err(|error| CommandError::new("login.fleet_id", "this is no fleet id").caused_by(&error).exit(Exit::Usage))
}

fn read_token(from_stdin: bool) -> Result<String, CommandError> {
    let text = if from_stdin {
        let mut text = String::new();
        std::io::stdin()
            .lock()
            .take(16 << 10)
            .read_to_string(&mut text)
            .map_err(|error| CommandError::new("login.token", "the token could not be read").caused_by(&error))?;
        text
    } else if let Some(token) = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty()) {
        token
    } else if std::io::stdin().is_terminal() {
        ask("Token: ", true)?
    } else {
        String::new()
    };
    let token = text.trim();
    if token.is_empty() {
        return Err(CommandError::new("login.no_token", "there is no token")
            .next_command(format!(
                "repeat the command with --token - and the token on standard input, or set {TOKEN_VARIABLE}"
            ))
            .exit(Exit::Usage));
    }
    Ok(token.to_owned())
}

fn ask(question: &str, is_secret: bool) -> Result<String, CommandError> {
    let terminal = console::Term::stderr();
    let read = || if is_secret { terminal.read_secure_line() } else { terminal.read_line() };
    terminal
        .write_str(question)
        .and_then(|()| read())
        .map_err(|error| CommandError::new("login.unreadable", "the answer could not be read").caused_by(&error))
}

/// Forget a server and the credential for it
///
/// The token goes on to count at the server: `access revoke` ends it.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd logout
  fleetd logout --context shop")]
pub struct Logout {}

impl Logout {
    /// Runs the command.
    ///
    /// # Errors
    /// When there is no such context, or the file cannot be written.
    pub fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let mut file = ContextFile::open()?;
        let name = file.select(session.context.as_deref())?.0.to_owned();
        file.remove(&name);
        file.save()?;
        session.output.answer(&json!({ "context": name }), || format!("context {name} is forgotten"))
    }
}

/// Say who is calling, and whom
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd whoami
  fleetd whoami --json | jq -r .accessToken.role")]
pub struct Whoami {}

impl Whoami {
    /// Runs the command.
    ///
    /// # Errors
    /// When the server cannot be reached, or knows no such caller.
    pub async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let answer = session.client().await?.who_am_i(WhoAmIRequest {}).await?;
        session.output.answer(&message_json(&answer), || render_who(&answer, Moment::now()))
    }
}

/// Says who is calling.
#[must_use]
pub fn render_who(answer: &WhoAmIResponse, now: Moment) -> String {
    let token = answer.access_token.clone().unwrap_or_default();
    let expires = match wording::moment(token.expires_at.as_ref()).relative(now) {
        never if never == "-" => "never expires".to_owned(),
        when => format!("expires {when}"),
    };
    format!(
        "{} is {} ({}, {expires}) at server {} {} of fleet {}\n",
        token.name,
        wording::role(token.role),
        token.id,
        answer.server_id,
        answer.server_version,
        answer.fleet_id,
    )
}

/// A field that an answer must have.
///
/// # Errors
/// [`CallError::Incomplete`] when it has not.
pub fn need<T>(value: Option<T>, field: &'static str) -> Result<T, CallError> {
    value.ok_or(CallError::Incomplete { field })
}
