//! The pages about errors: one for each code, as they lie in `docs/errors/`.
//!
//! They are within the program, so that a server serves what its own version means, and `fleetd explain` needs no
//! network. That each code of the sources has a page and each page a code, tidy checks.

include!(concat!(env!("OUT_DIR"), "/error_pages.rs"));

/// Where a server serves the pages; a code follows.
pub const PATH: &str = "/errors/";

/// All codes with their pages, in the order of the codes.
pub fn pages() -> impl Iterator<Item = (&'static str, &'static str)> {
    PAGES.iter().copied()
}

/// The page about `code`.
#[must_use]
pub fn page(code: &str) -> Option<&'static str> {
    pages().find(|(known, _)| *known == code).map(|(_, page)| page)
}

/// What a page says first, below its title.
#[must_use]
pub fn summary(page: &str) -> String {
    page.split("\n\n").nth(1).unwrap_or_default().replace('\n', " ")
}

/// All codes, each with what its page says first.
#[must_use]
pub fn list() -> String {
    let width = pages().map(|(code, _)| code.len()).max().unwrap_or(0);
    pages().map(|(code, page)| format!("{code:<width$}  {}\n", summary(page))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_found_by_their_codes_and_listed_in_order() {
        let codes: Vec<&str> = pages().map(|(code, _)| code).collect();
        assert!(codes.len() > 200 && codes.is_sorted(), "{codes:?}");
        for (code, text) in pages() {
            assert_eq!(page(code), Some(text));
            assert!(text.starts_with(&format!("# {code}\n\n")), "{code}");
            assert!(list().contains(&summary(text)), "{code}");
        }
        assert_eq!(page("rollout.plan"), None);
        assert_eq!(page(""), None);
    }
}
