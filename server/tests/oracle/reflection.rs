//! Reflection, used as `grpcurl` uses it: what there is, how it is described, and a call from that description alone.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf as _, BufMut as _};
use http::uri::PathAndQuery;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions, Value};
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::fleet::Fleet;
use crate::edge::client;

async fn channel(fleet: &Fleet) -> Channel {
    let root = CertificateDer::from_pem_file(fleet.ca()).expect("it is there");
    client::channel_to(fleet.world.address, root).await
}

fn as_deployer<T>(fleet: &Fleet, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let bearer: MetadataValue<_> = format!("Bearer {}", fleet.token).parse().expect("text");
    request.metadata_mut().insert("authorization", bearer);
    request
}

/// Asks one question, and gives its answer.
async fn ask(fleet: &Fleet, channel: &Channel, question: MessageRequest) -> MessageResponse {
    try_ask(fleet, channel, question).await.expect("no refusal")
}

async fn try_ask(fleet: &Fleet, channel: &Channel, question: MessageRequest) -> Result<MessageResponse, Status> {
    let asked = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let request = as_deployer(fleet, futures::stream::iter([asked]));
    let answers = ServerReflectionClient::new(channel.clone()).server_reflection_info(request).await;
    let answer = answers?.into_inner().message().await?.expect("an answer");
    Ok(answer.message_response.expect("it says something"))
}

async fn files(fleet: &Fleet, channel: &Channel, question: MessageRequest) -> Vec<FileDescriptorProto> {
    let MessageResponse::FileDescriptorResponse(answer) = ask(fleet, channel, question).await else {
        panic!("no files");
    };
    answer.file_descriptor_proto.iter().map(|file| FileDescriptorProto::decode(&**file).expect("a file")).collect()
}

/// Everything that is needed to call these services, and nothing from our own build.
async fn describe(fleet: &Fleet, channel: &Channel, services: &[String]) -> DescriptorPool {
    let mut known = BTreeMap::new();
    let mut wanted = BTreeSet::new();
    for service in services {
        for file in files(fleet, channel, MessageRequest::FileContainingSymbol(service.clone())).await {
            wanted.extend(file.dependency.clone());
            known.insert(file.name().to_owned(), file);
        }
    }
    while let Some(name) = wanted.pop_first() {
        if known.contains_key(&name) {
            continue;
        }
        for file in files(fleet, channel, MessageRequest::FileByFilename(name)).await {
            wanted.extend(file.dependency.clone());
            known.insert(file.name().to_owned(), file);
        }
    }
    let set = FileDescriptorSet { file: known.into_values().collect() };
    DescriptorPool::decode(&*set.encode_to_vec()).expect("the files need no others")
}

/// Writes and reads messages of which only the description is known.
struct Described(MessageDescriptor);

impl Codec for Described {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self(self.0.clone())
    }

    fn decoder(&mut self) -> Self {
        Self(self.0.clone())
    }
}

impl Encoder for Described {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, item: DynamicMessage, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&item.encode_to_vec());
        Ok(())
    }
}

impl Decoder for Described {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        let message = DynamicMessage::decode(self.0.clone(), bytes);
        message.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

#[tokio::test]
async fn a_stranger_with_a_token_calls_what_reflection_describes() {
    let fleet = Fleet::start().await;
    let channel = channel(&fleet).await;
    let MessageResponse::ListServicesResponse(list) =
        ask(&fleet, &channel, MessageRequest::ListServices(String::new())).await
    else {
        panic!("no list");
    };
    let services: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    assert!(services.len() > 10, "{services:?}");
    let pool = describe(&fleet, &channel, &services).await;
    for service in &services {
        assert!(pool.get_service_by_name(service).is_some(), "{service} is listed and not described");
    }

    let devices = pool.get_service_by_name("fleetd.device.v1.DeviceService").expect("it is described");
    let method = devices.methods().find(|method| method.name() == "ListDevices").expect("it is described");
    let mut asked = DynamicMessage::new(method.input());
    asked.set_field_by_name("page_size", Value::U32(2));
    let path: PathAndQuery = format!("/{}/{}", devices.full_name(), method.name()).parse().expect("a path");
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.expect("it is connected");
    let answer = grpc.unary(as_deployer(&fleet, asked), path, Described(method.output())).await.expect("an answer");
    let json = answer
        .into_inner()
        .serialize_with_options(serde_json::value::Serializer, &SerializeOptions::new())
        .expect("JSON");
    assert_eq!(json["devices"].as_array().map(Vec::len), Some(2));
    assert_eq!(json["devices"][0]["labels"]["shop"], "7");
    assert!(json["nextPageToken"].is_string(), "{json}");

    let nowhere = MessageRequest::FileContainingSymbol("no.such.Service".to_owned());
    let refused = try_ask(&fleet, &channel, nowhere).await.expect_err("there is none");
    assert_eq!(refused.code(), tonic::Code::NotFound);
}
