//! `support bundle`: how a server is, and what its rollouts did last, in one file.

use std::path::PathBuf;

use clap::Args;
use fleetd_agent::support_bundle::{Bundle, WriteBundleError};
use fleetd_proto::fleetd::support::v1::ReadSupportBundleRequest;
use fleetd_server::support::{FLIGHT_SUFFIX, FLIGHTS, Part, of_folder};
use jiff::Timestamp;
use serde_json::json;

use super::super::Session;
use super::super::doctor::{self, ServerFolder};
use crate::client::{CallError, FleetClient};
use crate::error::CommandError;

/// Bytes of all parts together that are taken from a server: a few rollouts of the largest kind.
const BUNDLE_BYTES_MAX: usize = 60 << 20;

const README: &[u8] = b"\
A fleetd support bundle: how a server is, and what its rollouts did last.

about.json    which fleet and which program, and when this was written
config.json   where the server listens, and where it keeps its data
doctor.json   everything that the server needs, and what is wrong with it
status.json   what it keeps, counted, and its newest rollouts
events.json   how devices came along in rollouts, the newest first
rollout/      the last steps of the rollouts that were at work last; missing when no server ran

To step through a rollout's last steps, on any machine with the same version of fleetd:

    fleetd support replay THIS_FILE

There are no keys, no tokens and no log lines in it. The names of devices and workloads, and the faults that devices
reported, are.
";

/// Write a file for those who help from afar: how the server is, and its rollouts' last steps
///
/// The file is a tar of texts and recordings. Neither keys nor tokens nor log lines are in it; the names of devices and
/// workloads are. It is asked of the server, which needs an admin's token; where no server comes up, `--data` makes it
/// of what lies in its folder, without the last steps.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd support bundle
  fleetd support bundle --out /tmp/stuck.tar
  fleetd support bundle --data /srv/fleet
  fleetd support replay /tmp/stuck.tar")]
pub struct WriteBundle {
    /// The file to write; it must not be there yet [default: fleetd-support-FLEET.tar]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Where the server is on this machine.
    #[command(flatten)]
    pub folder: ServerFolder,
}

impl WriteBundle {
    pub(super) async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let is_folder = self.folder.data.is_some();
        let (name, parts) = match self.folder.premises() {
            Some(premises) => {
                let findings = doctor::of_folder(&premises).await?;
                let at = fleetd_sync_core::time::Wall(Timestamp::now().as_millisecond());
                ("server".to_owned(), of_folder(&premises, &findings, at))
            }
            None => {
                let client = session.client().await?;
                (client.fleet().to_string(), receive(&client).await?)
            }
        };
        let path = self.out.unwrap_or_else(|| PathBuf::from(format!("fleetd-support-{name}.tar")));
        let mut bundle = Bundle::new(README);
        let mut recorded = Vec::new();
        for Part { name, content } in parts {
            let rollout = name.strip_prefix(FLIGHTS).and_then(|name| name.strip_suffix(FLIGHT_SUFFIX));
            recorded.extend(rollout.map(ToOwned::to_owned));
            bundle.add(name, content);
        }
        bundle.write(&path).map_err(|error| unwritten(&error))?;
        let path = path.display().to_string();
        session.output.answer(&json!({ "path": path, "rollouts": recorded }), || match recorded.as_slice() {
            [] if is_folder => format!("wrote {path}, without the last steps of any rollout: no server was asked"),
            [] => format!("wrote {path}; no rollout was at work since the server was started"),
            recorded => format!(
                "wrote {path} with the last steps of {}\nsend it to whoever helps you; they run: \
                 fleetd support replay {path}",
                recorded.join(", ")
            ),
        })
    }
}

/// Takes the parts that a server gives.
async fn receive(client: &FleetClient) -> Result<Vec<Part>, CommandError> {
    let mut pieces = client.read_support_bundle(ReadSupportBundleRequest {}).await?;
    let (mut parts, mut bytes) = (Vec::<Part>::new(), 0_usize);
    while let Some(piece) = pieces.message().await.map_err(CallError::from)? {
        bytes = bytes.saturating_add(piece.content.len());
        if bytes > BUNDLE_BYTES_MAX {
            let message = format!("the server gives more than the {BUNDLE_BYTES_MAX} bytes that a bundle may have");
            return Err(CommandError::new("support.too_large", message));
        }
        match parts.last_mut().filter(|part| part.name == piece.name) {
            Some(part) => part.content.extend(piece.content),
            None => parts.push(Part { name: piece.name, content: piece.content }),
        }
    }
    Ok(parts)
}

fn unwritten(error: &WriteBundleError) -> CommandError {
    let code = match error {
        WriteBundleError::Exists { .. } => "support.exists",
        WriteBundleError::Disk { .. } => "support.unwritten",
    };
    let error = CommandError::new(code, error.to_string()).caused_by_source(error);
    error.next_command("name another file: --out FILE")
}
