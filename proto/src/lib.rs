//! The schemas of fleetd, as Rust.
//!
//! A package is a module of the same path: `fleetd.device.v1` is [`fleetd::device::v1`]. Messages are always here;
//! clients and servers need the feature `rpc`. The schemas themselves lie beside `src`, and `cargo xtask codegen` makes
//! `src/gen` from them. This crate holds no code of its own: what a message means is decided where it is converted.
//!
//! Where to start reading: `proto/fleetd/device/v1/device_service.proto` for what an API looks like,
//! `proto/fleetd/sync/v1/frame.proto` for what devices and servers say to each other.

/// Every schema, compiled: a `google.protobuf.FileDescriptorSet` for reflection and for JSON.
pub const DESCRIPTORS: &[u8] = include_bytes!("gen/descriptors.binpb");

/// Declares the module of one package from its generated file.
macro_rules! generated {
    ($file:literal) => {
        include!(concat!("gen/", $file));
    };
}

/// What servers of a fleet serve, and what nodes say to each other and keep.
#[allow(
    unused_qualifications,
    clippy::all,
    clippy::missing_errors_doc,
    reason = "generated code: which lints it trips depends on its generator"
)]
pub mod fleetd {
    /// Who may call the API.
    pub mod access {
        /// Version 1.
        pub mod v1 {
            generated!("fleetd.access.v1.rs");
        }
    }

    /// The bytes that releases are made of.
    pub mod artifact {
        /// Version 1.
        pub mod v1 {
            generated!("fleetd.artifact.v1.rs");
        }
    }

    /// Who did what.
    pub mod audit {
        /// Version 1.
        pub mod v1 {
            generated!("fleetd.audit.v1.rs");
        }
    }

    /// Copies of all that a server keeps.
    pub mod backup {
        /// Version 1.
        pub mod v1 {
            generated!("fleetd.backup.v1.rs");
        }
    }

    /// Types that several services share.
    pub mod common {
        /// Version 1.
        pub mod v1 {
            generated!("fleetd.common.v1.rs");
        }
    }

    /// What fills the names that manifests leave open.
    pub mod configuration {
        /// Version 1.
        pub mod v1 {
            generated!("fleetd.configuration.v1.rs");
        }
    }

    /// The devices of the fleet.
    pub mod device {
        /// Version 1.
        pub mod v1 {
            generated!("fleetd.device.v1.rs");
        }
    }

    /// Who may join the fleet.
    pub mod enrolment {
        /// Version 1.
        pub mod v1 {
            generated!("fleetd.enrolment.v1.rs");
        }
    }

    /// Devices that are meant by one name.
    pub mod group {
        /// Version 1.
        pub mod v1 {
            generated!("fleetd.group.v1.rs");
        }
    }

    /// What workloads write.
    pub mod log {
        /// Version 1.
        pub mod v1 {
            generated!("fleetd.log.v1.rs");
        }
    }

    /// What the stores keep.
    pub mod record {
        /// Version 1.
        pub mod v1 {
            generated!("fleetd.record.v1.rs");
        }
    }

    /// How a new device meets a fleet.
    pub mod registration {
        /// Version 1.
        pub mod v1 {
            generated!("fleetd.registration.v1.rs");
        }
    }

    /// Signed versions of workloads.
    pub mod release {
        /// Version 1.
        pub mod v1 {
            generated!("fleetd.release.v1.rs");
        }
    }

    /// Bringing releases to devices.
    pub mod rollout {
        /// Version 1.
        pub mod v1 {
            generated!("fleetd.rollout.v1.rs");
        }
    }

    /// What a person needs who looks after a server, or helps from afar.
    pub mod support {
        /// Version 1.
        pub mod v1 {
            generated!("fleetd.support.v1.rs");
        }
    }

    /// What two nodes say to each other while they sync.
    pub mod sync {
        /// Version 1.
        pub mod v1 {
            generated!("fleetd.sync.v1.rs");
        }
    }

    /// Whose word counts.
    pub mod trust {
        /// Version 1.
        pub mod v1 {
            generated!("fleetd.trust.v1.rs");
        }
    }
}

/// What an agent serves on its own device.
#[allow(
    unused_qualifications,
    clippy::all,
    clippy::missing_errors_doc,
    reason = "generated code: which lints it trips depends on its generator"
)]
pub mod agent {
    /// What runs on the device.
    pub mod lifecycle {
        /// Version 1.
        pub mod v1 {
            generated!("agent.lifecycle.v1.rs");
        }
    }

    /// What a person needs who helps from afar.
    pub mod support {
        /// Version 1.
        pub mod v1 {
            generated!("agent.support.v1.rs");
        }
    }

    /// Whether a workload may be updated now.
    pub mod update {
        /// Version 1.
        pub mod v1 {
            generated!("agent.update.v1.rs");
        }
    }
}

/// The public protocols of gRPC that fleetd serves.
#[allow(
    unused_qualifications,
    clippy::all,
    clippy::missing_errors_doc,
    reason = "generated code: which lints it trips depends on its generator"
)]
pub mod grpc {
    /// Whether a server serves.
    pub mod health {
        /// Version 1.
        pub mod v1 {
            generated!("grpc.health.v1.rs");
        }
    }
}

/// How errors travel with their details.
#[allow(
    unused_qualifications,
    clippy::all,
    clippy::missing_errors_doc,
    reason = "generated code: which lints it trips depends on its generator"
)]
pub mod google {
    /// The public types of gRPC's errors.
    pub mod rpc {
        generated!("google.rpc.rs");
    }
}
