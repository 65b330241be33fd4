//! What a device can say of itself: read from the operating system at the start, and again from time to time.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use fleetd_actors::window::Zone;
use fleetd_sync_core::id::BootId;
use fleetd_sync_core::name::Platform;

/// What a device says of itself, as sorted pairs of a name and a value.
///
/// Names are stable and may be matched by selectors. Quantities end in their unit and are decimal numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    values: BTreeMap<String, String>,
}

/// The processor family, as in a platform's name.
pub const ARCH: &str = "arch";
/// The operating system.
pub const OS: &str = "os";
/// The operating system's own name for itself, as in `/etc/os-release`.
pub const OS_NAME: &str = "os_name";
/// The kernel's release.
pub const KERNEL: &str = "kernel";
/// The processor's model.
pub const CPU_MODEL: &str = "cpu";
/// How many processors there are.
pub const CPU_COUNT: &str = "cpu_cores";
/// Memory in bytes.
pub const RAM_BYTES: &str = "memory_bytes";
/// Size of the file system that holds the data directory, in bytes.
pub const DISK_BYTES: &str = "disk_bytes";
/// What is free of it.
pub const DISK_FREE_BYTES: &str = "disk_free_bytes";
/// The agent's version.
pub const AGENT_VERSION: &str = "agent_version";
/// The host's name.
pub const HOSTNAME: &str = "hostname";
/// This start of the operating system.
pub const BOOT: &str = "boot";
/// The time zone that its clocks show, by its IANA name.
pub const TIMEZONE: &str = "timezone";
/// For which artifacts the device asks.
pub const PLATFORM: &str = "platform";

impl Facts {
    /// Takes facts as they are, as a simulated device does.
    #[must_use]
    pub fn from_values(values: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { values: values.into_iter().collect() }
    }

    /// Reads this device's facts; what cannot be read is left out. `data_directory` says which disk counts, and `zone` is the
    /// time zone that its configuration gives it, if it does.
    #[must_use]
    pub fn read(data_directory: &Path, zone: Option<&Zone>) -> Self {
        let mut facts = Self::default();
        facts.set(ARCH, platform_arch());
        facts.set(OS, std::env::consts::OS);
        facts.set(PLATFORM, platform());
        facts.set(AGENT_VERSION, env!("CARGO_PKG_VERSION"));
        facts.set_if(BOOT, boot_id());
        facts.set_if(TIMEZONE, zone.map(ToString::to_string).or_else(timezone));
        facts.read_system();
        facts.read_disk(data_directory);
        facts
    }

    fn read_system(&mut self) {
        let wanted = sysinfo::RefreshKind::nothing()
            .with_cpu(sysinfo::CpuRefreshKind::nothing())
            .with_memory(sysinfo::MemoryRefreshKind::nothing().with_ram());
        self.set_if(KERNEL, sysinfo::System::kernel_version().ok());
        self.set_if(OS_NAME, sysinfo::System::long_os_version().ok());
        self.set_if(HOSTNAME, sysinfo::System::host_name().ok());
        let Ok(system) = sysinfo::System::new_with_specifics(wanted) else { return };
        self.set(CPU_COUNT, system.cpus().len());
        self.set_if(CPU_MODEL, system.cpus().first().map(|cpu| cpu.brand().trim()).filter(|brand| !brand.is_empty()));
        self.set(RAM_BYTES, system.total_memory());
    }

    fn read_disk(&mut self, data_directory: &Path) {
        if let Ok(status) = nix::sys::statvfs::statvfs(data_directory) {
            let block_bytes = widen(status.fragment_size());
            self.set(DISK_BYTES, widen(status.blocks()).saturating_mul(block_bytes));
            self.set(DISK_FREE_BYTES, widen(status.blocks_available()).saturating_mul(block_bytes));
        }
    }

    fn set(&mut self, name: &str, value: impl ToString) {
        self.values.insert(name.to_owned(), value.to_string());
    }

    fn set_if(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    /// Every fact, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// One fact.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// One fact that is a quantity.
    #[must_use]
    pub fn quantity(&self, name: &str) -> Option<u64> {
        self.value(name)?.parse().ok()
    }

    /// The platform for whose artifacts the device asks.
    #[must_use]
    pub fn platform(&self) -> Option<Platform> {
        self.value(PLATFORM)?.parse().ok()
    }

    /// This start of the operating system.
    #[must_use]
    pub fn boot(&self) -> Option<BootId> {
        self.value(BOOT)?.parse().ok()
    }

    /// Says whether anything differs that is worth telling a server. What is free on the disk changes all the time
    /// and counts only when it has moved by a sixteenth of the disk.
    #[must_use]
    pub fn differ_from(&self, earlier: &Self) -> bool {
        let steady = |facts: &Self| -> Vec<(String, String)> {
            facts
                .values
                .iter()
                .filter(|(name, _)| *name != DISK_FREE_BYTES)
                .map(|(a, b)| (a.clone(), b.clone()))
                .collect()
        };
        let step_bytes = self.quantity(DISK_BYTES).unwrap_or(0) / 16;
        let moved_bytes = match (self.quantity(DISK_FREE_BYTES), earlier.quantity(DISK_FREE_BYTES)) {
            (Some(now), Some(then)) => now.abs_diff(then),
            (now, then) => return now != then || steady(self) != steady(earlier),
        };
        moved_bytes > step_bytes || steady(self) != steady(earlier)
    }
}

/// Widens a number whose type differs from platform to platform.
fn widen(number: impl Into<u64>) -> u64 {
    number.into()
}

/// The processor family by the name that release tools use for it.
fn platform_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// The platform of this very binary: what it can run, others can.
fn platform() -> String {
    format!("{}/{}", std::env::consts::OS, platform_arch())
}

/// Reads which start of the operating system this is.
///
/// # Source
/// random(4): `/proc/sys/kernel/random/boot_id`, a UUID drawn at boot.
#[must_use]
pub fn boot_id() -> Option<BootId> {
    parse_boot_id(&fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?)
}

fn parse_boot_id(text: &str) -> Option<BootId> {
    let digits: Vec<u32> = text
        .trim()
        .chars()
        .filter(|character| *character != '-')
        .map(|digit| digit.to_digit(16))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits
        .chunks_exact(2)
        .filter_map(|pair| u8::try_from(pair.iter().fold(0, |byte, digit| byte * 16 + digit)).ok())
        .collect();
    BootId::from_slice(&bytes)
}

/// The zone that the system's clocks show: what TZ says, or else what /etc/localtime is.
fn timezone() -> Option<String> {
    let zone = jiff::tz::TimeZone::system();
    zone.iana_name().filter(|name| *name != "Etc/Unknown").map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_device_knows_what_it_is() {
        let facts = Facts::read(Path::new("/"), None);
        let found: Vec<&str> = facts.iter().map(|(name, _value)| name).collect();
        for name in [ARCH, OS, KERNEL, CPU_COUNT, RAM_BYTES, DISK_BYTES, DISK_FREE_BYTES, AGENT_VERSION, HOSTNAME, BOOT]
        {
            assert!(found.contains(&name), "no {name} in {found:?}");
        }
        assert!(found.is_sorted());
        assert!(facts.quantity(RAM_BYTES).unwrap() > 1 << 20);
        assert!(facts.quantity(CPU_COUNT).unwrap() > 0);
        assert!(facts.platform().unwrap().as_str().starts_with("linux/"));
        assert_eq!(facts.boot(), boot_id());
        let placed = Facts::read(Path::new("/"), Some(&"America/New_York".parse().unwrap()));
        assert_eq!(placed.value(TIMEZONE), Some("America/New_York"));
    }

    #[test]
    fn a_boot_id_is_a_uuid() {
        let boot = parse_boot_id("00112233-4455-6677-8899-aabbccddeeff\n").unwrap();
        assert_eq!(boot.as_bytes()[..3], [0x00, 0x11, 0x22]);
        assert_eq!(parse_boot_id("00112233"), None);
        assert_eq!(parse_boot_id("zz112233-4455-6677-8899-aabbccddeeff"), None);
    }

    #[test]
    fn a_disk_that_breathes_is_no_news_and_one_that_fills_is() {
        let device = |free: u64, kernel: &str| {
            Facts::from_values(
                [(DISK_BYTES, "1600".to_owned()), (DISK_FREE_BYTES, free.to_string()), (KERNEL, kernel.to_owned())]
                    .map(|(name, value)| (name.to_owned(), value)),
            )
        };
        assert!(!device(800, "6.1").differ_from(&device(900, "6.1")));
        assert!(device(800, "6.1").differ_from(&device(901, "6.1")));
        assert!(device(800, "6.2").differ_from(&device(800, "6.1")));
    }
}
