//! Which build a seed belongs to: a seed says the same only to the code that it was drawn for.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// Letters of a commit that name it: fewer may name another as well.
const COMMIT_CHARS_MIN: usize = 4;

/// A build of the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Build {
    /// The commit, and a mark of what was changed since.
    pub commit: String,
    /// The architecture.
    pub arch: String,
    /// How it was compiled.
    pub profile: String,
}

impl Build {
    /// What a seed of this build is called.
    #[must_use]
    pub fn name_of(&self, seed: u64) -> SeedName {
        let (arch, profile) = (Some(self.arch.clone()), Some(self.profile.clone()));
        SeedName { seed, commit: self.commit.clone(), arch, profile }
    }

    /// Says what of a seed's name does not fit this build.
    ///
    /// # Errors
    /// [`ForeignSeed`] names both.
    pub fn accept(&self, name: &SeedName) -> Result<(), Box<ForeignSeed>> {
        let is_own = |named: &Option<String>, own: &str| named.as_ref().is_none_or(|named| named == own);
        // A shorter commit may be typed by hand; what was changed since is never left out.
        let commit =
            self.commit == name.commit || (!name.commit.contains('+') && self.commit.starts_with(&name.commit));
        let commit = commit && (self.commit.contains('+') == name.commit.contains('+'));
        let part = if !commit {
            "commit"
        } else if !is_own(&name.arch, &self.arch) {
            "architecture"
        } else if !is_own(&name.profile, &self.profile) {
            "profile"
        } else {
            return Ok(());
        };
        Err(Box::new(ForeignSeed { part, seed: name.clone(), own: self.clone() }))
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.commit, self.arch, self.profile)
    }
}

/// A seed of another build.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the seed is of another {part}: it is from {seed}, and this program is {own}")]
pub struct ForeignSeed {
    /// What differs.
    pub part: &'static str,
    /// The seed.
    pub seed: SeedName,
    /// This build.
    pub own: Build,
}

/// A seed with the build that it belongs to: `17@3a4e9abcdef0.x86_64.debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedName {
    /// The seed.
    pub seed: u64,
    /// The commit, or its beginning.
    pub commit: String,
    /// The architecture, where it is said.
    pub arch: Option<String>,
    /// The profile, where it is said.
    pub profile: Option<String>,
}

impl fmt::Display for SeedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.seed, self.commit)?;
        for part in [&self.arch, &self.profile].into_iter().flatten() {
            write!(f, ".{part}")?;
        }
        Ok(())
    }
}

/// Why a text names no seed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no SEED@COMMIT: {problem}")]
pub struct ParseSeedError {
    text: String,
    problem: &'static str,
}

impl FromStr for SeedName {
    type Err = ParseSeedError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |problem| ParseSeedError { text: text.to_owned(), problem };
        let (seed, build) = text.split_once('@').ok_or_else(|| wrong("there is no @ with a commit behind it"))?;
        let seed = parse_seed(seed).ok_or_else(|| wrong("the seed is no number"))?;
        let mut parts = build.split('.').map(ToOwned::to_owned);
        let commit = parts.next().unwrap_or_default();
        if commit.chars().count() < COMMIT_CHARS_MIN {
            return Err(wrong("a commit has at least four letters"));
        }
        let (arch, profile) = (parts.next(), parts.next());
        if parts.next().is_some() {
            return Err(wrong("behind the commit stand an architecture and a profile, and nothing more"));
        }
        Ok(Self { seed, commit, arch, profile })
    }
}

/// Reads a seed, in decimal or, after `0x`, in hex.
#[must_use]
pub fn parse_seed(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build() -> Build {
        let [commit, arch, profile] = ["3a4e9abcdef0", "x86_64", "debug"].map(ToOwned::to_owned);
        Build { commit, arch, profile }
    }

    fn refusal(text: &str) -> String {
        build().accept(&text.parse().unwrap()).map_or_else(|error| error.to_string(), |()| "accepted".to_owned())
    }

    #[test]
    fn names_read_as_they_are_written() {
        let name = build().name_of(17);
        assert_eq!(name.to_string(), "17@3a4e9abcdef0.x86_64.debug");
        assert_eq!(name.to_string().parse(), Ok(name));
        assert_eq!("0x11@3a4e".parse::<SeedName>().unwrap().seed, 17);
    }

    #[test]
    fn what_is_no_name_says_why() {
        for (text, problem) in
            [("17", "no @"), ("x@3a4e", "no number"), ("17@3a", "four"), ("1@3a4e.a.b.c", "nothing more")]
        {
            let error = text.parse::<SeedName>().unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains(text), "{error}");
        }
    }

    #[test]
    fn a_seed_of_another_build_is_refused_with_both_names() {
        for text in ["17@3a4e9abcdef0", "17@3a4e", "17@3a4e9abcdef0.x86_64", "17@3a4e9abcdef0.x86_64.debug"] {
            assert_eq!(refusal(text), "accepted", "{text}");
        }
        for (text, part) in [
            ("17@ffff0000ffff", "commit"),
            ("17@3a4e9abcdef0+1234", "commit"),
            ("17@3a4e9abcdef0.aarch64", "architecture"),
            ("17@3a4e9abcdef0.x86_64.release", "profile"),
        ] {
            let error = refusal(text);
            assert!(error.contains(&format!("another {part}")), "{error}");
            assert!(error.contains(text) && error.contains("3a4e9abcdef0.x86_64.debug"), "{error}");
        }
    }

    #[test]
    fn a_changed_tree_accepts_its_own_seeds_only() {
        let changed = Build { commit: "3a4e9abcdef0+55aa".to_owned(), ..build() };
        assert!(changed.accept(&changed.name_of(1)).is_ok());
        assert!(changed.accept(&build().name_of(1)).is_err());
    }
}
