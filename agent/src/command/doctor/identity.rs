//! Who the device is, as its files say: its key, its certificate, its fleet, and where that may be found.

use std::path::{Path, PathBuf};

use fleetd_actors::agent::record::{AgentRecord, Membership};
use fleetd_sync_core::enrolment::EnrolmentToken;
use fleetd_sync_core::finding::Finding;
use fleetd_sync_core::key::{PublicKey, SecretKey};
use fleetd_sync_core::limit::DEVICE_CERTIFICATE_LIFETIME;
use fleetd_sync_core::time::{ClockFloor, Now};
use fleetd_sync_core::trust::RootChain;
use fleetd_sync_transport::examine::{Remedies, certificate};
use fleetd_sync_transport::reach::Expected;

use super::AGENT_MAKES_IT;
use crate::cause::cause_of;
use crate::config::{Config, Secret};
use crate::driver::agent::{CLOCK_FLOOR_KEY, TRUST_FLOOR_KEY};
use crate::identity_files::{IdentityFiles, IdentityPart, IdentityPlace as _};
use crate::record::{decode_agent, decode_clock_floor, decode_kept, decode_root_chain, decode_trust_floor};

const CERTIFICATE: Remedies = Remedies {
    unusable: "restore the whole identity directory as it was saved; else move it away and enrol anew with a token",
    expired: "nothing, once a server answers: it lets the device in to renew it",
};

/// What the identity's files say.
pub(super) struct Identity {
    directory: PathBuf,
    key: Result<Option<PublicKey>, String>,
    /// What the device remembers of its fleet; the inner value is `None` before it ever heard of one.
    agent: Result<Option<AgentRecord>, String>,
    has_token: bool,
    /// The fleet whose servers it believes.
    pub(super) expected: Option<Expected>,
    /// A date that is known to have passed.
    pub(super) clock_floor: Option<ClockFloor>,
    /// Where it looks for a server.
    pub(super) addresses: Vec<String>,
}

impl Identity {
    /// Reads what is there, and makes nothing.
    pub(super) fn read(directory: &Path, config: &Config) -> Self {
        let files = IdentityFiles::at(directory);
        let load = |part| files.load(part).map_err(|error| cause_of(&error));
        let key = files.stored_device_key().map_err(|error| cause_of(&error));
        let key = key.map(|key| key.map(|key| SecretKey::from_bytes(key.signing().to_bytes()).public()));
        let agent = load(IdentityPart::Enrolment).and_then(|bytes| {
            let bytes = bytes.filter(|bytes| !bytes.is_empty());
            bytes.map(|bytes| decode_agent(&bytes).map_err(|error| cause_of(&error))).transpose()
        });
        // What is damaged here is as if it were not there for the agent too, which says so in its log.
        let floors = load(IdentityPart::Floors).ok().flatten().and_then(|bytes| decode_kept(&bytes).ok());
        let floors = floors.unwrap_or_default();
        let clock_floor = floors.get(CLOCK_FLOOR_KEY).and_then(|bytes| decode_clock_floor(bytes).ok());
        let trust_floor = floors.get(TRUST_FLOOR_KEY).and_then(|bytes| decode_trust_floor(bytes).ok());
        let token = config.enroll_token.value.as_ref().and_then(|secret: &Secret| secret.reveal().parse().ok());
        let token: Option<EnrolmentToken> = token;
        let member = agent.as_ref().ok().and_then(Option::as_ref);
        let fleet = match member.map(|record| &record.membership) {
            Some(Membership::Enrolled { fleet, .. } | Membership::Pending { fleet }) => Some(*fleet),
            _ => token.as_ref().map(EnrolmentToken::fleet),
        };
        let expected = fleet.map(|fleet| {
            let records = load(IdentityPart::RootChain).ok().flatten();
            let records = records.and_then(|bytes| decode_root_chain(&bytes).ok()).unwrap_or_default();
            let chain = RootChain::load(fleet, records).ok();
            let trust_version_min = trust_floor.filter(|floor| floor.fleet == fleet).map_or(0, |floor| floor.version);
            Expected { fleet, chain, trust_version_min }
        });
        let mut addresses = config.servers.value.clone();
        addresses.extend(member.and_then(|record| record.address.clone()));
        if config.servers.value.is_empty() {
            addresses.extend(token.iter().flat_map(|token| token.addresses()).map(ToString::to_string));
        }
        let mut known = std::collections::BTreeSet::new();
        addresses.retain(|address| known.insert(address.clone()));
        let has_token = config.has_token();
        Self { directory: directory.to_owned(), key, agent, has_token, expected, clock_floor, addresses }
    }

    /// What there is to say of it.
    pub(super) fn findings(&self, now: Now) -> Vec<Finding> {
        let shown = self.directory.display();
        let key = match &self.key {
            Ok(Some(key)) => key,
            Ok(None) => return vec![Finding::warn("device key", "the device has no key yet", AGENT_MAKES_IT)],
            Err(cause) => {
                let remedy =
                    format!("restore {shown} as it was saved; or mv '{shown}' '{shown}.old': that is a new device");
                return vec![Finding::fail("device key", cause, remedy)];
            }
        };
        vec![Finding::ok("device key", format!("{} in {shown}", key.id())), self.certificate(key, now)]
    }

    fn certificate(&self, key: &PublicKey, now: Now) -> Finding {
        let check = "certificate";
        let record = match &self.agent {
            Ok(record) => record.as_ref(),
            Err(cause) => return Finding::fail(check, cause, CERTIFICATE.unusable),
        };
        match record.map(|record| &record.membership) {
            Some(Membership::Enrolled { certificates, .. }) => {
                certificate(certificates, key, DEVICE_CERTIFICATE_LIFETIME, now, &CERTIFICATE)
            }
            Some(Membership::Pending { .. }) => {
                Finding::warn(check, "an operator must approve this device", "fleetd enroll approve DEVICE")
            }
            Some(Membership::Refused { message, .. }) => {
                let remedy = "ask the operator for a token: fleetd enroll token create";
                Finding::fail(check, format!("the fleet refused this device: {message}"), remedy)
            }
            Some(Membership::Unknown) | None if self.has_token => {
                Finding::warn(check, "there is none yet", "nothing, once a server answers: the token brings one")
            }
            Some(Membership::Unknown) | None => {
                let remedy = "set enroll-token, from `fleetd enroll token create`";
                Finding::warn(check, "there is none, and no token to get one", remedy)
            }
        }
    }
}
