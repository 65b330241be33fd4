//! The Automerge view says what the typed state says.

use std::collections::BTreeMap;

use fleetd_sync_core::document::Document;
use fleetd_sync_core::envelope::{Op, Path, Value};
use fleetd_sync_core::id::KeyId;
use fleetd_sync_core::view::View;
use proptest::prelude::*;

use super::world::{Fleet, Node, cases, path, push};

type Said = BTreeMap<Path, Vec<(KeyId, Value)>>;

fn typed(node: &Node, document: &Document) -> Said {
    let mut said = Said::new();
    for (lane, path, value) in node.replica.entries(document.id()) {
        said.entry(path.clone()).or_default().push((lane, value.clone()));
    }
    said.values_mut().for_each(|values| values.sort());
    said
}

fn viewed(document: &Document) -> Said {
    let view = View::of(document, |_| true).unwrap();
    view.paths().map(|path| (path.clone(), view.values(&path).unwrap())).collect()
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::Boolean),
        any::<i64>().prop_map(Value::Integer),
        ".{0,12}".prop_map(Value::Text),
        proptest::collection::vec(any::<u8>(), 0..12).prop_map(Value::Bytes),
    ]
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn the_view_equals_the_typed_state(
        steps in proptest::collection::vec((0..3_usize, 0..5_u8, proptest::option::weighted(0.8, any_value()), 0..30_u8), 1..90),
    ) {
        let mut fleet = Fleet::new(6);
        let keys = [fleet.central.clone(), fleet.second.clone(), fleet.site.clone()];
        let mut nodes = keys.map(|key| fleet.node(Some(&key)));
        let mut listener = fleet.node(None);
        for (writer, key, value, restart) in steps {
            if restart == 0 {
                nodes[writer] = nodes[writer].restarted(&mut fleet);
            }
            let path = path(&format!("key/{key}"));
            let op = match value {
                Some(value) => Op::Set { path, value },
                None => Op::Delete { path },
            };
            nodes[writer].write(fleet.desired(), vec![op]);
            push(&nodes[writer], &mut listener);
        }
        for document in listener.replica.documents() {
            prop_assert_eq!(viewed(document), typed(&listener, document));
        }
    }
}

#[test]
fn a_view_can_be_saved_and_is_small_after_a_snapshot() {
    let mut fleet = Fleet::new(6);
    let key = fleet.central.clone();
    let mut server = fleet.node(Some(&key));
    for change in 0..1000 {
        server.write(fleet.desired(), vec![super::world::set("key", &change.to_string())]);
    }
    let document = server.replica.documents().find(|document| document.id() == fleet.desired()).unwrap();
    let saved = View::of(document, |_| true).unwrap().save();
    assert!(!saved.is_empty() && saved.len() < 1500, "{} bytes", saved.len());
}
