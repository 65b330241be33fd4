//! A scenario: the fleet, what its operators do, and which faults a seed may draw. One file serves every engine.

mod builtin;
mod strategy;

use std::collections::BTreeMap;
use std::time::Duration;

use fleetd_actors::window::Zone;
use fleetd_sync_core::name::{ConfigurationName, Platform, Version, WorkloadName};
use fleetd_sync_core::time::Wall;
use serde::{Deserialize, Serialize};

pub use self::builtin::{builtin, builtin_names};
pub use self::strategy::ActStrategy;
use crate::clock::new_year_2026;
use crate::fault::{Fault, FaultKind, NUMBER_MAX, TOO_LARGE, Target};
use crate::fleet::coffee;
use crate::rehearsal::Rehearsal;
use crate::swarm;

/// Devices of one scenario: more do not fit the memory of any machine that we know.
pub const DEVICES_MAX: u32 = 1_000_000;
/// Virtual time of one run: ten years.
pub const DURATION_MAX: Duration = Duration::from_secs(10 * 366 * 86_400);
/// How long one fault lasts, or one frame takes: longer than any run, and short enough that clocks can reckon with it.
pub const SPAN_MAX: Duration = Duration::from_secs(100 * 366 * 86_400);
/// Faults that a seed may draw: more do not fit the memory of any machine that has the devices too.
pub const FAULTS_MAX: u64 = 10_000_000;

/// A scenario as its file says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it is called.
    pub name: String,
    /// What it shows, in a sentence.
    #[serde(default)]
    pub about: String,
    /// How many devices there are.
    pub devices: u32,
    /// Over how many sites they are spread, one after the other.
    #[serde(default = "one")]
    pub sites: u32,
    /// How long faults and acts happen, after the fleet has enrolled.
    #[serde(with = "crate::span")]
    pub duration: Duration,
    /// How long the healed fleet has to converge afterwards.
    #[serde(with = "crate::span")]
    pub deadline: Duration,
    /// How long a frame takes one way, from and to, in milliseconds; each device draws its own.
    #[serde(default = "latency_default_ms")]
    pub latency_ms: [u64; 2],
    /// How many lines each program writes in an hour.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lines_per_hour: u32,
    /// How many of a hundred devices are linux/arm64; the others are linux/amd64.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub arm64_percent: u32,
    /// How many of a hundred devices have no clock that goes on without power: theirs shows 1970 after each boot.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub no_rtc_percent: u32,
    /// How many of the devices are switched on for the first time at a drawn time, those with the highest numbers; the
    /// others are enrolled from the beginning.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub late_devices: u32,
    /// The date at which it begins, in UTC (`2026-03-28T10:00:00Z`); the first of January 2026 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begins: Option<String>,
    /// In which time zones devices are, one after the other; in none that anybody knows, when left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timezones: Vec<String>,
    /// What operators do.
    #[serde(default, rename = "act", skip_serializing_if = "Vec::is_empty")]
    pub acts: Vec<Act>,
    /// Which faults a seed may draw.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub swarm: BTreeMap<FaultKind, SwarmRange>,
    /// The faults themselves, in place of drawn ones.
    #[serde(default, rename = "fault", skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
    /// A plan and a copy of the fleet that it is for, in place of a fleet of devices that are all alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<Rehearsal>,
}

const fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

const fn latency_default_ms() -> [u64; 2] {
    [5, 45]
}

/// What an operator does, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Act {
    /// When, after the fleet has enrolled.
    #[serde(with = "crate::span")]
    pub at: Duration,
    /// Pushes this version, and rolls it out.
    pub roll_out: String,
    /// Of which workload it is one; of `coffee`, when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// The sites that it goes to, by their numbers; it goes to every device, when left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<u32>,
    /// Pushes this configuration too, and rolls it out with the version. A program is sick with one that is called
    /// `burnt`, whatever it does otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// How long before its start it is planned. A start is refused when the fleet has changed since; then it is planned
    /// anew. It is planned when it is started, when left out.
    #[serde(with = "crate::span::maybe", default, skip_serializing_if = "Option::is_none")]
    pub planned_ahead: Option<Duration>,
    /// What its program does.
    #[serde(default)]
    pub program: Program,
    /// When it does so, after its start: when it crashes, or becomes ready.
    #[serde(with = "crate::span::maybe", default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Duration>,
    /// The only platform on which it does so; elsewhere it is good.
    #[serde(default, with = "only_on", skip_serializing_if = "Option::is_none")]
    pub only_on: Option<Platform>,
    /// In which waves it goes, and when it stops itself; all devices at once, when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<ActStrategy>,
}

impl Act {
    /// Of which workload it brings a version.
    #[must_use]
    pub fn workload(&self) -> WorkloadName {
        self.workload.as_ref().and_then(|name| name.parse().ok()).unwrap_or_else(coffee)
    }

    /// What it brings, as the command line calls it: `coffee@1.0.0`.
    #[must_use]
    pub fn release(&self) -> String {
        format!("{}@{}", self.workload(), self.roll_out)
    }
}

/// A platform in a scenario file, by its name.
mod only_on {
    use fleetd_sync_core::name::Platform;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde asks so")]
    pub(super) fn serialize<S: Serializer>(platform: &Option<Platform>, serializer: S) -> Result<S::Ok, S::Error> {
        match platform {
            Some(platform) => serializer.collect_str(platform),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Platform>, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Some).map_err(|error| D::Error::custom(format!("`{text}` is no platform: {error}")))
    }
}

/// What a release's program does on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// It runs.
    #[default]
    Good,
    /// It ends with code 1 soon after its start, every time.
    Crashes,
    /// It looks well, and ends with code 1 later, every time.
    CrashesLate,
    /// It runs and never becomes ready, and fails its probe.
    Hangs,
    /// It says that it is ready, and fails its probe.
    FailsProbe,
    /// It becomes ready late.
    Slow,
    /// It, or a process that it leaves behind, goes on when it is asked to end, and has to be killed.
    IgnoresTerm,
    /// It crashes on devices with an odd number only.
    CrashesOnSome,
}

/// Between which bounds a seed draws how often a fault of a kind happens, how long it lasts and how much it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwarmRange {
    /// Faults a day on each of the kind's targets, from and to.
    pub per_day: [u64; 2],
    /// How long each lasts, from and to, in seconds.
    #[serde(default)]
    pub lasting_s: [u64; 2],
    /// How much, from and to, in the unit that the kind names.
    #[serde(default)]
    pub value: [u64; 2],
    /// Whom it may hit.
    #[serde(default)]
    pub on: SwarmTargets,
}

/// Whom the faults of a kind may hit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SwarmTargets {
    /// Any device.
    #[default]
    Devices,
    /// Any site.
    Sites,
    /// The server.
    Server,
}

/// Why a text is no scenario.
#[derive(Debug, thiserror::Error)]
pub enum ParseScenarioError {
    /// It is no TOML, or says what no scenario may say. The text names line and key.
    #[error("{0}")]
    Syntax(#[from] Box<toml::de::Error>),
    /// A value is out of its range.
    #[error("line {line}: `{key}` {problem}")]
    Range {
        /// Where it stands, from 1; 0 when it stands nowhere.
        line: usize,
        /// Which value.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// A value that is refused: in which table, under which key, and why.
struct Refused {
    table: Table,
    key: &'static str,
    problem: String,
}

/// A table of a scenario file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    Top,
    /// Whichever has the key first.
    Any,
    Act(usize),
    Swarm(FaultKind),
    Fault(usize),
}

impl Scenario {
    /// Reads a scenario file.
    ///
    /// # Errors
    /// [`ParseScenarioError`].
    pub fn parse(text: &str) -> Result<Self, ParseScenarioError> {
        let scenario: Self = toml::from_str(text).map_err(Box::new)?;
        scenario.refused().map_or(Ok(scenario), |Refused { table, key, problem }| {
            Err(ParseScenarioError::Range { line: line_of(text, table, key), key, problem })
        })
    }

    /// Writes the scenario as a file.
    ///
    /// # Errors
    /// A value that TOML cannot say.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }

    /// Says which value is out of its range, and why.
    ///
    /// # Errors
    /// The key, and what is wrong with its value.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        self.refused().map_or(Ok(()), |refused| Err((refused.key, refused.problem)))
    }

    /// The date at which it begins, where it names one.
    #[must_use]
    pub fn begins(&self) -> Option<Wall> {
        let begins: jiff::Timestamp = self.begins.as_ref()?.parse().ok()?;
        Some(Wall(begins.as_millisecond()))
    }

    /// The time zone of a device.
    #[must_use]
    pub fn timezone_of(&self, device: u32) -> Option<&str> {
        let zones = self.timezones.len();
        let place = usize::try_from(device).unwrap_or(0).checked_rem(zones)?;
        self.timezones.get(place).map(String::as_str)
    }

    fn refused(&self) -> Option<Refused> {
        let top = |key, problem| Refused { table: Table::Top, key, problem };
        let is_percentage = |percent: u32| percent <= 100;
        match () {
            () if self.devices == 0 || self.devices > DEVICES_MAX => {
                Some(top("devices", format!("is {}, and has to be from 1 to {DEVICES_MAX}", self.devices)))
            }
            () if self.sites == 0 || self.sites > self.devices => {
                Some(top("sites", format!("is {}, and has to be from 1 to the number of devices", self.sites)))
            }
            () if self.late_devices >= self.devices => Some(top(
                "late_devices",
                format!("is {}: one device has to be there from the beginning", self.late_devices),
            )),
            () if self.duration > DURATION_MAX => {
                Some(top("duration", format!("is longer than {}", humantime::format_duration(DURATION_MAX))))
            }
            () if self.deadline > DURATION_MAX => {
                Some(top("deadline", format!("is longer than {}", humantime::format_duration(DURATION_MAX))))
            }
            () if self.latency_ms[0] > self.latency_ms[1] => Some(top("latency_ms", BACKWARDS.to_owned())),
            () if Duration::from_millis(self.latency_ms[1]) > SPAN_MAX => Some(top("latency_ms", TOO_LONG.to_owned())),
            () if self.begins.is_some() && self.begins().is_none_or(|begins| begins < new_year_2026()) => {
                Some(top("begins", "is no date from 2026 on, such as 2026-03-28T10:00:00Z".to_owned()))
            }
            () if self.timezones.iter().any(|zone| zone.parse::<Zone>().is_err()) => {
                Some(top("timezones", "names a zone that there is not".to_owned()))
            }
            () if !is_percentage(self.arm64_percent) => Some(top("arm64_percent", "is more than 100".to_owned())),
            () if !is_percentage(self.no_rtc_percent) => Some(top("no_rtc_percent", "is more than 100".to_owned())),
            () => {
                let rehearsal = self.rehearsal.as_ref().and_then(|rehearsal| rehearsal.check(self).err());
                let rehearsal = rehearsal.map(|(key, problem)| Refused { table: Table::Any, key, problem });
                let drawn = self.refused_act().or_else(|| self.refused_swarm()).or_else(|| self.refused_fault());
                drawn.or(rehearsal)
            }
        }
    }

    fn refused_act(&self) -> Option<Refused> {
        self.acts.iter().enumerate().find_map(|(index, act)| {
            let refused = |key, problem: &str| Refused { table: Table::Act(index), key, problem: problem.to_owned() };
            match () {
                () if act.at > self.duration => Some(refused("at", TOO_LATE)),
                () if act.planned_ahead.is_some_and(|ahead| ahead > act.at) => {
                    Some(refused("planned_ahead", "is longer than there is time before its start"))
                }
                () if act.roll_out.parse::<Version>().is_err() => Some(refused("roll_out", "is no version")),
                () if act.workload.as_ref().is_some_and(|name| name.parse::<WorkloadName>().is_err()) => {
                    Some(refused("workload", "is no name of a workload"))
                }
                () if act.sites.iter().any(|site| *site >= self.sites) => {
                    Some(refused("sites", "names a site that there is not"))
                }
                () if act.config.as_ref().is_some_and(|name| name.parse::<ConfigurationName>().is_err()) => {
                    Some(refused("config", "is no name of a configuration"))
                }
                () => {
                    let problem = act.strategy.as_ref().and_then(|strategy| strategy.read().err());
                    problem.map(|problem| refused("strategy", &format!("makes no sense: {problem}")))
                }
            }
        })
    }

    fn refused_swarm(&self) -> Option<Refused> {
        let mut drawn = 0_u64;
        self.swarm.iter().find_map(|(kind, range)| {
            let refused = |key, problem: &str| Refused { table: Table::Swarm(*kind), key, problem: problem.to_owned() };
            if let Some(key) = range.backwards() {
                return Some(refused(key, BACKWARDS));
            }
            let on = match range.on {
                SwarmTargets::Devices => Target::Device(0),
                SwarmTargets::Sites => Target::Site(0),
                SwarmTargets::Server => Target::Server,
            };
            if Duration::from_secs(range.lasting_s[1]) > SPAN_MAX {
                return Some(refused("lasting_s", TOO_LONG));
            }
            drawn = drawn.saturating_add(swarm::most_of_kind(self, range));
            if range.per_day[1] > NUMBER_MAX {
                return Some(refused("per_day", TOO_LARGE));
            }
            if drawn > FAULTS_MAX {
                let problem = format!("is too often: a seed could draw more than {FAULTS_MAX} faults");
                return Some(refused("per_day", &problem));
            }
            let problem = kind.refusal(on).map(|whom| refused("on", &format!("names others: {kind} {whom}")));
            let bad_value = range.value.into_iter().find_map(|value| kind.refuse_value(value));
            problem.or_else(|| bad_value.map(|problem| refused("value", problem)))
        })
    }

    fn refused_fault(&self) -> Option<Refused> {
        let (devices, sites) = (usize::try_from(self.devices).ok()?, usize::try_from(self.sites).ok()?);
        self.faults.iter().enumerate().find_map(|(index, fault)| {
            let refused = |key, problem: String| Refused { table: Table::Fault(index), key, problem };
            let is_there = match fault.on {
                Target::Server => true,
                Target::Site(site) => site < sites,
                Target::Device(device) => device < devices,
            };
            match () {
                () if fault.at > self.duration => Some(refused("at", TOO_LATE.to_owned())),
                () if fault.lasting > SPAN_MAX => Some(refused("lasting", TOO_LONG.to_owned())),
                () if !is_there => Some(refused("on", format!("is {}, which there is not", fault.on))),
                () => {
                    let whom = fault.kind.refusal(fault.on);
                    let whom = whom.map(|whom| refused("on", format!("is {}: {} {whom}", fault.on, fault.kind)));
                    let value = fault.kind.refuse_value(fault.value);
                    whom.or_else(|| value.map(|problem| refused("value", problem.to_owned())))
                }
            }
        })
    }
}

const BACKWARDS: &str = "runs backwards: the first number is the lower one";
const TOO_LATE: &str = "is later than the scenario's duration";
const TOO_LONG: &str = "is longer than a hundred years";

impl SwarmRange {
    /// The key of a range that runs backwards.
    fn backwards(&self) -> Option<&'static str> {
        let ranges = [("per_day", self.per_day), ("lasting_s", self.lasting_s), ("value", self.value)];
        ranges.into_iter().find(|(_, [from, to])| from > to).map(|(key, _)| key)
    }
}

/// The line, from 1, on which a key of a table stands; that of the table's head when the key is left out, and 0 when
/// neither is there.
fn line_of(text: &str, table: Table, key: &str) -> usize {
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())).peekable();
    let is_key = |line: &str| line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='));
    let head = match table {
        Table::Top => None,
        Table::Any => return lines.find(|(_, line)| is_key(line)).map_or(0, |(line, _)| line),
        Table::Act(index) => lines.by_ref().filter(|(_, line)| *line == "[[act]]").nth(index),
        Table::Fault(index) => lines.by_ref().filter(|(_, line)| *line == "[[fault]]").nth(index),
        Table::Swarm(kind) => {
            let name = format!("[swarm.{kind}]");
            lines.find(|(_, line)| *line == name)
        }
    };
    let own = lines.take_while(|(_, line)| !line.starts_with('[')).find(|(_, line)| is_key(line));
    own.or(head).map_or(0, |(line, _)| line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "name = \"a\"\ndevices = 3\nduration = \"1h\"\ndeadline = \"5m\"\n";

    fn refusal(text: &str) -> String {
        Scenario::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_value_out_of_its_range_is_named_with_its_line() {
        assert!(Scenario::parse(HEAD).is_ok());
        let none = HEAD.replace("= 3", "= 0");
        assert!(refusal(&none).starts_with("line 2: `devices` is 0"), "{}", refusal(&none));
        let endless = HEAD.replace("5m", "18446744073709551615s");
        assert!(refusal(&endless).starts_with("line 4: `deadline` is longer"), "{}", refusal(&endless));
        for (rest, place) in [
            ("sites = 4\n", "line 5: `sites` is 4"),
            ("latency_ms = [9, 1]\n", "line 5: `latency_ms` runs backwards"),
            (
                "[swarm.crash]\nper_day = [1, 2]\n[swarm.link_cut]\nper_day = [5, 1]\n",
                "line 8: `per_day` runs backwards",
            ),
            (
                "[[act]]\nat = \"1m\"\nroll_out = \"1.0.0\"\n[[act]]\nat = \"2h\"\nroll_out = \"1.0.1\"\n",
                "line 9: `at` is later",
            ),
            ("[[fault]]\nat = \"2h\"\non = \"server\"\nkind = \"crash\"\n", "line 6: `at` is later"),
            ("[[fault]]\nat = \"1m\"\non = \"device-3\"\nkind = \"crash\"\n", "line 7: `on` is device-3"),
            (
                "[[fault]]\nat = \"1m\"\non = \"server\"\nkind = \"death\"\n",
                "line 7: `on` is server: death hits devices",
            ),
            ("[[fault]]\nat = \"1m\"\non = \"site-0\"\nkind = \"link_lossy\"\nvalue = 99\n", "line 9: `value` is more"),
            ("[swarm.link_flaps]\nper_day = [1, 2]\n", "line 5: `value` is 0"),
            ("[swarm.site_outage]\nper_day = [1, 2]\n", "line 5: `on` names others"),
            ("[[act]]\nat = \"1m\"\nroll_out = \"a b\"\n", "line 7: `roll_out` is no version"),
            (
                "[[fault]]\nat = \"1m\"\non = \"server\"\nkind = \"crash\"\nvalue = 9223372036854775808\n",
                "line 9: `value` is more than 2^63",
            ),
            ("[swarm.crash]\nper_day = [1, 9223372036854775808]\n", "line 6: `per_day` is more than 2^63"),
            ("latency_ms = [1, 9000000000000]\n", "line 5: `latency_ms` is longer"),
            (
                "[[fault]]\nat = \"1m\"\non = \"server\"\nkind = \"crash\"\nlasting = \"200years\"\n",
                "line 9: `lasting` is longer",
            ),
            ("[swarm.crash]\nper_day = [1, 2]\nlasting_s = [1, 9000000000]\n", "line 7: `lasting_s` is longer"),
            ("[swarm.crash]\nper_day = [1, 9000000000]\n", "line 6: `per_day` is too often"),
            ("arm64_percent = 101\n", "line 5: `arm64_percent` is more than 100"),
        ] {
            let text = format!("{HEAD}{rest}");
            assert!(refusal(&text).starts_with(place), "{}", refusal(&text));
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_known_ones() {
        let error = refusal(&format!("{HEAD}device = 4\n"));
        assert!(
            error.contains("line 5") && error.contains("unknown field `device`") && error.contains("`devices`"),
            "{error}"
        );
        let error = refusal(&format!("{HEAD}[swarm.meteor]\nper_day = [0, 1]\n"));
        assert!(error.contains("line 5") && error.contains("unknown variant `meteor`"), "{error}");
    }
}
