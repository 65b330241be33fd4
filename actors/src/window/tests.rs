use proptest::prelude::*;

use super::*;

/// A moment, from what a clock in UTC shows.
fn utc(text: &str) -> Wall {
    Wall(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
}

fn calendar(zone: &str, windows: &[&str], blackouts: &[&str]) -> Calendar {
    Calendar {
        zone: zone.parse().unwrap(),
        windows: windows.iter().map(|window| window.parse().unwrap()).collect(),
        blackouts: blackouts.iter().map(|blackout| blackout.parse().unwrap()).collect(),
    }
}

fn check_opens(calendar: &Calendar, at: &str, opens: &str) {
    let found = calendar.opens(utc(at)).map(|found| calendar.zone.show(found));
    assert_eq!(found.as_deref(), Some(opens), "{calendar:?} at {at}");
}

#[test]
fn a_window_opens_by_the_clock_of_its_zone() {
    let nights = |zone| calendar(zone, &["0 2 * * * 3h"], &[]);
    check_opens(&nights("UTC"), "2026-12-01T12:00:00Z", "2026-12-02 02:00 UTC");
    check_opens(&nights("Europe/Berlin"), "2026-12-01T12:00:00Z", "2026-12-02 02:00 CET");
    check_opens(&nights("America/New_York"), "2026-12-01T12:00:00Z", "2026-12-02 02:00 EST");
    check_opens(&nights("Asia/Kolkata"), "2026-12-01T12:00:00Z", "2026-12-02 02:00 IST");
    let berlin = nights("Europe/Berlin");
    assert!(!berlin.is_open(utc("2026-12-02T00:59:59Z")));
    assert!(berlin.is_open(utc("2026-12-02T01:00:00Z")));
    assert!(berlin.is_open(utc("2026-12-02T03:59:59Z")));
    assert!(!berlin.is_open(utc("2026-12-02T04:00:00Z")));
}

#[test]
fn a_time_that_the_clocks_skip_is_the_moment_at_which_they_skip_it() {
    // On 2027-03-28 the clocks of Berlin go from 02:00 to 03:00, at 01:00 UTC.
    let half_past = calendar("Europe/Berlin", &["30 2 * * * 1h"], &[]);
    check_opens(&half_past, "2027-03-27T23:00:00Z", "2027-03-28 03:00 CEST");
    check_opens(&calendar("Europe/Berlin", &["0 2 * * * 1h"], &[]), "2027-03-27T23:00:00Z", "2027-03-28 03:00 CEST");
    assert!(half_past.is_open(utc("2027-03-28T01:59:59Z")));
    assert!(!half_past.is_open(utc("2027-03-28T02:00:00Z")), "its length is time that passes");
}

#[test]
fn a_time_that_the_clocks_show_twice_counts_once() {
    // On 2026-10-25 the clocks of Berlin go from 03:00 back to 02:00, at 01:00 UTC.
    let half_past = calendar("Europe/Berlin", &["30 2 * * * 30m"], &[]);
    check_opens(&half_past, "2026-10-24T22:00:00Z", "2026-10-25 02:30 CEST");
    assert!(!half_past.is_open(utc("2026-10-25T01:30:00Z")), "it is 02:30 again");
    check_opens(&half_past, "2026-10-25T01:00:00Z", "2026-10-26 02:30 CET");
}

#[test]
fn several_windows_are_a_union_and_blackouts_are_whole_days_of_the_zone() {
    let some = calendar("America/New_York", &["0 2 * * 1-5 2h", "0 12 * * 6 1h"], &["2026-12-24..2026-12-26"]);
    check_opens(&some, "2026-12-23T08:30:00Z", "2026-12-23 03:30 EST");
    check_opens(&some, "2026-12-23T12:00:00Z", "2026-12-28 02:00 EST");
    check_opens(&some, "2026-12-18T12:00:00Z", "2026-12-19 12:00 EST");
    let over_midnight = calendar("UTC", &["0 22 * * * 4h"], &["2026-12-24"]);
    assert!(over_midnight.is_open(utc("2026-12-23T23:59:59Z")));
    assert!(!over_midnight.is_open(utc("2026-12-24T00:00:00Z")));
    check_opens(&over_midnight, "2026-12-24T00:00:00Z", "2026-12-25 00:00 UTC");
    let no_window = calendar("Asia/Tokyo", &[], &["2026-12-24"]);
    check_opens(&no_window, "2026-12-23T16:00:00Z", "2026-12-25 00:00 JST");
}

#[test]
fn what_opens_too_late_never_opens() {
    assert_eq!(calendar("UTC", &["0 0 29 2 *  1h"], &[]).opens(utc("2026-12-01T00:00:00Z")), None);
    let dark = calendar("UTC", &["0 2 * * * 3h"], &["2026-01-01..2029-12-31"]);
    assert_eq!(dark.opens(utc("2026-12-01T00:00:00Z")), None);
}

#[test]
fn what_is_no_window_is_refused_with_its_column() {
    for (text, reason) in [
        ("", "column 1 of \"\": five fields of a cron expression and a length are expected, found 0"),
        (
            "0 2 * * *",
            "column 10 of \"0 2 * * *\": five fields of a cron expression and a length are expected, found 5",
        ),
        (
            "0 2 * * * 3h 4",
            "column 14 of \"0 2 * * * 3h 4\": five fields of a cron expression and a length are expected, found 7",
        ),
        ("61 2 * * * 3h", "column 1 of \"61 2 * * * 3h\": \"61\" is no minute (0-59)"),
        ("0  24 * * * 3h", "column 4 of \"0  24 * * * 3h\": \"24\" is no hour (0-23)"),
        ("0 2 * * FOO 3h", "column 9 of \"0 2 * * FOO 3h\": \"FOO\" is no day of the week (0-7, or MON-SUN)"),
        ("0 2 * é * 3h", "column 7 of \"0 2 * é * 3h\": \"é\" is no month (1-12)"),
        ("@daily 3h", "column 1 of \"@daily 3h\": \"@daily\" is no minute (0-59)"),
        ("0 2 * * * 0h", "column 11 of \"0 2 * * * 0h\": a window of no length is never open"),
        ("0 2 * * * 3", "column 11 of \"0 2 * * * 3\": \"3\" is no length: it is written as 90m, 3h or 1h30m"),
        ("0 0 30 2 * 3h", "column 5 of \"0 0 30 2 * 3h\": it never opens, since there is no such day"),
        ("0 * * * * 3h", "column 11 of \"0 * * * * 3h\": it is open for 3h, and opens again after 1h"),
        ("0 1,22 * * * 4h", "column 14 of \"0 1,22 * * * 4h\": it is open for 4h, and opens again after 3h"),
    ] {
        assert_eq!(text.parse::<Window>().unwrap_err().to_string(), reason);
    }
    assert_eq!("0 2 * * * 90m".parse::<Window>().unwrap().to_string(), "0 2 * * * 1h30m");
    assert!("0 0 * * * 24h".parse::<Window>().is_ok(), "always open is no contradiction");
}

#[test]
fn what_is_no_blackout_and_no_zone_is_refused() {
    for (text, reason) in [
        ("2026-12-24..2026-12-23", "column 13 of \"2026-12-24..2026-12-23\": the last day is before the first"),
        ("2026-02-30", "column 1 of \"2026-02-30\": a day is expected, such as 2026-12-24"),
        ("2026-12-24..", "column 13 of \"2026-12-24..\": a day is expected, such as 2026-12-24"),
        ("xmas", "column 1 of \"xmas\": a day is expected, such as 2026-12-24"),
    ] {
        assert_eq!(text.parse::<Blackout>().unwrap_err().to_string(), reason);
    }
    for name in ["Europe/Atlantis", "", "Europe/Berlin ", "../etc/passwd"] {
        assert!(name.parse::<Zone>().is_err(), "{name}");
    }
    assert_eq!("europe/berlin".parse::<Zone>().unwrap().to_string(), "Europe/Berlin");
}

#[test]
fn terms_are_read_as_they_are_written() {
    let terms = Terms {
        zone: ZoneChoice::Device,
        windows: vec!["0 2 * * MON-FRI 3h".parse().unwrap(), "0 12 * * 6 1h30m".parse().unwrap()],
        blackouts: vec!["2026-12-24..2026-12-26".parse().unwrap(), "2027-01-01".parse().unwrap()],
        veto_limit: Duration::from_hours(2),
    };
    let of_device = terms.of(&"Europe/Berlin".parse().unwrap());
    let text = of_device.to_string();
    assert_eq!(
        text,
        "veto 7200s; zone Europe/Berlin; window 0 2 * * MON-FRI 3h; window 0 12 * * 6 1h30m; blackout \
         2026-12-24..2026-12-26; blackout 2027-01-01"
    );
    assert_eq!(text.parse(), Ok(of_device));
    assert_eq!("veto 86400s".parse(), Ok(DeviceTerms::default()));
    for unknown in ["", "veto", "veto 1h", "veto 1s; moon full", "zone Europe/Atlantis"] {
        assert!(unknown.parse::<DeviceTerms>().is_err(), "{unknown}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_text_makes_the_reading_of_a_window_fail_otherwise_than_with_an_error(
        text in "([0-9*,/#LW?+A-Z@-]{0,6} ){0,7}[0-9a-z]{0,4}"
    ) {
        if let Ok(window) = text.parse::<Window>() {
            prop_assert_eq!(window.to_string().parse::<Window>().unwrap().to_string(), window.to_string());
        }
    }

    #[test]
    fn where_a_window_opens_it_is_open_and_just_before_it_is_not(
        zone in proptest::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana"]),
        window in proptest::sample::select(vec!["0 2 * * * 3h", "30 1 * * * 45m", "*/20 * * * * 5m", "0 0 * * 0 2h"]),
        at in 1_790_000_000_000_i64..1_830_000_000_000,
    ) {
        let calendar = calendar(zone, &[window], &["2027-03-14", "2026-11-01..2026-11-02"]);
        let opens = calendar.opens(Wall(at)).unwrap();
        prop_assert!(calendar.is_open(opens));
        prop_assert!(opens == Wall(at) || !calendar.is_open(Wall(opens.0 - 1)));
    }
}
