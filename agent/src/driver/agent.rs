//! Carries out what the agent decided: connections, what its documents tell others, and what it remembers.

use std::ops::ControlFlow;
use std::sync::Arc;

use fleetd_actors::address::{Address, Taken};
use fleetd_actors::agent::record::{AgentRecord, TrustFloor};
use fleetd_actors::agent::{Agent, Effect, Identity, Input, LinkEnd, Record};
use fleetd_actors::driver::Driver;
use fleetd_actors::spawn::LoadActorError;
use fleetd_sync_core::commit::{ActorKey, Batch, CommitError, Mutation, Space};
use fleetd_sync_core::id::{ConnectionId, FleetId};
use fleetd_sync_core::session::{Class, CloseCode, Message};
use fleetd_sync_core::time::{ClockFloor, Now};
use fleetd_sync_core::trust::{RootChain, RootRecord};
use fleetd_sync_store::state_store::{KeyRange, ReadError, StateStore};
use fleetd_sync_transport::frame;
use fleetd_sync_transport::link::{DialIdentity, DownReason, Link, LinkEvent, LinkEvents, Peer, SendError};

use super::Surroundings;
use crate::cause::cause_of;
use crate::record::{
    decode_agent, decode_clock_floor, decode_trust_floor, encode_agent, encode_clock_floor, encode_trust_floor,
};

/// The agent's own record in [`Space::Agent`].
pub(crate) const AGENT_KEY: &[u8] = b"agent";
/// The trust version that the device has reached, in [`Space::Floor`].
pub(crate) const TRUST_FLOOR_KEY: &[u8] = b"trust";
/// The date that is known to have passed, in [`Space::Floor`].
pub(crate) const CLOCK_FLOOR_KEY: &[u8] = b"clock";

/// Carries out what the agent decided.
pub(crate) struct AgentDriver {
    surroundings: Arc<Surroundings>,
    address: Address<Input>,
}

/// Takes the agent up from the store, and tells it what it is told at each start.
pub(crate) fn load(
    surroundings: &Arc<Surroundings>,
    address: &Address<Input>,
) -> Result<(Agent, AgentDriver), LoadActorError> {
    let options = &surroundings.options;
    let record = read_record(surroundings)?;
    let fleet = record.fleet().or(options.token.as_ref().map(|token| token.fleet()));
    let chain = read_chain(surroundings, fleet)?;
    let floors = (read_floor(surroundings)?, read_clock_floor(surroundings.seams.store.as_ref()).map_err(failed)?);
    let envelopes = read_all(surroundings, Space::Envelope)?;
    let identity = Identity {
        key: options.identity.key.clone(),
        csr: options.identity.csr.clone(),
        sealing_key: options.identity.sealing_key,
        boot: options.boot,
        verify: options.identity.verify,
    };
    let exchange = surroundings.exchange().ok_or_else(|| failed("the node has ended"))?;
    let entropy = surroundings.entropy("agent");
    let agent = Agent::load(identity, record, chain, floors, envelopes, exchange.workloads(), entropy);
    let configured =
        Input::Configured { token: options.token.clone().map(Box::new), addresses: options.addresses.clone() };
    let left_open = exchange.agent_loaded(address, vec![configured, Input::Facts(options.facts.clone())]);
    if let Some(connection) = left_open {
        surroundings.seams.link.close(connection, CloseCode::Internal);
    }
    Ok((agent, AgentDriver { surroundings: Arc::clone(surroundings), address: address.clone() }))
}

fn failed(cause: impl ToString) -> LoadActorError {
    LoadActorError { cause: cause.to_string() }
}

fn read_record(surroundings: &Surroundings) -> Result<AgentRecord, LoadActorError> {
    let stored = surroundings.seams.store.get(Space::Agent, AGENT_KEY).map_err(failed)?;
    match stored.map(|stored| decode_agent(&stored.value)).transpose() {
        Ok(record) => Ok(record.unwrap_or_default()),
        Err(error) => Err(failed(cause_of(&error))),
    }
}

fn read_floor(surroundings: &Surroundings) -> Result<Option<TrustFloor>, LoadActorError> {
    let stored = surroundings.seams.store.get(Space::Floor, TRUST_FLOOR_KEY).map_err(failed)?;
    let floor = stored.map(|stored| decode_trust_floor(&stored.value)).transpose();
    floor.map_err(|error| failed(cause_of(&error)))
}

/// The date that is known to have passed. One that cannot be read is none: it is noted anew, and until then a clock
/// that went back misleads people, and nothing else.
pub(crate) fn read_clock_floor(store: &dyn StateStore) -> Result<ClockFloor, ReadError> {
    let Some(stored) = store.get(Space::Floor, CLOCK_FLOOR_KEY)? else { return Ok(ClockFloor::default()) };
    Ok(decode_clock_floor(&stored.value).unwrap_or_else(|error| {
        tracing::error!(error = cause_of(&error), "the last date that was noted cannot be read");
        ClockFloor::default()
    }))
}

/// The root chain of `fleet`; `None` when there is none, or only that of another fleet, which a new token may lead to,
/// or one that is none: then the server is asked for it anew, and has to prove it.
fn read_chain(surroundings: &Surroundings, fleet: Option<FleetId>) -> Result<Option<RootChain>, LoadActorError> {
    let records = read_all(surroundings, Space::RootRecord)?;
    let Some(first) = records.first() else { return Ok(None) };
    let first = RootRecord::decode(first).map_err(|error| failed(cause_of(&error)))?;
    let founded = first.body().founded_fleet();
    if fleet.is_some_and(|fleet| fleet != founded) {
        tracing::warn!(%founded, ?fleet, "the stored root records are another fleet's and do not count");
        return Ok(None);
    }
    match RootChain::load(founded, records) {
        Ok(chain) => Ok(Some(chain)),
        Err(error) => {
            tracing::error!(error = cause_of(&error), "the stored root records are no chain; a server is asked for it");
            Ok(None)
        }
    }
}

fn read_all(surroundings: &Surroundings, space: Space) -> Result<Vec<Vec<u8>>, LoadActorError> {
    let mut values = Vec::new();
    let read: Result<(), ReadError> = surroundings.seams.store.visit(space, KeyRange::all(), &mut |_, found| {
        values.push(found.value);
        ControlFlow::Continue(())
    });
    read.map(|()| values).map_err(failed)
}

impl Driver<Agent> for AgentDriver {
    fn store(&mut self, record: Record, mutations: &mut Vec<Mutation>) {
        mutations.push(match record {
            Record::Agent(record) => {
                Mutation::Put { space: Space::Agent, key: AGENT_KEY.to_vec(), value: encode_agent(&record) }
            }
            Record::Root(record) => {
                let key = record.body().version.to_be_bytes().to_vec();
                Mutation::Put { space: Space::RootRecord, key, value: record.encode() }
            }
            Record::Floor(floor) => {
                let (key, value) = (TRUST_FLOOR_KEY.to_vec(), encode_trust_floor(&floor));
                Mutation::Put { space: Space::Floor, key, value }
            }
            Record::Lane(record) => record.into_mutation(),
        });
    }

    fn start(&mut self, _now: Now, effect: Effect) {
        let Some(exchange) = self.surroundings.exchange() else { return };
        match effect {
            Effect::Dial { connection, address, certificates } => {
                exchange.dialled(connection);
                self.dial(connection, &address, certificates);
            }
            Effect::Send { connection, class, message } => {
                send(&*self.surroundings.seams.link, connection, class, &message);
            }
            Effect::Close { connection, code } => self.surroundings.seams.link.close(connection, code),
            Effect::Linked(linked) => exchange.linked(linked),
            Effect::LogPositions(positions) => exchange.server_positions(positions),
            Effect::Deliver(message) => exchange.deliver(message),
            Effect::Assign { workload, assignment } => exchange.assign(&workload, assignment),
            Effect::Trust(roster) => exchange.trust(roster),
            Effect::NoteDate(floor) => self.note_date(floor),
            Effect::Show(status) => self.surroundings.board.show_agent(status),
            Effect::Warn(warning) => tracing::warn!("{warning}"),
        }
    }
}

impl AgentDriver {
    /// Keeps the date that is known to have passed, as an actor of its own: a disk without room for it must not take
    /// the agent's turns along.
    fn note_date(&self, floor: ClockFloor) {
        self.surroundings.raise_clock_floor(floor);
        let actor = ActorKey::only("clock");
        let (key, value) = (CLOCK_FLOOR_KEY.to_vec(), encode_clock_floor(floor));
        let mutations = vec![Mutation::Put { space: Space::Floor, key, value }];
        let store = &self.surroundings.seams.store;
        // It may have failed the last time.
        store.reloaded(&actor);
        let done = |result: Result<(), CommitError>| {
            if let Err(error) = result {
                tracing::warn!(%error, "the date was not noted");
            }
        };
        store.submit(Batch { actor, mutations }, Box::new(done));
    }

    fn dial(&self, connection: ConnectionId, address: &str, certificates: Vec<Vec<u8>>) {
        let identity = DialIdentity { key: self.surroundings.options.identity.key.clone(), certificates };
        let link = Arc::clone(&self.surroundings.seams.link);
        let (agent, events_link) = (self.address.clone(), Arc::clone(&link));
        let events: LinkEvents = Arc::new(move |connection, event| on_event(&agent, &events_link, connection, event));
        tracing::debug!(%connection, address, "dialling");
        link.dial(connection, address, identity, events);
    }
}

/// Hands a link's event to the agent. A frame's credit goes back when the agent has taken it.
fn on_event(agent: &Address<Input>, link: &Arc<dyn Link>, connection: ConnectionId, event: LinkEvent) {
    match event {
        LinkEvent::Up { peer: Peer::Server { leaf }, .. } => agent.send(Input::Up { connection, server_leaf: leaf }),
        LinkEvent::Up { .. } => link.close(connection, CloseCode::Impostor),
        LinkEvent::Frame { bytes, .. } => match frame::decode(&bytes) {
            Ok(Some(message)) => {
                let link = Arc::clone(link);
                let taken = Taken::new(move || link.grant(connection, 1));
                agent.send_then(Input::Message { connection, message }, taken);
            }
            Ok(None) => link.grant(connection, 1),
            Err(error) => {
                tracing::warn!(%connection, error = cause_of(&error), "the server sent what cannot be read");
                link.close(connection, CloseCode::Malformed);
            }
        },
        LinkEvent::Down { reason } => {
            match &reason {
                DownReason::ClosedByPeer { code } if code.is_lasting() => {
                    tracing::warn!(%connection, %reason, "the server sent this device away");
                }
                _ => tracing::info!(%connection, %reason, "the connection is down"),
            }
            let end = match &reason {
                DownReason::ClosedByPeer { code } | DownReason::ClosedHere { code } => LinkEnd::Closed(*code),
                DownReason::TimedOut => LinkEnd::TimedOut,
                DownReason::Unreachable { .. } => LinkEnd::Unreachable(reason.to_string()),
                DownReason::Failed { .. } => LinkEnd::Broken(reason.to_string()),
            };
            agent.send(Input::Down { connection, end });
        }
    }
}

/// Puts a message into a connection's outbox. One that finds no connection is repaired by the next session.
pub(super) fn send(link: &dyn Link, connection: ConnectionId, class: Class, message: &Message) {
    let sent = match frame::encode(message) {
        Ok(frame) => link.send(connection, class, frame),
        Err(error) => {
            tracing::error!(%connection, %error, "a message was not sent");
            return link.close(connection, CloseCode::Internal);
        }
    };
    match sent {
        Ok(()) => {}
        Err(error @ SendError::Unknown { .. }) => tracing::debug!(%error, "a message was not sent"),
        Err(error) => tracing::warn!(%error, "a message was not sent"),
    }
}
