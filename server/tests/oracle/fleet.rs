//! What all oracles call: a server with devices and an artifact, and the token of a deployer.

use std::path::PathBuf;

use fleetd_sync_core::id::ArtifactDigest;
use serde_json::{Value, json};

use crate::api::world::{World, base64, text};

/// Devices of the fleet: a list of them is long enough to be packed.
const DEVICES: u8 = 30;

/// Bytes of the artifact: it is sent in several messages.
const CONTENT_BYTES: usize = 600 << 10;

pub(crate) struct Fleet {
    pub(crate) world: World,
    pub(crate) token: String,
    pub(crate) devices: usize,
    pub(crate) digest: String,
    pub(crate) content: Vec<u8>,
    folder: tempfile::TempDir,
}

impl Fleet {
    pub(crate) async fn start() -> Self {
        let world = World::start().await;
        world.devices(DEVICES).await;
        let content: Vec<u8> = (0..CONTENT_BYTES).map(|at| u8::try_from(at * at % 251).expect("it is small")).collect();
        world.send_artifact(&content).await;
        let request = json!({ "name": "oracle", "role": "ROLE_DEPLOYER" });
        let made = world.call("access.v1.AccessService/CreateAccessToken", request).await.expect("a token");
        let folder = tempfile::tempdir().expect("a folder");
        let ca = world.keys.certificate_authority().expect("a CA").certificate_pem();
        std::fs::write(folder.path().join("ca.pem"), ca).expect("it is written");
        Self {
            token: text(&made["text"]).to_owned(),
            devices: DEVICES.into(),
            digest: ArtifactDigest::of(&content).to_string(),
            content,
            folder,
            world,
        }
    }

    /// The certificate of the fleet's CA.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// What the clients in JavaScript are told, in a file: it is too long for an argument.
    pub(crate) fn told_in_file(&self) -> PathBuf {
        let path = self.folder.path().join("fleet.json");
        std::fs::write(&path, self.told().to_string()).expect("it is written");
        path
    }

    /// What the clients in JavaScript are told.
    pub(crate) fn told(&self) -> Value {
        json!({
            "url": format!("https://localhost:{}", self.world.address.port()),
            "token": self.token,
            "devices": self.devices,
            "digest": self.digest,
            "content": base64(&self.content),
        })
    }
}
