//! The shell under commits that wait, fail and come back, and under machines that panic.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleetd_actors::address::{Address, Taken};
use fleetd_actors::driver::Driver;
use fleetd_actors::engine::{PARK_AFTER, REST_AFTER};
use fleetd_actors::shell::ShellEngine;
use fleetd_actors::spawn::{Load, Spawn};
use fleetd_sync_core::commit::{ActorKey, Batch, Commit, CommitError, Completion, Mutation, Space};
use fleetd_sync_core::machine::{Machine, Turn};
use fleetd_sync_core::time::{Clock, ClockQuality, Monotonic, Now, Wall};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Time as the paused runtime has it.
struct RuntimeClock(tokio::time::Instant);

impl Clock for RuntimeClock {
    fn now(&self) -> Now {
        let monotonic = Monotonic(u64::try_from(self.0.elapsed().as_nanos()).unwrap());
        Now { monotonic, wall: Wall(0), quality: ClockQuality::None }
    }
}

/// A commit whose outcome the test decides.
#[derive(Default)]
struct HeldCommit {
    durable: Mutex<Vec<u64>>,
    held: Mutex<VecDeque<(Batch, Completion)>>,
    reloads: Mutex<u32>,
}

impl HeldCommit {
    fn finish(&self, result: Result<(), CommitError>) {
        let (batch, done) = self.held.lock().unwrap().pop_front().unwrap();
        if result.is_ok() {
            self.durable.lock().unwrap().extend(batch.mutations.iter().map(counted));
        }
        done(result);
    }

    fn waiting(&self) -> usize {
        self.held.lock().unwrap().len()
    }
}

fn counted(mutation: &Mutation) -> u64 {
    match mutation {
        Mutation::Put { value, .. } => u64::from_be_bytes(value.as_slice().try_into().unwrap()),
        other => unreachable!("the counter only puts, not {other:?}"),
    }
}

impl Commit for HeldCommit {
    fn submit(&self, batch: Batch, done: Completion) {
        self.held.lock().unwrap().push_back((batch, done));
    }

    fn reloaded(&self, _actor: &ActorKey) {
        self.held.lock().unwrap().clear();
        *self.reloads.lock().unwrap() += 1;
    }
}

/// Adds up what it is given, and announces each sum once it is durable.
#[derive(Debug)]
struct Sum {
    total: u64,
    announced_after_load: bool,
    due: Option<Monotonic>,
    /// What no store knows.
    remembered: u64,
}

#[derive(Debug)]
enum Input {
    Add(u64),
    Peek,
    Panic,
    Later(Duration),
    Remember(u64),
    Recall,
}

impl Machine for Sum {
    type Input = Input;
    type Record = u64;
    type Effect = String;

    fn handle(&mut self, now: Now, input: Input, turn: &mut Turn<u64, String>) {
        match input {
            Input::Add(amount) => {
                self.total += amount;
                turn.persist(self.total);
                turn.effect(format!("total {}", self.total));
            }
            Input::Peek => turn.effect(format!("peek {}", self.total)),
            Input::Panic => panic!("a broken invariant"),
            Input::Later(wait) => self.due = Some(now.monotonic + wait),
            Input::Remember(number) => {
                self.remembered = number;
                turn.effect(format!("remembers {number}"));
            }
            Input::Recall => turn.effect(format!("recalls {}", self.remembered)),
        }
    }

    fn handle_timeout(&mut self, now: Now, turn: &mut Turn<u64, String>) {
        if !self.announced_after_load {
            self.announced_after_load = true;
            turn.effect(format!("loaded {}", self.total));
        }
        if self.due.is_some_and(|due| due <= now.monotonic) {
            self.due = None;
            turn.effect("due".to_owned());
        }
    }

    fn poll_timeout(&self) -> Option<Monotonic> {
        self.due
    }

    fn is_idle(&self) -> bool {
        self.remembered == 0
    }
}

/// It knows its own address, as drivers of the product do.
struct Announce(mpsc::UnboundedSender<String>, #[expect(dead_code, reason = "it is held")] Address<Input>);

impl Driver<Sum> for Announce {
    fn store(&mut self, record: u64, mutations: &mut Vec<Mutation>) {
        mutations.push(Mutation::Put {
            space: Space::Meta,
            key: b"total".to_vec(),
            value: record.to_be_bytes().into(),
        });
    }

    fn start(&mut self, _now: Now, effect: String) {
        self.0.send(effect).unwrap();
    }
}

struct World {
    commit: Arc<HeldCommit>,
    engine: ShellEngine,
    address: Address<Input>,
    is_loaded: Arc<dyn Fn() -> bool + Send + Sync>,
    heard: mpsc::UnboundedReceiver<String>,
}

async fn world() -> World {
    let commit = Arc::new(HeldCommit::default());
    let clock = Arc::new(RuntimeClock(tokio::time::Instant::now()));
    let store: Arc<dyn Commit> = Arc::<HeldCommit>::clone(&commit);
    let engine = ShellEngine::start(clock, store).await.unwrap();
    let (announce, heard) = mpsc::unbounded_channel();
    let stored = Arc::clone(&commit);
    let load: Load<Sum, Announce> = Arc::new(move |address| {
        let total = stored.durable.lock().unwrap().last().copied().unwrap_or(0);
        let sum = Sum { total, announced_after_load: false, due: None, remembered: 0 };
        Ok((sum, Announce(announce.clone(), address.clone())))
    });
    let spawned = engine.spawn(ActorKey::only("sum"), false, load);
    World { commit, engine, address: spawned.address, is_loaded: spawned.is_loaded, heard }
}

impl World {
    async fn hears(&mut self, expected: &str) {
        assert_eq!(self.heard.recv().await.unwrap(), expected);
    }

    /// Lets everything that can happen now happen.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    fn hears_nothing(&mut self) {
        assert!(self.heard.try_recv().is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn an_effect_waits_until_its_turn_is_durable_while_inputs_go_on() {
    let mut world = world().await;
    world.address.send(Input::Add(2));
    world.hears("loaded 0").await;
    world.address.send(Input::Add(3));
    world.address.send(Input::Peek);
    world.settle().await;
    world.hears_nothing();
    assert_eq!(world.commit.waiting(), 2);
    world.commit.finish(Ok(()));
    world.hears("total 2").await;
    world.commit.finish(Ok(()));
    world.hears("total 5").await;
    world.hears("peek 5").await;
}

#[tokio::test(start_paused = true)]
async fn after_a_failed_commit_the_actor_comes_back_from_the_store() {
    let mut world = world().await;
    world.address.send(Input::Add(2));
    world.hears("loaded 0").await;
    world.settle().await;
    world.commit.finish(Ok(()));
    world.hears("total 2").await;
    world.address.send(Input::Add(40));
    world.address.send(Input::Peek);
    world.settle().await;
    world.commit.finish(Err(CommitError::Full));
    world.hears("loaded 2").await;
    world.address.send(Input::Peek);
    world.hears("peek 2").await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_invariant_restarts_its_actor_and_no_other() {
    let mut world = world().await;
    world.address.send(Input::Panic);
    world.hears("loaded 0").await;
    world.hears("loaded 0").await;
    world.address.send(Input::Panic);
    world.hears("loaded 0").await;
    world.address.send(Input::Peek);
    world.hears("peek 0").await;
}

#[tokio::test(start_paused = true)]
async fn a_timer_comes_when_it_is_due() {
    let mut world = world().await;
    world.address.send(Input::Later(Duration::from_secs(7)));
    world.hears("loaded 0").await;
    let before = tokio::time::Instant::now();
    world.hears("due").await;
    assert_eq!(before.elapsed().as_secs(), 7);
}

#[tokio::test(start_paused = true)]
async fn an_idle_actor_rests_and_wakes_with_the_next_input() {
    let mut world = world().await;
    world.address.send(Input::Peek);
    world.hears("loaded 0").await;
    world.hears("peek 0").await;
    assert!((world.is_loaded)());
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(!(world.is_loaded)());
    world.address.send(Input::Peek);
    world.hears("loaded 0").await;
    world.hears("peek 0").await;
    world.engine.stop();
}

#[tokio::test(start_paused = true)]
async fn whoever_has_no_runtime_wakes_an_actor_all_the_same() {
    let mut world = world().await;
    world.address.send(Input::Peek);
    world.hears("loaded 0").await;
    world.hears("peek 0").await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    let address = world.address.clone();
    #[expect(clippy::disallowed_methods, reason = "it is about a thread that no runtime has")]
    std::thread::spawn(move || address.send(Input::Later(Duration::from_secs(7)))).join().unwrap();
    world.hears("loaded 0").await;
    world.hears("due").await;
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_only_waits_keeps_what_it_knows_and_nothing_that_runs() {
    let mut world = world().await;
    world.address.send(Input::Remember(7));
    world.hears("loaded 0").await;
    world.hears("remembers 7").await;
    let running = Handle::current().metrics().num_alive_tasks();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!((world.is_loaded)());
    assert!(Handle::current().metrics().num_alive_tasks() < running, "it has a task still");
    for _ in 0..2 {
        world.address.send(Input::Recall);
        world.hears("recalls 7").await;
        tokio::time::sleep(Duration::from_secs(120)).await;
    }
    // One that fails has what the store has, as ever.
    world.address.send(Input::Panic);
    world.hears("loaded 0").await;
    world.address.send(Input::Recall);
    world.hears("recalls 0").await;
    world.engine.stop();
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_was_idle_at_first_parks_as_soon_as_one_that_was_not() {
    let mut world = world().await;
    let alone = Handle::current().metrics().num_alive_tasks();
    world.address.send(Input::Peek);
    world.hears("loaded 0").await;
    world.hears("peek 0").await;
    world.settle().await;
    world.address.send(Input::Remember(7));
    world.hears("remembers 7").await;
    tokio::time::sleep(2 * PARK_AFTER).await;
    assert!((world.is_loaded)());
    // What sleeps to ask an idle actor would keep its mailbox.
    assert_eq!(Handle::current().metrics().num_alive_tasks(), alone);
    // What was asked of it when it was idle finds another, which knows more.
    world.address.send(Input::Recall);
    world.hears("recalls 7").await;
    tokio::time::sleep(2 * REST_AFTER).await;
    world.address.send(Input::Recall);
    world.hears("recalls 7").await;
    world.engine.stop();
}

#[tokio::test(start_paused = true)]
async fn an_actor_whose_time_is_far_has_nothing_that_runs_but_a_timer_and_acts_in_time() {
    let mut world = world().await;
    world.address.send(Input::Remember(7));
    world.hears("loaded 0").await;
    world.hears("remembers 7").await;
    let before = tokio::time::Instant::now();
    let running = Handle::current().metrics().num_alive_tasks();
    world.address.send(Input::Later(Duration::from_secs(3600)));
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!((world.is_loaded)());
    assert!(Handle::current().metrics().num_alive_tasks() <= running, "it has more than its timer");
    world.address.send(Input::Recall);
    world.hears("recalls 7").await;
    world.hears("due").await;
    assert_eq!(before.elapsed().as_secs(), 3600);
    world.address.send(Input::Recall);
    world.hears("recalls 7").await;
    world.engine.stop();
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_engine_lets_go_of_actors_that_only_wait() {
    let mut world = world().await;
    let held = Arc::downgrade(&world.commit);
    world.address.send(Input::Remember(7));
    world.hears("loaded 0").await;
    world.hears("remembers 7").await;
    world.address.send(Input::Later(Duration::from_secs(3600)));
    tokio::time::sleep(Duration::from_secs(120)).await;
    world.engine.stop();
    assert!(!(world.is_loaded)());
    drop(world);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(held.upgrade().is_none(), "somebody holds the store for ever");
}

#[tokio::test(start_paused = true)]
async fn an_actor_with_an_open_turn_does_not_rest() {
    let mut world = world().await;
    world.address.send(Input::Add(1));
    world.hears("loaded 0").await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!((world.is_loaded)());
    world.commit.finish(Ok(()));
    world.hears("total 1").await;
}

#[tokio::test(start_paused = true)]
async fn a_sender_learns_when_its_input_was_taken() {
    let mut world = world().await;
    let (taken, told) = tokio::sync::oneshot::channel();
    world.address.send_then(Input::Peek, Taken::new(move || taken.send(()).unwrap()));
    told.await.unwrap();
    world.hears("loaded 0").await;
}

#[tokio::test(start_paused = true)]
async fn a_sender_gets_its_credit_back_for_an_input_that_fell_with_its_actor() {
    let mut world = world().await;
    world.address.send(Input::Peek);
    world.hears("loaded 0").await;
    let (taken, told) = tokio::sync::oneshot::channel();
    world.address.send(Input::Panic);
    world.address.send_then(Input::Peek, Taken::new(move || taken.send(()).unwrap()));
    told.await.unwrap();
}
