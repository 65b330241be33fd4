//! What is installed: whether it can be run here, by whom it is to be run, and whether it is held by its shim.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use fleetd_actors::workload::Step;
use fleetd_sync_core::commit::Space;
use fleetd_sync_core::finding::Finding;
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::release::SignedManifest;
use fleetd_sync_store::state_store::{KeyRange, StateStore};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::super::Invocation;
use crate::cause::cause_of;
use crate::disk::OsDisk;
use crate::install::{FolderInstaller, Installer as _};
use crate::local_api::ShownStatus;
use crate::record::decode_workload;
use crate::runner::ExitStatus;
use crate::shim::run_directory::RunDirectory;
use crate::shim::{ShimLook, find_user, look};

/// What is installed, and what is on its way.
#[derive(Default)]
pub(super) struct Installed {
    findings: Vec<Finding>,
    /// The largest artifact that is installed.
    pub(super) largest_bytes: u64,
    /// Bytes of releases that have yet to be brought in, as far as the store could be read.
    pub(super) awaited_bytes: u64,
}

impl Installed {
    /// Looks at every workload's folder, and at what the store says is to be installed.
    pub(super) fn read(data: &Path, store: Option<&impl StateStore>) -> Self {
        let mut installed = Self::default();
        let installer = FolderInstaller::new(OsDisk, data);
        let folders = fs::read_dir(data.join("workloads")).into_iter().flatten().flatten();
        let mut workloads: Vec<WorkloadName> =
            folders.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        workloads.sort_unstable();
        // The agent runs as whoever owns its data.
        let agent_user = fs::metadata(data).map_or(0, |metadata| metadata.uid());
        for workload in &workloads {
            let check = format!("workload {workload}");
            match installer.installed(workload) {
                Ok(found) => {
                    for damaged in &found.damaged {
                        let cause = format!("release {} is damaged: {}", damaged.folder, damaged.cause);
                        let remedy = format!("roll it out again: fleetd rollout plan --workload {workload}");
                        installed.findings.push(Finding::fail(check.clone(), cause, remedy));
                    }
                    if let Some(current) = &found.current {
                        let bytes = fs::metadata(&current.program).map_or(0, |metadata| metadata.len());
                        installed.largest_bytes = installed.largest_bytes.max(bytes);
                        let user = SignedManifest::decode(&current.manifest).ok();
                        let user = user.and_then(|manifest| manifest.claims().user.clone());
                        installed.findings.push(user_finding(check, workload, user.as_deref(), agent_user));
                    }
                }
                Err(error) => {
                    let remedy = "look at the disk: df -h; dmesg | tail";
                    installed.findings.push(Finding::fail(check, cause_of(&error), remedy));
                }
            }
        }
        if !workloads.is_empty() {
            installed.findings.extend(no_programs(data));
        }
        installed.awaited_bytes = store.map_or(0, awaited_bytes);
        installed
    }

    pub(super) fn findings(self) -> Vec<Finding> {
        self.findings
    }
}

/// Bytes of releases that have yet to be brought in.
fn awaited_bytes(store: &impl StateStore) -> u64 {
    let mut bytes = 0_u64;
    // What cannot be read here the finding about the store tells.
    let _read = store.visit(Space::Workload, KeyRange::all(), &mut |_, found| {
        let record = decode_workload(&found.value).ok();
        if let Some(Step::Download(release)) = record.and_then(|record| record.install).map(|install| install.step) {
            bytes = bytes.saturating_add(release.size_bytes);
        }
        ControlFlow::Continue(())
    });
    bytes
}

fn user_finding(check: String, workload: &WorkloadName, user: Option<&str>, agent_user: u32) -> Finding {
    let Some(user) = user else { return Finding::ok(check, "runs as the agent's own user") };
    match find_user(user) {
        None => {
            let found = format!("is to run as {user}, and there is no such user");
            Finding::fail(check, found, format!("useradd --system --no-create-home {user}"))
        }
        Some((uid, _)) if agent_user != 0 && uid != agent_user => {
            let found = format!("is to run as {user}, and an agent of user {agent_user} cannot become that");
            Finding::fail(check, found, format!("run the agent as root, or release {workload} without a user"))
        }
        Some(_) => Finding::ok(check, format!("runs as {user}")),
    }
}

/// A disk from which no program may be executed starts no workload.
fn no_programs(data: &Path) -> Option<Finding> {
    let status = statvfs(data).ok()?;
    let found = format!("{} lies on a disk that is mounted noexec: nothing on it can be started", data.display());
    let remedy = format!("mount -o remount,exec \"$(stat -c %m '{}')\"", data.display());
    status.flags().contains(FsFlags::ST_NOEXEC).then(|| Finding::fail("programs", found, remedy))
}

/// Looks whether each run is held by its shim.
pub(super) async fn shims(run: &Path, status: Option<&ShownStatus>, invocation: &Invocation) -> Vec<Finding> {
    let program = invocation.program;
    let running: BTreeMap<&str, &str> = status
        .map(|status| status.workloads.iter().map(|one| (one.name.as_str(), one.run.as_str())).collect())
        .unwrap_or_default();
    let mut findings = Vec::new();
    for workload in RunDirectory::workloads(run) {
        let check = format!("shim {workload}");
        let directory = RunDirectory::of(run, &workload);
        let is_running = running.get(workload.as_str()) == Some(&"running");
        let restart = format!("{program} restart {workload}");
        findings.push(match look(&directory).await {
            Err(error) => {
                let found = format!("{}: {error}", directory.path().display());
                Finding::fail(check, found, "run this as the agent's user, or root")
            }
            Ok(ShimLook::Alive { pid: Some(pid) }) => Finding::ok(check, format!("holds process {pid}, and answers")),
            Ok(ShimLook::Alive { pid: None }) => Finding::ok(check, "starts the workload, and answers"),
            Ok(ShimLook::Stuck { shim }) => {
                let kill = shim.map_or_else(|| restart.clone(), |shim| format!("kill -9 {shim}; {restart}"));
                Finding::fail(check, "is there and does not answer", kill)
            }
            Ok(ShimLook::Killed) => {
                let found = "was killed, and the workload with it";
                match status {
                    Some(_) if is_running => {
                        Finding::fail(check, format!("{found}; the agent has not seen it"), restart)
                    }
                    Some(_) => Finding::warn(check, found, restart),
                    None => Finding::warn(check, found, format!("{program} run: it starts the workload anew")),
                }
            }
            Ok(ShimLook::Ended(_) | ShimLook::Nothing) if is_running => {
                Finding::fail(check, "is gone, and the agent has not seen it", restart)
            }
            Ok(ShimLook::Ended(exit)) => {
                Finding::ok(check, format!("the last run has ended: {}", ExitStatus::from(exit)))
            }
            Ok(ShimLook::Nothing) => Finding::ok(check, "holds nothing since the device started"),
        });
    }
    findings
}
