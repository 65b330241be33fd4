//! An index and a plain look at each device come to the same.

use fleetd_sync_core::commit::Revision;
use fleetd_sync_core::time::Wall;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::targeting::Group;
use crate::targeting::tests::row;

const CONDITIONS: [&str; 22] = [
    "facts.memory_bytes >= 512",
    "facts.memory_bytes < 512 && site == 'berlin'",
    "facts.ram_bytes == 512 || labels.channel == 'beta'",
    "labels.channel == 'stable'",
    "labels.channel in ['beta', 'lab'] && !(site == 'paris')",
    "has(labels.rack) && int(labels.rack) > 3",
    "int(labels.rack) > 3",
    "facts.memory_bytes > int(labels.rack)",
    "'channel' in labels",
    "!('channel' in labels) && online",
    "site == ''",
    "site != 'berlin' && facts.model == '0512'",
    "os == 'linux' && arch == 'arm64'",
    "arch == 'amd64' || online",
    "platform.startsWith('linux')",
    "name.endsWith('1')",
    "id == 'dev_081040g2081040g2'",
    "facts[site] == 1",
    "labels.channel == facts.model",
    "has(facts.memory_bytes) ? facts.memory_bytes > 1 : site == 'paris'",
    "facts.model",
    "labels.site == 'x' && site == 'berlin'",
];

const SELECTORS: [&str; 14] = [
    "channel=stable",
    "channel!=stable",
    "channel in (stable,beta),site!=lab",
    "channel notin (stable)",
    "rack",
    "!rack",
    "site=berlin",
    "!site,os=linux",
    "site=x",
    "arch=arm64,platform!=linux/amd64",
    "name=otter-3",
    "id=dev_081040g2081040g2",
    "id!=dev_081040g2081040g2,nothing=1",
    "nothing!=1",
];

fn device(index: u8) -> impl Strategy<Value = DeviceRow> {
    let label = |key: &'static str, values: &'static [&'static str]| {
        proptest::option::of(select(values)).prop_map(move |value| value.map(|value| (key, value)))
    };
    let fact = label;
    (
        (
            label("channel", &["stable", "beta", "lab"]),
            label("rack", &["1", "4", "b7"]),
            label("site", &["x", "berlin"]),
        ),
        (fact("memory_bytes", &["256", "512", "1024", "lots"]), fact("model", &["0512", "true", "beta", "7"])),
        select(&["", "berlin", "paris"][..]),
        proptest::option::of(select(&["linux/arm64", "linux/amd64", "any"][..])),
        any::<bool>(),
    )
        .prop_map(move |((channel, rack, label), (memory, model), site, platform, is_online)| {
            let labels = [channel, rack, label].into_iter().flatten();
            let facts = [memory, model].into_iter().flatten();
            DeviceRow {
                site: site.to_owned(),
                labels: labels.map(|(key, value)| (key.parse().unwrap(), value.parse().unwrap())).collect(),
                facts: facts.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
                platform: platform.map(|platform| platform.parse().unwrap()),
                offline_since: (!is_online).then_some(Wall(1)),
                ..row(index)
            }
        })
}

fn chosen() -> impl Strategy<Value = Targets> {
    let selector = || proptest::option::of(select(&SELECTORS[..]).prop_map(|text| text.parse::<Selector>().unwrap()));
    let condition =
        || proptest::option::of(select(&CONDITIONS[..]).prop_map(|text| text.parse::<Condition>().unwrap()));
    let fixed = vec(1_u8..30, 0..4)
        .prop_map(|locals| Members::Fixed(locals.into_iter().map(|index| LocalId::from_bytes([index; 16])).collect()));
    let dynamic = (selector(), condition()).prop_map(|(selector, condition)| Members::Dynamic { selector, condition });
    let groups = vec(prop_oneof![fixed, dynamic], 0..3).prop_map(|groups| {
        let named = (0..).zip(groups).map(|(index, members)| {
            (format!("group-{index}").parse().unwrap(), Group { revision: Revision(1), members })
        });
        named.collect()
    });
    let named =
        select(vec!["otter-2".to_owned(), row(3).device.to_string(), row(4).local.to_string(), "heron".to_owned()]);
    (selector(), condition(), groups, proptest::collection::btree_set(named, 0..3)).prop_map(
        |(selector, condition, groups, devices)| Targets::Some(Chosen { selector, condition, groups, devices }),
    )
}

/// What the index should say, found by asking every device.
fn naive(targets: &Targets, rows: &BTreeMap<LocalId, DeviceRow>) -> (Vec<LocalId>, BTreeMap<String, usize>) {
    let matcher = Matcher::new(targets);
    let (mut meant, mut undecided) = (Vec::new(), BTreeMap::new());
    for row in rows.values() {
        match matcher.answer(row) {
            Answer::Holds => meant.push(row.local),
            Answer::Fails => {}
            Answer::Undecided(why) => *undecided.entry(why.to_string()).or_default() += 1,
        }
    }
    (meant, undecided)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn an_index_means_the_devices_that_a_look_at_each_means(
        rows in (1_u8..30).prop_flat_map(|count| (1..=count).map(device).collect::<Vec<_>>()),
        again in vec((1_u8..30).prop_flat_map(device), 0..10),
        gone in vec(1_u8..30, 0..5),
        targets in chosen(),
    ) {
        let (mut index, mut known) = (TargetIndex::default(), BTreeMap::new());
        for row in rows.into_iter().chain(again) {
            index.put(&row);
            known.insert(row.local, row);
        }
        for local in gone.into_iter().map(|index| LocalId::from_bytes([index; 16])) {
            index.remove(local);
            known.remove(&local);
        }
        let is_online = |local: LocalId| known.get(&local).is_some_and(Described::is_online);
        prop_assert_eq!(index.len(), known.len());
        let (meant, undecided) = naive(&targets, &known);
        let selected = index.select(&targets, &is_online);
        let sorted = |mut locals: Vec<LocalId>| {
            locals.sort_unstable();
            locals
        };
        prop_assert_eq!(sorted(selected.meant), meant);
        let said = selected.undecided.into_iter().map(|of_it| (of_it.why, of_it.devices)).collect::<BTreeMap<_, _>>();
        prop_assert_eq!(said, undecided);
        prop_assert_eq!(sorted(index.select(&Targets::All, &is_online).meant), known.keys().copied().collect::<Vec<_>>());
    }
}
