//! Saved plans, which people keep in files and may edit, and what they are made of: selectors, conditions, windows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fleetd_actors::rollout::plan::{Blocked, Plan, PlannedDevice, PlannedRelease, Verdict};
use fleetd_actors::rollout::strategy::{FailureBudget, Place, Strategy, WaveSize};
use fleetd_actors::selector::Selector;
use fleetd_actors::targeting::{Chosen, Condition, Described, Targets};
use fleetd_actors::window::DeviceTerms;
use fleetd_sync_core::commit::Revision;
use fleetd_sync_core::configuration::{Configuration, ConfiguredFile};
use fleetd_sync_core::id::{ArtifactDigest, DeviceId, LocalId, PlanId};
use fleetd_sync_core::limit;
use fleetd_sync_core::time::Wall;

use super::CASES;

fn plan(text: &str) -> bool {
    let Ok(plan) = Plan::from_text(text) else { return false };
    let again = plan.to_text();
    assert_eq!(Plan::from_text(&again).as_ref(), Ok(&plan), "a plan is read as it was written: {again}");
    let _ = (plan.counts(), plan.counts_by_site(), plan.fence(), plan.is_blocked(), plan.assigned().count());
    true
}

/// A text with the digest of it at its end, as whoever edits a plan and knows how would make.
fn with_digest(body: &str) -> String {
    format!("{body}digest {}\n", ArtifactDigest::of(body.as_bytes()))
}

fn selector(text: &str) -> bool {
    let Ok(selector) = text.parse::<Selector>() else { return false };
    assert!(text.len() <= limit::SELECTOR_BYTES_MAX && selector.keys().next().is_some());
    let printed = selector.to_string();
    assert_eq!(printed.parse().as_ref(), Ok(&selector), "what is printed is parsed the same: {printed}");
    let labels = BTreeMap::from([("site", "berlin"), ("rack", "3")]);
    let matches = |selector: &Selector| selector.matches(|key| labels.get(key).copied());
    assert_eq!(matches(&selector), matches(&printed.parse().unwrap()));
    true
}

/// A device that a condition can be asked of.
struct Otter;

impl Described for Otter {
    fn local(&self) -> LocalId {
        LocalId::from_bytes([1; 16])
    }

    fn device(&self) -> DeviceId {
        DeviceId::from_bytes([1; 10])
    }

    fn name(&self) -> &str {
        "otter-1"
    }

    fn site(&self) -> &str {
        "berlin"
    }

    fn platform(&self) -> Option<&str> {
        Some("linux/arm64")
    }

    fn is_online(&self) -> bool {
        true
    }

    fn label(&self, key: &str) -> Option<&str> {
        (key == "rack").then_some("3")
    }

    fn fact(&self, key: &str) -> Option<&str> {
        (key == "memory_bytes").then_some("1073741824")
    }
}

/// Whatever is asked, the answer comes: neither a stack nor a memory is filled by it.
fn condition(text: &str) -> bool {
    let Ok(condition) = text.parse::<Condition>() else { return false };
    assert!(text.trim().len() <= limit::CONDITION_BYTES_MAX);
    let again: Condition = condition.to_string().parse().unwrap();
    assert_eq!(again.answer(&Otter), condition.answer(&Otter));
    true
}

/// 2026-01-01.
const NEW_YEAR: Wall = Wall(1_767_225_600_000);

/// Terms as a device's signed document has them. Where a window opens it is open.
fn terms(text: &str) -> bool {
    let Ok(terms) = text.parse::<DeviceTerms>() else { return false };
    let printed = terms.to_string();
    assert_eq!(printed.parse().as_ref(), Ok(&terms), "what is printed is parsed the same: {printed}");
    if let Some(opens) = terms.calendar.opens(NEW_YEAR) {
        assert!(opens >= NEW_YEAR && terms.calendar.is_open(opens), "{printed}");
    }
    true
}

/// The first byte says what the rest is taken for.
fn check(bytes: &[u8]) -> bool {
    let Some((kind, rest)) = bytes.split_first() else { return false };
    let Ok(text) = std::str::from_utf8(rest) else { return false };
    match kind {
        b's' => selector(text),
        b'c' => condition(text),
        b't' => terms(text),
        b'r' => plan(text),
        _ => plan(&with_digest(text)),
    }
}

fn of(kind: u8, text: &str) -> Vec<u8> {
    [&[kind], text.as_bytes()].concat()
}

/// What plans are made of.
fn parts() -> Vec<Vec<u8>> {
    let mut samples = Vec::new();
    let selectors = [
        "site=berlin,rack!=3",
        "site in (paris, berlin),!floor",
        "rack notin (1,2)",
        "in in (in),notin=notin",
        "site",
        " platform = linux/arm64 , ! floor ",
    ];
    samples.extend(selectors.map(|selector| of(b's', selector)));
    let terms = [
        "veto 86400s",
        "veto 0s; zone Europe/Berlin; window 0 2 * * * 3h; window 30 1 * * 1-5 15m; blackout 2026-12-24..2027-01-01",
    ];
    samples.extend(terms.map(|terms| of(b't', terms)));
    let conditions = [
        "facts.ram_bytes >= 536870912 && site in ['berlin', 'paris']",
        "!name.startsWith('otter-') || size(labels.rack) > 2 ? online : os == 'linux'",
    ];
    samples.extend(conditions.map(|condition| of(b'c', condition)));
    samples
}

fn configuration() -> Arc<Configuration> {
    let values =
        [("ROAST", "dark\n and \\ long"), ("SUGAR", "")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let file = ConfiguredFile { digest: ArtifactDigest::of(b"menu"), size_bytes: 4 };
    let files = [("MENU".to_owned(), file)].into();
    Arc::new(Configuration::new("coffee".parse().unwrap(), "roast-2".parse().unwrap(), values.into(), files).unwrap())
}

fn samples() -> Vec<Vec<u8>> {
    let digest = ArtifactDigest::of(b"2.0");
    let device = |index: u8, verdict: Verdict| PlannedDevice {
        local: LocalId::from_bytes([index; 16]),
        device: DeviceId::from_bytes([index; 10]),
        name: format!("otter-{index}").parse().unwrap(),
        site: (*["", "berlin", "-", "a b"].get(usize::from(index) - 1).unwrap()).to_owned(),
        artifact: (index != 3).then_some((digest, 1000)),
        zone: None,
        supersedes: None,
        offline_since: (index == 2).then_some(Wall(1234)),
        revision: Revision(u64::from(index)),
        place: verdict.is_assigned().then(|| Place { wave: u32::from(index) - 1, order: 0 }),
        verdict,
    };
    let held = Verdict::Blocked { by: Blocked::Held, reason: "the owner is away\\n".to_owned() };
    let devices = vec![
        device(1, Verdict::Install),
        device(2, Verdict::Update { from: "1.0".parse().unwrap(), configuration: Some("roast-1".parse().unwrap()) }),
        device(3, held),
        device(4, Verdict::Unchanged),
    ];
    let names = BTreeSet::from(["otter-1".to_owned(), "a b".to_owned()]);
    let some = Targets::Some(Chosen {
        selector: Some("site=berlin,rack in (1,2)".parse().unwrap()),
        devices: names,
        ..Chosen::default()
    });
    let plans = [Targets::All, some].map(|targets| Plan {
        id: PlanId::from_bytes([7; 10]),
        release: PlannedRelease {
            workload: "coffee".parse().unwrap(),
            version: "2.0".parse().unwrap(),
            manifest: digest,
            artifacts: BTreeMap::from([("linux/arm64".parse().unwrap(), (digest, 1000))]),
            configuration: Some(configuration()),
        },
        targets,
        attempt: 1,
        strategy: Strategy {
            canary: Some("site=berlin".parse().unwrap()),
            waves: vec![WaveSize::Count(1), WaveSize::Percent(10), WaveSize::Rest],
            bake: Duration::from_mins(30),
            approve_waves: true,
            budget: FailureBudget { count: None, percent: Some(2) },
            unavailable_max: Some(5),
            ..Strategy::default()
        },
        rollback: None,
        undecided: vec![],
        devices: devices.clone(),
    });
    let mut samples = Vec::new();
    for plan in plans {
        let text = plan.to_text();
        assert_eq!(Plan::from_text(&text), Ok(plan));
        let (body, _) = text.split_at(text.rfind("digest ").unwrap());
        samples.extend([of(b'r', &text), of(b'd', body)]);
    }
    samples.extend(parts());
    samples
}

#[test]
fn every_sample_of_a_plan_is_one() {
    for sample in samples() {
        assert!(check(&sample), "{}", String::from_utf8_lossy(&sample));
    }
}

#[test]
fn any_text_is_one_plan_or_selector_or_none() {
    bolero::check!(name = "plan").with_iterations(CASES).for_each(|bytes| {
        check(bytes);
    });
}
