//! The `connectrpc` crate's client: Connect and gRPC-Web over HTTP/1.1 and HTTP/2, gRPC over HTTP/2.
//!
//! It speaks over the fleet's own TLS, as the CLI does. Its messages are bytes to it, which prost reads and writes: what
//! is compared is the protocol.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use buffa::encoding::Tag;
use buffa::view::{HasMessageView, OwnedView};
use buffa::{DecodeContext, DecodeError, EncodeSink, Message, MessageView, SizeCache};
use bytes::Buf;
use connectrpc::client::{
    CallOptions, ClientBody, ClientConfig, ServiceTransport, call_client_stream, call_server_stream, call_unary,
    call_unary_get,
};
use connectrpc::{CompressionRegistry, ConnectError, ErrorCode, GzipProvider, Protocol, Spec, StreamType};
use fleetd_proto::fleetd::artifact::v1::{
    DownloadArtifactRequest, DownloadArtifactResponse, UploadArtifactRequest, UploadArtifactResponse,
};
use fleetd_proto::fleetd::common::v1::Error;
use fleetd_proto::fleetd::device::v1::{
    GetDeviceRequest, ListDevicesRequest, ListDevicesResponse, WatchDevicesRequest,
};
use fleetd_sync_transport::identity::api_client_tls;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower::util::BoxCloneSyncService;

use super::fleet::Fleet;

const LIST: &str = "/fleetd.device.v1.DeviceService/ListDevices";
const GET: &str = "/fleetd.device.v1.DeviceService/GetDevice";
const WATCH: &str = "/fleetd.device.v1.DeviceService/WatchDevices";
const DOWNLOAD: &str = "/fleetd.artifact.v1.ArtifactService/DownloadArtifact";
const UPLOAD: &str = "/fleetd.artifact.v1.ArtifactService/UploadArtifact";

/// A message that is only its bytes.
#[derive(Clone, Debug, Default, PartialEq)]
struct Plain(Vec<u8>);

/// The same, borrowed.
#[derive(Clone, Debug, Default)]
struct PlainView<'a>(&'a [u8]);

buffa::impl_default_instance!(Plain);

impl Plain {
    fn of(message: &impl prost::Message) -> Self {
        Self(message.encode_to_vec())
    }
}

impl Message for Plain {
    fn compute_size(&self, _: &mut SizeCache) -> u32 {
        u32::try_from(self.0.len()).expect("it is short")
    }

    fn write_to(&self, _: &mut SizeCache, into: &mut impl EncodeSink) {
        into.put_slice(&self.0);
    }

    fn merge_field(&mut self, _: Tag, _: &mut impl Buf, _: DecodeContext<'_>) -> Result<(), DecodeError> {
        unreachable!("it is read as a whole")
    }

    fn merge_to_limit(&mut self, from: &mut impl Buf, _: DecodeContext<'_>, limit: usize) -> Result<(), DecodeError> {
        self.0.extend_from_slice(&from.copy_to_bytes(from.remaining() - limit));
        Ok(())
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

impl<'a> MessageView<'a> for PlainView<'a> {
    type Owned = Plain;

    fn decode_view(from: &'a [u8]) -> Result<Self, DecodeError> {
        Ok(Self(from))
    }

    fn merge_view_field(
        &mut self,
        _: Tag,
        _: &'a [u8],
        _: &'a [u8],
        _: DecodeContext<'_>,
    ) -> Result<&'a [u8], DecodeError> {
        unreachable!("it is read as a whole")
    }

    fn to_owned_message(&self) -> Result<Plain, DecodeError> {
        Ok(Plain(self.0.to_vec()))
    }
}

impl HasMessageView for Plain {
    type View<'a> = PlainView<'a>;
    type ViewHandle = Handle;
}

/// A view with the bytes that it looks at.
struct Handle(OwnedView<PlainView<'static>>);

impl From<OwnedView<PlainView<'static>>> for Handle {
    fn from(view: OwnedView<PlainView<'static>>) -> Self {
        Self(view)
    }
}

impl AsRef<OwnedView<PlainView<'static>>> for Handle {
    fn as_ref(&self) -> &OwnedView<PlainView<'static>> {
        &self.0
    }
}

type Transport = ServiceTransport<BoxCloneSyncService<http::Request<ClientBody>, http::Response<Incoming>, io::Error>>;

/// Sends each request on a connection of its own, by one version of HTTP.
fn transport(fleet: &Fleet, alpn: &'static [u8]) -> Transport {
    let authority = fleet.world.keys.certificate_authority().expect("a CA").key();
    let mut tls = api_client_tls(fleet.world.keys.fleet(), [authority]).expect("TLS");
    tls.alpn_protocols = vec![alpn.to_vec()];
    let (connector, address) = (TlsConnector::from(Arc::new(tls)), fleet.world.address);
    ServiceTransport::new(BoxCloneSyncService::new(tower::service_fn(move |request| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = "localhost".try_into().expect("a name");
            let stream = TokioIo::new(connector.connect(name, stream).await?);
            if alpn == b"h2" {
                let shaken = http2::handshake(TokioExecutor::new(), stream).await;
                let (mut sender, connection) = shaken.map_err(io::Error::other)?;
                tokio::spawn(connection);
                return sender.send_request(request).await.map_err(io::Error::other);
            }
            let (mut sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
            tokio::spawn(connection);
            sender.send_request(request).await.map_err(io::Error::other)
        }
    })))
}

/// A client's settings: as a deployer, in one protocol, with messages packed or not.
fn config(fleet: &Fleet, protocol: Protocol, is_packed: bool) -> ClientConfig {
    let config = ClientConfig::new(format!("https://localhost:{}", fleet.world.address.port()).parse().expect("a URL"))
        .with_protocol(protocol)
        .with_default_header("authorization", format!("Bearer {}", fleet.token));
    if is_packed {
        return config
            .with_compression(CompressionRegistry::new().register(GzipProvider::default()))
            .compress_requests("gzip");
    }
    config.with_compression(CompressionRegistry::new())
}

fn read<M: prost::Message + Default>(message: Plain) -> M {
    M::decode(&*message.0).expect("it is one")
}

/// The error in an error's details.
fn detail(error: &ConnectError) -> Error {
    let detail = error.details.iter().find(|detail| detail.type_url.ends_with("fleetd.common.v1.Error"));
    let value = detail.expect("a detail").value.as_ref().expect("it has a value");
    let value = data_encoding::BASE64_NOPAD.decode(value.trim_end_matches('=').as_bytes()).expect("base 64");
    prost::Message::decode(&*value).expect("an error")
}

async fn unary(fleet: &Fleet, transport: &Transport, config: &ClientConfig) {
    let ask = || Plain::of(&ListDevicesRequest { page_size: 1000, ..ListDevicesRequest::default() });
    let list = Spec::client(LIST, StreamType::Unary);
    let answer = call_unary::<_, _, PlainView<'static>>(transport, config, list, ask(), CallOptions::default());
    let answer = answer.await.expect("an answer").into_owned();
    assert_eq!(read::<ListDevicesResponse>(answer).devices.len(), fleet.devices);
    if config.protocol() == Protocol::Connect {
        let got = call_unary_get::<_, _, PlainView<'static>>(transport, config, list, ask(), CallOptions::default());
        let got = got.await.expect("an answer").into_owned();
        assert_eq!(read::<ListDevicesResponse>(got).devices.len(), fleet.devices);
    }

    let ask = Plain::of(&GetDeviceRequest { device: "no-such-device".to_owned(), ..GetDeviceRequest::default() });
    let get = Spec::client(GET, StreamType::Unary);
    let refused = call_unary::<_, _, PlainView<'static>>(transport, config, get, ask, CallOptions::default());
    let error = refused.await.map(|_| ()).expect_err("there is none");
    assert_eq!(error.code, ErrorCode::NotFound);
    assert_eq!(detail(&error).code, "device.unknown");
}

async fn streams(fleet: &Fleet, transport: &Transport, config: &ClientConfig) {
    let ask = Plain::of(&DownloadArtifactRequest { digest: fleet.digest.clone(), offset_bytes: 0 });
    let download = Spec::client(DOWNLOAD, StreamType::ServerStream);
    let mut answers =
        call_server_stream::<_, _, PlainView<'static>>(transport, config, download, ask, CallOptions::default())
            .await
            .expect("a stream");
    let (mut content, mut count) = (Vec::new(), 0);
    while let Some(answer) = answers.message::<Plain>().await.expect("no refusal") {
        content.extend(read::<DownloadArtifactResponse>(answer.to_owned_message()).content);
        count += 1;
    }
    assert!(count > 1, "a stream of several messages, not of {count}");
    assert!(content == fleet.content, "the artifact is another");

    let late = CallOptions::default().with_timeout(Duration::from_millis(300));
    let watch = Spec::client(WATCH, StreamType::ServerStream);
    let ask = Plain::of(&WatchDevicesRequest::default());
    let mut answers =
        call_server_stream::<_, _, PlainView<'static>>(transport, config, watch, ask, late).await.expect("a stream");
    let ended = loop {
        match answers.message::<Plain>().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a watch has no end"),
            Err(error) => break error,
        }
    };
    assert_eq!(ended.code, ErrorCode::DeadlineExceeded);
}

async fn client_stream(fleet: &Fleet, transport: &Transport, config: &ClientConfig) {
    let half = fleet.content.len() / 2;
    let part = |content: &[u8]| {
        Plain::of(&UploadArtifactRequest {
            request_id: fleet.world.request_id(),
            digest: fleet.digest.clone(),
            size_bytes: fleet.content.len() as u64,
            content: content.to_vec(),
            ..UploadArtifactRequest::default()
        })
    };
    let parts = futures::stream::iter([part(&fleet.content[..half]), part(&fleet.content[half..])]);
    let upload = Spec::client(UPLOAD, StreamType::ClientStream);
    let answer =
        call_client_stream::<_, _, PlainView<'static>>(transport, config, upload, parts, CallOptions::default());
    let answer = answer.await.expect("an answer").into_owned();
    assert!(read::<UploadArtifactResponse>(answer).complete);
}

#[tokio::test]
async fn the_connectrpc_crate_agrees_in_every_protocol() {
    let fleet = Fleet::start().await;
    for (protocol, alpn) in [
        (Protocol::Connect, &b"http/1.1"[..]),
        (Protocol::Connect, b"h2"),
        (Protocol::GrpcWeb, b"http/1.1"),
        (Protocol::GrpcWeb, b"h2"),
        (Protocol::Grpc, b"h2"),
    ] {
        let transport = transport(&fleet, alpn);
        for is_packed in [false, true] {
            let config = config(&fleet, protocol, is_packed);
            unary(&fleet, &transport, &config).await;
            streams(&fleet, &transport, &config).await;
            if protocol != Protocol::GrpcWeb {
                client_stream(&fleet, &transport, &config).await;
            }
        }
    }
}
