//! Which names no file may have, because they say nothing about what is inside.

use super::Finding;
use crate::source::Tree;

/// File stems that collect what belongs to no concept.
const STEMS_BANNED: [&str; 10] =
    ["util", "utils", "common", "helper", "helpers", "type", "types", "manager", "misc", "shared"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.rust.iter().filter_map(|file| check_path(&file.path)).collect()
}

fn check_path(path: &str) -> Option<Finding> {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    let parts: Vec<&str> = stem.split('/').collect();
    if parts.last() == Some(&"mod") {
        return Some(Finding::new(path, 1, "the file is called `mod.rs`", "use `name.rs` beside the folder `name/`"));
    }
    let banned = parts.iter().find(|part| STEMS_BANNED.contains(part))?;
    let what = format!("`{banned}` names no concept");
    Some(Finding::new(path, 1, what, "name the file after the one concept of the domain that it holds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_say_nothing_are_found() {
        let tree = Tree::sample(&[
            ("a/src/mod.rs", ""),
            ("a/src/lane/utils.rs", ""),
            ("a/src/common/lane.rs", ""),
            ("a/src/lane.rs", ""),
            ("a/src/model.rs", ""),
            ("proto/src/gen/fleetd/common.rs", ""),
        ]);
        let paths: Vec<String> = check(&tree).into_iter().map(|finding| finding.path).collect();
        assert_eq!(paths, ["a/src/mod.rs", "a/src/lane/utils.rs", "a/src/common/lane.rs"]);
    }
}
