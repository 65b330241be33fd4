//! Label selectors: which devices are meant.
//!
//! ```text
//! selector = term *( "," term )              all terms must hold
//! term     = key "=" value | key "==" value | key "!=" value
//!          | key "in" "(" values ")" | key "notin" "(" values ")"
//!          | key                              the label is there
//!          | "!" key                          it is not
//! ```
//! As in Kubernetes, `!=` and `notin` also hold where the label is not there. The keys `name`, `id`, `site`,
//! `platform`, `os` and `arch` stand for what a server knows of a device without a label.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use fleetd_sync_core::limit;
use winnow::Parser;
use winnow::combinator::{alt, cut_err, delimited, eof, fail, opt, preceded, repeat, separated, terminated};
use winnow::error::{ContextError, ErrMode, StrContext, StrContextValue};
use winnow::token::{one_of, take_while};

/// Why a text is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseSelectorError {
    /// Nothing was given: that must never mean the whole fleet.
    #[error("the selector is empty; to mean every device, say so")]
    Empty,
    /// Too long.
    #[error("the selector has {length} bytes; it may have {length_max}")]
    TooLong {
        /// What it has.
        length: usize,
        /// What it may have.
        length_max: usize,
    },
    /// Something else stands where a part of it should.
    #[error("column {column} of {text:?}: expected {expected}, found {found}")]
    Syntax {
        /// What was given.
        text: String,
        /// Where, counted from 1 in characters.
        column: usize,
        /// What should stand there.
        expected: String,
        /// What stands there.
        found: String,
    },
}

/// What one term asks of a label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Condition {
    Equals(String),
    Differs(String),
    OneOf(BTreeSet<String>),
    NoneOf(BTreeSet<String>),
    Present,
    Absent,
}

/// What must hold of one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Term {
    key: String,
    condition: Condition,
}

impl Term {
    #[cfg(feature = "cel")]
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    #[cfg(feature = "cel")]
    pub(crate) fn holds(&self, value: Option<&str>) -> bool {
        self.condition.holds(value)
    }
}

/// Which devices are meant: those of which every term holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector {
    terms: Vec<Term>,
}

impl Selector {
    /// Says whether every term holds of what `value_of` gives for each key.
    pub fn matches<'a>(&self, value_of: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms.iter().all(|term| term.condition.holds(value_of(&term.key)))
    }

    #[cfg(feature = "cel")]
    pub(crate) fn terms(&self) -> impl Iterator<Item = &Term> {
        self.terms.iter()
    }

    /// The keys that it asks for.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.terms.iter().map(|term| term.key.as_str())
    }
}

impl Condition {
    fn holds(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (Self::Equals(wanted), Some(value)) => wanted == value,
            (Self::OneOf(wanted), Some(value)) => wanted.contains(value),
            (Self::Differs(refused), Some(value)) => refused != value,
            (Self::NoneOf(refused), Some(value)) => !refused.contains(value),
            (Self::Present, value) => value.is_some(),
            (Self::Absent, value) => value.is_none(),
            (Self::Equals(_) | Self::OneOf(_), None) => false,
            (Self::Differs(_) | Self::NoneOf(_), None) => true,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Term { key, condition }) in self.terms.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            let list = |values: &BTreeSet<String>| values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
            match condition {
                Condition::Equals(value) => write!(f, "{key}={value}"),
                Condition::Differs(value) => write!(f, "{key}!={value}"),
                Condition::OneOf(values) => write!(f, "{key} in ({})", list(values)),
                Condition::NoneOf(values) => write!(f, "{key} notin ({})", list(values)),
                Condition::Present => write!(f, "{key}"),
                Condition::Absent => write!(f, "!{key}"),
            }?;
        }
        Ok(())
    }
}

impl FromStr for Selector {
    type Err = ParseSelectorError;

    fn from_str(text: &str) -> Result<Self, ParseSelectorError> {
        if text.trim().is_empty() {
            return Err(ParseSelectorError::Empty);
        }
        if text.len() > limit::SELECTOR_BYTES_MAX {
            return Err(ParseSelectorError::TooLong { length: text.len(), length_max: limit::SELECTOR_BYTES_MAX });
        }
        selector.parse(text).map_err(|error| {
            let before = text.get(..error.offset()).unwrap_or(text);
            let found = text.get(error.offset()..).and_then(|rest| rest.chars().next());
            ParseSelectorError::Syntax {
                text: text.to_owned(),
                column: before.chars().count() + 1,
                expected: expected(error.inner()),
                found: found.map_or_else(|| "the end".to_owned(), |character| format!("{character:?}")),
            }
        })
    }
}

fn expected(error: &ContextError) -> String {
    let described = error.context().find_map(|context| match context {
        StrContext::Expected(StrContextValue::Description(words)) => Some((*words).to_owned()),
        StrContext::Expected(value) => Some(value.to_string()),
        _ => None,
    });
    described.unwrap_or_else(|| "',' or the end".to_owned())
}

type Parsed<T> = Result<T, ErrMode<ContextError>>;

const fn should_be(words: &'static str) -> StrContext {
    StrContext::Expected(StrContextValue::Description(words))
}

fn selector(input: &mut &str) -> Parsed<Selector> {
    let more = repeat(0.., preceded((',', blank), cut_err(term)));
    let (first, rest, ()): (Term, Vec<Term>, ()) =
        (preceded(blank, term), more, end.context(should_be("',' or the end"))).parse_next(input)?;
    Ok(Selector { terms: std::iter::once(first).chain(rest).collect() })
}

fn end(input: &mut &str) -> Parsed<()> {
    cut_err(eof).void().parse_next(input)
}

fn term(input: &mut &str) -> Parsed<Term> {
    let is_negated = opt(terminated('!', blank)).parse_next(input)?.is_some();
    let key = cut_err(word(is_key, "a label's key")).parse_next(input)?;
    let condition = if is_negated { Condition::Absent } else { condition.parse_next(input)? };
    Ok(Term { key, condition })
}

fn condition(input: &mut &str) -> Parsed<Condition> {
    let value = || cut_err(word(is_value, "a value"));
    alt((
        preceded((alt(("==", "=")), blank), value()).map(Condition::Equals),
        preceded(("!=", blank), value()).map(Condition::Differs),
        preceded(("in", list_follows), values).map(Condition::OneOf),
        preceded(("notin", list_follows), values).map(Condition::NoneOf),
        followed_by_term.map(|()| Condition::Present),
        fail.context(should_be("'=', '!=', 'in', 'notin', ',' or the end")),
    ))
    .parse_next(input)
}

/// Nothing more is said of this key.
fn followed_by_term(input: &mut &str) -> Parsed<()> {
    if input.is_empty() || input.starts_with(',') { Ok(()) } else { fail.parse_next(input) }
}

fn list_follows(input: &mut &str) -> Parsed<()> {
    (blank, cut_err('(').context(should_be("'('"))).void().parse_next(input)
}

fn values(input: &mut &str) -> Parsed<BTreeSet<String>> {
    let value = || cut_err(word(is_value, "a value"));
    let close = cut_err(')').context(should_be("',' or ')'"));
    let list = separated(1.., value(), (',', blank));
    delimited(blank, list, (close, blank)).map(|values: Vec<String>| values.into_iter().collect()).parse_next(input)
}

/// A word of these characters, and the blanks behind it.
fn word<'i>(is_part: fn(char) -> bool, what: &'static str) -> impl Parser<&'i str, String, ErrMode<ContextError>> {
    terminated((one_of(is_first), take_while(0.., is_part)).take(), blank)
        .map(|word: &str| word.to_owned())
        .context(should_be(what))
}

const fn is_first(character: char) -> bool {
    character.is_ascii_alphanumeric()
}

const fn is_key(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '_' | '/')
}

/// A value may have a slash, since platforms have one, and a plus for versions.
const fn is_value(character: char) -> bool {
    is_key(character) || character == '+'
}

fn blank(input: &mut &str) -> Parsed<()> {
    take_while(0.., ' ').void().parse_next(input)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        selector.parse::<Selector>().unwrap().matches(|key| labels.get(key).copied())
    }

    #[test]
    fn terms_hold_as_in_kubernetes() {
        let device = &[("site", "berlin"), ("rack", "3"), ("platform", "linux/arm64")];
        for selector in [
            "site=berlin",
            "site==berlin,rack=3",
            "site != paris",
            "floor!=2",
            "site in (paris, berlin)",
            "rack notin (1,2)",
            "floor notin (1)",
            "site",
            "!floor",
            " platform = linux/arm64 , ! floor ",
        ] {
            assert!(matches(selector, device), "{selector}");
        }
        for selector in [
            "site=paris",
            "site!=berlin",
            "site in (paris)",
            "rack notin (3)",
            "floor",
            "!site",
            "floor=2",
            "floor in (2)",
        ] {
            assert!(!matches(selector, device), "{selector}");
        }
    }

    #[test]
    fn a_label_may_be_called_like_an_operator() {
        assert!(matches("in in (in),notin=notin", &[("in", "in"), ("notin", "notin")]));
        assert!(matches("inner", &[("inner", "x")]));
    }

    #[test]
    fn errors_point_at_the_column() {
        let mut errors = String::new();
        for text in [
            "",
            "site=",
            "site=berlin,",
            "site=berlin;rack=3",
            "site in berlin",
            "site in (",
            "site in (a b)",
            "=x",
            "site~berlin",
            "!",
            "site = berlin x",
            "ümlaut=1",
            "site=ü",
            "a,,b",
            "site in ()",
            "! a = b",
        ] {
            errors += &format!("{}\n", text.parse::<Selector>().unwrap_err());
        }
        expect![[r#"
            the selector is empty; to mean every device, say so
            column 6 of "site=": expected a value, found the end
            column 13 of "site=berlin,": expected a label's key, found the end
            column 12 of "site=berlin;rack=3": expected ',' or the end, found ';'
            column 9 of "site in berlin": expected '(', found 'b'
            column 10 of "site in (": expected a value, found the end
            column 12 of "site in (a b)": expected ',' or ')', found 'b'
            column 1 of "=x": expected a label's key, found '='
            column 5 of "site~berlin": expected '=', '!=', 'in', 'notin', ',' or the end, found '~'
            column 2 of "!": expected a label's key, found the end
            column 15 of "site = berlin x": expected ',' or the end, found 'x'
            column 1 of "ümlaut=1": expected a label's key, found 'ü'
            column 6 of "site=ü": expected a value, found 'ü'
            column 3 of "a,,b": expected a label's key, found ','
            column 10 of "site in ()": expected a value, found ')'
            column 5 of "! a = b": expected ',' or the end, found '='
        "#]]
        .assert_eq(&errors);
    }

    proptest! {
        #[test]
        fn what_is_printed_is_parsed_the_same(
            text in "(!?[a-z]{1,3}|[a-z]{1,3}(=|!=)[a-z0-9/]{1,3}|[a-z] (in|notin) \\([a-z],[a-z]\\))\
                     (,(![a-z]{1,3}|[a-z]=[a-z])){0,3}"
        ) {
            if let Ok(selector) = text.parse::<Selector>() {
                prop_assert_eq!(selector.to_string().parse::<Selector>(), Ok(selector));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}") {
            let _ = text.parse::<Selector>();
        }
    }
}
