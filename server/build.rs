//! Puts the pages of `docs/errors/` into the crate: a table of code and text, in the order of the codes.

use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let of_cargo = |name| env::var(name).map_err(io::Error::other);
    let folder = Path::new(&of_cargo("CARGO_MANIFEST_DIR")?).join("../docs/errors").canonicalize()?;
    println!("cargo:rerun-if-changed={}", folder.display());
    let mut pages = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        let code = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".md"));
        pages.extend(code.map(|code| format!("    ({code:?}, include_str!({:?})),\n", path.display().to_string())));
    }
    pages.sort();
    let table = format!("const PAGES: &[(&str, &str)] = &[\n{}];\n", pages.concat());
    fs::write(Path::new(&of_cargo("OUT_DIR")?).join("error_pages.rs"), table)
}
