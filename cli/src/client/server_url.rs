//! Where a server's API is.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use rustls::pki_types::ServerName;

/// Why a text is no server's URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseServerUrlError {
    /// The token would travel in the clear.
    #[error("{text:?} does not start with \"https://\"")]
    Scheme {
        /// What was given.
        text: String,
    },
    /// It is no host and port.
    #[error("{text:?} is no \"https://host:port\"")]
    Authority {
        /// What was given.
        text: String,
    },
}

/// Where a server's API is: `https://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    authority: String,
    host: String,
    port: u16,
}

/// The port that a server's API has when nobody chose another.
pub const API_PORT_DEFAULT: u16 = 4800;

impl ServerUrl {
    /// The host's name or address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

impl FromStr for ServerUrl {
    type Err = ParseServerUrlError;

    /// Reads a URL; the scheme may be left out, and the port when it is [`API_PORT_DEFAULT`].
    fn from_str(text: &str) -> Result<Self, ParseServerUrlError> {
        let rest = match text.split_once("://") {
            Some(("https", rest)) => rest,
            Some(_) => return Err(ParseServerUrlError::Scheme { text: text.to_owned() }),
            None => text,
        };
        let wrong = || ParseServerUrlError::Authority { text: text.to_owned() };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let authority: tonic::codegen::http::uri::Authority = rest.parse().map_err(|_| wrong())?;
        let host = authority.host();
        if host.is_empty() || rest.contains(['/', '@', '?', '#']) {
            return Err(wrong());
        }
        let has_port = rest.strip_prefix(host).is_some_and(|after| !after.is_empty());
        let port = match authority.port_u16() {
            Some(port) => port,
            None if has_port => return Err(wrong()),
            None => API_PORT_DEFAULT,
        };
        let bare = match host.strip_prefix('[') {
            // In brackets is an address, and neither nothing nor what only looks like one.
            Some(rest) => {
                let address = rest.strip_suffix(']').filter(|address| address.parse::<Ipv6Addr>().is_ok());
                address.ok_or_else(wrong)?.to_owned()
            }
            // Whatever its certificate could not name is no host either.
            None => ServerName::try_from(host).map_err(|_| wrong()).map(|_| host.to_owned())?,
        };
        Ok(Self { authority: format!("{host}:{port}"), host: bare, port })
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_leave_out_what_is_usual() {
        for (text, whole, host) in [
            ("https://fleet.example:4801/", "https://fleet.example:4801", "fleet.example"),
            ("fleet.example", "https://fleet.example:4800", "fleet.example"),
            ("https://[::1]:9", "https://[::1]:9", "::1"),
            ("127.0.0.1:80", "https://127.0.0.1:80", "127.0.0.1"),
        ] {
            let url: ServerUrl = text.parse().unwrap();
            assert_eq!((url.to_string().as_str(), url.host()), (whole, host));
        }
    }

    #[test]
    fn what_would_send_a_token_in_the_clear_is_refused() {
        assert!(matches!("http://fleet.example".parse::<ServerUrl>(), Err(ParseServerUrlError::Scheme { .. })));
        for text in
            ["", "https://", "https://a/b", "https://a:b", "a:99999", "u@a", "https://a?x", "https://[]:9", "ht[09]:1"]
        {
            assert!(text.parse::<ServerUrl>().is_err(), "{text:?}");
        }
    }
}
