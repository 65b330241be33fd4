//! Points in time as people and programs read them.

use jiff::{SignedDuration, Timestamp};

/// A point in time, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(Option<Timestamp>);

impl Moment {
    /// Takes what a message carries: seconds since 1970 and nanoseconds above them.
    #[must_use]
    pub fn from_parts(parts: Option<(i64, i32)>) -> Self {
        Self(parts.and_then(|(seconds, nanoseconds)| Timestamp::new(seconds, nanoseconds).ok()))
    }

    /// The present.
    #[must_use]
    pub fn now() -> Self {
        Self(Some(Timestamp::now()))
    }

    /// A point `duration` before this one.
    #[must_use]
    pub fn before(self, duration: std::time::Duration) -> Self {
        Self(self.0.and_then(|at| at.checked_sub(duration).ok()))
    }

    /// A point `duration` after this one.
    #[must_use]
    pub fn after(self, duration: std::time::Duration) -> Self {
        Self(self.0.and_then(|at| at.checked_add(duration).ok()))
    }

    /// Seconds since 1970 and nanoseconds above them.
    #[must_use]
    pub fn parts(self) -> Option<(i64, i32)> {
        self.0.map(|at| (at.as_second(), at.subsec_nanosecond()))
    }

    /// RFC 3339 in UTC with whole seconds; `-` for none.
    #[must_use]
    pub fn absolute(self) -> String {
        self.0.map_or_else(|| "-".to_owned(), |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
    }

    /// How long ago it was (`9 d ago`), or how long it is until then (`in 2 h`); `-` for none.
    #[must_use]
    pub fn relative(self, now: Self) -> String {
        let (Some(at), Some(now)) = (self.0, now.0) else { return "-".to_owned() };
        let past = now.duration_since(at);
        match past.as_secs() {
            -1..=1 => "now".to_owned(),
            seconds if seconds < 0 => format!("in {}", span(past.abs())),
            _ => format!("{} ago", span(past)),
        }
    }

    /// How long it has been (`9 d`); `-` for none.
    #[must_use]
    pub fn elapsed(self, now: Self) -> String {
        let (Some(at), Some(now)) = (self.0, now.0) else { return "-".to_owned() };
        span(now.duration_since(at).abs())
    }

    /// The difference to another point in time.
    #[must_use]
    pub fn distance(self, other: Self) -> Option<std::time::Duration> {
        Some(self.0?.duration_since(other.0?).unsigned_abs())
    }
}

/// The largest unit of which there is at least one and a half.
fn span(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        ..90 => format!("{seconds} s"),
        90..5400 => format!("{} min", seconds / 60),
        5400..129_600 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}
