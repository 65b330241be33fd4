use super::*;

const SECOND: Duration = Duration::from_secs(1);

struct World {
    now: Monotonic,
    dialler: Dialler,
    out: Vec<DialOutput>,
}

impl World {
    fn new(addresses: &[&str], failures: u32) -> Self {
        let mut dialler = Dialler::new(Entropy::from_seed([7; 32]), failures, None);
        dialler.on_addresses(Monotonic(0), &addresses.iter().map(ToString::to_string).collect::<Vec<_>>());
        Self { now: Monotonic(0), dialler, out: Vec::new() }
    }

    /// Lets time pass until the dialler dials, and says for how long it paused and whom it dialled.
    fn dialled(&mut self) -> (Duration, ConnectionId, String) {
        let start = self.now;
        self.out.clear();
        loop {
            self.now = self.dialler.poll_timeout().unwrap().max(self.now);
            self.dialler.handle_timeout(self.now, &mut self.out);
            let dials = self.out.iter().find_map(|output| match output {
                DialOutput::Dial { connection, address } => Some((*connection, address.clone())),
                _ => None,
            });
            if let Some((connection, address)) = dials {
                return (self.now.since(start), connection, address);
            }
        }
    }

    fn down(&mut self, connection: ConnectionId, code: Option<CloseCode>) {
        self.dialler.on_down(self.now, connection, code, &mut self.out);
    }

    fn live(&mut self, connection: ConnectionId) {
        self.dialler.on_up(connection);
        self.dialler.on_welcomed(connection, Grade::Full, &mut self.out);
        self.dialler.on_live(connection, &mut self.out);
    }
}

#[test]
fn without_an_address_nothing_is_dialled() {
    let mut world = World::new(&[], 0);
    assert_eq!((world.dialler.phase(), world.dialler.poll_timeout()), (&Phase::Unconfigured, None));
    world.dialler.on_addresses(world.now, &["a:1".to_owned()]);
    assert_eq!(world.dialled().2, "a:1");
}

#[test]
fn each_address_of_a_round_is_tried_before_a_pause() {
    let mut world = World::new(&["a:1", "b:1", "c:1"], 5);
    let mut tried = Vec::new();
    for _ in 0..3 {
        let (pause, connection, address) = world.dialled();
        assert!(tried.is_empty() || pause.is_zero());
        tried.push(address);
        world.down(connection, None);
    }
    assert_eq!(tried, ["a:1", "b:1", "c:1"]);
    assert!(world.out.contains(&DialOutput::Failures(6)));
    assert!(matches!(world.dialler.phase(), Phase::Idle { until } if *until > world.now));
}

#[test]
fn pauses_stay_below_a_ceiling_that_doubles_and_then_stands() {
    let mut world = World::new(&["a:1"], 0);
    let mut longest = Duration::ZERO;
    for failures in 0..40 {
        let (pause, connection, _) = world.dialled();
        let expected = limit::DIAL_BACKOFF_FIRST * (1 << failures.min(10));
        assert!(pause <= expected.min(limit::DIAL_BACKOFF_LAST), "{failures}: {pause:?}");
        longest = longest.max(pause);
        world.down(connection, None);
    }
    assert!(longest > limit::DIAL_BACKOFF_LAST / 2, "the pauses never grew: {longest:?}");
}

#[test]
fn two_devices_with_one_history_pause_differently() {
    let pause = |seed| {
        let mut dialler = Dialler::new(Entropy::from_seed([seed; 32]), 7, None);
        dialler.on_addresses(Monotonic(0), &["a:1".to_owned()]);
        dialler.poll_timeout().unwrap()
    };
    assert_ne!(pause(1), pause(2));
}

#[test]
fn failures_are_written_down_until_they_change_nothing() {
    let mut world = World::new(&["a:1"], 0);
    let mut written = Vec::new();
    for _ in 0..20 {
        let (_, connection, _) = world.dialled();
        world.out.clear();
        world.down(connection, None);
        written.extend(world.out.iter().filter(|output| matches!(output, DialOutput::Failures(_))).cloned());
    }
    assert_eq!(written.len(), usize::try_from(limit::DIAL_FAILURES_MAX).unwrap());
    let (_, connection, _) = world.dialled();
    world.live(connection);
    assert!(world.out.contains(&DialOutput::Failures(0)) && world.out.contains(&DialOutput::Reached("a:1".to_owned())));
}

#[test]
fn a_server_that_fails_while_reconciling_counts_as_a_failure() {
    let mut world = World::new(&["a:1"], 0);
    let (_, connection, _) = world.dialled();
    world.dialler.on_up(connection);
    world.dialler.on_welcomed(connection, Grade::Full, &mut world.out);
    world.down(connection, Some(CloseCode::Internal));
    assert_eq!(world.dialler.failures(), 1);
}

#[test]
fn a_link_that_was_live_is_dialled_again_soon_at_the_same_address() {
    let mut world = World::new(&["a:1", "b:1"], 0);
    let (_, connection, _) = world.dialled();
    world.down(connection, None);
    let (_, connection, _) = world.dialled();
    world.live(connection);
    world.down(connection, None);
    let (pause, _, address) = world.dialled();
    assert!(address == "b:1" && pause <= limit::DIAL_BACKOFF_FIRST);
}

#[test]
fn two_holders_of_one_key_take_the_connection_from_each_other_ever_more_seldom() {
    let mut world = World::new(&["a:1"], 0);
    let replaced = |world: &mut World, rounds: u32| {
        let pause = |world: &mut World| {
            let (pause, connection, _) = world.dialled();
            world.live(connection);
            world.down(connection, Some(CloseCode::Replaced));
            pause
        };
        (0..rounds).map(|_| pause(world)).sum::<Duration>()
    };
    let (first, _, last) = (replaced(&mut world, 8), replaced(&mut world, 8), replaced(&mut world, 100));
    assert!(first < SECOND * 120, "{first:?}");
    assert!(last > limit::DIAL_BACKOFF_LAST * 30, "{last:?}");

    let (_, connection, _) = world.dialled();
    world.live(connection);
    world.down(connection, None);
    let (pause, ..) = world.dialled();
    assert!(pause <= limit::DIAL_BACKOFF_FIRST, "whoever was cut off without a rival comes back soon");
}

#[test]
fn a_dial_that_hangs_is_given_up() {
    let mut world = World::new(&["a:1", "b:1"], 0);
    let (_, first, _) = world.dialled();
    let (pause, second, address) = world.dialled();
    assert!(address == "b:1" && pause == limit::HELLO_TIMEOUT);
    assert!(world.out.contains(&DialOutput::Close { connection: first, code: CloseCode::Timeout }));
    assert!(!world.dialler.is_current(first) && world.dialler.is_current(second));
}

#[test]
fn a_hello_that_never_comes_is_a_failure_though_the_link_was_up() {
    let mut world = World::new(&["a:1", "b:1"], 0);
    let (_, connection, _) = world.dialled();
    world.dialler.on_up(connection);
    world.dialler.close(world.now, CloseCode::Timeout, &mut world.out);
    world.down(connection, Some(CloseCode::Timeout));
    assert_eq!(world.dialled().2, "b:1");
}

#[test]
fn a_refused_device_stays_away_long_and_still_comes_back() {
    let mut world = World::new(&["a:1"], 0);
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        let (pause, connection, _) = world.dialled();
        longest = longest.max(pause);
        world.down(connection, Some(CloseCode::Revoked));
    }
    assert!(longest > limit::DIAL_BACKOFF_LAST && longest <= limit::DIAL_BACKOFF_REFUSED, "{longest:?}");
}

#[test]
fn an_impostor_at_one_address_does_not_keep_the_device_from_the_other() {
    let mut world = World::new(&["impostor:1", "server:1"], 0);
    let (_, connection, _) = world.dialled();
    world.down(connection, Some(CloseCode::Impostor));
    let (pause, _, address) = world.dialled();
    assert!(address == "server:1" && pause.is_zero());
}

#[test]
fn a_server_that_asks_for_peace_gets_it() {
    let mut world = World::new(&["a:1"], 0);
    let (_, connection, _) = world.dialled();
    world.live(connection);
    world.dialler.on_retry_after(connection, 100 * SECOND);
    world.down(connection, Some(CloseCode::Busy));
    let (pause, connection, _) = world.dialled();
    assert!(pause >= 100 * SECOND && pause <= 200 * SECOND);
    world.live(connection);
    world.dialler.on_retry_after(connection, Duration::MAX);
    world.down(connection, Some(CloseCode::Busy));
    assert!(world.dialled().0 <= 2 * limit::RETRY_AFTER_MAX);
}

#[test]
fn a_device_with_a_new_certificate_dials_again_at_once() {
    let mut world = World::new(&["a:1"], 0);
    let (_, connection, _) = world.dialled();
    world.dialler.on_up(connection);
    world.dialler.on_welcomed(connection, Grade::Enroll, &mut world.out);
    world.dialler.close(world.now, CloseCode::Redial, &mut world.out);
    world.down(connection, Some(CloseCode::Redial));
    assert!(world.dialled().0.is_zero());
}

#[test]
fn a_stopped_device_stays_away_until_it_is_told_otherwise() {
    let mut world = World::new(&["a:1"], 0);
    let (_, connection, _) = world.dialled();
    world.live(connection);
    world.dialler.stop(world.now, &mut world.out);
    assert!(world.out.contains(&DialOutput::Close { connection, code: CloseCode::Done }));
    // The link never says that it is down: the wait has an end.
    world.now = world.dialler.poll_timeout().unwrap();
    world.dialler.handle_timeout(world.now, &mut world.out);
    assert_eq!((world.dialler.phase(), world.dialler.poll_timeout()), (&Phase::Stopped, None));
    world.dialler.resume(world.now);
    assert_eq!(world.dialled().2, "a:1");
}

#[test]
fn events_of_a_former_connection_change_nothing() {
    let mut world = World::new(&["a:1"], 0);
    let (_, old, _) = world.dialled();
    world.down(old, None);
    let (_, current, _) = world.dialled();
    let before = *world.dialler.phase();
    world.live(old);
    world.down(old, Some(CloseCode::Revoked));
    assert_eq!(world.dialler.phase(), &before);
    assert!(world.dialler.is_current(current));
}
