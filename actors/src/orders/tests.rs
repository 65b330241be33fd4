//! The orders' machine, stepped by hand.

use fleetd_sync_core::id::OperationId;
use fleetd_sync_core::machine::{Machine as _, Turn};
use fleetd_sync_core::time::Now;

use super::*;

fn hold(number: u8) -> HoldId {
    HoldId::from_bytes([number; HoldId::LENGTH])
}

fn stop(number: u8, at: i64) -> FleetStop {
    FleetStop { hold: hold(number), reason: "smoke".to_owned(), created_by: "ada".to_owned(), created_at: Wall(at) }
}

fn denial(version: &str) -> Denial {
    Denial {
        hold: hold(9),
        manifest: ArtifactDigest::of(version.as_bytes()),
        workload: "coffee".parse().unwrap(),
        version: version.parse().unwrap(),
        reason: "it spills".to_owned(),
        created_by: "ada".to_owned(),
        created_at: Wall(0),
    }
}

fn step(book: &mut OrderBook, input: Input) -> (Vec<Record>, Vec<Effect>) {
    let mut turn = Turn::new();
    book.handle(Now::default(), input, &mut turn);
    turn.into_parts()
}

const OPERATION: OperationId = OperationId::from_bytes([1; 8]);

#[test]
fn everybody_is_told_of_an_order_before_it_is_answered_for() {
    let mut book = OrderBook::load(Orders::default());
    let (records, effects) = step(&mut book, Input::Stop { operation: OPERATION, stop: Box::new(stop(1, 5)) });
    assert_eq!(records, [Record::Stopped(Box::new(stop(1, 5)))]);
    assert!(matches!(effects.as_slice(), [Effect::Announce(_), Effect::Answer { result: Ok(()), .. }]), "{effects:?}");
    let (records, effects) = step(&mut book, Input::Stop { operation: OPERATION, stop: Box::new(stop(1, 5)) });
    assert!(records.is_empty() && matches!(effects.as_slice(), [Effect::Answer { result: Ok(()), .. }]));
}

#[test]
fn a_restarted_book_says_what_stands_and_says_it_once() {
    let mut orders = Orders::default();
    orders.stops.insert(hold(1), stop(1, 5));
    let mut book = OrderBook::load(orders.clone());
    let mut turn = Turn::new();
    book.handle_timeout(Now::default(), &mut turn);
    book.handle_timeout(Now::default(), &mut turn);
    let (records, effects) = turn.into_parts();
    assert!(records.is_empty());
    assert_eq!(effects, [Effect::Announce(orders.into())]);
}

#[test]
fn what_does_not_stand_cannot_be_taken_back() {
    let mut book = OrderBook::load(Orders::default());
    let (records, effects) = step(&mut book, Input::Lift { operation: OPERATION, hold: hold(3) });
    let result = Err(OrderError::NoStop { hold: hold(3) });
    assert!(records.is_empty());
    assert_eq!(effects, [Effect::Answer { operation: OPERATION, result }]);
    let manifest = ArtifactDigest::of(b"1.0");
    let (_, effects) = step(&mut book, Input::Allow { operation: OPERATION, manifest });
    assert_eq!(effects, [Effect::Answer { operation: OPERATION, result: Err(OrderError::NotDenied) }]);
}

#[test]
fn a_denial_stops_its_own_release_and_a_stop_stops_all() {
    let mut book = OrderBook::load(Orders::default());
    step(&mut book, Input::Deny { operation: OPERATION, denial: Box::new(denial("1.8.0")) });
    let (denied, other) = (ArtifactDigest::of(b"1.8.0"), ArtifactDigest::of(b"1.9.0"));
    let standstill = book.orders().standstill(denied).unwrap();
    assert_eq!(standstill.hold, hold(9));
    assert_eq!(standstill.reason, "coffee@1.8.0 is denied: it spills");
    assert_eq!(standstill.lift, "fleetd release allow coffee@1.8.0");
    assert_eq!(book.orders().standstill(other), None);
    step(&mut book, Input::Stop { operation: OPERATION, stop: Box::new(stop(2, 7)) });
    step(&mut book, Input::Stop { operation: OPERATION, stop: Box::new(stop(1, 8)) });
    let holds = [denied, other].map(|manifest| book.orders().standstill(manifest).unwrap().hold);
    assert_eq!(holds, [hold(2), hold(2)], "the oldest stop is the one that is named");
    step(&mut book, Input::Lift { operation: OPERATION, hold: hold(2) });
    step(&mut book, Input::Lift { operation: OPERATION, hold: hold(1) });
    step(&mut book, Input::Allow { operation: OPERATION, manifest: denied });
    assert!(book.orders().is_empty());
}
