//! Logs: from the past, the last lines, as they come, and on from where a reader was.

use fleetd_actors::log_record::{GapReason, LogBatch, LogLine, LogRecord, LogSource};
use fleetd_server::driver::LogStoreKey;
use fleetd_server::record::log::{encode_entry, log_name};
use fleetd_sync_core::commit::{ActorKey, Batch, Mutation};
use fleetd_sync_core::id::{BootId, LocalId, Stamp};
use fleetd_sync_core::session::LogStream;
use fleetd_sync_core::time::{ClockQuality, Wall};
use fleetd_sync_store::state_store::{StateStore as _, commit_and_wait};
use serde_json::{Value, json};

use super::world::{World, device_key, refuses, text};

const READ: &str = "log.v1.LogService/ReadLogs";

/// What the device with key 100 writes to `workload`.
struct Writer<'a> {
    world: &'a World,
    key: LogStoreKey,
    sequence: u64,
}

impl<'a> Writer<'a> {
    fn new(world: &'a World, seed: u8, workload: &str) -> Self {
        let device = LocalId::from(device_key(seed).id());
        Self { world, key: LogStoreKey { device, workload: workload.parse().expect("a name") }, sequence: 1 }
    }

    fn write(&mut self, records: Vec<LogRecord>) {
        let workload = self.key.workload.clone();
        let stream = LogStream { workload, boot: BootId::from_bytes([1; 16]), stamp: Stamp(5) };
        let batch = LogBatch { sequence_first: self.sequence, records };
        self.sequence = batch.sequence_last().expect("it has records") + 1;
        let log = log_name(&self.key);
        let next = self.world.store.log_range(&log).expect("it can be read").map_or(1, |(_, last)| last + 1);
        let append = Mutation::Append { log, sequence: next, entry: encode_entry(&stream, &batch) };
        let actor = ActorKey::new("log", &self.key);
        commit_and_wait(&self.world.store, Batch { actor, mutations: vec![append] }).expect("it is taken");
    }

    fn lines(&mut self, lines: &[(i64, &str)]) {
        self.write(lines.iter().map(|(at, body)| line(*at, body)).collect());
    }
}

fn line(at: i64, body: &str) -> LogRecord {
    LogRecord::Line(LogLine {
        time: Wall(1_800_000_000_000 + at * 1000),
        quality: ClockQuality::Synced,
        source: LogSource::Stdout,
        cut: false,
        body: body.as_bytes().to_vec(),
    })
}

fn bodies(entries: &[Value]) -> Vec<&str> {
    entries.iter().map(|entry| entry["line"]["line"].as_str().unwrap_or("gap")).collect()
}

#[tokio::test]
async fn lines_of_several_workloads_come_in_the_order_of_their_times() {
    let world = World::start().await;
    let name = world.devices(2).await.remove(0);
    let mut coffee = Writer::new(&world, 100, "coffee");
    coffee.lines(&[(1, "a"), (3, "c")]);
    Writer::new(&world, 100, "tea").lines(&[(2, "b"), (4, "d")]);
    coffee.write(vec![LogRecord::Gap { count: 7, reason: GapReason::SpoolFull }, line(5, "e")]);
    Writer::new(&world, 101, "coffee").lines(&[(1, "another device's")]);
    let read = |request: Value| {
        let world = &world;
        async move { world.open(READ, &request).await.rest().await }
    };
    let all = read(json!({ "targets": { "devices": [name] } })).await;
    assert_eq!(bodies(&all), ["a", "b", "c", "gap", "d", "e"]);
    let gap = &all[3]["gap"];
    assert_eq!((&gap["sequenceFirst"], &gap["sequenceLast"]), (&"3".into(), &"9".into()));
    assert_eq!((text(&all[5]["line"]["sequence"]), text(&all[5]["line"]["deviceName"])), ("10", name.as_str()));
    let one = read(json!({ "targets": { "devices": [name] }, "workload": "tea" })).await;
    assert_eq!(bodies(&one), ["b", "d"]);
    let late = read(json!({ "targets": { "devices": [name] }, "since": "2027-01-15T08:00:04Z" })).await;
    assert_eq!(bodies(&late), ["d", "e"]);
    let last = read(json!({ "targets": { "devices": [name] }, "tailLines": 2 })).await;
    assert_eq!(bodies(&last), ["d", "e"]);
    let fleet = read(json!({ "targets": { "selector": "shop=7" }, "workload": "coffee" })).await;
    assert_eq!(bodies(&fleet).len(), 5, "of both devices");
    let on = read(json!({ "targets": { "devices": [name] }, "resumeToken": all[2]["resumeToken"] })).await;
    assert_eq!(bodies(&on), ["gap", "d", "e"], "on from there, to the record");
}

#[tokio::test]
async fn a_follower_is_given_what_comes_also_of_workloads_that_are_new() {
    let world = World::start().await;
    let name = world.devices(1).await.remove(0);
    let mut coffee = Writer::new(&world, 100, "coffee");
    coffee.lines(&[(1, "a")]);
    let request = json!({ "targets": { "all": true }, "follow": true });
    let mut entries = world.open(READ, &request).await;
    assert_eq!(entries.entry().await["line"]["line"], "a");
    coffee.lines(&[(2, "b"), (3, "c")]);
    assert_eq!(entries.entry().await["line"]["line"], "b");
    assert_eq!(entries.entry().await["line"]["line"], "c");
    Writer::new(&world, 100, "tea").lines(&[(2, "t")]);
    let entry = entries.entry().await;
    assert_eq!((text(&entry["line"]["workload"]), text(&entry["line"]["deviceName"])), ("tea", name.as_str()));
}

#[tokio::test]
async fn readings_of_nothing_and_nobody_are_refused() {
    let world = World::start().await;
    for (request, kind, code) in [
        (json!({ "targets": {} }), "invalid_argument", "request.field.missing"),
        (json!({ "targets": { "devices": ["nobody"] } }), "not_found", "device.unknown"),
        (json!({ "targets": { "all": true }, "workload": "No" }), "invalid_argument", "request.field.invalid"),
        (json!({ "targets": { "all": true }, "resumeToken": "ae" }), "invalid_argument", "request.field.invalid"),
        (json!({ "targets": { "all": true }, "tailLines": 1_000_000 }), "invalid_argument", "request.field.invalid"),
    ] {
        refuses(world.open(READ, &request).await.next().await.expect("an end"), kind, code);
    }
    assert_eq!(world.open(READ, &json!({ "targets": { "all": true } })).await.rest().await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_workload_that_no_device_has_is_refused_with_those_that_there_are() {
    let world = World::start().await;
    let names = world.devices(2).await;
    Writer::new(&world, 100, "coffee").lines(&[(1, "a")]);
    world.with_release("1.0.0").await;
    let plan = json!({ "workload": "coffee", "version": "1.0.0", "targets": { "devices": [names[1]] } });
    let planned = world.call("rollout.v1.RolloutService/PlanRollout", plan).await.expect("a plan");
    let start = json!({ "planId": planned["plan"]["id"] });
    world.call("rollout.v1.RolloutService/StartRollout", start).await.expect("it fits");
    let read = |devices: Value, workload: &str| {
        let (world, request) = (&world, json!({ "targets": devices, "workload": workload }));
        async move { world.open(READ, &request).await.next().await }
    };
    let one = read(json!({ "devices": [names[1]] }), "coffe").await.expect("an end");
    let refused = refuses(one, "not_found", "device.workload_unknown");
    assert_eq!(refused.details, "there is coffee");
    assert_eq!(refused.next_command, format!("fleetd device show {}", names[1]));
    let both = read(json!({ "selector": "shop=7" }), "coffe").await.expect("an end");
    refuses(both, "not_found", "device.workload_unknown");
    // One that should run and has not written yet is no mistake, and neither is a log whose workload is gone.
    assert_eq!(read(json!({ "devices": [names[1]] }), "coffee").await, None);
    assert!(read(json!({ "devices": [names[0]] }), "coffee").await.expect("a line").is_ok());
    // A follower waits for it.
    let request = json!({ "targets": { "devices": [names[1]] }, "workload": "tea", "follow": true });
    let mut entries = world.open(READ, &request).await;
    Writer::new(&world, 101, "tea").lines(&[(2, "t")]);
    assert_eq!(entries.entry().await["line"]["line"], "t");
}
