//! Pages of other origins: a browser asks whether their scripts may call, and may read what comes back.
//!
//! They may. Nothing here is done for whoever happens to sit at the browser: there are no cookies and no client
//! certificates, and a page that calls has the token that somebody gave it.
//!
//! # Source
//! Fetch standard, "CORS protocol". A list of `*` leaves `authorization` out, which is named for that.

use axum::body::Body;
use axum::response::Response;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};

/// Seconds for which a browser need not ask again: two hours are the most that browsers keep to.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");
const ANY: HeaderValue = HeaderValue::from_static("*");

/// Answers a browser that asks on behalf of a page; nothing for any other request.
pub(crate) fn preflight(request: &Request<Body>) -> Option<Response> {
    let headers = request.headers();
    if request.method() != Method::OPTIONS || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        return None;
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let into = response.headers_mut();
    into.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
    into.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    into.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("*, authorization"));
    into.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    Some(response)
}

/// Says whether a request comes from a page.
pub(crate) fn is_of_page(request: &HeaderMap) -> bool {
    request.contains_key(ORIGIN)
}

/// Lets a page read an answer: its body, and all of its headers, among them those that end a call of gRPC-Web.
pub(crate) fn open_to_page(answer: &mut HeaderMap) {
    answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
    answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, ANY);
}
