//! Scenarios of the simulator, which people write and pass on, and the faults that a seed draws for one.

use std::time::Duration;

use fleetd_simulator::fault::Target;
use fleetd_simulator::rehearsal::PlanHead;
use fleetd_simulator::run::RunPlan;
use fleetd_simulator::scenario::{
    DEVICES_MAX, DURATION_MAX, ParseScenarioError, SPAN_MAX, Scenario, builtin, builtin_names,
};
use fleetd_simulator::swarm::faults_most;
use fleetd_sync_core::id::{ArtifactDigest, DeviceId, LocalId, PlanId};

use super::CASES;

/// Faults that are drawn for an input: more only cost time.
const FAULTS_MAX: u64 = 5_000;
/// Stands for a plan's text in inputs: no random change would get the digest at its end right.
const PLAN: &str = "@PLAN@";

fn plan() -> String {
    let digest = ArtifactDigest::of(b"2.0");
    let (local, device) = (LocalId::from_bytes([1; 16]), DeviceId::from_bytes([1; 10]));
    let text = format!(
        "fleetd plan 1\nplan {}\nworkload coffee\nversion 2.0\nmanifest {digest}\nattempt 1\nfailures-max 0\n\
         artifact linux/arm64 {digest} 1000\ntarget all\n\
         device {local} {device} otter-1 - 1 - {digest} 1000 install\n",
        PlanId::from_bytes([7; 10])
    );
    let text = format!("{text}digest {}\n", ArtifactDigest::of(text.as_bytes()));
    assert_eq!(PlanHead::read(&text).unwrap().version, "2.0");
    text
}

/// Says how many faults the seed drew.
fn draw(scenario: &Scenario, seed: u64) -> usize {
    let plan = RunPlan::drawn(scenario.clone(), seed);
    assert_eq!(RunPlan::drawn(scenario.clone(), seed).faults, plan.faults, "a seed draws the same again");
    for fault in &plan.faults {
        let is_there = match fault.on {
            Target::Server => true,
            Target::Site(site) => site < usize::try_from(scenario.sites).unwrap(),
            Target::Device(device) => device < usize::try_from(scenario.devices).unwrap(),
        };
        assert!(is_there && fault.at <= scenario.duration, "{fault:?}");
        assert_eq!((fault.kind.refusal(fault.on), fault.kind.refuse_value(fault.value)), (None, None), "{fault:?}");
        assert!(fault.at.checked_add(fault.lasting).is_some(), "{fault:?}");
    }
    plan.faults.len()
}

fn check_text(text: &str, seed: u64) -> bool {
    match Scenario::parse(text) {
        Ok(scenario) => {
            assert_eq!(scenario.check(), Ok(()));
            assert!((1..=DEVICES_MAX).contains(&scenario.devices) && (1..=scenario.devices).contains(&scenario.sites));
            assert!(scenario.duration <= DURATION_MAX && scenario.deadline <= DURATION_MAX);
            assert!(Duration::from_millis(scenario.latency_ms[1]) <= SPAN_MAX);
            let written = scenario.to_toml().unwrap();
            assert_eq!(Scenario::parse(&written).unwrap(), scenario, "what is written is read again");
            // A seed is run by another process, which is told the scenario so.
            let told = serde_json::to_string(&scenario).unwrap();
            assert_eq!(serde_json::from_str::<Scenario>(&told).unwrap(), scenario);
            if faults_most(&scenario) <= FAULTS_MAX {
                draw(&scenario, seed);
            }
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            if let ParseScenarioError::Range { line, key, .. } = &error {
                assert!(*line <= text.lines().count(), "`{key}` on line {line}");
            }
            false
        }
    }
}

/// The first byte is the seed; the rest is a scenario.
fn check(bytes: &[u8]) -> bool {
    let Some((seed, rest)) = bytes.split_first() else { return false };
    let Ok(text) = std::str::from_utf8(rest) else { return false };
    let text = if text.contains(PLAN) { text.replacen(PLAN, &plan(), 1) } else { text.to_owned() };
    check_text(&text, u64::from(*seed))
}

const REHEARSAL: &str = "name = \"coffee 2.0\"\ndevices = 2\nduration = \"1h\"\ndeadline = \"20m\"\n[rehearsal]\n\
    plan = '''\n@PLAN@'''\ncopied_at_ms = 1764000000000\noffline = \"20%\"\nloss = [\"0%\", \"2%\"]\n\
    bandwidth = 2000000\n[rehearsal.probe]\ncheck = \"alive\"\ngrace = \"10s\"\ninterval = \"1s\"\ntimeout = \"1s\"\n\
    successes_min = 1\nfailures_max = 3\n[[rehearsal.device]]\nname = \"otter-1\"\nid = \"dev_1\"\nlocal = \"loc_1\"\n\
    labels = { rack = \"3\" }\npresent = { version = \"1.0\", healthy = true }\n[[rehearsal.device]]\n\
    name = \"otter-2\"\nid = \"dev_2\"\nlocal = \"loc_2\"\nsite = \"berlin\"\noffline_since_ms = 1763000000000\n\
    [[rehearsal.device.hold]]\nreason = \"the owner is away\"\n";

fn samples() -> Vec<Vec<u8>> {
    let mut samples: Vec<Vec<u8>> =
        builtin_names().map(|name| [b"\x07", builtin(name).unwrap().to_toml().unwrap().as_bytes()].concat()).collect();
    samples.push([b"\x01", REHEARSAL.as_bytes()].concat());
    samples
}

#[test]
fn every_sample_of_a_scenario_is_one() {
    for sample in samples() {
        assert!(check(&sample), "{}", String::from_utf8_lossy(&sample));
    }
}

#[test]
fn any_text_is_one_scenario_or_none() {
    bolero::check!(name = "scenario").with_iterations(CASES).for_each(|bytes| {
        check(bytes);
    });
}
