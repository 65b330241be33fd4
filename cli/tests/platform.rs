//! What a file's first bytes say of its platform.

use fleetd::platform::{DetectPlatformError, Header, detect, known, read_header};

/// An ELF header as a linker writes it; all that lies behind it is left out.
fn elf(is_wide: bool, is_little: bool, machine: u16) -> Vec<u8> {
    let mut bytes = vec![0; if is_wide { 64 } else { 52 }];
    bytes[..4].copy_from_slice(b"\x7fELF");
    bytes[4] = if is_wide { 2 } else { 1 };
    bytes[5] = if is_little { 1 } else { 2 };
    bytes[6] = 1;
    let machine = if is_little { machine.to_le_bytes() } else { machine.to_be_bytes() };
    bytes[18..20].copy_from_slice(&machine);
    bytes
}

#[test]
fn an_elf_header_names_its_machine() {
    for (header, platform) in [
        (elf(true, true, 62), "linux/amd64"),
        (elf(true, true, 183), "linux/arm64"),
        (elf(false, true, 40), "linux/arm"),
        (elf(false, true, 3), "linux/386"),
        (elf(true, true, 243), "linux/riscv64"),
        (elf(true, false, 22), "linux/s390x"),
        (elf(false, false, 8), "linux/mips"),
    ] {
        assert_eq!(read_header(&header), Header::Program(platform.parse().unwrap()));
    }
}

#[test]
fn every_platform_that_a_header_can_name_is_known() {
    let mut found = std::collections::BTreeSet::from(["any".to_owned()]);
    for machine in 0..1024 {
        for (is_wide, is_little) in [(false, false), (false, true), (true, false), (true, true)] {
            if let Header::Program(platform) = read_header(&elf(is_wide, is_little, machine)) {
                found.insert(platform.to_string());
            }
        }
    }
    assert_eq!(known().collect::<std::collections::BTreeSet<_>>(), found);
}

#[test]
fn a_script_is_for_any_platform_and_the_rest_for_none() {
    assert_eq!(read_header(b"#!/bin/sh\n"), Header::Script);
    assert_eq!(read_header(&elf(true, true, 9999)), Header::OtherMachine(9999));
    assert_eq!(read_header(&elf(false, true, 62)), Header::OtherMachine(62), "a 32 bit program of a 64 bit machine");
    for bytes in [b"".as_slice(), b"#", b"\x7fELF", b"MZ\x90\x00\x02", &elf(true, true, 62)[..40]] {
        assert_eq!(read_header(bytes), Header::Unknown, "{bytes:02x?}");
    }
}

#[test]
fn a_file_says_which_platform_it_is_for_or_why_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("coffee");
    assert!(matches!(detect(&path), Err(DetectPlatformError::Read { .. })));
    std::fs::write(&path, elf(true, true, 183)).unwrap();
    assert_eq!(detect(&path).unwrap().as_str(), "linux/arm64");
    std::fs::write(&path, "#!/usr/bin/env python3\n").unwrap();
    assert_eq!(detect(&path).unwrap().as_str(), "any");
    std::fs::write(&path, "coffee = true\n").unwrap();
    assert!(matches!(detect(&path), Err(DetectPlatformError::Unknown { .. })));
}

#[test]
fn this_very_test_is_a_program() {
    let platform = detect(&std::env::current_exe().unwrap()).unwrap();
    assert!(platform.as_str().starts_with("linux/"), "{platform}");
}
