//! A naive reader of maintenance windows: it looks at one minute after the other, as somebody does who sits before a
//! clock. Of the product's arithmetic it uses nothing; which time a zone's clocks show at a moment it asks jiff.

use fleetd_sync_core::time::Wall;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{TimeZone, TimeZoneDatabase};

const MINUTE_MS: i64 = 60_000;
/// By how much clocks are put back at once, at most.
const PUT_BACK_MAX_MINUTES: i64 = 3 * 60;

/// When devices of a zone may switch, as texts.
#[derive(Clone, Copy, Debug)]
pub struct Windows<'a> {
    /// The zone's name.
    pub zone: &'a str,
    /// The windows: five fields and a length (`0 2 * * * 3h`).
    pub windows: &'a [String],
    /// The dark days: one, or a range (`2026-12-24..2026-12-26`).
    pub blackouts: &'a [String],
}

/// Says whether somebody may switch at a moment; an error is what cannot be read here.
///
/// # Errors
/// What the text has that this reader does not know.
pub fn is_open(windows: Windows<'_>, at: Wall) -> Result<bool, String> {
    let zone = match windows.zone {
        "UTC" => TimeZone::UTC,
        name => TimeZoneDatabase::bundled().get(name).map_err(|error| error.to_string())?,
    };
    let today = shown(&zone, at.0)?.date().to_string();
    for days in windows.blackouts {
        let (first, last) = days.split_once("..").unwrap_or((days, days));
        // Dates as texts are in order.
        if first <= today.as_str() && today.as_str() <= last {
            return Ok(false);
        }
    }
    for window in windows.windows {
        if is_in(window, &zone, at)? {
            return Ok(true);
        }
    }
    Ok(windows.windows.is_empty())
}

/// Looks at every minute from which the window might still be open.
fn is_in(window: &str, zone: &TimeZone, at: Wall) -> Result<bool, String> {
    let words: Vec<&str> = window.split(' ').collect();
    let [fields @ .., length] = words.as_slice() else { return Err(format!("{window:?} is empty")) };
    let length_minutes = minutes(length)?;
    let this_minute = at.0.div_euclid(MINUTE_MS);
    // One more, for a window that opened in the middle of the minute before.
    let first = this_minute - length_minutes - 1;
    // The latest time that the clock has shown: what it shows again after it was put back is nothing new.
    let mut latest = shown(zone, (first - PUT_BACK_MAX_MINUTES) * MINUTE_MS)?;
    for minute in first - PUT_BACK_MAX_MINUTES + 1..=this_minute {
        let now = shown(zone, minute * MINUTE_MS)?;
        let mut opens = false;
        while latest < now {
            latest = latest.checked_add(jiff::SignedDuration::from_mins(1)).map_err(|error| error.to_string())?;
            opens |= matches(fields, latest)?;
        }
        let is_open_still = at.0 < (minute + length_minutes) * MINUTE_MS;
        if opens && is_open_still {
            return Ok(true);
        }
    }
    Ok(false)
}

fn shown(zone: &TimeZone, ms: i64) -> Result<DateTime, String> {
    Ok(zone.to_datetime(Timestamp::from_millisecond(ms).map_err(|error| error.to_string())?))
}

fn minutes(length: &str) -> Result<i64, String> {
    let (mut all, mut number) = (0, 0);
    for sign in length.chars() {
        match sign {
            '0'..='9' => number = number * 10 + i64::from(sign.to_digit(10).unwrap_or(0)),
            'm' => (all, number) = (all + number, 0),
            'h' => (all, number) = (all + number * 60, 0),
            _ => return Err(format!("{length:?} is no length")),
        }
    }
    Ok(all)
}

fn matches(fields: &[&str], time: DateTime) -> Result<bool, String> {
    let [minute, hour, day, month, weekday] = fields else { return Err(format!("{fields:?} are not five fields")) };
    let is_day = has(day, i64::from(time.day()))?;
    let is_weekday = has(weekday, i64::from(time.weekday().to_sunday_zero_offset()))?;
    // As cron has it from of old: where both are asked for, one of them is enough.
    let is_date = if *day == "*" || *weekday == "*" { is_day && is_weekday } else { is_day || is_weekday };
    Ok(has(minute, i64::from(time.minute()))?
        && has(hour, i64::from(time.hour()))?
        && has(month, i64::from(time.month()))?
        && is_date)
}

/// Says whether a field of numbers, ranges and steps has a number.
fn has(field: &str, number: i64) -> Result<bool, String> {
    let unknown = |_| format!("{field:?} is no field that this reader knows");
    for part in field.split(',') {
        let (range, step) = part.split_once('/').unwrap_or((part, "1"));
        let step: i64 = step.parse().map_err(unknown)?;
        let (from, to) = match range.split_once('-') {
            Some((from, to)) => (from.parse().map_err(unknown)?, to.parse().map_err(unknown)?),
            None if range == "*" => (0, 59),
            None => {
                let only: i64 = range.parse().map_err(unknown)?;
                (only, only)
            }
        };
        if (from..=to).contains(&number) && (number - from) % step == 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use fleetd_actors::window::Calendar;

    use super::*;

    /// Both readers, at each quarter of an hour around the nights in which clocks are put forward and back.
    #[test]
    fn the_product_reads_windows_as_the_naive_reader_does() {
        let windows = ["30 2 * * * 1h", "0 0 * * * 2h30m", "0 1,3 * * 0 90m", "15 */6 * * 1-5 45m", "0 2 29 3 * 24h"];
        let nights = ["2026-03-28T12:00:00Z", "2026-10-24T12:00:00Z", "2026-04-04T00:00:00Z", "2026-10-31T12:00:00Z"];
        let (mut open, mut looks) = (0, 0);
        for zone in
            ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana", "Asia/Kolkata"]
        {
            for window in windows {
                let (texts, dark) = ([window.to_owned()], ["2026-03-30".to_owned()]);
                let product = Calendar {
                    zone: zone.parse().unwrap(),
                    windows: vec![window.parse().unwrap()],
                    blackouts: vec!["2026-03-30".parse().unwrap()],
                };
                for night in nights {
                    let begin = night.parse::<Timestamp>().unwrap().as_millisecond();
                    for quarter in 0..160 {
                        let at = Wall(begin + quarter * 15 * MINUTE_MS + 1000 * (quarter % 3));
                        let naive = is_open(Windows { zone, windows: &texts, blackouts: &dark }, at).unwrap();
                        assert_eq!(product.is_open(at), naive, "{window} in {zone} at {}", product.zone.show(at));
                        (open, looks) = (open + u32::from(naive), looks + 1);
                    }
                }
            }
        }
        assert!(open > looks / 20 && open < looks / 2, "{open} of {looks}");
    }
}
