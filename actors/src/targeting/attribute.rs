//! What can be asked of a device: its labels, its facts, and what its server knows of it besides.

use fleetd_sync_core::id::{DeviceId, LocalId};
use fleetd_sync_core::name::Platform;

use super::DeviceRow;

/// One thing that selectors and conditions ask of a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attribute {
    /// A label, by its key.
    Label(String),
    /// A fact, by its key.
    Fact(String),
    /// The name.
    Name,
    /// The device id.
    Id,
    /// The site.
    Site,
    /// The platform.
    Platform,
    /// The part of the platform before the slash.
    Os,
    /// The part of the platform behind it.
    Arch,
    /// Whether it can be reached.
    Online,
}

impl Attribute {
    /// What a word stands for that names neither a label nor a fact.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        match word {
            "name" => Some(Self::Name),
            "id" => Some(Self::Id),
            "site" => Some(Self::Site),
            "platform" => Some(Self::Platform),
            "os" => Some(Self::Os),
            "arch" => Some(Self::Arch),
            "online" => Some(Self::Online),
            _ => None,
        }
    }
}

/// A device, as far as targets ask about it. Whatever holds a device can be asked, so that one function decides.
pub trait Described: Sync {
    /// The hash of its key.
    fn local(&self) -> LocalId;
    /// The id that the server gave.
    fn device(&self) -> DeviceId;
    /// Its name.
    fn name(&self) -> &str;
    /// Its site; empty for none.
    fn site(&self) -> &str;
    /// What its artifacts must be for.
    fn platform(&self) -> Option<&str>;
    /// Whether it can be reached.
    fn is_online(&self) -> bool;
    /// The value of a label.
    fn label(&self, key: &str) -> Option<&str>;
    /// The value of a fact.
    fn fact(&self, key: &str) -> Option<&str>;

    /// The part of the platform before the slash.
    fn os(&self) -> Option<&str> {
        self.platform().and_then(os)
    }

    /// The part of the platform behind the slash.
    fn arch(&self) -> Option<&str> {
        self.platform().and_then(arch)
    }

    /// What a selector's key stands for: a label, or else what the server knows; `id` is its caller's to give.
    fn value_of(&self, key: &str) -> Option<&str> {
        if let Some(value) = self.label(key) {
            return Some(value);
        }
        match key {
            "name" => Some(self.name()),
            "site" => Some(self.site()).filter(|site| !site.is_empty()),
            "platform" => self.platform(),
            "os" => self.os(),
            "arch" => self.arch(),
            _ => None,
        }
    }
}

/// The part of a platform before the slash.
pub(super) fn os(platform: &str) -> Option<&str> {
    platform.split('/').next()
}

/// The part of a platform behind the slash.
pub(super) fn arch(platform: &str) -> Option<&str> {
    platform.split('/').nth(1)
}

impl Described for DeviceRow {
    fn local(&self) -> LocalId {
        self.local
    }

    fn device(&self) -> DeviceId {
        self.device
    }

    fn name(&self) -> &str {
        self.name.as_str()
    }

    fn site(&self) -> &str {
        &self.site
    }

    fn platform(&self) -> Option<&str> {
        self.platform.as_ref().map(Platform::as_str)
    }

    fn is_online(&self) -> bool {
        self.offline_since.is_none()
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| label.as_str() == key).map(|(_, value)| value.as_str())
    }

    fn fact(&self, key: &str) -> Option<&str> {
        self.facts.get(key).map(String::as_str)
    }
}
