//! Which platform a program is for, as its first bytes say.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use fleetd_sync_core::name::Platform;
use object::elf;
use object::read::elf::FileHeader;

/// Bytes that are enough for the header of an ELF file, and for the `#!` of a script.
const HEADER_BYTES: u64 = 64;

/// Why a file's platform is not known.
#[derive(Debug, thiserror::Error)]
pub enum DetectPlatformError {
    /// The file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is neither an ELF file nor a script.
    #[error("{} is neither an ELF program nor a script that starts with \"#!\"", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
    },
    /// It is an ELF file of a machine that has no name here.
    #[error("{} is an ELF program for machine {machine}, which has no name here", path.display())]
    Machine {
        /// The file.
        path: PathBuf,
        /// The machine's number in the ELF header.
        machine: u16,
    },
}

/// The architectures that releases are made for, as Go names them: those of [`architecture`], and no more, since a
/// device names its own in the same words.
const ARCHITECTURES: [&str; 13] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64",
    "s390x",
];

/// Every platform that an artifact can be for.
pub fn known() -> impl Iterator<Item = String> {
    std::iter::once(Platform::any().to_string()).chain(ARCHITECTURES.iter().map(|name| format!("linux/{name}")))
}

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Header {
    /// A program for this platform.
    Program(Platform),
    /// A script, which runs wherever its interpreter does.
    Script,
    /// An ELF file for a machine that has no name here.
    OtherMachine(u16),
    /// Something else.
    Unknown,
}

/// Reads what the first bytes of a file say.
#[must_use]
pub fn read_header(bytes: &[u8]) -> Header {
    if bytes.starts_with(b"#!") {
        return Header::Script;
    }
    let class = bytes.get(4).map(|class| elf::FileClass(*class));
    let machine = match class {
        Some(elf::ELFCLASS64) => elf_machine::<elf::FileHeader64<object::Endianness>>(bytes),
        Some(elf::ELFCLASS32) => elf_machine::<elf::FileHeader32<object::Endianness>>(bytes),
        _ => None,
    };
    let Some((machine, is_little)) = machine else { return Header::Unknown };
    let is_wide = class == Some(elf::ELFCLASS64);
    match architecture(machine, is_wide, is_little).and_then(|name| format!("linux/{name}").parse().ok()) {
        Some(platform) => Header::Program(platform),
        None => Header::OtherMachine(machine.0),
    }
}

fn elf_machine<H: FileHeader<Endian = object::Endianness>>(bytes: &[u8]) -> Option<(elf::Machine, bool)> {
    // Whatever follows the header is of no interest, and the reader must not look for it.
    let mut header = [0_u8; 64];
    let count = bytes.len().min(header.len());
    header.get_mut(..count)?.copy_from_slice(bytes.get(..count)?);
    if count < size_of::<H>() {
        return None;
    }
    let header = H::parse(header.as_slice()).ok()?;
    let endian = header.endian().ok()?;
    Some((header.e_machine(endian), endian == object::Endianness::Little))
}

/// The name that Go, and so `platform`, has for a machine of the ELF specification.
const fn architecture(machine: elf::Machine, is_wide: bool, is_little: bool) -> Option<&'static str> {
    Some(match (machine, is_wide, is_little) {
        (elf::EM_X86_64, true, true) => "amd64",
        (elf::EM_386, false, true) => "386",
        (elf::EM_AARCH64, true, true) => "arm64",
        (elf::EM_ARM, false, true) => "arm",
        (elf::EM_RISCV, true, true) => "riscv64",
        (elf::EM_PPC64, true, true) => "ppc64le",
        (elf::EM_PPC64, true, false) => "ppc64",
        (elf::EM_S390, true, false) => "s390x",
        (elf::EM_LOONGARCH, true, true) => "loong64",
        (elf::EM_MIPS, false, true) => "mipsle",
        (elf::EM_MIPS, false, false) => "mips",
        (elf::EM_MIPS, true, true) => "mips64le",
        (elf::EM_MIPS, true, false) => "mips64",
        _ => return None,
    })
}

/// Says which platform the file at `path` is for.
///
/// # Errors
/// [`DetectPlatformError`] when it cannot be read, or does not say.
pub fn detect(path: &Path) -> Result<Platform, DetectPlatformError> {
    match header_of(path)? {
        Header::Program(platform) => Ok(platform),
        Header::Script => Ok(Platform::any()),
        Header::OtherMachine(machine) => Err(DetectPlatformError::Machine { path: path.to_owned(), machine }),
        Header::Unknown => Err(DetectPlatformError::Unknown { path: path.to_owned() }),
    }
}

/// Reads the header of the file at `path`.
///
/// # Errors
/// [`DetectPlatformError::Read`].
pub fn header_of(path: &Path) -> Result<Header, DetectPlatformError> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(HEADER_BYTES).read_to_end(&mut bytes))
        .map_err(|source| DetectPlatformError::Read { path: path.to_owned(), source })?;
    Ok(read_header(&bytes))
}
