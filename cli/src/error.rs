//! What people and programs see when a command fails: a stable code, what happened, why, and what to do next.

use std::error::Error;
use std::fmt;

use clap::error::ErrorKind;
use fleetd_server::error_page;
use miette::Diagnostic;

use crate::exit::Exit;

/// A failed command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandError {
    /// A stable name for this kind of error, in lower case with dots (`rollout.plan_stale`).
    pub code: String,
    /// One sentence that says what happened.
    pub message: String,
    /// What lies underneath, with the values that were seen.
    pub cause: Option<Cause>,
    /// The command that most likely helps.
    pub next_command: Option<Box<str>>,
    /// A page that explains the error.
    pub help_url: Option<Box<str>>,
    /// How the process ends.
    pub exit: Exit,
}

/// What lies under a failure, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause(Box<str>);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Cause {}

/// The code of an error that nobody is told of, because whoever read standard output has gone.
const OUTPUT_CLOSED: &str = "output.closed";

impl CommandError {
    /// Says what happened. Each code has a page in `docs/errors/`: that it is a literal lets a check find it.
    #[must_use]
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self::told(code.to_owned(), message)
    }

    /// Says what happened with a code that somebody else gave it: a server, which may be of another version.
    #[must_use]
    pub fn told(code: String, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), cause: None, next_command: None, help_url: None, exit: Exit::Error }
    }

    /// Adds why.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into().into_boxed_str()).filter(|cause| !cause.is_empty()).map(Cause);
        self
    }

    /// Adds why, from an error and all that it names as its source.
    #[must_use]
    pub fn caused_by(self, error: &dyn Error) -> Self {
        self.cause(chain(error))
    }

    /// Adds why, from what an error names as its source; its own words are said already.
    #[must_use]
    pub fn caused_by_source(self, error: &dyn Error) -> Self {
        match error.source() {
            Some(source) => self.caused_by(source),
            None => self,
        }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn next_command(mut self, command: impl Into<String>) -> Self {
        self.next_command = Some(command.into().into_boxed_str()).filter(|command| !command.is_empty());
        self
    }

    /// Ends the process otherwise than with 1.
    #[must_use]
    pub const fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// A command line that was not understood.
    #[must_use]
    pub fn usage(error: &clap::Error) -> Self {
        // Without a verb clap says nothing that is wrong; it shows the help.
        let message = match error.kind() {
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "the command is not complete".to_owned(),
            _ => {
                // What is wrong, and what it is wrong with, stands before the first empty line.
                let text = error.to_string();
                let wrong = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim);
                wrong.collect::<Vec<_>>().join(" ").trim_start_matches("error: ").to_owned()
            }
        };
        Self::new("usage", message).next_command("fleetd --help").exit(Exit::Usage)
    }

    /// The end of a command whose reader has gone, as `head` goes: no failure, and nobody to tell.
    #[must_use]
    pub fn output_closed() -> Self {
        Self::new(OUTPUT_CLOSED, "standard output was closed").exit(Exit::Ok)
    }

    /// Whether there is something to tell.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.code == OUTPUT_CLOSED
    }

    /// The error as one JSON object.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let mut fields = serde_json::Map::new();
        fields.insert("code".to_owned(), self.code.clone().into());
        fields.insert("message".to_owned(), self.message.clone().into());
        let optional = [
            ("cause", self.cause.as_ref().map(|cause| &cause.0)),
            ("nextCommand", self.next_command.as_ref()),
            ("helpUrl", self.help_url.as_ref()),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                fields.insert(name.to_owned(), value.as_ref().into());
            }
        }
        fields.insert("exitCode".to_owned(), self.exit.code().into());
        serde_json::json!({ "error": fields })
    }
}

/// An error's text and that of each source below it; a source that its parent repeats is left out.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(below) = source {
        let below_text = below.to_string();
        if !text.contains(&below_text) {
            text.push_str(": ");
            text.push_str(&below_text);
        }
        source = below.source();
    }
    text
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for CommandError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_ref().map(|cause| cause as &dyn Error)
    }
}

impl Diagnostic for CommandError {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.code))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.next_command.as_ref().map(|command| Box::new(command) as Box<dyn fmt::Display + 'a>)
    }

    /// The server's page; where there is none, the command that shows the same page.
    fn url<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        if let Some(url) = &self.help_url {
            return Some(Box::new(url));
        }
        // Who pressed Ctrl-C knows why.
        let is_explained = self.exit != Exit::Interrupted && error_page::page(&self.code).is_some();
        is_explained.then(|| Box::new(format!("fleetd explain {}", self.code)) as Box<dyn fmt::Display + 'a>)
    }
}

/// Draws an error in the shape that every command's errors have.
///
/// ```text
/// error[rollout.plan_stale]: plan pln_9d… no longer matches the fleet
///   cause: 3 devices joined since it was made
///   help:  fleetd rollout plan coffee@1.8.0 …
/// ```
#[must_use]
pub fn draw(error: &dyn Diagnostic, coloured: bool) -> String {
    let style = |style: console::Style| style.for_stderr().force_styling(coloured);
    let code = error.code().map_or_else(|| "internal".to_owned(), |code| code.to_string());
    let head = style(console::Style::new().red().bold()).apply_to(format!("error[{code}]"));
    let mut text = format!("{head}: {error}\n");
    let label = style(console::Style::new().bold());
    let parts = [
        ("cause:", Error::source(error).map(chain)),
        ("help: ", error.help().map(|help| help.to_string())),
        ("docs: ", error.url().map(|url| url.to_string())),
    ];
    for (name, part) in parts {
        if let Some(part) = part {
            let part = part.replace('\n', "\n         ");
            text.push_str(&format!("  {} {part}\n", label.apply_to(name)));
        }
    }
    text
}
