//! The scenarios that come with the program.

use super::Scenario;

const BUILTIN: [(&str, &str); 2] =
    [("day", include_str!("../../scenarios/day.toml")), ("calm", include_str!("../../scenarios/calm.toml"))];

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
