//! Which protocol a request is made in.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// The JSON of protobuf.
    Json,
    /// Protobuf's own.
    Proto,
}

/// The protocol of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// gRPC-Web.
    GrpcWeb,
    /// Connect, one message each way, by POST.
    Unary(Encoding),
    /// Connect, one message each way, by GET.
    Get,
    /// Connect, any number of messages each way.
    Stream(Encoding),
    /// None of these.
    Unknown,
}

impl Protocol {
    /// Reads the protocol off a request's method and headers.
    #[must_use]
    pub fn of(method: &Method, headers: &HeaderMap) -> Self {
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let content_type = content_type.split(';').next().unwrap_or_default().trim();
        match content_type {
            _ if is_one_of(content_type, "application/grpc-web") => Self::GrpcWeb,
            _ if is_one_of(content_type, "application/grpc") => Self::Grpc,
            _ if method == Method::GET => Self::Get,
            _ if method != Method::POST => Self::Unknown,
            "application/json" => Self::Unary(Encoding::Json),
            "application/proto" => Self::Unary(Encoding::Proto),
            "application/connect+json" => Self::Stream(Encoding::Json),
            "application/connect+proto" => Self::Stream(Encoding::Proto),
            _ => Self::Unknown,
        }
    }
}

/// Says whether a content type is `base`, alone or with a suffix (`+proto`, `-text`).
fn is_one_of(content_type: &str, base: &str) -> bool {
    content_type.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', '-']))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn content_types_name_protocols() {
        let of = |method: Method, content_type: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            Protocol::of(&method, &headers)
        };
        assert_eq!(of(Method::POST, "application/grpc"), Protocol::Grpc);
        assert_eq!(of(Method::POST, "application/grpc+proto"), Protocol::Grpc);
        assert_eq!(of(Method::POST, "application/grpc-web+proto"), Protocol::GrpcWeb);
        assert_eq!(of(Method::POST, "application/grpc-web-text"), Protocol::GrpcWeb);
        assert_eq!(of(Method::POST, "application/grpcish"), Protocol::Unknown);
        assert_eq!(of(Method::POST, "application/json; charset=utf-8"), Protocol::Unary(Encoding::Json));
        assert_eq!(of(Method::POST, "application/proto"), Protocol::Unary(Encoding::Proto));
        assert_eq!(of(Method::POST, "application/connect+json"), Protocol::Stream(Encoding::Json));
        assert_eq!(of(Method::PUT, "application/json"), Protocol::Unknown);
        assert_eq!(of(Method::POST, "text/plain"), Protocol::Unknown);
        assert_eq!(Protocol::of(&Method::GET, &HeaderMap::new()), Protocol::Get);
        assert_eq!(Protocol::of(&Method::POST, &HeaderMap::new()), Protocol::Unknown);
    }
}
