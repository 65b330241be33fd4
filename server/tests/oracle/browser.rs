//! `@connectrpc/connect-web` in Chromium, in a page of another origin.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::routing::{get, post};
use data_encoding::BASE64;
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::fleet::Fleet;
use super::{built, program};

/// Chromium starts in seconds; this is for a machine that does ten other things.
const PATIENCE: Duration = Duration::from_secs(120);

const PAGE: &str = "<!doctype html><title>fleetd</title><script type=module src=/browser.js></script>";

/// The hash of a certificate's key, by which Chromium can be told to believe this one and no other.
fn key_hash(certificate: &CertificateDer<'_>) -> String {
    let parsed = ParsedCertificate::try_from(certificate).expect("a certificate");
    let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().expect("it is of TLS 1.3");
    BASE64.encode(suite.common.hash_provider.hash(&parsed.subject_public_key_info()).as_ref())
}

/// Serves the page on an origin of its own, and gives its address and what the page will say in the end.
async fn serve_page(script: String, fleet: Value) -> (u16, oneshot::Receiver<Value>) {
    let (tell, told) = oneshot::channel();
    let tell = Arc::new(Mutex::new(Some(tell)));
    let outcome = move |body: Bytes| async move {
        let tell = tell.lock().expect("nobody panics with it").take();
        let _ = tell.map(|tell| tell.send(serde_json::from_slice(&body).expect("JSON")));
    };
    let of_type = |content_type, body: String| move || async move { ([(CONTENT_TYPE, content_type)], body) };
    let router = Router::new()
        .route("/", get(of_type("text/html", PAGE.to_owned())))
        .route("/browser.js", get(of_type("text/javascript", script)))
        .route("/fleet.json", get(of_type("application/json", fleet.to_string())))
        .route("/outcome", post(outcome));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (port, told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connect_web_agrees_in_a_browser() {
    let (Some(script), Some(chromium)) =
        (built("chromium", "browser.js"), program(&["chromium", "chromium-browser", "google-chrome"]))
    else {
        return;
    };
    let fleet = Fleet::start().await;
    let script = std::fs::read_to_string(script).expect("it was built");
    let (port, told) = serve_page(script, fleet.told()).await;
    let profile = tempfile::tempdir().expect("a folder");
    let mut child = Command::new(chromium)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--ignore-certificate-errors-spki-list={}", key_hash(&fleet.world.browser)))
        .arg(format!("http://localhost:{port}/"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("Chromium runs");
    let outcome = timeout(PATIENCE, told).await.expect("the page comes to an end").expect("it says which");
    child.kill().await.expect("it ran");
    let done = ["Connect with JSON", "Connect with protobuf", "Connect by GET", "gRPC-Web", "a stranger"];
    assert_eq!(outcome, json!({ "done": done }));
}
