//! `AccessService`: who may call the API.

use fleetd_proto::fleetd::access::v1 as access;
use fleetd_proto::fleetd::access::v1::access_service_server::AccessService;
use fleetd_sync_core::id::AccessId;
use fleetd_sync_core::limit::ACCESS_NAME_CHARS_MAX;
use tonic::{Request, Response, Status};

use super::backend::caller;
use super::call_error::{CallError, parsed, required};
use super::page::{newest_first, page};
use super::request_log::Kept;
use crate::access::{AccessToken, AccessWish};
use crate::record::access::{role, role_number};
use crate::record::{timestamp, wall};

super::service!(
    /// Makes and revokes access tokens.
    Access
);

#[tonic::async_trait]
impl AccessService for Access {
    async fn create_access_token(
        &self,
        request: Request<access::CreateAccessTokenRequest>,
    ) -> Result<Response<access::CreateAccessTokenResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let made = async {
            let name = required(&asked.name, "name")?.to_owned();
            let length = name.chars().count();
            if length > ACCESS_NAME_CHARS_MAX {
                let cause = format!("it has {length} characters; it may have {ACCESS_NAME_CHARS_MAX}");
                return Err(CallError::Invalid { field: "name", cause });
            }
            let role = role(asked.role).ok_or(CallError::Missing { field: "role" })?;
            let expires_at = asked.expires_at.as_ref().map(wall);
            if expires_at.is_some_and(|expires_at| expires_at <= self.backend.now()) {
                let cause = "it has passed already".to_owned();
                return Err(CallError::Invalid { field: "expires_at", cause });
            }
            let wish = AccessWish { name, role, expires_at, created_by: Some(caller.id) };
            let mut entropy = self.backend.shared().entropy();
            let (token, text) = self.backend.tokens.create(wish, &mut entropy).await?;
            Ok(access::CreateAccessTokenResponse { access_token: Some(show(&token)), text })
        };
        self.backend.once((&caller, Kept::Secret), &asked.request_id, &asked, made).await
    }

    async fn list_access_tokens(
        &self,
        request: Request<access::ListAccessTokensRequest>,
    ) -> Result<Response<access::ListAccessTokensResponse>, Status> {
        let asked = request.into_inner();
        let now = self.backend.now();
        let tokens = self.backend.tokens.list().into_iter().filter(|token| asked.include_ended || token.counts(now));
        let mut tokens: Vec<_> =
            tokens.map(|token| (newest_first(token.created_at.0, token.id.as_bytes()), show(&token))).collect();
        tokens.sort_by(|(key, _), (other, _)| key.cmp(other));
        let (access_tokens, next_page_token) = page(tokens, asked.page_size, &asked.page_token)?;
        Ok(Response::new(access::ListAccessTokensResponse { access_tokens, next_page_token }))
    }

    async fn revoke_access_token(
        &self,
        request: Request<access::RevokeAccessTokenRequest>,
    ) -> Result<Response<access::RevokeAccessTokenResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let revoked = async {
            let id: AccessId = parsed(&asked.access_id, "access_id")?;
            let token = self.backend.tokens.revoke(id).await?.ok_or(CallError::UnknownAccess { id })?;
            Ok(access::RevokeAccessTokenResponse { access_token: Some(show(&token)) })
        };
        self.backend.once((&caller, Kept::Whole), &asked.request_id, &asked, revoked).await
    }

    async fn who_am_i(
        &self,
        request: Request<access::WhoAmIRequest>,
    ) -> Result<Response<access::WhoAmIResponse>, Status> {
        let caller = caller(&request)?;
        let token = self.backend.tokens.get(caller.id).ok_or(CallError::UnknownAccess { id: caller.id })?;
        Ok(Response::new(access::WhoAmIResponse {
            access_token: Some(show(&token)),
            fleet_id: self.backend.shared().trust().chain.fleet().to_string(),
            server_id: self.backend.introduction.server_id.to_string(),
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }
}

fn show(token: &AccessToken) -> access::AccessToken {
    access::AccessToken {
        id: token.id.to_string(),
        name: token.name.clone(),
        role: role_number(token.role).into(),
        created_at: Some(timestamp(token.created_at)),
        expires_at: token.expires_at.map(timestamp),
        revoked_at: token.revoked_at.map(timestamp),
        created_by: token.created_by.map(|by| by.to_string()).unwrap_or_default(),
    }
}
