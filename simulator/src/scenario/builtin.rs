//! The scenarios that come with the program.

use super::Scenario;

const BUILTIN: [(&str, &str); 27] = [
    ("day", include_str!("../../scenarios/day.toml")),
    ("calm", include_str!("../../scenarios/calm.toml")),
    ("arm64-only", include_str!("../../scenarios/arm64-only.toml")),
    ("bad-clocks", include_str!("../../scenarios/bad-clocks.toml")),
    ("bad-links", include_str!("../../scenarios/bad-links.toml")),
    ("bricked", include_str!("../../scenarios/bricked.toml")),
    ("busy-operators", include_str!("../../scenarios/busy-operators.toml")),
    ("clones", include_str!("../../scenarios/clones.toml")),
    ("configurations", include_str!("../../scenarios/configurations.toml")),
    ("contended", include_str!("../../scenarios/contended.toml")),
    ("crashing-release", include_str!("../../scenarios/crashing-release.toml")),
    ("field", include_str!("../../scenarios/field.toml")),
    ("flaky-disks", include_str!("../../scenarios/flaky-disks.toml")),
    ("hostile", include_str!("../../scenarios/hostile.toml")),
    ("late-stop", include_str!("../../scenarios/late-stop.toml")),
    ("local-restore", include_str!("../../scenarios/local-restore.toml")),
    ("lost-store", include_str!("../../scenarios/lost-store.toml")),
    ("old-backup", include_str!("../../scenarios/old-backup.toml")),
    ("one-offline", include_str!("../../scenarios/one-offline.toml")),
    ("orders", include_str!("../../scenarios/orders.toml")),
    ("reconnect-storm", include_str!("../../scenarios/reconnect-storm.toml")),
    ("site-outage", include_str!("../../scenarios/site-outage.toml")),
    ("sites", include_str!("../../scenarios/sites.toml")),
    ("small", include_str!("../../scenarios/small.toml")),
    ("torn-power", include_str!("../../scenarios/torn-power.toml")),
    ("waves", include_str!("../../scenarios/waves.toml")),
    ("windows", include_str!("../../scenarios/windows.toml")),
];

/// A scenario that comes with the program.
#[must_use]
pub fn builtin(name: &str) -> Option<Scenario> {
    let (_, text) = BUILTIN.iter().find(|(known, _)| *known == name)?;
    Scenario::parse(text).ok()
}

/// What the scenarios that come with the program are called.
pub fn builtin_names() -> impl Iterator<Item = &'static str> {
    BUILTIN.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_that_comes_with_the_program_is_one() {
        for (name, text) in BUILTIN {
            let scenario = Scenario::parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(scenario.name, name);
            let written = scenario.to_toml().unwrap();
            assert_eq!(Scenario::parse(&written).unwrap(), scenario);
        }
    }
}
