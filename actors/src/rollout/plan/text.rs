//! The text that a plan is saved as: one value a line, the devices in a table, and the digest of it all at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use fleetd_sync_core::commit::Revision;
use fleetd_sync_core::configuration::{Configuration, ConfigurationId, ConfiguredFile};
use fleetd_sync_core::id::ArtifactDigest;
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::time::Wall;

use super::super::strategy::{FailureBudget, Place, Priority, Strategy, WAVES_MAX, WaveSize};
use super::super::timing::Zones;
use super::{Blocked, Plan, PlannedDevice, PlannedRelease, Rollback, Verdict};
use crate::selector::Selector;
use crate::targeting::{Chosen, Condition, Group, Members, Targets, UndecidedDevices};
use crate::window::Terms;

const HEADER: &str = "fleetd plan ";
const LAYOUT: &str = "2";
/// What plans looked like before they had waves. They are read, and never written.
const LAYOUT_WITHOUT_WAVES: &str = "1";
const DIGEST: &str = "digest ";
/// Stands where a device has no value.
const NONE: &str = "-";

/// Why a text is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadPlanError {
    /// It does not begin as one.
    #[error("this is no plan: it does not begin with {HEADER:?}")]
    NoPlan,
    /// A newer version wrote it.
    #[error("the plan has layout {layout:?}; this version reads {LAYOUT}")]
    Newer {
        /// Its layout.
        layout: String,
    },
    /// It ends too early.
    #[error("the plan has no digest in its last line")]
    NoDigest,
    /// Somebody changed it.
    #[error("the plan was edited: its digest says {expected}, its text has {found}")]
    Edited {
        /// What its last line says.
        expected: String,
        /// What its text hashes to.
        found: ArtifactDigest,
    },
    /// A line cannot be read.
    #[error("line {line}: {what} is expected, found {text:?}")]
    Line {
        /// Which, counted from 1.
        line: usize,
        /// What should stand there.
        what: &'static str,
        /// What stands there.
        text: String,
    },
}

impl Plan {
    /// The one text of this plan.
    #[must_use]
    pub fn to_text(&self) -> String {
        let release = &self.release;
        let mut text = format!(
            "{HEADER}{LAYOUT}\nplan {}\nworkload {}\nversion {}\nmanifest {}\nattempt {}\n",
            self.id, release.workload, release.version, release.manifest, self.attempt
        );
        text += &configuration_lines(release.configuration.as_deref());
        if let Some(Rollback { of, is_whole }) = self.rollback {
            text += &format!("rollback {of} {is_whole}\n");
        }
        text += &strategy_lines(&self.strategy);
        for (platform, (digest, size_bytes)) in &release.artifacts {
            text += &format!("artifact {platform} {digest} {size_bytes}\n");
        }
        text += &target_lines(&self.targets);
        for UndecidedDevices { why, devices, example } in &self.undecided {
            text += &format!("undecided {devices} {example} {}\n", escape_line(why));
        }
        for device in &self.devices {
            text += &device_line(device);
            if let Some(zone) = &device.zone {
                text += &format!("zone {zone}\n");
            }
            if let Some(rollout) = device.supersedes {
                text += &format!("supersedes {rollout}\n");
            }
        }
        let digest = ArtifactDigest::of(text.as_bytes());
        text + &format!("{DIGEST}{digest}\n")
    }

    /// The digest of the plan's text, by which it is told from an edited one.
    #[must_use]
    pub fn digest(&self) -> ArtifactDigest {
        let text = self.to_text();
        let end = text.rfind(DIGEST).unwrap_or(text.len());
        ArtifactDigest::of(text.get(..end).unwrap_or_default().as_bytes())
    }

    /// Reads a plan's text.
    ///
    /// # Errors
    /// [`ReadPlanError`]; an edit by hand is named as one before anything else is looked at.
    pub fn from_text(text: &str) -> Result<Self, ReadPlanError> {
        let layout = text.lines().next().and_then(|line| line.strip_prefix(HEADER)).ok_or(ReadPlanError::NoPlan)?;
        if ![LAYOUT, LAYOUT_WITHOUT_WAVES].contains(&layout) {
            return Err(ReadPlanError::Newer { layout: layout.to_owned() });
        }
        let end = text.rfind(DIGEST).filter(|end| *end > 0).ok_or(ReadPlanError::NoDigest)?;
        let (body, digest) = text.split_at(end);
        let (expected, found) = (digest.trim_start_matches(DIGEST), ArtifactDigest::of(body.as_bytes()));
        if expected != format!("{found}\n") {
            return Err(ReadPlanError::Edited { expected: expected.trim_end().to_owned(), found });
        }
        Lines { lines: body.lines().collect(), next: 1, has_waves: layout == LAYOUT }.plan()
    }
}

/// What goes with the release; nothing where nothing does, so that plans of before are written alike.
fn configuration_lines(configuration: Option<&Configuration>) -> String {
    let Some(configuration) = configuration else { return String::new() };
    let mut text = format!("configuration {}\n", configuration.id());
    for (name, value) in configuration.values() {
        text += &format!("value {name} {}\n", escape_line(value));
    }
    for (name, ConfiguredFile { digest, size_bytes }) in configuration.files() {
        text += &format!("file {name} {digest} {size_bytes}\n");
    }
    text
}

fn target_lines(targets: &Targets) -> String {
    let Targets::Some(chosen) = targets else { return "target all\n".to_owned() };
    let asked = |of: &str, selector: Option<&Selector>, condition: Option<&Condition>| {
        let selector = selector.map(|selector| format!("target {of}selector {selector}\n"));
        let condition = condition.map(|condition| format!("target {of}where {condition}\n"));
        selector.unwrap_or_default() + &condition.unwrap_or_default()
    };
    let mut text = asked("", chosen.selector.as_ref(), chosen.condition.as_ref());
    for (name, Group { revision, members }) in &chosen.groups {
        text += &format!("target group {name} {}\n", revision.0);
        match members {
            Members::Fixed(locals) => locals.iter().for_each(|local| text += &format!("target group-device {local}\n")),
            Members::Dynamic { selector, condition } => text += &asked("group-", selector.as_ref(), condition.as_ref()),
        }
    }
    for device in &chosen.devices {
        text += &format!("target device {}\n", escape(device));
    }
    text
}

fn strategy_lines(strategy: &Strategy) -> String {
    let number = |number: Option<u32>| number.map_or_else(|| NONE.to_owned(), |number| number.to_string());
    let mut text = String::new();
    if let Some(selector) = &strategy.canary {
        text += &format!("canary {selector}\n");
    }
    for wave in &strategy.waves {
        text += &format!("wave {wave}\n");
    }
    text + &format!(
        "bake-ms {}\ndeadline-ms {}\napprove-waves {}\nfailed-max {}\nfailed-percent {}\nunavailable-max \
         {}\nunavailable-per-site-max {}\n",
        strategy.bake.as_millis(),
        strategy.deadline.as_millis(),
        strategy.approve_waves,
        number(strategy.budget.count),
        number(strategy.budget.percent),
        number(strategy.unavailable_max),
        number(strategy.unavailable_per_site_max),
    ) + &terms_lines(&strategy.terms)
        + &priority_line(strategy.priority)
        + &strategy.site_quorum.map(|percent| format!("site-quorum {percent}\n")).unwrap_or_default()
}

/// How urgent it is; nothing where that was not said, so that plans of before are written alike.
fn priority_line(priority: Priority) -> String {
    if priority == Priority::default() { String::new() } else { format!("priority {priority}\n") }
}

/// What is said of windows; nothing where a plan has no terms of its own, so that those of before are written alike.
fn terms_lines(terms: &Terms) -> String {
    if *terms == Terms::default() {
        return String::new();
    }
    let mut text = format!("window-zone {}\n", terms.zone);
    terms.windows.iter().for_each(|window| text += &format!("window {window}\n"));
    terms.blackouts.iter().for_each(|blackout| text += &format!("blackout {blackout}\n"));
    text + &format!("veto-limit-ms {}\n", terms.veto_limit.as_millis())
}

fn device_line(device: &PlannedDevice) -> String {
    let offline_since = device.offline_since.map_or_else(|| NONE.to_owned(), |since| since.0.to_string());
    let (digest, size_bytes) = match device.artifact {
        Some((digest, size_bytes)) => (digest.to_string(), size_bytes.to_string()),
        None => (NONE.to_owned(), NONE.to_owned()),
    };
    let verdict = match &device.verdict {
        Verdict::Blocked { by, reason } => format!("blocked {} {reason}", by.as_str()),
        verdict => verdict.to_string(),
    };
    let site = match device.site.as_str() {
        "" => NONE.to_owned(),
        // A site of this very name is one all the same.
        NONE => format!("\\{NONE}"),
        site => escape(site),
    };
    let place = device.place.map_or_else(|| NONE.to_owned(), |place| format!("{}.{}", place.wave, place.order));
    format!(
        "device {} {} {} {site} {} {offline_since} {digest} {size_bytes} {place} {}\n",
        device.local,
        device.device,
        device.name,
        device.revision.0,
        escape_line(&verdict),
    )
}

/// Makes one word of a text, so that a line has as many words as its kind.
fn escape(text: &str) -> String {
    escape_line(text).replace(' ', "\\s")
}

/// Keeps a text on its line.
fn escape_line(text: &str) -> String {
    if !text.contains(['\\', '\n', '\r']) {
        return text.to_owned();
    }
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r")
}

fn unescape(word: &str) -> String {
    let mut text = String::with_capacity(word.len());
    let mut characters = word.chars();
    while let Some(character) = characters.next() {
        match (character, character == '\\') {
            (_, true) => match characters.next() {
                Some('s') => text.push(' '),
                Some('n') => text.push('\n'),
                Some('r') => text.push('\r'),
                Some(other) => text.push(other),
                None => {}
            },
            (character, false) => text.push(character),
        }
    }
    text
}

/// The lines of a plan whose digest was found good.
struct Lines<'a> {
    lines: Vec<&'a str>,
    next: usize,
    has_waves: bool,
}

impl<'a> Lines<'a> {
    fn plan(mut self) -> Result<Plan, ReadPlanError> {
        let id = self.value("plan")?;
        let (workload, version) = (self.value("workload")?, self.value("version")?);
        let (manifest, attempt) = (self.value("manifest")?, self.value("attempt")?);
        let configuration = self.configuration(&workload)?;
        let rollback = self.take("rollback").map(|rest| self.rollback(rest)).transpose()?;
        let strategy = if self.has_waves { self.strategy()? } else { self.strategy_without_waves()? };
        let mut artifacts = BTreeMap::new();
        while let Some(rest) = self.take("artifact") {
            let [platform, digest, size_bytes] = self.words(rest, "artifact PLATFORM DIGEST BYTES")?;
            let size_bytes = self.parse(size_bytes, "a number of bytes")?;
            artifacts.insert(self.parse(platform, "a platform")?, (self.parse(digest, "a digest")?, size_bytes));
        }
        let targets = self.targets()?;
        let undecided = self.undecided()?;
        let (mut devices, mut zones) = (Vec::new(), Zones::default());
        while let Some(rest) = self.take("device") {
            let device = self.device(rest)?;
            let zone = match self.take("zone") {
                Some(name) => Some(zones.named(name).ok_or_else(|| self.unreadable("a time zone", name))?),
                None => None,
            };
            let supersedes = self.take("supersedes").map(|text| self.parse(text, "a rollout")).transpose()?;
            devices.push(PlannedDevice { zone, supersedes, ..device });
        }
        if !self.has_waves {
            // All of them were one wave, in their order.
            let assigned = devices.iter_mut().filter(|device| device.is_assigned());
            (0..).zip(assigned).for_each(|(order, device)| device.place = Some(Place { wave: 0, order }));
        }
        if let Some(line) = self.lines.get(self.next) {
            return Err(self.unreadable("the digest", line));
        }
        let release = PlannedRelease { workload, version, manifest, artifacts, configuration };
        Ok(Plan { id, release, targets, attempt, strategy, rollback, undecided, devices })
    }

    fn configuration(&mut self, workload: &WorkloadName) -> Result<Option<Arc<Configuration>>, ReadPlanError> {
        let Some(line) = self.take("configuration") else { return Ok(None) };
        let what = "configuration NAME DIGEST";
        let id = ConfigurationId::from_text(line).ok_or_else(|| self.unreadable(what, line))?;
        let (mut values, mut files) = (BTreeMap::new(), BTreeMap::new());
        while let Some(rest) = self.take("value") {
            let [name, value] = self.words(rest, "value NAME VALUE")?;
            values.insert(name.to_owned(), unescape(value));
        }
        while let Some(rest) = self.take("file") {
            let [name, digest, size_bytes] = self.words(rest, "file NAME DIGEST BYTES")?;
            let (digest, size_bytes) = (self.parse(digest, "a digest")?, self.parse(size_bytes, "a number of bytes")?);
            files.insert(name.to_owned(), ConfiguredFile { digest, size_bytes });
        }
        let made = Configuration::new(workload.clone(), id.name, values, files).ok();
        let made = made.filter(|made| made.digest() == id.digest).ok_or_else(|| self.unreadable(what, line))?;
        Ok(Some(Arc::new(made)))
    }

    fn rollback(&self, rest: &str) -> Result<Rollback, ReadPlanError> {
        let [of, is_whole] = self.words(rest, "rollback ROLLOUT true|false")?;
        Ok(Rollback { of: self.parse(of, "a rollout")?, is_whole: self.parse(is_whole, "true or false")? })
    }

    fn strategy(&mut self) -> Result<Strategy, ReadPlanError> {
        let canary = self.take("canary").map(|text| self.parse(text, "a selector")).transpose()?;
        let mut waves: Vec<WaveSize> = Vec::new();
        while let Some(text) = self.take("wave") {
            waves.push(self.parse(text, "a wave")?);
        }
        let strategy = Strategy {
            canary,
            waves,
            bake: Duration::from_millis(self.value("bake-ms")?),
            deadline: Duration::from_millis(self.value("deadline-ms")?),
            approve_waves: self.value("approve-waves")?,
            budget: FailureBudget { count: self.number("failed-max")?, percent: self.number("failed-percent")? },
            unavailable_max: self.number("unavailable-max")?,
            unavailable_per_site_max: self.number("unavailable-per-site-max")?,
            terms: self.terms()?,
            priority: match self.take("priority") {
                Some(text) => self.parse(text, "a priority")?,
                None => Priority::default(),
            },
            site_quorum: self.take("site-quorum").map(|text| self.parse(text, "a share")).transpose()?,
        };
        let line = self.lines.get(self.next).copied().unwrap_or("the end");
        strategy.check().map_err(|_| self.unreadable("waves that make sense", line))?;
        Ok(strategy)
    }

    fn terms(&mut self) -> Result<Terms, ReadPlanError> {
        let Some(zone) = self.take("window-zone") else { return Ok(Terms::default()) };
        let mut terms = Terms { zone: self.parse(zone, "a time zone")?, ..Terms::default() };
        while let Some(text) = self.take("window") {
            terms.windows.push(self.parse(text, "a window")?);
        }
        while let Some(text) = self.take("blackout") {
            terms.blackouts.push(self.parse(text, "days")?);
        }
        terms.veto_limit = Duration::from_millis(self.value("veto-limit-ms")?);
        Ok(terms)
    }

    fn strategy_without_waves(&mut self) -> Result<Strategy, ReadPlanError> {
        let budget = FailureBudget { count: Some(self.value("failures-max")?), percent: None };
        Ok(Strategy { budget, ..Strategy::default() })
    }

    /// A number, or none.
    fn number(&mut self, word: &'static str) -> Result<Option<u32>, ReadPlanError> {
        let text: String = self.value(word)?;
        (text != NONE).then(|| self.parse(&text, word)).transpose()
    }

    fn targets(&mut self) -> Result<Targets, ReadPlanError> {
        let (mut all, mut chosen) = (false, Chosen::default());
        while let Some(rest) = self.take("target") {
            match rest.split_once(' ') {
                None if rest == "all" => all = true,
                Some(("selector", text)) => chosen.selector = Some(self.parse(text, "a selector")?),
                Some(("where", text)) => chosen.condition = Some(self.parse(text, "a condition")?),
                Some(("device", word)) => drop(chosen.devices.insert(unescape(word))),
                Some(("group", text)) => {
                    let [name, revision] = self.words(text, "group NAME REVISION")?;
                    let revision = Revision(self.parse(revision, "a revision")?);
                    let group = Group { revision, members: self.members()? };
                    chosen.groups.insert(self.parse(name, "a group name")?, group);
                }
                _ => return Err(self.unreadable("a target", rest)),
            }
        }
        Ok(if all { Targets::All } else { Targets::Some(chosen) })
    }

    /// The lines below a group's own: which devices it is.
    fn members(&mut self) -> Result<Members, ReadPlanError> {
        let (mut locals, mut selector, mut condition) = (BTreeSet::new(), None, None);
        loop {
            if let Some(text) = self.take("target group-device") {
                locals.insert(self.parse(text, "a local id")?);
            } else if let Some(text) = self.take("target group-selector") {
                selector = Some(self.parse(text, "a selector")?);
            } else if let Some(text) = self.take("target group-where") {
                condition = Some(self.parse(text, "a condition")?);
            } else if selector.is_none() && condition.is_none() {
                return Ok(Members::Fixed(locals));
            } else {
                return Ok(Members::Dynamic { selector, condition });
            }
        }
    }

    fn undecided(&mut self) -> Result<Vec<UndecidedDevices>, ReadPlanError> {
        let mut undecided = Vec::new();
        while let Some(rest) = self.take("undecided") {
            let [devices, example, why] = self.words(rest, "undecided DEVICES EXAMPLE REASON")?;
            undecided.push(UndecidedDevices {
                why: unescape(why),
                devices: self.parse(devices, "a number of devices")?,
                example: example.to_owned(),
            });
        }
        Ok(undecided)
    }

    fn device(&self, rest: &str) -> Result<PlannedDevice, ReadPlanError> {
        let [local, device, name, site, revision, offline_since, digest, size_bytes, rest] =
            self.words(rest, "a device's nine words")?;
        let [place, verdict] = if self.has_waves { self.words(rest, "a device's ten words")? } else { [NONE, rest] };
        let verdict = self.verdict(&unescape(verdict))?;
        let place = self.place(place)?;
        if self.has_waves && place.is_some() != verdict.is_assigned() {
            return Err(self.unreadable("a place for who gets the release, and for nobody else", rest));
        }
        let artifact = match (digest, size_bytes) {
            (NONE, NONE) => None,
            _ => Some((self.parse(digest, "a digest")?, self.parse(size_bytes, "a number of bytes")?)),
        };
        let offline_since = match offline_since {
            NONE => None,
            since => Some(Wall(self.parse(since, "milliseconds since 1970")?)),
        };
        Ok(PlannedDevice {
            local: self.parse(local, "a local id")?,
            device: self.parse(device, "a device id")?,
            name: self.parse(name, "a device name")?,
            site: if site == NONE { String::new() } else { unescape(site) },
            verdict,
            place,
            artifact,
            offline_since,
            zone: None,
            supersedes: None,
            revision: Revision(self.parse(revision, "a revision")?),
        })
    }

    fn place(&self, text: &str) -> Result<Option<Place>, ReadPlanError> {
        if text == NONE {
            return Ok(None);
        }
        let what = "a wave and a place";
        let (wave, order) = text.split_once('.').ok_or_else(|| self.unreadable(what, text))?;
        let place = Place { wave: self.parse(wave, what)?, order: self.parse(order, what)? };
        let is_bounded = usize::try_from(place.wave).is_ok_and(|wave| wave < WAVES_MAX);
        is_bounded.then_some(Some(place)).ok_or_else(|| self.unreadable(what, text))
    }

    fn verdict(&self, text: &str) -> Result<Verdict, ReadPlanError> {
        let what = "a verdict";
        match text.split_once(' ') {
            None if text == "install" => Ok(Verdict::Install),
            None if text == "unchanged" => Ok(Verdict::Unchanged),
            Some(("update", rest)) => {
                let from = rest.strip_prefix("from ").ok_or_else(|| self.unreadable(what, text))?;
                let (from, configuration) = match from.split_once(" with ") {
                    Some((from, configuration)) => (from, Some(self.parse(configuration, "a configuration")?)),
                    None => (from, None),
                };
                Ok(Verdict::Update { from: self.parse(from, "a version")?, configuration })
            }
            Some(("blocked", rest)) => {
                let (word, reason) = rest.split_once(' ').ok_or_else(|| self.unreadable(what, text))?;
                let by = Blocked::from_word(word).ok_or_else(|| self.unreadable(what, text))?;
                Ok(Verdict::Blocked { by, reason: reason.to_owned() })
            }
            _ => Err(self.unreadable(what, text)),
        }
    }

    /// Takes the next line if it begins with this word, and gives the rest of it.
    fn take(&mut self, word: &str) -> Option<&'a str> {
        let rest = self.lines.get(self.next)?.strip_prefix(word)?.strip_prefix(' ')?;
        self.next += 1;
        Some(rest)
    }

    fn value<T: FromStr>(&mut self, word: &'static str) -> Result<T, ReadPlanError> {
        let Some(rest) = self.take(word) else {
            let found = self.lines.get(self.next).copied().unwrap_or("the end");
            return Err(ReadPlanError::Line { line: self.next + 1, what: word, text: found.to_owned() });
        };
        self.parse(rest, word)
    }

    fn words<'t, const N: usize>(&self, text: &'t str, what: &'static str) -> Result<[&'t str; N], ReadPlanError> {
        // The last one may have blanks: it is a sentence.
        let words: Vec<_> = text.splitn(N, ' ').collect();
        words.try_into().map_err(|_| self.unreadable(what, text))
    }

    fn parse<T: FromStr>(&self, text: &str, what: &'static str) -> Result<T, ReadPlanError> {
        text.parse().map_err(|_| self.unreadable(what, text))
    }

    /// The line that was taken last has something else than `what`.
    fn unreadable(&self, what: &'static str, text: &str) -> ReadPlanError {
        ReadPlanError::Line { line: self.next, what, text: text.to_owned() }
    }
}
