//! One maintenance window: when it opens, as a cron expression, and how long it stays open.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use fleetd_sync_core::time::Wall;
use jiff::civil::{DateTime, date};
use jiff::{SignedDuration, ToSpan as _};

use super::zone::Zone;

/// The longest text of a window.
const WINDOW_CHARS_MAX: usize = 128;
/// Openings whose distances are compared with the length: more than a year of daily ones.
const OPENINGS_COMPARED: usize = 600;
/// How far a zone's clocks are ever put forward or back at once: a day, where a date line moved.
const SHIFT_MAX: SignedDuration = SignedDuration::from_hours(25);

/// The fields of a cron expression, and what each takes.
const FIELDS: [(&str, &str); 5] = [
    ("minute", "0-59"),
    ("hour", "0-23"),
    ("day of the month", "1-31"),
    ("month", "1-12"),
    ("day of the week", "0-7, or MON-SUN"),
];

/// Why a text is no window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseWindowError {
    /// Something else stands where a part of it should.
    #[error("column {column} of {text:?}: {cause}")]
    Syntax {
        /// What was given.
        text: String,
        /// Where, counted from 1 in characters.
        column: usize,
        /// What is wrong there.
        cause: String,
    },
    /// There is no such day.
    #[error("column {column} of {text:?}: it never opens, since there is no such day")]
    NeverOpens {
        /// What was given.
        text: String,
        /// Where the day is named, counted from 1 in characters.
        column: usize,
    },
    /// It would open again before it closes.
    #[error("column {column} of {text:?}: it is open for {}, and opens again after {}", show_length(*length), show_length(*period))]
    Overlaps {
        /// What was given.
        text: String,
        /// Where the length stands, counted from 1 in characters.
        column: usize,
        /// The length.
        length: Duration,
        /// The shortest time between two openings.
        period: Duration,
    },
}

/// A time in which devices may switch, which comes again and again: `0 2 * * * 3h`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    cron: Cron,
    fields: String,
    length: Duration,
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.fields, show_length(self.length))
    }
}

impl FromStr for Window {
    type Err = ParseWindowError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words = words(text);
        let wrong = |column: usize, cause: String| {
            let text = text.chars().take(WINDOW_CHARS_MAX).collect();
            ParseWindowError::Syntax { text, column, cause }
        };
        if let Some(long) = text.chars().nth(WINDOW_CHARS_MAX) {
            return Err(wrong(
                WINDOW_CHARS_MAX,
                format!("a window has at most {WINDOW_CHARS_MAX} signs before {long:?}"),
            ));
        }
        for ((column, word), (field, range)) in words.iter().zip(FIELDS) {
            if !is_field(word) {
                return Err(wrong(*column, format!("{word:?} is no {field} ({range})")));
            }
        }
        let [(_, minute), (_, hour), (day, of_month), (_, month), (_, of_week), (at, length)] = words.as_slice() else {
            let column = words.get(6).map_or(text.chars().count() + 1, |(column, _)| *column);
            let cause = format!("five fields of a cron expression and a length are expected, found {}", words.len());
            return Err(wrong(column, cause));
        };
        for (index, ((column, word), (field, range))) in words.iter().zip(FIELDS).enumerate() {
            let alone: Vec<_> = (0..FIELDS.len()).map(|other| if other == index { *word } else { "*" }).collect();
            if read_cron(&alone.join(" ")).is_none() {
                return Err(wrong(*column, format!("{word:?} is no {field} ({range})")));
            }
        }
        let fields = [*minute, *hour, *of_month, *month, *of_week].join(" ");
        let Some(cron) = read_cron(&fields) else {
            return Err(wrong(1, format!("{fields:?} is no cron expression")));
        };
        let length = read_length(length).map_err(|cause| wrong(*at, cause))?;
        let window = Self { cron, fields, length };
        match window.period() {
            None => Err(ParseWindowError::NeverOpens { text: text.to_owned(), column: *day }),
            Some(period) if period < length => {
                Err(ParseWindowError::Overlaps { text: text.to_owned(), column: *at, length, period })
            }
            Some(_) => Ok(window),
        }
    }
}

impl Window {
    /// The shortest time between two openings; `None` when it never opens.
    fn period(&self) -> Option<Duration> {
        let mut last = self.next(date(2024, 1, 1).at(0, 0, 0, 0), true)?;
        let mut shortest = Duration::MAX;
        for _ in 0..OPENINGS_COMPARED {
            let Some(next) = self.next(last, false) else { break };
            shortest = shortest.min(next.duration_since(last).unsigned_abs());
            last = next;
        }
        Some(shortest)
    }

    fn next(&self, after: DateTime, is_inclusive: bool) -> Option<DateTime> {
        self.cron.find_next_occurrence(&after, is_inclusive).ok()
    }

    /// Says whether it is open, whatever days are blacked out.
    pub(super) fn is_open(&self, zone: &Zone, at: Wall) -> bool {
        let is_open = |begin: &Wall| at < *begin + self.length;
        self.openings(zone, at).take_while(|begin| *begin <= at).any(|begin| is_open(&begin))
    }

    /// The first moment after `at` at which it opens.
    pub(super) fn opens_after(&self, zone: &Zone, at: Wall) -> Option<Wall> {
        self.openings(zone, at).find(|begin| *begin > at)
    }

    /// Its openings, in order: all that may not have closed yet at `at`, and those that come.
    fn openings<'a>(&'a self, zone: &'a Zone, at: Wall) -> impl Iterator<Item = Wall> + 'a {
        let length = SignedDuration::try_from(self.length).unwrap_or(SignedDuration::MAX);
        let early = zone.local(at).and_then(|shown| shown.checked_sub(length).ok()?.checked_sub(SHIFT_MAX).ok());
        let first = early.and_then(|early| self.next(early, true));
        std::iter::successors(first, |shown| self.next(*shown, false)).map_while(|shown| zone.first(shown))
    }
}

/// The words of a text, each with the column of its first sign.
fn words(text: &str) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let mut column = 1;
    for word in text.split(' ') {
        if !word.is_empty() {
            words.push((column, word));
        }
        column += word.chars().count() + 1;
    }
    words
}

fn is_field(word: &str) -> bool {
    word.chars().all(|sign| sign.is_ascii_alphanumeric() || "*,-/#+?".contains(sign))
}

fn read_cron(fields: &str) -> Option<Cron> {
    CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build().parse(fields).ok()
}

/// Reads a length of whole minutes: `90m`, `3h`, `1d12h`.
fn read_length(text: &str) -> Result<Duration, String> {
    let unknown = || format!("{text:?} is no length: it is written as 90m, 3h or 1h30m");
    let mut minutes = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|sign: char| !sign.is_ascii_digit()).ok_or_else(unknown)?;
        let (digits, behind) = rest.split_at(end);
        let unit = behind.chars().next().ok_or_else(unknown)?;
        let of_unit = match unit {
            'm' => 1,
            'h' => 60,
            'd' => 24 * 60,
            _ => return Err(unknown()),
        };
        let number: u64 = digits.parse().map_err(|_| unknown())?;
        let more = number.checked_mul(of_unit).ok_or_else(unknown)?;
        minutes = minutes.checked_add(more).filter(|all| *all <= 10 * 366 * 24 * 60).ok_or_else(unknown)?;
        rest = behind.strip_prefix(unit).unwrap_or_default();
    }
    match minutes {
        0 => Err("a window of no length is never open".to_owned()),
        minutes => Ok(Duration::from_secs(minutes * 60)),
    }
}

/// A length as it is written in a window, in whole minutes.
pub(super) fn show_length(length: Duration) -> String {
    let minutes = length.as_secs() / 60;
    match (minutes / 60, minutes % 60) {
        (0, minutes) => format!("{minutes}m"),
        (hours, 0) => format!("{hours}h"),
        (hours, minutes) => format!("{hours}h{minutes}m"),
    }
}

/// Days on which no window opens, the last one included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blackout {
    pub(super) first: jiff::civil::Date,
    pub(super) last: jiff::civil::Date,
}

/// A text is no range of days.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column} of {text:?}: {cause}")]
pub struct ParseBlackoutError {
    text: String,
    column: usize,
    cause: &'static str,
}

impl fmt::Display for Blackout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}..{}", self.first, self.last) }
    }
}

impl FromStr for Blackout {
    type Err = ParseBlackoutError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong =
            |column, cause| ParseBlackoutError { text: text.chars().take(WINDOW_CHARS_MAX).collect(), column, cause };
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let day = |day: &str, column| {
            let is_day = day.len() == 10 && day.chars().all(|sign| sign.is_ascii_digit() || sign == '-');
            let read = is_day.then(|| day.parse().ok()).flatten();
            read.ok_or_else(|| wrong(column, "a day is expected, such as 2026-12-24"))
        };
        let behind = first.chars().count() + 3;
        let (first, last) = (day(first, 1)?, day(last, if text.contains("..") { behind } else { 1 })?);
        if last < first {
            return Err(wrong(behind, "the last day is before the first"));
        }
        Ok(Self { first, last })
    }
}

impl Blackout {
    pub(super) fn covers(&self, day: jiff::civil::Date) -> bool {
        self.first <= day && day <= self.last
    }

    /// The day after the last one.
    pub(super) fn day_after(&self) -> Option<jiff::civil::Date> {
        self.last.checked_add(1.day()).ok()
    }
}
