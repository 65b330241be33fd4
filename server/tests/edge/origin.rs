//! Pages of other origins may call, and may read what comes back.

use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::Full;

use super::client::{Answer, framed, request, send_http1, send_http2};
use super::service::Server;

const GET_UPLOAD: &str = "/fleetd.artifact.v1.ArtifactService/GetUpload";
const PAGE: HeaderValue = HeaderValue::from_static("https://console.example");

fn of_page(mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    request.headers_mut().insert("origin", PAGE);
    request
}

fn is_open(answer: &Answer) -> bool {
    answer.header("access-control-allow-origin") == "*" && answer.header("access-control-expose-headers") == "*"
}

#[tokio::test]
async fn a_browser_is_told_that_pages_may_call() {
    let server = Server::start().await;
    let mut asked = of_page(request("OPTIONS", GET_UPLOAD, "", "", Bytes::new()));
    asked.headers_mut().insert("access-control-request-method", HeaderValue::from_static("POST"));
    let headers = HeaderValue::from_static("authorization,connect-protocol-version,content-type");
    asked.headers_mut().insert("access-control-request-headers", headers);
    for answer in [send_http1(&server, asked.clone()).await, send_http2(&server, asked).await] {
        assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0));
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert_eq!(answer.header("access-control-allow-methods"), "GET, POST");
        assert_eq!(answer.header("access-control-allow-headers"), "*, authorization");
        assert_eq!(answer.header("access-control-max-age"), "7200");
        assert_eq!(answer.header("access-control-allow-credentials"), "", "nothing is done for who sits there");
    }
}

#[tokio::test]
async fn a_page_reads_every_answer_and_others_are_not_told_so() {
    let server = Server::start().await;
    let json = |token| request("POST", GET_UPLOAD, "application/json", token, r#"{"digest":"b3_none"}"#.into());
    for token in ["deployer", ""] {
        assert!(is_open(&send_http1(&server, of_page(json(token))).await), "{token:?}");
    }
    let web = request("POST", GET_UPLOAD, "application/grpc-web+proto", "deployer", framed(b""));
    assert!(is_open(&send_http1(&server, of_page(web)).await));
    assert!(is_open(&send_http1(&server, of_page(request("GET", "/errors/usage", "", "", Bytes::new()))).await));
    let answer = send_http1(&server, json("deployer")).await;
    assert_eq!(answer.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn options_that_no_browser_sends_are_no_call() {
    let server = Server::start().await;
    let answer = send_http1(&server, request("OPTIONS", GET_UPLOAD, "", "deployer", Bytes::new())).await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "GET, POST"));
    let answer = send_http1(&server, request("OPTIONS", GET_UPLOAD, "", "", Bytes::new())).await;
    assert_eq!(answer.status, 401);
}
