//! Rollouts, their plans, and how far each device has come.

use std::io::{BufRead, BufReader, Read as _};
use std::sync::Arc;
use std::time::Duration;

use fleetd_actors::orders::Standstill;
use fleetd_actors::report::{Fault, Phase, Waits};
use fleetd_actors::rollout::Record;
use fleetd_actors::rollout::plan::Plan;
use fleetd_actors::rollout::status::{
    DeviceProgress, DeviceStatus, Failure, Owed, RolloutHeader, RolloutPhase, SiteWord, Skip, Stage, StageTimer,
    WaveStanding,
};
use fleetd_proto::fleetd::record::v1 as stored;
use fleetd_proto::fleetd::rollout::v1::RolloutState;
use fleetd_sync_core::commit::{Mutation, Space};
use fleetd_sync_core::configuration::{ConfigurationId, pair_digest};
use fleetd_sync_core::id::{ArtifactDigest, HoldId, LocalId, PlanId, RolloutId};
use fleetd_sync_core::limit::PLAN_DOCUMENT_BYTES_MAX;
use fleetd_sync_core::time::Wall;
use fleetd_sync_store::state_store::{KeyRange, ReadError, StateStore};
use prost::Message as _;

use super::{ReadRecordError, field, timestamp, wall};

/// Rollouts that are read at once.
const PAGE_RECORDS: usize = 1024;

/// The changes of the store that keep what a rollout remembers.
pub fn put(rollout: RolloutId, record: Record, mutations: &mut Vec<Mutation>) {
    match record {
        Record::Started { header, plan } => {
            mutations.push(put_plan(plan.id, &plan.to_text(), header.created_at, &header.created_by));
            mutations.push(put_header(&header));
        }
        Record::Rollout(header) => mutations.push(put_header(&header)),
        Record::Device { device, progress } => mutations.push(Mutation::Put {
            space: Space::Assignment,
            key: assignment_key(rollout, device),
            value: encode_progress(rollout, device, &progress).encode_to_vec(),
        }),
    }
}

/// The change of the store that keeps a plan, whose text is `document`.
#[must_use]
pub fn put_plan(plan: PlanId, document: &str, created_at: Wall, created_by: &str) -> Mutation {
    let (document, document_zstd) = match zstd::bulk::compress(document.as_bytes(), DOCUMENT_ZSTD_LEVEL) {
        Ok(packed) => (String::new(), packed),
        Err(_) => (document.to_owned(), Vec::new()),
    };
    let record = stored::PlanRecord {
        plan_id: plan.as_bytes().to_vec(),
        document,
        document_zstd,
        created_at: Some(timestamp(created_at)),
        created_by_id: created_by.to_owned(),
    };
    Mutation::Put { space: Space::Plan, key: plan.as_bytes().to_vec(), value: record.encode_to_vec() }
}

fn put_header(header: &RolloutHeader) -> Mutation {
    let (key, value) = (header.rollout.as_bytes().to_vec(), header_record(header).encode_to_vec());
    Mutation::Put { space: Space::Rollout, key, value }
}

pub(super) fn header_record(header: &RolloutHeader) -> stored::RolloutRecord {
    let wave = &header.wave;
    let (stage_until, stage_left_ms) = match wave.timer {
        StageTimer::Unbounded => (None, None),
        StageTimer::Until(until) => (Some(timestamp(until)), None),
        StageTimer::Left(left) => (None, Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX))),
    };
    stored::RolloutRecord {
        rollout_id: header.rollout.as_bytes().to_vec(),
        plan_id: header.plan.as_bytes().to_vec(),
        state: state(header.phase).into(),
        reason: header.reason.clone(),
        created_at: Some(timestamp(header.created_at)),
        created_by_id: header.created_by.clone(),
        ended_at: header.ended_at.map(timestamp),
        is_open: header.is_open,
        wave: wave.number.saturating_add(1),
        stage: wave.stage.to_string(),
        stage_since: Some(timestamp(wave.since)),
        stage_until,
        stage_left_ms,
        hold_id: header.hold.map(|hold| hold.as_bytes().to_vec()).unwrap_or_default(),
        stops: header.stops,
        failures_accepted: header.failures_accepted,
        standstill: header.ordered.as_ref().map(standstill_record),
        taken_back: header.taken_back.clone().unwrap_or_default(),
        ..stored::RolloutRecord::default()
    }
}

/// The key under which a device's progress in a rollout lies; all of a rollout share its first bytes.
#[must_use]
pub fn assignment_key(rollout: RolloutId, device: LocalId) -> Vec<u8> {
    [rollout.as_bytes().as_slice(), device.as_bytes()].concat()
}

/// A plan as it was saved: the plan, when it was made, and by whom.
pub type SavedPlan = (Arc<Plan>, Wall, String);

/// How hard a plan's text is compressed: it is as large as that only until it is written.
const DOCUMENT_ZSTD_LEVEL: i32 = 1;

/// The text of a saved plan, down to so many bytes.
fn document_of(record: &stored::PlanRecord, bytes_max: usize) -> Result<Box<dyn BufRead + '_>, ReadRecordError> {
    let bytes_max = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    if record.document_zstd.is_empty() {
        return Ok(Box::new(record.document.as_bytes().take(bytes_max)));
    }
    let decoder = zstd::stream::read::Decoder::with_buffer(record.document_zstd.as_slice());
    let decoder = decoder.map_err(|_| ReadRecordError::Field { field: "document_zstd" })?;
    Ok(Box::new(BufReader::new(decoder.take(bytes_max))))
}

/// Reads a saved plan.
///
/// # Errors
/// [`ReadRecordError`] when it is none.
pub fn decode_plan(bytes: &[u8]) -> Result<SavedPlan, ReadRecordError> {
    let record = stored::PlanRecord::decode(bytes)?;
    let mut text = String::new();
    let read = document_of(&record, PLAN_DOCUMENT_BYTES_MAX)?.read_to_string(&mut text);
    read.map_err(|_| ReadRecordError::Field { field: "document" })?;
    let plan = Plan::from_text(&text).map_err(|_| ReadRecordError::Field { field: "document" })?;
    Ok((Arc::new(plan), record.created_at.as_ref().map(wall).unwrap_or_default(), record.created_by_id))
}

/// What a saved plan tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedTry {
    /// The digest of the release's signed manifest.
    pub manifest: ArtifactDigest,
    /// What devices are compared by: the same, or the digest of it and its configuration.
    pub digest: ArtifactDigest,
    /// The attempt.
    pub attempt: u32,
}

/// Lines at the head of a plan, down to the one that names its configuration.
const PLAN_HEAD_LINES: usize = 7;
/// Bytes that are more than such a head has.
const PLAN_HEAD_BYTES_MAX: usize = 1 << 20;

/// Reads what a saved plan tries, and leaves its devices be.
///
/// # Errors
/// [`ReadRecordError`] when it is no plan.
pub fn decode_plan_try(bytes: &[u8]) -> Result<PlannedTry, ReadRecordError> {
    let record = stored::PlanRecord::decode(bytes)?;
    let head = document_of(&record, PLAN_HEAD_BYTES_MAX)?.lines().take(PLAN_HEAD_LINES);
    let head: Vec<String> = head.collect::<Result<_, _>>().map_err(|_| ReadRecordError::Field { field: "document" })?;
    let value = |name: &str| head.iter().find_map(|line| line.strip_prefix(name));
    let manifest = field(value("manifest ").and_then(|digest| digest.parse().ok()), "manifest")?;
    let attempt = field(value("attempt ").and_then(|attempt| attempt.parse().ok()), "attempt")?;
    let configuration = match value("configuration ").map(ConfigurationId::from_text) {
        None => None,
        Some(configuration) => Some(field(configuration, "configuration")?.digest),
    };
    Ok(PlannedTry { manifest, digest: pair_digest(manifest, configuration), attempt })
}

/// Visits the rollouts that have not ended, or still owe a device something, each with the digest of its release. Those
/// that cannot be read keep it from no other: they are given with the reason, each by its key.
///
/// # Errors
/// [`ReadError`] when the store cannot be read.
pub fn visit_unfinished(
    store: &dyn StateStore,
    visit: &mut dyn FnMut(&RolloutHeader, ArtifactDigest),
) -> Result<Vec<(Vec<u8>, ReadRecordError)>, ReadError> {
    let (mut range, mut unreadable) = (KeyRange::all(), Vec::new());
    loop {
        let page = store.scan(Space::Rollout, range.clone(), PAGE_RECORDS)?;
        for (key, found) in &page {
            let read = match decode_header(&found.value) {
                Ok(header) if header.ended_at.is_some() && !header.is_open => continue,
                Ok(header) => {
                    let plan = field(store.get(Space::Plan, header.plan.as_bytes())?, "plan_id");
                    plan.and_then(|plan| Ok((header, decode_plan_try(&plan.value)?.manifest)))
                }
                Err(error) => Err(error),
            };
            match read {
                Ok((header, manifest)) => visit(&header, manifest),
                Err(error) => unreadable.push((key.clone(), error)),
            }
        }
        match page.last() {
            Some((key, _)) if page.len() == PAGE_RECORDS => range = range.after(key),
            _ => return Ok(unreadable),
        }
    }
}

/// Reads a rollout's header.
///
/// # Errors
/// [`ReadRecordError`] when it is none.
pub fn decode_header(bytes: &[u8]) -> Result<RolloutHeader, ReadRecordError> {
    read_header(stored::RolloutRecord::decode(bytes)?)
}

pub(super) fn read_header(record: stored::RolloutRecord) -> Result<RolloutHeader, ReadRecordError> {
    let state = RolloutState::try_from(record.state).unwrap_or_default();
    let phase = field(phase(state), "state")?;
    let (created_at, wave) = (record.created_at.as_ref().map(wall).unwrap_or_default(), read_wave(&record)?);
    let hold = match record.hold_id.as_slice() {
        [] => None,
        bytes => Some(field(HoldId::from_slice(bytes), "hold_id")?),
    };
    // A machine asserts that what is stopped has a hold, and nothing else has.
    field((phase.is_stopped() == hold.is_some()).then_some(()), "hold_id")?;
    let ordered = record.standstill.map(read_standstill).transpose()?;
    Ok(RolloutHeader {
        rollout: field(RolloutId::from_slice(&record.rollout_id), "rollout_id")?,
        plan: field(PlanId::from_slice(&record.plan_id), "plan_id")?,
        phase,
        reason: record.reason,
        created_at,
        created_by: record.created_by_id,
        ended_at: record.ended_at.as_ref().map(wall),
        is_open: record.is_open,
        wave,
        hold,
        stops: record.stops,
        failures_accepted: record.failures_accepted,
        ordered,
        taken_back: Some(record.taken_back).filter(|by| !by.is_empty()),
    })
}

pub(super) fn standstill_record(standstill: &Standstill) -> stored::StandstillRecord {
    stored::StandstillRecord {
        hold_id: standstill.hold.as_bytes().to_vec(),
        reason: standstill.reason.clone(),
        lift: standstill.lift.clone(),
    }
}

pub(super) fn read_standstill(record: stored::StandstillRecord) -> Result<Standstill, ReadRecordError> {
    let hold = field(HoldId::from_slice(&record.hold_id), "standstill.hold_id")?;
    Ok(Standstill { hold, reason: record.reason, lift: record.lift })
}

/// Where a rollout stands among its waves; one of before there were waves is in its only one.
fn read_wave(record: &stored::RolloutRecord) -> Result<WaveStanding, ReadRecordError> {
    let stage = match record.stage.as_str() {
        "" => Stage::Rolling,
        word => field(Stage::ALL.into_iter().find(|stage| stage.to_string() == word), "stage")?,
    };
    let timer = match (&record.stage_until, record.stage_left_ms) {
        (Some(until), _) => StageTimer::Until(wall(until)),
        (None, Some(left_ms)) => StageTimer::Left(Duration::from_millis(left_ms)),
        (None, None) => StageTimer::Unbounded,
    };
    let since = record.stage_since.as_ref().or(record.created_at.as_ref()).map(wall).unwrap_or_default();
    Ok(WaveStanding { number: record.wave.saturating_sub(1), stage, since, timer })
}

/// Reads how far a device has come in a rollout.
///
/// # Errors
/// [`ReadRecordError`] when it is no such record.
pub fn decode_progress(bytes: &[u8]) -> Result<(LocalId, DeviceProgress), ReadRecordError> {
    read_progress(&stored::AssignmentRecord::decode(bytes)?)
}

pub(super) fn read_progress(record: &stored::AssignmentRecord) -> Result<(LocalId, DeviceProgress), ReadRecordError> {
    let local = field(LocalId::from_slice(&record.local_id), "local_id")?;
    let owed = match record.owed.as_str() {
        "assign" => Owed::Assign,
        "withdraw" => Owed::Withdraw,
        "hold" => Owed::Hold,
        "lift" => Owed::Lift,
        _ => Owed::Nothing,
    };
    let progress = DeviceProgress {
        status: field(status(&record.status, &record.detail), "status")?,
        owed,
        offline_since: record.offline_since.as_ref().map(wall),
        is_late: record.is_late,
        is_held: record.is_held,
        word: match record.site_word.as_str() {
            "switch" => SiteWord::Switch,
            "stay" => SiteWord::Stay,
            _ => SiteWord::Unsaid,
        },
        changed_at: record.changed_at.as_ref().map(wall).unwrap_or_default(),
    };
    Ok((local, progress))
}

/// How the API calls a rollout's phase.
#[must_use]
pub const fn state(phase: RolloutPhase) -> RolloutState {
    match phase {
        RolloutPhase::Running => RolloutState::Running,
        RolloutPhase::Paused => RolloutState::Paused,
        RolloutPhase::Halted => RolloutState::Halted,
        RolloutPhase::Succeeded => RolloutState::Succeeded,
        RolloutPhase::Failed => RolloutState::Failed,
        RolloutPhase::Aborted => RolloutState::Aborted,
    }
}

const fn phase(state: RolloutState) -> Option<RolloutPhase> {
    match state {
        RolloutState::Running => Some(RolloutPhase::Running),
        RolloutState::Paused => Some(RolloutPhase::Paused),
        RolloutState::Halted => Some(RolloutPhase::Halted),
        RolloutState::Succeeded => Some(RolloutPhase::Succeeded),
        RolloutState::Failed => Some(RolloutPhase::Failed),
        RolloutState::Aborted | RolloutState::Superseded => Some(RolloutPhase::Aborted),
        RolloutState::Unspecified => None,
    }
}

pub(super) fn encode_progress(
    rollout: RolloutId,
    device: LocalId,
    progress: &DeviceProgress,
) -> stored::AssignmentRecord {
    let owed = match progress.owed {
        Owed::Nothing => "",
        Owed::Assign => "assign",
        Owed::Withdraw => "withdraw",
        Owed::Hold => "hold",
        Owed::Lift => "lift",
    };
    let (status, detail) = words(&progress.status);
    stored::AssignmentRecord {
        rollout_id: rollout.as_bytes().to_vec(),
        local_id: device.as_bytes().to_vec(),
        changed_at: Some(timestamp(progress.changed_at)),
        status: status.to_owned(),
        detail,
        owed: owed.to_owned(),
        offline_since: progress.offline_since.map(timestamp),
        is_late: progress.is_late,
        is_held: progress.is_held,
        site_word: match progress.word {
            SiteWord::Unsaid => "",
            SiteWord::Switch => "switch",
            SiteWord::Stay => "stay",
        }
        .to_owned(),
    }
}

fn words(status: &DeviceStatus) -> (&'static str, String) {
    let fault = |fault: &Option<Fault>| fault.as_ref().map(ToString::to_string).unwrap_or_default();
    match status {
        DeviceStatus::Pending => ("pending", String::new()),
        DeviceStatus::Assigned => ("assigned", String::new()),
        DeviceStatus::Acknowledged => ("acknowledged", String::new()),
        DeviceStatus::Installing(phase) => ("installing", phase.to_string()),
        DeviceStatus::Waits(waits) => ("waits", waits.to_string()),
        DeviceStatus::Healthy => ("healthy", String::new()),
        DeviceStatus::Restored(cause) => ("restored", fault(cause)),
        DeviceStatus::Failed(Failure::Reported(cause)) => ("failed", fault(cause)),
        DeviceStatus::Failed(Failure::Silent) => ("silent", String::new()),
        DeviceStatus::Failed(Failure::Deadline) => ("deadline", String::new()),
        DeviceStatus::Unchanged => ("unchanged", String::new()),
        DeviceStatus::Skipped(skip) => skip_words(skip),
    }
}

fn skip_words(skip: &Skip) -> (&'static str, String) {
    match skip {
        Skip::Planned(reason) => ("skipped", reason.clone()),
        Skip::Held => ("skipped-held", String::new()),
        Skip::Conflict => ("skipped-conflict", String::new()),
        Skip::Stopped => ("skipped-stopped", String::new()),
        Skip::Removed => ("skipped-removed", String::new()),
        Skip::Superseded(by) => ("skipped-superseded", by.to_string()),
        Skip::Gone => ("skipped-gone", String::new()),
        Skip::Site => ("skipped-site", String::new()),
        Skip::Aborted => ("skipped-aborted", String::new()),
        Skip::AbortedAtWork => ("skipped-aborted-at-work", String::new()),
    }
}

fn status(word: &str, detail: &str) -> Option<DeviceStatus> {
    let fault = || (!detail.is_empty()).then(|| Fault::from_text(detail));
    Some(match word {
        "pending" => DeviceStatus::Pending,
        "assigned" => DeviceStatus::Assigned,
        "acknowledged" => DeviceStatus::Acknowledged,
        "installing" => DeviceStatus::Installing(Phase::from_word(detail)?),
        "waits" => DeviceStatus::Waits(Waits::from_text(detail)?),
        "healthy" => DeviceStatus::Healthy,
        "restored" => DeviceStatus::Restored(fault()),
        "failed" => DeviceStatus::Failed(Failure::Reported(fault())),
        "silent" => DeviceStatus::Failed(Failure::Silent),
        "deadline" => DeviceStatus::Failed(Failure::Deadline),
        "unchanged" => DeviceStatus::Unchanged,
        "skipped" => DeviceStatus::Skipped(Skip::Planned(detail.to_owned())),
        "skipped-held" => DeviceStatus::Skipped(Skip::Held),
        "skipped-conflict" => DeviceStatus::Skipped(Skip::Conflict),
        "skipped-stopped" => DeviceStatus::Skipped(Skip::Stopped),
        "skipped-removed" => DeviceStatus::Skipped(Skip::Removed),
        "skipped-superseded" => DeviceStatus::Skipped(Skip::Superseded(detail.parse().ok()?)),
        "skipped-gone" => DeviceStatus::Skipped(Skip::Gone),
        "skipped-site" => DeviceStatus::Skipped(Skip::Site),
        "skipped-aborted" => DeviceStatus::Skipped(Skip::Aborted),
        "skipped-aborted-at-work" => DeviceStatus::Skipped(Skip::AbortedAtWork),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use fleetd_actors::report::FaultKind;
    use fleetd_sync_core::commit::{ActorKey, Batch, Commit as _};
    use fleetd_sync_core::entropy::Entropy;
    use fleetd_sync_store::memory::MemoryStore;

    use super::*;

    fn put_all(store: &MemoryStore, mutations: Vec<Mutation>) {
        let batch = Batch { actor: ActorKey::only("test"), mutations };
        store.submit(batch, Box::new(|result| result.unwrap()));
    }

    fn running(number: u8) -> RolloutHeader {
        RolloutHeader {
            rollout: RolloutId::from_bytes([number; 10]),
            plan: PlanId::from_bytes([number; 10]),
            phase: RolloutPhase::Running,
            reason: String::new(),
            created_at: Wall(1),
            created_by: "ada".to_owned(),
            ended_at: None,
            is_open: true,
            wave: WaveStanding { number: 0, stage: Stage::Rolling, since: Wall(1), timer: StageTimer::Unbounded },
            hold: None,
            stops: 0,
            failures_accepted: 0,
            ordered: None,
            taken_back: None,
        }
    }

    #[test]
    fn one_rollout_that_cannot_be_read_keeps_nobody_from_the_others() {
        let (store, manifest) = (MemoryStore::immediate(), ArtifactDigest::of(b"manifest"));
        let mut mutations: Vec<_> = (1..=4).map(|number| put_header(&running(number))).collect();
        mutations.push(Mutation::Put { space: Space::Rollout, key: vec![2; 10], value: vec![0xff] });
        for number in [1, 4] {
            let document = format!("manifest {manifest}\nattempt 1\n");
            let record = stored::PlanRecord { document, ..stored::PlanRecord::default() };
            mutations.push(Mutation::Put { space: Space::Plan, key: vec![number; 10], value: record.encode_to_vec() });
        }
        put_all(&store, mutations);
        let mut visited = Vec::new();
        let unreadable = visit_unfinished(&store, &mut |header, found| {
            assert_eq!(found, manifest);
            visited.push(header.rollout);
        });
        assert_eq!(visited, [RolloutId::from_bytes([1; 10]), RolloutId::from_bytes([4; 10])]);
        let unreadable: Vec<_> = unreadable.unwrap().into_iter().map(|(key, _)| key).collect();
        assert_eq!(unreadable, [vec![2; 10], vec![3; 10]], "one is no record, and the plan of one is gone");
    }

    #[test]
    fn every_standing_survives_its_record() {
        let mut entropy = Entropy::from_seed([5; 32]);
        let timers = [StageTimer::Unbounded, StageTimer::Until(Wall(7)), StageTimer::Left(Duration::from_millis(8))];
        let phases = [RolloutPhase::Running, RolloutPhase::Paused, RolloutPhase::Halted, RolloutPhase::Failed];
        for (phase, (stage, timer)) in phases.into_iter().cycle().zip(Stage::ALL.into_iter().cycle().zip(timers)) {
            let header = RolloutHeader {
                rollout: RolloutId::random(&mut entropy),
                plan: PlanId::random(&mut entropy),
                phase,
                reason: "ada".to_owned(),
                created_at: Wall(1),
                created_by: "ada".to_owned(),
                ended_at: None,
                is_open: true,
                wave: WaveStanding { number: 2, stage, since: Wall(6), timer },
                hold: phase.is_stopped().then(|| HoldId::random(&mut entropy)),
                stops: 3,
                failures_accepted: 4,
                ordered: (phase == RolloutPhase::Paused).then(|| Standstill {
                    hold: HoldId::random(&mut entropy),
                    reason: "smoke".to_owned(),
                    lift: "put it out".to_owned(),
                }),
                taken_back: (phase == RolloutPhase::Failed).then(|| "ada".to_owned()),
            };
            assert_eq!(decode_header(&header_record(&header).encode_to_vec()), Ok(header));
        }
        let header = stored::RolloutRecord {
            rollout_id: vec![1; 10],
            plan_id: vec![2; 10],
            state: RolloutState::Running.into(),
            created_at: Some(timestamp(Wall(5))),
            ..stored::RolloutRecord::default()
        };
        let read = decode_header(&header.encode_to_vec()).unwrap();
        let wave = WaveStanding { number: 0, stage: Stage::Rolling, since: Wall(5), timer: StageTimer::Unbounded };
        assert_eq!(read.wave, wave, "one of before there were waves is in its only one");
    }

    #[test]
    fn every_status_survives_its_record() {
        let mut entropy = Entropy::from_seed([4; 32]);
        let (rollout, device) = (RolloutId::random(&mut entropy), LocalId::random(&mut entropy));
        let fault = Fault::new(FaultKind::Crashed, "code 1");
        let skips = [
            Skip::Planned("no artifact".to_owned()),
            Skip::Held,
            Skip::Conflict,
            Skip::Stopped,
            Skip::Removed,
            Skip::Superseded(rollout),
            Skip::Gone,
            Skip::Site,
            Skip::Aborted,
            Skip::AbortedAtWork,
        ];
        let phases = Phase::ALL.iter().map(|phase| DeviceStatus::Installing(*phase));
        let plain = [
            DeviceStatus::Pending,
            DeviceStatus::Assigned,
            DeviceStatus::Acknowledged,
            DeviceStatus::Waits(Waits::Clock),
            DeviceStatus::Waits(Waits::Site),
            DeviceStatus::Waits(Waits::Window { opens: Some(Wall(-5)) }),
            DeviceStatus::Waits(Waits::Deferred {
                until: Wall(7),
                limit: Duration::from_secs(3),
                reason: "brewing a pot".to_owned(),
            }),
            DeviceStatus::Healthy,
            DeviceStatus::Restored(None),
            DeviceStatus::Restored(Some(fault.clone())),
            DeviceStatus::Failed(Failure::Reported(Some(fault))),
            DeviceStatus::Failed(Failure::Silent),
            DeviceStatus::Failed(Failure::Deadline),
            DeviceStatus::Unchanged,
        ];
        for status in plain.into_iter().chain(phases).chain(skips.into_iter().map(DeviceStatus::Skipped)) {
            for (owed, word) in Owed::ALL.into_iter().zip(SiteWord::ALL.into_iter().cycle()) {
                let progress = DeviceProgress {
                    status: status.clone(),
                    owed,
                    offline_since: Some(Wall(5)),
                    is_late: true,
                    is_held: true,
                    word,
                    changed_at: Wall(1_700_000_000_123),
                };
                let bytes = encode_progress(rollout, device, &progress).encode_to_vec();
                assert_eq!(decode_progress(&bytes), Ok((device, progress)));
            }
        }
    }
}
