//! What every service asks: the node's actors and its store, and what the API itself keeps.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use fleetd_actors::device::command::{Answer, Command};
use fleetd_actors::device::record::DeviceRecord;
use fleetd_actors::orders;
use fleetd_proto::fleetd::device::v1 as device;
use fleetd_sync_core::commit::{ActorKey, Mutation, Revision, Space};
use fleetd_sync_core::enrolment::ServerAddress;
use fleetd_sync_core::id::{KeyId, LocalId, OperationId};
use fleetd_sync_core::name::DeviceName;
use fleetd_sync_core::time::Wall;
use fleetd_sync_store::copy::CopyStore;
use fleetd_sync_store::state_store::{KeyRange, StateStore};
use prost::{Message, Name};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use super::artifact::Uploads;
use super::call_error::{CallError, required};
use super::catalog::Catalog;
use super::convert;
use super::device_index::DeviceIndex;
use super::fleet_index::FleetIndex;
use super::request_log::{Kept, RequestLog};
use super::traced::Calls;
use crate::access::AccessTokens;
use crate::answers::Answers;
use crate::commit::commit;
use crate::connect::schemas;
use crate::edge::authenticate::Caller;
use crate::examine::Premises;
use crate::node::{Node, Shared};
use crate::receipt::receipt;
use crate::record;
use crate::support::Part;

/// Time in which an actor must have answered.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What the server says of itself.
#[derive(Clone, Debug)]
pub struct Introduction {
    /// The server's id, which its certificate names.
    pub server_id: KeyId,
    /// Where devices find it, the best first: goes into enrolment tokens.
    pub addresses: Vec<ServerAddress>,
    /// Where it is; `None` where that is no machine of its own.
    pub premises: Option<Premises>,
}

impl Introduction {
    /// How it was started, for those who help from afar.
    pub(super) fn configuration(&self) -> Part {
        let premises = self.premises.as_ref();
        let value = serde_json::json!({
            "serverId": self.server_id.to_string(),
            "advertised": self.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "data": premises.map(|premises| premises.data.display().to_string()),
            "apiAddress": premises.map(|premises| premises.api_address.to_string()),
            "syncAddress": premises.map(|premises| premises.sync_address.to_string()),
        });
        Part::json("config", &value)
    }
}

/// What every service asks.
pub struct Backend {
    pub(super) node: Node,
    pub(super) tokens: Arc<AccessTokens>,
    pub(super) introduction: Introduction,
    pub(super) index: DeviceIndex,
    pub(super) fleet: Arc<FleetIndex>,
    pub(super) catalog: Catalog,
    /// The store, as something to copy.
    pub(super) copies: Arc<dyn CopyStore>,
    /// Held while a rollout is planned or started, so that no two take one attempt, and no plan starts twice.
    pub(super) planning: tokio::sync::Mutex<()>,
    /// Held while a device is renamed, so that whoever comes second is told that the name is taken.
    pub(super) naming: tokio::sync::Mutex<()>,
    /// What the audit log is told of calls.
    pub(super) calls: Calls,
    pub(super) uploads: Uploads,
    requests: RequestLog,
    actor: ActorKey,
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Backend")
    }
}

impl Backend {
    /// Puts the API before a node; `copies` is the node's own store.
    #[must_use]
    pub fn new(
        node: Node,
        tokens: Arc<AccessTokens>,
        introduction: Introduction,
        copies: Arc<dyn CopyStore>,
    ) -> Arc<Self> {
        let store = || Arc::clone(&node.shared.seams.store);
        let (index, catalog, requests) = (DeviceIndex::new(store()), Catalog::new(store()), RequestLog::new(store()));
        let fleet = Arc::new(FleetIndex::new(store()));
        let (planning, naming) = (tokio::sync::Mutex::new(()), tokio::sync::Mutex::new(()));
        let actor = ActorKey::only("api");
        // That the schemas are a valid set is tested, and asked where the API is opened.
        let calls = Calls::new(&schemas().unwrap_or_default());
        let uploads = Uploads::default();
        Arc::new(Self {
            node,
            tokens,
            introduction,
            index,
            fleet,
            catalog,
            copies,
            planning,
            naming,
            calls,
            uploads,
            requests,
            actor,
        })
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.node.shared
    }

    pub(super) fn store(&self) -> &dyn StateStore {
        self.node.shared.seams.store.as_ref()
    }

    pub(super) fn now(&self) -> Wall {
        self.node.shared.seams.clock.now().wall
    }

    /// Waits until records of the API's own are durable, with the receipt that is in scope.
    pub(super) async fn commit(&self, mut mutations: Vec<Mutation>) -> Result<(), CallError> {
        mutations.extend(receipt());
        Ok(commit(self.store(), &self.actor, mutations).await?)
    }

    /// Reads every record of a range.
    pub(super) fn visit(
        &self,
        space: Space,
        range: KeyRange,
        mut visit: impl FnMut(&[u8], &[u8], Revision) -> Result<(), CallError>,
    ) -> Result<(), CallError> {
        let mut result = Ok(());
        self.store().visit(space, range, &mut |key, found| {
            result = visit(key, &found.value, found.revision);
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result
    }

    /// Answers a request that changes something, once. When the change is known to have been made and its answer is
    /// not, its repetition is told so.
    pub(super) async fn once<Q: Message + Name, R: Message + Default>(
        &self,
        who: (&Caller, Kept),
        request_id: &str,
        asked: &Q,
        answer: impl Future<Output = Result<R, CallError>>,
    ) -> Result<Response<R>, Status> {
        let lost = || Err(CallError::AnswerLost { request_id: request_id.to_owned() });
        self.once_or(who, request_id, asked, answer, lost).await
    }

    /// Answers a request that changes something, once. `again` gives the answer when the change is known to have been
    /// made and its answer is not: the server may have ended between the two. A repetition changes nothing, and leaves
    /// no trace of its own.
    pub(super) async fn once_or<Q: Message + Name, R: Message + Default>(
        &self,
        (caller, kept): (&Caller, Kept),
        request_id: &str,
        asked: &Q,
        answer: impl Future<Output = Result<R, CallError>>,
        again: impl Fn() -> Result<R, CallError>,
    ) -> Result<Response<R>, Status> {
        let traced = self.traced(caller, request_id, asked, answer);
        let response = self.requests.once((caller, self.now(), kept), request_id, asked, traced, again).await?;
        Ok(Response::new(response))
    }

    /// What refuses a batch when a name has found another bearer than it had when this was asked. Ask this first, and
    /// whether the name is free then: what changes between the two is noticed.
    pub(super) fn fence_name(&self, name: &DeviceName) -> Result<Mutation, CallError> {
        let key = name.as_str().as_bytes().to_vec();
        let revision = self.store().get(Space::Name, &key)?.map_or(Revision(0), |found| found.revision);
        Ok(Mutation::Expect { space: Space::Name, key, revision })
    }

    /// Finds the device that a request names.
    pub(super) fn find_device(&self, text: &str) -> Result<LocalId, CallError> {
        let device = required(text, "device")?;
        self.index.find(device)?.ok_or_else(|| CallError::UnknownDevice { device: device.to_owned() })
    }

    /// Says whether no other device has a name, before one is given it.
    pub(super) fn require_free(&self, name: &DeviceName, local: LocalId) -> Result<(), CallError> {
        match self.index.find(name.as_str())? {
            Some(other) if other != local => Err(CallError::NameTaken { name: name.clone() }),
            _ => Ok(()),
        }
    }

    /// What is stored of a device.
    pub(super) fn device_record(&self, local: LocalId) -> Result<(DeviceRecord, Revision), CallError> {
        let found = self.store().get(Space::Device, local.as_bytes())?;
        let found = found.ok_or_else(|| CallError::UnknownDevice { device: local.to_string() })?;
        Ok((record::device::decode(&found.value)?, found.revision))
    }

    /// A device as the API shows it.
    pub(super) fn show_device(&self, local: LocalId) -> Result<device::Device, CallError> {
        let (record, revision) = self.device_record(local)?;
        Ok(self.show_record(&record, revision))
    }

    /// A device's record as the API shows it.
    pub(super) fn show_record(&self, record: &DeviceRecord, revision: Revision) -> device::Device {
        let connection = self.shared().connections.of_device(record.local);
        let connection = connection.map(|(_, connection)| connection);
        convert::device::device(record, revision, connection.as_ref(), &self.catalog, &self.shared().orders())
    }

    /// Asks the actor of the orders over the whole fleet.
    pub(super) async fn order(&self, input: impl FnOnce(OperationId) -> orders::Input) -> Result<(), CallError> {
        let send = |operation| self.node.actors.orders.send(input(operation));
        Ok(ask(&self.shared().order_answers, send).await??)
    }

    /// Asks a device's actor.
    pub(super) async fn ask_device(
        &self,
        local: LocalId,
        caller: &Caller,
        command: Command,
    ) -> Result<Answer, CallError> {
        let caller = caller.id.to_string();
        let result = ask(&self.shared().device_answers, |operation| {
            let input = fleetd_actors::device::Input::Command { operation, caller, command };
            self.node.actors.devices.send(&local, input);
        });
        Ok(result.await??)
    }
}

/// Who is calling, as the edge found out.
pub(super) fn caller<T>(request: &Request<T>) -> Result<Caller, CallError> {
    let caller = request.extensions().get::<Caller>().cloned();
    caller.ok_or_else(|| CallError::Internal { cause: "the edge let nobody in".to_owned() })
}

/// Opens an operation, and waits for its answer.
pub(super) async fn ask<T: Send + 'static>(
    answers: &Answers<T>,
    send: impl FnOnce(OperationId),
) -> Result<T, CallError> {
    let (reply, answered) = oneshot::channel();
    let operation = answers.open(Box::new(move |answer| drop(reply.send(answer))));
    let _asked = Asked { answers, operation };
    send(operation);
    match tokio::time::timeout(ANSWER_TIMEOUT, answered).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) | Err(_) => Err(CallError::TimedOut),
    }
}

/// An open operation, forgotten when its caller goes.
struct Asked<'a, T> {
    answers: &'a Answers<T>,
    operation: OperationId,
}

impl<T> Drop for Asked<'_, T> {
    fn drop(&mut self) {
        self.answers.forget(self.operation);
    }
}
