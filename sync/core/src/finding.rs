//! What a doctor finds: one thing that was looked at, how it is, and what to do about it.
//!
//! Both ends of the product have a doctor; what they find reads alike. Whoever looks decides; nothing here looks.

use std::borrow::Cow;
use std::fmt;

/// How one thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// As it should be.
    Ok,
    /// It works, and somebody should look at it.
    Warn,
    /// It does not work, or soon will not.
    Fail,
}

impl State {
    /// Every one, from the best to the worst.
    pub const ALL: [Self; 3] = [Self::Ok, Self::Warn, Self::Fail];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at (`data directory`).
    pub check: Cow<'static, str>,
    /// How it is.
    pub state: State,
    /// What was seen; where something is wrong, the cause.
    pub found: String,
    /// What to do, a command where there is one; empty where there is nothing to do.
    pub remedy: String,
}

impl Finding {
    /// A thing that is as it should be.
    #[must_use]
    pub fn ok(check: impl Into<Cow<'static, str>>, found: impl Into<String>) -> Self {
        Self { check: check.into(), state: State::Ok, found: found.into(), remedy: String::new() }
    }

    /// A thing that somebody should look at.
    #[must_use]
    pub fn warn(check: impl Into<Cow<'static, str>>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check: check.into(), state: State::Warn, found: found.into(), remedy: remedy.into() }
    }

    /// A thing that does not work.
    #[must_use]
    pub fn fail(check: impl Into<Cow<'static, str>>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check: check.into(), state: State::Fail, found: found.into(), remedy: remedy.into() }
    }
}

/// The checks that failed, by their names.
#[must_use]
pub fn failed(findings: &[Finding]) -> Vec<&str> {
    findings.iter().filter(|finding| finding.state == State::Fail).map(|finding| finding.check.as_ref()).collect()
}

/// Findings as people read them: a line each, and the remedy below it.
#[must_use]
pub fn text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let indent = width + 8;
        let found = finding.found.replace('\n', &format!("\n{:indent$}", ""));
        text.push_str(&format!("{:<4}  {:<width$}  {found}\n", finding.state.as_str(), finding.check));
        if !finding.remedy.is_empty() {
            text.push_str(&format!("{:indent$}-> {}\n", "", finding.remedy));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_line_up_and_each_remedy_stands_below_its_own() {
        let findings = [
            Finding::ok("clock", "right"),
            Finding::warn("data directory", "mode 0755", "chmod 700 /var/lib/fleetd"),
            Finding::fail("disk", "full\nno inodes", "df -i"),
        ];
        let expected = "ok    clock           right\n\
                        warn  data directory  mode 0755\n                      -> chmod 700 /var/lib/fleetd\n\
                        fail  disk            full\n                      no inodes\n                      -> df -i\n";
        assert_eq!(text(&findings), expected);
        assert_eq!(failed(&findings), ["disk"]);
    }
}
