//! Whatever happens, in whatever order: one run at a time, and every install ends.

use std::time::Duration;

use proptest::prelude::*;

use super::super::*;
use super::bench::{Bench, Trust, assignment, assignment_with, label, release};
use crate::report::Exit;

/// Something that happens to a device.
#[derive(Clone, Debug)]
enum Happening {
    Assign { version: u8, configuration: u8, attempt: u32, held: bool, conflict: bool, stopped: bool, restarts: u64 },
    AssignNothing,
    Answer { which: usize },
    Exit,
    Ready,
    Wait { seconds: u64 },
    KillAgent,
    Reboot,
    LoseAnswers,
    Command(Command),
    Trust(bool),
    NoSpace,
}

fn happening() -> impl Strategy<Value = Happening> {
    let assign = ((1..=4_u8, 0..6_u8), 1..4_u32, any::<u8>(), 0..3_u64).prop_map(|(what, attempt, bits, restarts)| {
        Happening::Assign {
            version: what.0,
            configuration: what.1,
            attempt,
            held: bits & 7 == 0,
            conflict: bits & 7 == 1,
            stopped: bits & 7 == 2,
            restarts,
        }
    });
    prop_oneof![
        4 => assign,
        1 => Just(Happening::AssignNothing),
        20 => any::<prop::sample::Index>().prop_map(|index| Happening::Answer { which: index.index(64) }),
        2 => Just(Happening::Exit),
        1 => Just(Happening::Ready),
        4 => (0..20_u64).prop_map(|seconds| Happening::Wait { seconds }),
        2 => Just(Happening::KillAgent),
        1 => Just(Happening::Reboot),
        1 => Just(Happening::LoseAnswers),
        1 => prop::sample::select(vec![Command::Start, Command::Stop, Command::Restart]).prop_map(Happening::Command),
        1 => any::<bool>().prop_map(Happening::Trust),
        1 => Just(Happening::NoSpace),
    ]
}

fn happen(bench: &mut Bench, happening: Happening) {
    match happening {
        Happening::Assign { version, configuration, attempt, held, conflict, stopped, restarts } => {
            let run = Some(if stopped { RunWish::Stopped } else { RunWish::Running });
            let version = format!("{version}.0");
            let assignment = match configuration {
                1 | 2 => assignment_with(&version, &format!("roast-{configuration}"), attempt),
                3 => assignment_with(&version, "odd", attempt),
                _ => assignment(&version, attempt),
            };
            bench.assign(Assignment { held, conflict, run, restarts, ..assignment });
        }
        Happening::AssignNothing => bench.assign(Assignment::default()),
        Happening::Answer { which } => {
            if !bench.pending.is_empty() {
                bench.answer(which % bench.pending.len());
            }
        }
        // A program that has not started yet cannot end: the runner tells both, in this order.
        Happening::Exit => {
            let starting =
                bench.pending.iter().any(|effect| matches!(effect, Effect::Start { .. } | Effect::Attach { .. }));
            if bench.process.is_some() && !starting {
                bench.exit(Exit::Code(1));
            }
        }
        Happening::Ready => {
            if bench.process.is_some() {
                bench.ready();
            }
        }
        Happening::Wait { seconds } => bench.advance(Duration::from_secs(seconds)),
        Happening::KillAgent => bench.kill_agent(),
        Happening::Reboot => {
            bench.reboot();
            bench.hear_trust();
        }
        // What was started went through, and the agent died before it heard so.
        Happening::LoseAnswers => {
            let switches: Vec<_> = bench.pending.clone();
            for effect in switches {
                if let Effect::Switch { to, .. } = effect {
                    bench.current = Some(label(&to));
                }
            }
            bench.kill_agent();
        }
        Happening::Command(command) => bench.command(command),
        Happening::Trust(good) => bench.trust(if good { Trust::Good } else { Trust::Retired }),
        Happening::NoSpace => {
            if bench.pending.iter().any(|effect| matches!(effect, Effect::Fetch { .. })) {
                bench.fetch_fails(FetchError::NoSpace { needed_bytes: 2, free_bytes: 1 });
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// The machine's own assertions and the bench's hold all the way: never a second run, only what is current and
    /// staged is started, no hold beside an install.
    #[test]
    fn every_install_ends_and_one_run_is_left(
        happenings in prop::collection::vec(happening(), 0..80),
        crashes in any::<bool>(),
    ) {
        let mut bench = Bench::new();
        for happening in happenings {
            happen(&mut bench, happening);
        }
        bench.trust(Trust::Good);
        bench.command(Command::Start);
        let last = Assignment { run: Some(RunWish::Running), restarts: 9, ..assignment("4.0", 9) };
        bench.assign(last);
        for _ in 0..20 {
            bench.run_all();
            if crashes && bench.running().as_deref() == Some("4.0") {
                bench.exit(Exit::Code(1));
            }
            bench.run_all();
            bench.advance(Duration::from_mins(5));
        }
        bench.run_all();

        let report = bench.report();
        prop_assert!(bench.told() == Some(&report), "what is known is told");
        prop_assert_eq!(&bench.disk, bench.machine.record());
        prop_assert!(report.is_about(super::bench::rollout(), 9, release("4.0").digest()), "{:?}", report);
        let phase = report.phase.unwrap();
        if crashes {
            // What had proven itself before is only started ever more slowly; what had not is taken back.
            prop_assert!(phase.is_final());
        } else {
            prop_assert_eq!(phase, Phase::Healthy);
            prop_assert_eq!(bench.running(), Some("4.0".to_owned()));
        }
        match phase {
            Phase::Restored => prop_assert!(bench.running().is_some() && bench.running().as_deref() != Some("4.0")),
            Phase::Failed => prop_assert_eq!(bench.running(), None),
            _ => {}
        }
    }
}
