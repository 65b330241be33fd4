//! Who is calling, and may they: decided before a byte of the request's body is read.

use std::fmt;

use fleetd_sync_core::id::AccessId;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::rpc::permission::{Permission, permission};

/// What a caller may do. Each role may all that the one before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// See everything but secrets.
    Viewer,
    /// Also push releases, plan and start rollouts, and stop or start what runs.
    Deployer,
    /// Also decide who belongs to the fleet and who may call its API.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Deployer => "deployer",
            Self::Admin => "admin",
        })
    }
}

/// Who is calling. Handlers find it among the request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The id of the caller's access token.
    pub id: AccessId,
    /// Whose or what the token is for.
    pub name: String,
    /// What it allows.
    pub role: Role,
}

/// Why a token is no credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticateError {
    /// It is no token of this server.
    #[error("the access token is not one of this server's")]
    Unknown,
    /// Its time is over.
    #[error("access token {id} has expired")]
    Expired {
        /// The token's id.
        id: AccessId,
    },
    /// Somebody revoked it.
    #[error("access token {id} was revoked")]
    Revoked {
        /// The token's id.
        id: AccessId,
    },
    /// The records of tokens cannot be read now.
    #[error("access tokens cannot be checked now")]
    Unavailable,
}

/// Knows access tokens.
pub trait Authenticator: Send + Sync + 'static {
    /// Says whose token it is. It compares secrets in constant time, and says that one has expired or was revoked
    /// only when its secret is right.
    ///
    /// # Errors
    /// [`AuthenticateError::Unknown`] when the server has not given it, [`AuthenticateError::Expired`] and
    /// [`AuthenticateError::Revoked`] when it counts no more, [`AuthenticateError::Unavailable`] when it cannot tell.
    fn authenticate(&self, token: &str) -> Result<Caller, AuthenticateError>;
}

/// Why a request is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// It has no `authorization: Bearer …`.
    #[error("this call needs an access token")]
    Missing,
    /// What it has there is no credential.
    #[error("the access token was refused")]
    Refused(#[from] AuthenticateError),
    /// The caller may not do this.
    #[error("{} has the role {}, this call needs {needs}", caller.name, caller.role)]
    Forbidden {
        /// Who is calling.
        caller: Caller,
        /// What the call asks for.
        needs: Role,
    },
    /// There is no such RPC.
    #[error("there is no RPC at {path}")]
    NotServed {
        /// What was called.
        path: String,
    },
}

/// How a request was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// Without a credential, since the RPC asks for none.
    Openly,
    /// As this caller.
    As(Caller),
}

/// Decides whether a request for the RPC at `path` may go on.
///
/// # Errors
/// [`AdmitError::Missing`] and [`AdmitError::Refused`] without a credential that counts, whatever is called; with one,
/// [`AdmitError::Forbidden`] when its role is too low and [`AdmitError::NotServed`] when the table has no such RPC.
pub fn admit(authenticator: &dyn Authenticator, path: &str, headers: &HeaderMap) -> Result<Admitted, AdmitError> {
    let permission = permission(path);
    if permission == Some(Permission::Open) {
        return Ok(Admitted::Openly);
    }
    let caller = authenticator.authenticate(bearer_token(headers).ok_or(AdmitError::Missing)?)?;
    match permission {
        Some(Permission::Needs(needs)) if caller.role < needs => Err(AdmitError::Forbidden { caller, needs }),
        Some(_) => Ok(Admitted::As(caller)),
        None => Err(AdmitError::NotServed { path: path.to_owned() }),
    }
}

/// Reads the token of `authorization: Bearer …`.
pub(crate) fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    struct OneViewer;

    impl Authenticator for OneViewer {
        fn authenticate(&self, token: &str) -> Result<Caller, AuthenticateError> {
            match token {
                "good" => Ok(Caller { id: AccessId::from_bytes([1; 10]), name: "ana".to_owned(), role: Role::Viewer }),
                _ => Err(AuthenticateError::Unknown),
            }
        }
    }

    fn admit_with(path: &str, authorization: Option<&'static str>) -> Result<Admitted, AdmitError> {
        let mut headers = HeaderMap::new();
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, HeaderValue::from_static(authorization));
        }
        admit(&OneViewer, path, &headers)
    }

    const LIST: &str = "/fleetd.device.v1.DeviceService/ListDevices";
    const REVOKE: &str = "/fleetd.device.v1.DeviceService/RevokeDevice";

    #[test]
    fn a_role_reaches_as_far_as_its_table() {
        assert!(matches!(admit_with(LIST, Some("Bearer good")), Ok(Admitted::As(_))));
        assert!(matches!(admit_with(LIST, Some("bearer  good")), Ok(Admitted::As(_))), "schemes have no case");
        let forbidden = admit_with(REVOKE, Some("Bearer good")).unwrap_err();
        assert_eq!(forbidden.to_string(), "ana has the role viewer, this call needs admin");
    }

    #[test]
    fn what_is_no_bearer_token_is_no_credential() {
        for authorization in [None, Some(""), Some("good"), Some("Basic good"), Some("Bearer"), Some("Bearer ")] {
            assert_eq!(admit_with(LIST, authorization), Err(AdmitError::Missing), "{authorization:?}");
        }
        assert_eq!(admit_with(LIST, Some("Bearer bad")), Err(AdmitError::Refused(AuthenticateError::Unknown)));
    }

    #[test]
    fn an_rpc_outside_the_table_is_refused_to_everybody() {
        assert_eq!(admit_with("/no.Service/Method", None), Err(AdmitError::Missing));
        assert!(matches!(admit_with("/no.Service/Method", Some("Bearer good")), Err(AdmitError::NotServed { .. })));
    }
}
