//! Who is at the other end: certificates, and how each side of a connection judges them.
//!
//! A certificate is a cache of what the fleet already knows: that a key belongs to a device or to a server. Its one
//! name is `spiffe://<fleet>/device/<local id>` or `spiffe://<fleet>/server/<key id>`, and the id in it must be the
//! hash of the certificate's own key, so that nobody carries another's name. All keys are Ed25519: the device's key
//! is the certificate's, and the CA's key is the one that the root delegated.
//!
//! - A device asks with [`signing_request`]; a server checks it with [`verify_signing_request`] and issues with
//!   [`CertificateAuthority`].
//! - In the handshake a device checks only that the server holds its certificate's key ([`device_tls`]). Whether the
//!   fleet vouches for that certificate it checks with [`verify_server_leaf`], once the server has sent the root chain
//!   that names the CA.
//! - A server checks a device's certificate in the handshake, if it has one ([`server_tls`]), but never its dates:
//!   [`peer_identity`] says whether it has expired.
//! - A client of the API is pinned to the fleet's CA ([`api_client_tls`]); what name or address it dialled does not
//!   matter. Browsers, which cannot judge Ed25519, get a certificate of their own ([`BrowserIdentity`]).
//!
//! No session is ever resumed: a resumed one would outlive a revocation.

mod authority;
mod browser;
mod crypto;
mod leaf;
mod request;
mod tls;
mod verifier;

pub use authority::{CertificateAuthority, IssueError, IssuedCertificate, SERVER_CERTIFICATE_LIFETIME, ServerName};
pub use browser::{BROWSER_CERTIFICATE_LIFETIME, BrowserIdentity, ReadBrowserIdentityError};
pub use leaf::{
    ReadCertificateError, VerifyServerError, certificate_key, certificate_not_after, is_renewal_due, peer_identity,
    server_claim, verify_server_leaf,
};
pub use request::{ReadRequestError, SigningRequestError, signing_request, verify_signing_request};
pub use tls::{
    ApiCertificates, GradePeerError, TlsError, api_client_tls, api_first_contact_tls, api_server_tls, device_tls,
    grade_peer, server_tls,
};

/// The protocol that devices and servers speak, as the handshake names it.
pub const ALPN: &[u8] = b"fleetd/1";
/// The protocols of the API port, the best first.
pub const ALPN_API: [&[u8]; 2] = [b"h2", b"http/1.1"];
