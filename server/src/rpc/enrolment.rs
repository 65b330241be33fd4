//! `EnrolmentService`: who may join the fleet.

use std::time::Duration;

use fleetd_actors::device::record::Membership;
use fleetd_actors::registration;
use fleetd_actors::registration::token::{Answer, Command, Given, PendingDevice, TokenRecord, TokenWish};
use fleetd_proto::fleetd::device::v1 as device;
use fleetd_proto::fleetd::enrolment::v1 as enrolment;
use fleetd_proto::fleetd::enrolment::v1::enrolment_service_server::EnrolmentService;
use fleetd_sync_core::enrolment::EnrolmentToken;
use fleetd_sync_core::id::{LocalId, TokenId};
use fleetd_sync_core::name::{DeviceName, LabelValue};
use fleetd_sync_core::time::Wall;
use tonic::{Request, Response, Status};

use super::backend::{ask, caller};
use super::call_error::{CallError, optional, parsed};
use super::convert;
use super::page::{newest_first, page};
use super::request_log::Kept;
use crate::edge::authenticate::Caller;
use crate::record::{timestamp, wall};

/// Time for which a token counts when its maker does not say.
const TOKEN_LIFETIME: Duration = Duration::from_hours(24);

super::service!(
    /// Makes enrolment tokens, and decides on devices that wait for approval.
    Enrolments
);

impl Enrolments {
    async fn ask(&self, caller: &Caller, command: Command) -> Result<Answer, CallError> {
        let (answers, caller) = (&self.backend.shared().registration_answers, caller.id.to_string());
        let send = |operation| {
            let input = registration::Input::Command { operation, caller, command };
            self.backend.node.actors.registration.send(input);
        };
        Ok(ask(answers, send).await??)
    }

    async fn tokens(&self, caller: &Caller) -> Result<Vec<TokenRecord>, CallError> {
        match self.ask(caller, Command::ListTokens).await? {
            Answer::Tokens(tokens) => Ok(tokens),
            other => Err(unexpected(&other)),
        }
    }

    async fn pending(&self, caller: &Caller) -> Result<Vec<enrolment::PendingDevice>, CallError> {
        let (tokens, now) = (self.tokens(caller).await?, self.backend.now());
        match self.ask(caller, Command::ListPending).await? {
            Answer::Pending(pending) => Ok(pending.iter().map(|device| show_pending(device, &tokens, now)).collect()),
            other => Err(unexpected(&other)),
        }
    }

    async fn find_pending(&self, caller: &Caller, local: LocalId) -> Result<enrolment::PendingDevice, CallError> {
        let text = local.to_string();
        let found = self.pending(caller).await?.into_iter().find(|device| device.local_id == text);
        let refusal = registration::token::CommandError::NotPending { device: local };
        found.ok_or(CallError::Registration(refusal))
    }

    /// The recovered device of this name or id, if there is one.
    fn find_recovered(&self, text: &str) -> Result<Option<LocalId>, CallError> {
        let local = match self.backend.find_device(text) {
            Err(CallError::UnknownDevice { .. } | CallError::Missing { .. }) => return Ok(None),
            found => found?,
        };
        match self.backend.device_record(local)?.0.membership {
            Membership::Recovered => Ok(Some(local)),
            _ => Err(registration::token::CommandError::NotPending { device: local }.into()),
        }
    }

    /// A device that was let in. It becomes a member when it asks again: until then there is only what it said.
    fn show_approved(&self, approved: enrolment::PendingDevice, given: Given, local: LocalId) -> device::Device {
        let mut labels = approved.labels;
        labels.extend(given.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())));
        self.backend.show_device(local).unwrap_or_else(|_| device::Device {
            local_id: approved.local_id,
            name: given.name.map(|name| name.to_string()).unwrap_or_default(),
            labels,
            site: approved.site,
            facts: approved.facts,
            state: device::DeviceState::Pending.into(),
            presence: device::Presence::Never.into(),
            ..device::Device::default()
        })
    }

    fn token_text(&self, id: TokenId, secret: fleetd_sync_core::enrolment::TokenSecret) -> Result<String, CallError> {
        let fleet = self.backend.shared().trust().chain.fleet();
        let token = EnrolmentToken::new(self.backend.introduction.addresses.clone(), fleet, id, secret);
        let token = token.map_err(|error| CallError::Internal { cause: error.to_string() })?;
        Ok(token.to_secret_text())
    }
}

#[tonic::async_trait]
impl EnrolmentService for Enrolments {
    async fn create_enrolment_token(
        &self,
        request: Request<enrolment::CreateEnrolmentTokenRequest>,
    ) -> Result<Response<enrolment::CreateEnrolmentTokenResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let made = async {
            let site: Option<LabelValue> = optional(&asked.site, "site")?;
            let wish = TokenWish {
                note: asked.note.clone(),
                labels: convert::device::labels(&asked.labels, "labels")?,
                site: site.map(|site| site.to_string()).unwrap_or_default(),
                uses_max: asked.uses_max.max(1),
                expires_at: Some(asked.expires_at.as_ref().map_or(self.backend.now() + TOKEN_LIFETIME, wall)),
                needs_approval: asked.needs_approval,
            };
            match self.ask(&caller, Command::CreateToken(wish)).await? {
                Answer::Created { token, secret } => {
                    let text = self.token_text(token.token, secret)?;
                    Ok(enrolment::CreateEnrolmentTokenResponse { enrolment_token: Some(show_token(&token)), text })
                }
                other => Err(unexpected(&other)),
            }
        };
        self.backend.once((&caller, Kept::Secret), &asked.request_id, &asked, made).await
    }

    async fn list_enrolment_tokens(
        &self,
        request: Request<enrolment::ListEnrolmentTokensRequest>,
    ) -> Result<Response<enrolment::ListEnrolmentTokensResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let now = self.backend.now();
        let tokens = self.tokens(&caller).await?;
        let mut tokens: Vec<_> = tokens
            .iter()
            .filter(|token| asked.include_ended || counts(token, now))
            .map(|token| (newest_first(token.created_at.0, token.token.as_bytes()), show_token(token)))
            .collect();
        tokens.sort_by(|(key, _), (other, _)| key.cmp(other));
        let (enrolment_tokens, next_page_token) = page(tokens, asked.page_size, &asked.page_token)?;
        Ok(Response::new(enrolment::ListEnrolmentTokensResponse { enrolment_tokens, next_page_token }))
    }

    async fn revoke_enrolment_token(
        &self,
        request: Request<enrolment::RevokeEnrolmentTokenRequest>,
    ) -> Result<Response<enrolment::RevokeEnrolmentTokenResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let revoked = async {
            let id: TokenId = parsed(&asked.token_id, "token_id")?;
            self.ask(&caller, Command::RevokeToken(id)).await?;
            let token = self.tokens(&caller).await?.into_iter().find(|token| token.token == id);
            Ok(enrolment::RevokeEnrolmentTokenResponse { enrolment_token: token.as_ref().map(show_token) })
        };
        self.backend.once((&caller, Kept::Whole), &asked.request_id, &asked, revoked).await
    }

    async fn list_pending_devices(
        &self,
        request: Request<enrolment::ListPendingDevicesRequest>,
    ) -> Result<Response<enrolment::ListPendingDevicesResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let pending = self.pending(&caller).await?.into_iter().map(|device| {
            let at = device.requested_at.as_ref().map_or(0, |at| wall(at).0.max(0));
            ([at.to_be_bytes().as_slice(), device.local_id.as_bytes()].concat(), device)
        });
        let (pending_devices, next_page_token) = page(pending, asked.page_size, &asked.page_token)?;
        Ok(Response::new(enrolment::ListPendingDevicesResponse { pending_devices, next_page_token }))
    }

    async fn approve_device(
        &self,
        request: Request<enrolment::ApproveDeviceRequest>,
    ) -> Result<Response<enrolment::ApproveDeviceResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let approved = async {
            if let Some(recovered) = self.find_recovered(&asked.local_id)? {
                let command = fleetd_actors::device::command::Command::Approve;
                refuse_attributes(&asked)?;
                self.backend.ask_device(recovered, &caller, command).await?;
                let device = Some(self.backend.show_device(recovered)?);
                return Ok(enrolment::ApproveDeviceResponse { device });
            }
            let local: LocalId = parsed(&asked.local_id, "local_id")?;
            let name: Option<DeviceName> = optional(&asked.name, "name")?;
            let given = Given { name, labels: convert::device::labels(&asked.labels, "labels")? };
            if let Some(name) = &given.name {
                self.backend.require_free(name, local)?;
            }
            let pending = self.find_pending(&caller, local).await?;
            self.ask(&caller, Command::Approve { device: local, given: given.clone() }).await?;
            Ok(enrolment::ApproveDeviceResponse { device: Some(self.show_approved(pending, given, local)) })
        };
        self.backend.once((&caller, Kept::Whole), &asked.request_id, &asked, approved).await
    }

    async fn deny_device(
        &self,
        request: Request<enrolment::DenyDeviceRequest>,
    ) -> Result<Response<enrolment::DenyDeviceResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let denied = async {
            let local: LocalId = parsed(&asked.local_id, "local_id")?;
            let pending = self.find_pending(&caller, local).await?;
            self.ask(&caller, Command::Deny(local)).await?;
            tracing::info!(device = %local, caller = %caller.id, reason = asked.reason, "a device was turned away");
            Ok(enrolment::DenyDeviceResponse { pending_device: Some(pending) })
        };
        self.backend.once((&caller, Kept::Whole), &asked.request_id, &asked, denied).await
    }
}

/// A recovered device has a name already, and may have got labels since.
fn refuse_attributes(asked: &enrolment::ApproveDeviceRequest) -> Result<(), CallError> {
    let (field, command) = match (asked.name.is_empty(), asked.labels.is_empty()) {
        (false, _) => ("name", "rename"),
        (true, false) => ("labels", "label"),
        (true, true) => return Ok(()),
    };
    let cause = format!("a recovered device is approved without; use `fleetd device {command}`");
    Err(CallError::Invalid { field, cause })
}

fn unexpected(answer: &Answer) -> CallError {
    CallError::Internal { cause: format!("the registration answered another question: {answer:?}") }
}

fn counts(token: &TokenRecord, now: Wall) -> bool {
    let state = &token.state;
    let uses = u32::try_from(state.used_by.len()).unwrap_or(u32::MAX);
    state.revoked_at.is_none() && state.expires_at.is_none_or(|expires_at| now < expires_at) && uses < state.uses_max
}

fn show_token(token: &TokenRecord) -> enrolment::EnrolmentToken {
    enrolment::EnrolmentToken {
        id: token.token.to_string(),
        note: token.note.clone(),
        labels: token.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        site: token.site.clone(),
        uses_max: token.state.uses_max,
        uses: convert::count(token.state.used_by.len()),
        needs_approval: token.state.needs_approval,
        created_at: Some(timestamp(token.created_at)),
        expires_at: token.state.expires_at.map(timestamp),
        revoked_at: token.state.revoked_at.map(timestamp),
        created_by: token.created_by.clone(),
    }
}

fn show_pending(device: &PendingDevice, tokens: &[TokenRecord], now: Wall) -> enrolment::PendingDevice {
    let token = tokens.iter().find(|token| token.token == device.token);
    let ended = token.and_then(|token| token.state.check_open(device.local, now).err());
    let token = token.map(show_token).unwrap_or_default();
    enrolment::PendingDevice {
        local_id: device.local.to_string(),
        facts: Some(convert::facts::show(&device.facts)),
        token_id: device.token.to_string(),
        labels: token.labels,
        site: token.site,
        token_ended: ended.map(|cause| cause.to_string()).unwrap_or_default(),
        requested_at: Some(timestamp(device.requested_at)),
    }
}
