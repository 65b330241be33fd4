//! What the audit log is told of a call: which RPC it is, what it is about, and what was asked, without secrets.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleetd_actors::audit::{Call, Input};
use fleetd_sync_core::audit::{By, Outcome, shortened};
use fleetd_sync_core::limit::AUDIT_REQUEST_BYTES_MAX;
use prost::{Message, Name};
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value,
};

use super::admission::ROLE_TOO_LOW;
use super::backend::Backend;
use super::call_error::CallError;
use crate::edge::HearRefusal;
use crate::edge::authenticate::Caller;

/// Bytes of one text of a request that are shown.
const TEXT_BYTES_MAX: usize = 256;
/// Entries of one list or map of a request that are shown.
const ENTRIES_MAX: usize = 16;
/// How deep a request is shown.
const DEPTH_MAX: usize = 6;
/// The fields of requests that hold a secret.
const SECRETS: [&str; 1] = ["fleetd.registration.v1.RegisterDeviceRequest.token"];
/// What stands for a secret.
const SECRET: &str = "(secret)";

/// What an RPC is about: fields of its request, and of its response.
type Subjects = (&'static str, &'static [&'static str], &'static [&'static str]);

/// The RPCs that change something, each with what it is about.
const SUBJECTS: [Subjects; 37] = [
    ("fleetd.access.v1.AccessService/CreateAccessToken", &["name"], &["access_token/id"]),
    ("fleetd.access.v1.AccessService/RevokeAccessToken", &["access_id"], &["access_token/name"]),
    ("fleetd.artifact.v1.ArtifactService/UploadArtifact", &["digest"], &[]),
    ("fleetd.artifact.v1.ArtifactService/UploadArtifactChunk", &["digest"], &[]),
    ("fleetd.configuration.v1.ConfigurationService/CreateConfiguration", &["workload", "name"], &[]),
    ("fleetd.device.v1.DeviceService/UpdateLabels", &["device"], &[]),
    ("fleetd.device.v1.DeviceService/RenameDevice", &["device", "name"], &[]),
    ("fleetd.device.v1.DeviceService/StartWorkload", &["device", "workload"], &[]),
    ("fleetd.device.v1.DeviceService/StopWorkload", &["device", "workload"], &[]),
    ("fleetd.device.v1.DeviceService/RestartWorkload", &["device", "workload"], &[]),
    ("fleetd.device.v1.DeviceService/HoldDevice", &["device", "workload"], &["hold/id"]),
    ("fleetd.device.v1.DeviceService/LiftHold", &["device", "hold_id"], &[]),
    ("fleetd.device.v1.DeviceService/RevokeDevice", &["device"], &["device/name"]),
    ("fleetd.device.v1.DeviceService/PinWorkload", &["device", "workload", "version"], &[]),
    ("fleetd.device.v1.DeviceService/UnpinWorkload", &["device", "workload"], &[]),
    ("fleetd.enrolment.v1.EnrolmentService/CreateEnrolmentToken", &[], &["enrolment_token/id"]),
    ("fleetd.enrolment.v1.EnrolmentService/RevokeEnrolmentToken", &["token_id"], &[]),
    ("fleetd.enrolment.v1.EnrolmentService/ApproveDevice", &["local_id"], &["device/name"]),
    ("fleetd.enrolment.v1.EnrolmentService/DenyDevice", &["local_id"], &[]),
    ("fleetd.group.v1.GroupService/CreateGroup", &["name"], &[]),
    ("fleetd.group.v1.GroupService/UpdateGroup", &["name"], &[]),
    ("fleetd.group.v1.GroupService/DeleteGroup", &["name"], &[]),
    // The machine that decides it notes it: devices come by QUIC, too.
    ("fleetd.registration.v1.RegistrationService/RegisterDevice", &[], &[]),
    ("fleetd.release.v1.ReleaseService/CreateRelease", &[], &["release/workload", "release/version"]),
    ("fleetd.release.v1.ReleaseService/DenyRelease", &["workload", "version"], &[]),
    ("fleetd.release.v1.ReleaseService/AllowRelease", &["workload", "version"], &[]),
    ("fleetd.rollout.v1.RolloutService/PlanRollout", &["workload", "version", "configuration"], &["plan/id"]),
    ("fleetd.rollout.v1.RolloutService/PlanRollback", &["rollout_id"], &[]),
    ("fleetd.rollout.v1.RolloutService/StartRollout", &["plan_id"], &["rollout/id", "rollout/workload"]),
    ("fleetd.rollout.v1.RolloutService/AbortRollout", &["rollout_id"], &["rollout/workload"]),
    ("fleetd.rollout.v1.RolloutService/PauseRollout", &["rollout_id"], &["rollout/workload"]),
    ("fleetd.rollout.v1.RolloutService/ResumeRollout", &["rollout_id"], &["rollout/workload"]),
    ("fleetd.rollout.v1.RolloutService/ApproveRollout", &["rollout_id"], &["rollout/workload"]),
    ("fleetd.rollout.v1.RolloutService/StopFleet", &[], &["stop/hold_id"]),
    ("fleetd.rollout.v1.RolloutService/LiftFleetStop", &["hold_id"], &[]),
    ("fleetd.trust.v1.TrustService/AddRootRecord", &[], &["trust/fleet_id"]),
    ("fleetd.trust.v1.TrustService/RevokeKey", &["key_id"], &[]),
];

/// The RPCs, by their requests.
pub(crate) struct Calls {
    methods: BTreeMap<String, Method>,
}

struct Method {
    action: String,
    request: MessageDescriptor,
    response: MessageDescriptor,
    subjects: Subjects,
}

impl Calls {
    /// Reads the RPCs off the schemas.
    pub(crate) fn new(schemas: &DescriptorPool) -> Self {
        let methods = schemas.services().flat_map(|service| {
            let methods: Vec<_> = service.methods().collect();
            methods.into_iter().map(move |method| {
                let action = format!("{}/{}", service.full_name(), method.name());
                let subjects = SUBJECTS.iter().find(|(name, ..)| *name == action).copied().unwrap_or(("", &[], &[]));
                let (request, response) = (method.input(), method.output());
                (request.full_name().to_owned(), Method { action, request, response, subjects })
            })
        });
        Self { methods: methods.collect() }
    }

    /// Says what is asked, and by whom.
    pub(crate) fn call<Q: Message + Name>(&self, caller: &Caller, asked: &Q) -> Call {
        let by = by(caller);
        let name = Q::full_name();
        let Some(method) = self.methods.get(&name) else {
            return Call { by, action: name, subjects: Vec::new(), request: String::new() };
        };
        let (_, fields, _) = method.subjects;
        let message = read(&method.request, asked);
        let subjects = fields.iter().filter_map(|path| text_at(&message, path)).collect();
        Call { by, action: method.action.clone(), subjects, request: shown(&message) }
    }

    /// Says what the call with this request turned out to be about.
    fn made<Q: Message + Name, R: Message>(&self, response: &R) -> Vec<String> {
        let Some(method) = self.methods.get(&Q::full_name()) else { return Vec::new() };
        let (_, _, fields) = method.subjects;
        if fields.is_empty() {
            return Vec::new();
        }
        let message = read(&method.response, response);
        fields.iter().filter_map(|path| text_at(&message, path)).collect()
    }
}

/// A caller, as the audit log has it.
pub(crate) fn by(caller: &Caller) -> By {
    By::Token { id: caller.id, name: caller.name.clone(), role: caller.role.to_string() }
}

impl Backend {
    /// Notes calls whose role is too low. Nothing was done for them, so that nobody waits until that is durable.
    #[must_use]
    pub fn hear_refusals(&self) -> HearRefusal {
        let audit = self.node.actors.audit.clone();
        Arc::new(move |caller, path| {
            let action = path.strip_prefix('/').unwrap_or(path).to_owned();
            let call = Call { by: by(caller), action, subjects: Vec::new(), request: String::new() };
            audit.send(Input::Refuse { call, code: ROLE_TOO_LOW.to_owned() });
        })
    }

    /// Lets a call act once the audit log has it, and notes how it ended before anybody is told.
    pub(super) async fn traced<Q: Message + Name, R: Message>(
        &self,
        caller: &Caller,
        request_id: &str,
        asked: &Q,
        answer: impl Future<Output = Result<R, CallError>>,
    ) -> Result<R, CallError> {
        let intent = self.node.intend(self.call(caller, asked), request_id.to_owned()).await?;
        let answered = answer.await;
        let (subjects, outcome) = match &answered {
            Ok(response) => (self.calls.made::<Q, R>(response), Outcome::Done),
            Err(error) => (Vec::new(), Outcome::Refused(error.code())),
        };
        self.node.conclude(intent, subjects, outcome).await.map_err(|_| CallError::Unconcluded)?;
        answered
    }

    /// Says what is asked. A device that is named is also given by its id: names change.
    pub(super) fn call<Q: Message + Name>(&self, caller: &Caller, asked: &Q) -> Call {
        let mut call = self.calls.call(caller, asked);
        let is_of_device = call.action.starts_with("fleetd.device.");
        if let Some(named) = call.subjects.first().filter(|_| is_of_device)
            && let Ok(local) = self.find_device(named)
        {
            call.subjects.insert(1, local.to_string());
        }
        call
    }
}

fn read(descriptor: &MessageDescriptor, message: &impl Message) -> DynamicMessage {
    // Both are of one schema: what is encoded here is read here.
    DynamicMessage::decode(descriptor.clone(), message.encode_to_vec().as_slice())
        .unwrap_or_else(|_| DynamicMessage::new(descriptor.clone()))
}

/// The text of a field, or of a field of a message within.
fn text_at(message: &DynamicMessage, path: &str) -> Option<String> {
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    let value = message.get_field_by_name(first)?;
    match value.as_ref() {
        Value::Message(within) => text_at(within, rest),
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        _ => None,
    }
}

/// Writes a request as people read it.
fn shown(message: &DynamicMessage) -> String {
    let mut fields = fields_of(message, 0);
    // It has its own place in the entry.
    fields.remove("requestId");
    shortened(serde_json::Value::Object(fields).to_string(), AUDIT_REQUEST_BYTES_MAX)
}

fn fields_of(message: &DynamicMessage, depth: usize) -> serde_json::Map<String, serde_json::Value> {
    let descriptor = message.descriptor();
    let set = descriptor.fields().filter(|field| message.has_field(field));
    set.map(|field| {
        let value = if is_secret(&field) { SECRET.into() } else { value_of(&message.get_field(&field), &field, depth) };
        (field.json_name().to_owned(), value)
    })
    .collect()
}

/// Says whether a field holds a secret.
fn is_secret(field: &FieldDescriptor) -> bool {
    SECRETS.contains(&field.full_name())
}

fn value_of(value: &Value, field: &FieldDescriptor, depth: usize) -> serde_json::Value {
    match value {
        Value::Bool(yes) => (*yes).into(),
        Value::I32(number) => (*number).into(),
        Value::I64(number) => (*number).into(),
        Value::U32(number) => (*number).into(),
        Value::U64(number) => (*number).into(),
        Value::F32(number) => (*number).into(),
        Value::F64(number) => (*number).into(),
        Value::String(text) => shortened(text.clone(), TEXT_BYTES_MAX).into(),
        Value::Bytes(bytes) => format!("({} bytes)", bytes.len()).into(),
        Value::EnumNumber(number) => match field.kind() {
            Kind::Enum(kind) => kind.get_value(*number).map_or((*number).into(), |value| value.name().into()),
            _ => (*number).into(),
        },
        Value::Message(message) if message.descriptor().full_name().starts_with("google.protobuf.") => {
            serde_json::to_value(message).unwrap_or_default()
        }
        Value::Message(_) if depth >= DEPTH_MAX => "…".into(),
        Value::Message(message) => serde_json::Value::Object(fields_of(message, depth + 1)),
        Value::List(list) => {
            let mut shown: Vec<_> = list.iter().take(ENTRIES_MAX).map(|value| value_of(value, field, depth)).collect();
            if list.len() > ENTRIES_MAX {
                shown.push(format!("and {} more", list.len() - ENTRIES_MAX).into());
            }
            shown.into()
        }
        Value::Map(map) => {
            let mut entries: Vec<_> = map.iter().filter_map(|(key, value)| Some((key.as_str()?, value))).collect();
            entries.sort_by_key(|(key, _)| *key);
            let shown = entries.into_iter().take(ENTRIES_MAX);
            serde_json::Value::Object(
                shown.map(|(key, value)| (key.to_owned(), value_of(value, field, depth))).collect(),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fleetd_proto::fleetd::access::v1 as access;
    use fleetd_proto::fleetd::enrolment::v1 as enrolment;
    use fleetd_proto::fleetd::registration::v1 as registration;
    use fleetd_proto::fleetd::rollout::v1 as rollout;
    use fleetd_sync_core::id::AccessId;

    use super::*;
    use crate::connect::schemas;
    use crate::edge::authenticate::Role;

    fn caller() -> Caller {
        Caller { id: AccessId::from_bytes([1; 10]), name: "ana".to_owned(), role: Role::Admin }
    }

    fn of<Q: Message + Name>(asked: &Q) -> Call {
        Calls::new(&schemas().unwrap()).call(&caller(), asked)
    }

    /// The RPCs of the schemas that change something.
    fn mutating(pool: &DescriptorPool) -> BTreeSet<String> {
        let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
        let ours = methods.filter(|method| method.parent_service().full_name().starts_with("fleetd."));
        let changes = ours.filter(|method| {
            let level = method.options().get_field_by_name("idempotency_level").map(std::borrow::Cow::into_owned);
            level.and_then(|level| level.as_enum_number()) != Some(1)
        });
        changes.map(|method| format!("{}/{}", method.parent_service().full_name(), method.name())).collect()
    }

    #[test]
    fn every_rpc_that_changes_something_says_what_it_is_about_in_fields_that_exist() {
        let pool = schemas().unwrap();
        let listed: BTreeSet<String> = SUBJECTS.iter().map(|(action, ..)| (*action).to_owned()).collect();
        assert_eq!(listed, mutating(&pool));
        let has = |message: &MessageDescriptor, path: &str| {
            path.split('/').try_fold(Kind::Message(message.clone()), |kind, name| {
                Some(kind.as_message()?.get_field_by_name(name)?.kind())
            })
        };
        for method in Calls::new(&pool).methods.values() {
            let (_, request, response) = method.subjects;
            for path in request {
                assert_eq!(has(&method.request, path), Some(Kind::String), "{}: {path}", method.action);
            }
            for path in response {
                assert_eq!(has(&method.response, path), Some(Kind::String), "{}: {path}", method.action);
            }
        }
    }

    #[test]
    fn a_request_is_shown_without_its_id_and_its_secrets() {
        let asked = registration::RegisterDeviceRequest {
            request_id: "r1".to_owned(),
            token: "fdj1_very_secret".to_owned(),
            csr_der: vec![7; 400],
            ..registration::RegisterDeviceRequest::default()
        };
        let call = of(&asked);
        assert_eq!(call.request, r#"{"csrDer":"(400 bytes)","token":"(secret)"}"#);
        let asked = access::CreateAccessTokenRequest {
            request_id: "r1".to_owned(),
            name: "ci".to_owned(),
            role: access::Role::Deployer.into(),
            expires_at: Some(crate::record::timestamp(fleetd_sync_core::time::Wall(0))),
        };
        let call = of(&asked);
        assert_eq!(call.action, "fleetd.access.v1.AccessService/CreateAccessToken");
        assert_eq!(call.request, r#"{"expiresAt":"1970-01-01T00:00:00Z","name":"ci","role":"ROLE_DEPLOYER"}"#);
        assert_eq!(call.subjects, ["ci"]);
    }

    #[test]
    fn a_long_request_is_cut() {
        let labels = (0..100).map(|number| (format!("key{number:03}"), "x".repeat(63))).collect();
        let note = "a long note ".repeat(1000);
        let asked = enrolment::CreateEnrolmentTokenRequest { note, labels, ..Default::default() };
        let call = of(&asked);
        assert!(call.request.len() <= AUDIT_REQUEST_BYTES_MAX && call.request.contains("key015"), "{}", call.request);
        assert!(!call.request.contains("key016"));
        let plan = Some(rollout::start_rollout_request::Plan::Document(vec![0; 1 << 20]));
        let call = of(&rollout::StartRolloutRequest { plan, ..Default::default() });
        assert_eq!(call.request, r#"{"document":"(1048576 bytes)"}"#);
    }

    #[test]
    fn what_was_made_is_read_off_the_answer() {
        let calls = Calls::new(&schemas().unwrap());
        let token = Some(access::AccessToken { id: "acc_1".to_owned(), ..Default::default() });
        let response = access::CreateAccessTokenResponse { access_token: token, text: "fdt_secret".to_owned() };
        assert_eq!(calls.made::<access::CreateAccessTokenRequest, _>(&response), ["acc_1"]);
    }

    #[test]
    fn fields_that_are_called_like_secrets_are_kept_back_or_known_to_be_none() {
        // Ids, sizes, page tokens and public keys, which anybody may see.
        let harmless = ["token_id", "page_token", "resume_token", "needs_approval", "key_id", "sealing_public_key"];
        let pool = schemas().unwrap();
        for action in mutating(&pool) {
            let method = Calls::new(&pool).methods.into_values().find(|method| method.action == action).unwrap();
            for field in method.request.fields().filter(|field| !harmless.contains(&field.name())) {
                let sounds_secret =
                    ["token", "secret", "password", "key"].iter().any(|word| field.name().contains(word));
                assert!(!sounds_secret || is_secret(&field), "{} is shown", field.full_name());
            }
        }
    }
}
