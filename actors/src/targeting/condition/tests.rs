//! Conditions on one device, and what is no condition.

use std::collections::BTreeMap;

use expect_test::expect;

use super::*;
use crate::targeting::DeviceRow;
use crate::targeting::tests::row;

fn device() -> DeviceRow {
    let mut row = row(2);
    row.labels = BTreeMap::from([
        ("channel".parse().unwrap(), "stable".parse().unwrap()),
        ("example.com/rack".parse().unwrap(), "12".parse().unwrap()),
    ]);
    let facts =
        [("memory_bytes", "536870912"), ("model", "0512"), ("modem", "true"), ("kernel", "6.1"), ("below", "-5")];
    row.facts = facts.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    row
}

fn answer(text: &str) -> Answer {
    text.parse::<Condition>().unwrap_or_else(|error| panic!("{text}: {error}")).answer(&device())
}

#[test]
fn a_condition_holds_of_what_a_server_knows() {
    for text in [
        "facts.ram_bytes >= 536870912",
        "facts.ram_bytes / 1048576 == 512",
        "labels.channel in ['stable', \"beta\"] && site != 'lab'",
        "labels[\"example.com/rack\"] == '12' && int(labels['example.com/rack']) > 9",
        "facts.model == '0512' && facts.kernel.startsWith('6.') && double(facts.kernel) > 6.0",
        "facts.modem && facts.below == -5 && string(facts.ram_bytes) == '536870912'",
        "name == 'otter-2' && site == 'berlin' && platform == 'linux/arm64' && os == 'linux' && arch == 'arm64'",
        "id == 'dev_081040g2081040g2' && online",
        "has(facts.modem) && !has(facts.gps) && 'channel' in labels && !('floor' in labels)",
        "has(facts.gps) ? facts.gps > 5 : true",
        "size(name) == 7 && name.contains('ter') && name.endsWith('-2')",
        "facts['ram' + '_bytes'] > 1",
        "facts.gps > 5 || facts.modem",
        "facts.modem || facts.gps > 5",
    ] {
        assert_eq!(answer(text), Answer::Holds, "{text}");
    }
    for text in [
        "facts.ram_bytes > 536870912",
        "labels.channel == 'beta'",
        "facts.ram_bytes == '536870912'",
        "facts.gps > 5 && site == 'paris'",
        "site == 'paris' && facts.gps > 5",
        "!online",
    ] {
        assert_eq!(answer(text), Answer::Fails, "{text}");
    }
}

#[test]
fn what_a_device_lacks_or_has_otherwise_decides_nothing_and_is_said() {
    let texts = [
        "facts.gps > 5",
        "site == 'berlin' && labels['floor'] == '3'",
        "facts[name] == 1",
        "facts.kernel >= 6",
        "facts.ram_bytes + 1",
        "int(facts.kernel) > 5",
        "facts.ram_bytes / 0 == 1",
        "facts.ram_bytes && online",
        "labels[facts.ram_bytes] == 'x'",
    ];
    let said: Vec<_> = texts
        .iter()
        .map(|text| match answer(text) {
            Answer::Undecided(why) => format!("{text}: {why}\n"),
            answer => panic!("{text}: {answer:?}"),
        })
        .collect();
    expect![[r#"
        facts.gps > 5: no facts.gps
        site == 'berlin' && labels['floor'] == '3': no labels.floor
        facts[name] == 1: no facts.otter-2
        facts.kernel >= 6: found no matching overload for '_>=_' applied to '(string, int)'
        facts.ram_bytes + 1: it gives a value of type int, and not true or false
        int(facts.kernel) > 5: Error executing function 'int': string parse error: invalid digit found in string
        facts.ram_bytes / 0 == 1: Division by zero of Int(536870912)
        facts.ram_bytes && online: it gives a value of type int, and not true or false
        labels[facts.ram_bytes] == 'x': found no matching overload for '_[_]' applied to '(dyn, int)'
    "#]]
    .assert_eq(&said.concat());
}

#[test]
fn what_is_no_condition_is_refused_with_its_column() {
    let deep = format!("{}online{}", "(".repeat(40), ")".repeat(40));
    let sums = format!("name == {}'a'", "'a' + ".repeat(20));
    let long = format!("name in [{}'b']", "'a', ".repeat(300));
    let texts = [
        "",
        "  ",
        "facts.ram_bytes >=",
        "facts.ram_bytes = 5",
        "name == \"ü\" &&& online",
        "name == 'otter",
        "a == 1",
        "name == 'shop' && shop == 7",
        "labels == facts",
        "labels.a.b == 'x'",
        "has(name)",
        "site.size()",
        "name.matches('x')",
        "labels.exists(l, l == 'x')",
        "[1, 2].all(x, x > 0)",
        "{'a': 1}['a'] == 1",
        "Device{name: 'x'} == name",
        "facts.?gps == 1",
        "name\n== 'a'",
        &deep,
        &sums,
        &long,
    ];
    let said: Vec<_> = texts
        .iter()
        .map(|text| match text.parse::<Condition>() {
            Ok(condition) => format!("{condition} is one\n"),
            Err(error) => format!("{error}\n"),
        })
        .collect();
    expect![[r#"
        the condition is empty; to mean every device, say so
        the condition is empty; to mean every device, say so
        column 19 of "facts.ram_bytes >=": expected expression, found the end
        column 17 of "facts.ram_bytes = 5": expected the end, found '='
        column 15 of "name == \"ü\" &&& online": unexpected single '&', expected '&&'
        column 9 of "name == 'otter": unterminated string literal
        column 1 of "a == 1": nothing is called "a"; there are labels.NAME, facts.NAME, name, id, site, platform, os, arch and online
        column 19 of "name == 'shop' && shop == 7": nothing is called "shop"; there are labels.NAME, facts.NAME, name, id, site, platform, os, arch and online
        column 1 of "labels == facts": labels stands for nothing alone: ask for an entry, as labels.NAME
        column 10 of "labels.a.b == 'x'": nothing has a part "b"; a key with dots is written as labels["a.b"]
        column 5 of "has(name)": invalid argument to has() macro
        site.size() is one
        column 6 of "name.matches('x')": a condition has no "matches"; it has size, contains, startsWith, endsWith, string, int, uint, double, bool
        column 8 of "labels.exists(l, l == 'x')": a condition may not walk over a list or a map: it has no all, exists, exists_one, map, filter
        column 8 of "[1, 2].all(x, x > 0)": a condition may not walk over a list or a map: it has no all, exists, exists_one, map, filter
        column 1 of "{'a': 1}['a'] == 1": a condition makes no maps
        column 1 of "Device{name: 'x'} == name": a condition makes no messages
        column 6 of "facts.?gps == 1": unsupported syntax '.?'
        column 5 of "name\n== 'a'": a condition is one line
        ((((((((((((((((((((((((((((((((((((((((online)))))))))))))))))))))))))))))))))))))))) is one
        the condition takes too long: 273 steps for each device, and it may take 256
        the condition takes too long: 304 steps for each device, and it may take 256
    "#]].assert_eq(&said.concat());
    let length = limit::CONDITION_BYTES_MAX + 1;
    let too_long = format!("name == '{}'", "a".repeat(length - 10));
    assert_eq!(
        too_long.parse::<Condition>(),
        Err(ParseConditionError::TooLong { length, length_max: limit::CONDITION_BYTES_MAX })
    );
}

/// A text that is made to nest is read and refused on a stack as small as a thread of a server has.
#[test]
fn no_text_of_a_condition_takes_more_stack_than_a_thread_has() {
    for part in [
        "(", "!", "-", "[", "-(", "!(", "1+", "online&&", "a?b:", "a?", "a.b.", "a[", "has(", "{1:", "a.b(", "1<",
        "'a'in",
    ] {
        for times in [20, 31, 33, 200, limit::CONDITION_BYTES_MAX / part.len() - 6] {
            let text = format!("{}online", part.repeat(times));
            // Some of them are conditions; that this test comes to its end is what it shows.
            if let Ok(condition) = text.parse::<Condition>() {
                let _ = condition.answer(&device());
            }
        }
    }
}
