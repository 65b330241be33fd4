//! How many of something, as people read it.

use std::fmt;

/// So many of a thing: `1 device`, `3 devices`. The thing is named by its singular, and takes an `s` for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted(pub usize, pub &'static str);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, thing) = self;
        write!(f, "{count} {thing}{}", if *count == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        let said = [0, 1, 2].map(|count| Counted(count, "device").to_string());
        assert_eq!(said, ["0 devices", "1 device", "2 devices"]);
    }
}
