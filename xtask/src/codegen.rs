//! `cargo xtask codegen`: Rust from the schemas in `proto/`, without protoc.
//!
//! protox compiles the schemas, tonic-prost-build writes the code, and both are committed in `proto/src/gen`: a fresh
//! clone builds without a generator, and a review sees what a schema's change does to its users. Messages are always
//! compiled; clients and servers only with the feature `rpc`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use tonic_prost_build::FileDescriptorSet;

/// Name of the file that holds all schemas, compiled, for reflection and for JSON.
const DESCRIPTORS: &str = "descriptors.binpb";

/// Generated files by their names.
type Files = BTreeMap<String, Vec<u8>>;

/// Writes `proto/src/gen`; with `check`, changes nothing and fails when it differs from what would be written.
pub(crate) fn run(check: bool) -> anyhow::Result<()> {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let fresh = generate(&proto)?;
    let folder = proto.join("src/gen");
    let committed = read_files(&folder)?;
    let stale: BTreeSet<&String> =
        fresh.keys().chain(committed.keys()).filter(|name| fresh.get(*name) != committed.get(*name)).collect();
    if check {
        if !stale.is_empty() {
            bail!("{} differs from the schemas in {stale:?}; run `cargo xtask codegen`", folder.display());
        }
        return Ok(());
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for name in stale {
        let path = folder.join(name);
        match fresh.get(name) {
            Some(content) => std::fs::write(&path, content),
            None => std::fs::remove_file(&path),
        }
        .with_context(|| format!("cannot change {}", path.display()))?;
    }
    Ok(())
}

/// Generates code for every schema below `proto`.
fn generate(proto: &Path) -> anyhow::Result<Files> {
    let mut compiler = protox::Compiler::new([proto])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(find_schemas(proto)?)?;
    let mut schemas = compiler.file_descriptor_set();

    let shell = xshell::Shell::new()?;
    let scratch = shell.create_temp_dir()?;
    write_code(schemas.clone(), scratch.path())?;
    let mut files = read_files(scratch.path())?;

    // Comments are in the code already; at run time nobody reads them.
    for file in &mut schemas.file {
        file.source_code_info = None;
    }
    files.insert(DESCRIPTORS.to_owned(), prost_bytes(&schemas));
    Ok(files)
}

/// Writes one Rust file for each package to `folder`.
fn write_code(schemas: FileDescriptorSet, folder: &Path) -> anyhow::Result<()> {
    let mut config = tonic_prost_build::Config::new();
    // Names let a message travel as a detail of an error.
    config.enable_type_names();
    tonic_prost_build::configure()
        .out_dir(folder)
        .emit_rerun_if_changed(false)
        // Equal messages encode to equal bytes: hashes and rehearsals depend on it.
        .btree_map(".")
        .client_mod_attribute(".", "#[cfg(feature = \"rpc\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"rpc\")]")
        .compile_fds_with_config(schemas, config)
        .context("cannot write code for the schemas")
}

/// Encodes the compiled schemas.
fn prost_bytes(schemas: &FileDescriptorSet) -> Vec<u8> {
    use protox::prost::Message as _;
    schemas.encode_to_vec()
}

/// Finds every schema below `folder`, in an order that is the same everywhere.
fn find_schemas(folder: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    let mut schemas = BTreeSet::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "proto") {
                schemas.insert(path);
            }
        }
    }
    Ok(schemas)
}

/// Reads the files of `folder`, which may be absent.
fn read_files(folder: &Path) -> anyhow::Result<Files> {
    let mut files = Files::new();
    if !folder.exists() {
        return Ok(files);
    }
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let content = std::fs::read(entry.path())?;
        files.insert(entry.file_name().to_string_lossy().into_owned(), content);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    #[test]
    fn committed_code_is_what_the_schemas_make() {
        super::run(true).expect("`cargo xtask codegen` brings it up to date");
    }
}
