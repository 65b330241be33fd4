//! Help with errors: the pages themselves, and in each error where its page is.
//!
//! An error is made where nobody knows the server's address, so the address comes in at the edge, on the way out.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use data_encoding::BASE64_NOPAD;
use fleetd_proto::fleetd::common::v1::Error;
use fleetd_proto::google;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use prost::Message as _;
use tonic::Status;

use crate::error_page;

/// The header or trailer in which a status of gRPC has its details.
const DETAILS: &str = "grpc-status-details-bin";
/// What somebody reads who asks for a page that there is not.
const NO_SUCH_PAGE: &str = "There is no page of that name. All there are: /errors/\n";

/// Where the pages about errors are for clients.
#[derive(Clone, Debug, Default)]
pub struct Help {
    base: Option<Arc<str>>,
}

impl Help {
    /// Help on the API at `url` (`https://fleet.example:4800`). Without a URL, errors do not say where their pages are.
    #[must_use]
    pub fn at(url: &str) -> Self {
        Self { base: Some(format!("{url}{}", error_page::PATH).into()) }
    }

    /// Says in a status of gRPC where the page about its error is.
    pub(crate) fn explain(&self, status: &Status) -> Status {
        match self.explained(status.details()) {
            Some(details) => {
                let (code, message) = (status.code(), status.message());
                Status::with_details_and_metadata(code, message, details.into(), status.metadata().clone())
            }
            None => status.clone(),
        }
    }

    /// Says it in an answer of gRPC, whose status stands in its headers or comes behind its body.
    pub(crate) fn explain_answer(&self, answer: Response) -> Response {
        let (mut parts, body) = answer.into_parts();
        self.explain_headers(&mut parts.headers);
        if parts.headers.contains_key("grpc-status") {
            return Response::from_parts(parts, body);
        }
        let help = self.clone();
        let body = body.map_frame(move |frame| match frame.into_trailers() {
            Ok(mut trailers) => {
                help.explain_headers(&mut trailers);
                Frame::trailers(trailers)
            }
            Err(frame) => frame,
        });
        Response::from_parts(parts, Body::new(body))
    }

    fn explain_headers(&self, headers: &mut HeaderMap) {
        let Some(value) = headers.get_mut(DETAILS) else { return };
        let details = BASE64_NOPAD.decode(value.as_bytes()).ok().and_then(|details| self.explained(&details));
        if let Some(details) = details.and_then(|details| BASE64_NOPAD.encode(&details).parse().ok()) {
            *value = details;
        }
    }

    /// The details of a status with the URL of its error's page; nothing where none is missing, or there is no page.
    fn explained(&self, details: &[u8]) -> Option<Vec<u8>> {
        let base = self.base.as_ref().filter(|_| !details.is_empty())?;
        let mut envelope = google::rpc::Status::decode(details).ok()?;
        let found = |detail: &prost_types::Any| detail.to_msg::<Error>().ok();
        let (at, mut error) =
            envelope.details.iter().enumerate().find_map(|(at, detail)| Some((at, found(detail)?)))?;
        if !error.help_url.is_empty() || error_page::page(&error.code).is_none() {
            return None;
        }
        error.help_url = format!("{base}{}", error.code);
        *envelope.details.get_mut(at)? = prost_types::Any::from_msg(&error).ok()?;
        Some(envelope.encode_to_vec())
    }
}

/// Answers a request for a page about an error. Anybody may read them: they are the same at every server.
pub(crate) fn page_for(request: &Request<Body>) -> Option<Response> {
    let code = match request.uri().path() {
        "/errors" => "",
        path => path.strip_prefix(error_page::PATH)?,
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    let text = if code.is_empty() { Some(error_page::list()) } else { error_page::page(code).map(str::to_owned) };
    let status = if text.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    let text = text.unwrap_or_else(|| NO_SUCH_PAGE.to_owned());
    // Over HTTP/2 nobody takes the body away from who asked for none.
    let body = if request.method() == Method::HEAD { Body::empty() } else { Body::from(text) };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Some(response)
}
