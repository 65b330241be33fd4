//! A fetcher stepped by hand, against a server that loses, cuts and spoils.

use std::collections::BTreeSet;

use fleetd_sync_core::artifact::{GroupTree, GroupTreeBuilder, group_bytes};
use fleetd_sync_core::limit::{ARTIFACT_GROUP_BYTES, ARTIFACT_WINDOW_GROUPS};
use fleetd_sync_core::session::message::{ArtifactWant, WantedGroups};

use super::*;
use crate::artifact_files::memory::MemoryArtifactFiles;
use crate::artifact_files::{ArtifactFiles as _, BeginArtifactError, Held};
use crate::disk::memory::MemoryDisk;

/// What a server has, and how it answers.
struct Server {
    content: Vec<u8>,
    tree: GroupTree,
}

impl Server {
    fn of(size_bytes: usize) -> Self {
        let mut content = vec![0; size_bytes];
        Entropy::from_seed([1; 32]).fill(&mut content);
        let mut builder = GroupTreeBuilder::new();
        builder.update(&content);
        Self { content, tree: builder.finish() }
    }

    fn group(&self, index: u64) -> Vec<u8> {
        let from = usize::try_from(index * ARTIFACT_GROUP_BYTES).unwrap();
        let length = usize::try_from(group_bytes(self.tree.size_bytes(), index)).unwrap();
        self.content[from..from + length].to_vec()
    }

    /// Answers with values in parts of at most 100, and groups one by one.
    fn answer(&self, want: &ArtifactWant) -> Vec<Input> {
        let digest = want.digest;
        assert_eq!(digest, self.tree.digest());
        let wanted: Vec<u64> = match &want.groups {
            WantedGroups::Run { group_first, group_count } => (*group_first..group_first + group_count).collect(),
            WantedGroups::List(groups) => groups.clone(),
        };
        let mut answers = Vec::new();
        if want.tree {
            let WantedGroups::Run { group_first, .. } = want.groups else { panic!("values are asked for in a run") };
            let (size_bytes, values) = (self.tree.size_bytes(), self.tree.run(group_first, 100).to_vec());
            answers.push(Input::Tree(ArtifactTree { digest, size_bytes, group_first, values }));
        }
        answers.extend(
            wanted
                .into_iter()
                .map(|index| Input::Groups(ArtifactGroups { digest, group_first: index, content: self.group(index) })),
        );
        answers
    }
}

/// A device with its disk, at one moment of its time.
struct Device {
    fetcher: Fetcher,
    files: MemoryArtifactFiles,
    now: Now,
    sent: Vec<ArtifactWant>,
    answers: Vec<(OperationId, Result<Fetched, FetchError>)>,
    groups_written: u64,
}

impl Device {
    fn new(disk: &MemoryDisk) -> Self {
        Self {
            fetcher: Fetcher::new(Entropy::from_seed([2; 32])),
            files: MemoryArtifactFiles::on(disk),
            now: Now::default(),
            sent: Vec::new(),
            answers: Vec::new(),
            groups_written: 0,
        }
    }

    fn give(&mut self, input: Input) {
        let mut turn = Turn::new();
        self.fetcher.handle(self.now, input, &mut turn);
        self.carry_out(turn);
    }

    /// Lets the time come at which the fetcher next has something to do.
    fn wait(&mut self) {
        self.now.monotonic = self.fetcher.poll_timeout().expect("it waits for something");
        let mut turn = Turn::new();
        self.fetcher.handle_timeout(self.now, &mut turn);
        self.carry_out(turn);
    }

    fn carry_out(&mut self, turn: FetchTurn) {
        for effect in turn.into_parts().1 {
            match effect {
                Effect::Begin { job, size_bytes } => {
                    let result = self.files.begin(&job.digest, size_bytes).map_err(|error| match error {
                        BeginArtifactError::NoSpace { needed_bytes, free_bytes, .. } => {
                            FetchError::NoSpace { needed_bytes, free_bytes }
                        }
                        error => FetchError::Unavailable { cause: error.to_string() },
                    });
                    self.give(Input::Begun { job, result });
                }
                Effect::Write { job, groups } => {
                    for (index, bytes) in &groups {
                        self.files.write_group(&job.digest, *index, bytes).unwrap();
                        self.groups_written += 1;
                    }
                    let groups = groups.into_iter().map(|(index, _)| index).collect();
                    self.give(Input::Written { job, groups, result: Ok(()) });
                }
                Effect::Checkpoint { digest } => self.files.checkpoint(&digest).unwrap(),
                Effect::Finish { job } => {
                    let result = self.files.finish(&job.digest).map(drop);
                    let result = result.map_err(|error| FetchError::Unavailable { cause: error.to_string() });
                    self.give(Input::Finished { job, result });
                }
                Effect::Send { message: Message::ArtifactWant(want), .. } => self.sent.push(want),
                Effect::Send { message, .. } => panic!("{message:?}"),
                Effect::Answer { operation, result, .. } => self.answers.push((operation, result)),
            }
        }
    }

    fn want(&mut self, number: u8, server: &Server) {
        let wanted = Wanted::Artifact { size_bytes: server.tree.size_bytes() };
        self.want_as(number, server.tree.digest(), wanted);
    }

    fn want_as(&mut self, number: u8, digest: ArtifactDigest, wanted: Wanted) {
        let workload = "coffee".parse().unwrap();
        self.give(Input::Want { operation: operation(number), workload, digest, wanted });
    }

    fn link(&mut self) {
        self.give(Input::Linked(ConnectionId::from_bytes([3; 8])));
    }

    /// Answers all that was asked, and what is asked thereupon; `spoil` may change or drop each answer.
    fn serve(&mut self, server: &Server, mut spoil: impl FnMut(Input) -> Option<Input>) {
        while !self.sent.is_empty() {
            for want in std::mem::take(&mut self.sent) {
                for answer in server.answer(&want).into_iter().filter_map(&mut spoil) {
                    self.give(answer);
                }
            }
        }
    }

    fn holds(&self, server: &Server) -> bool {
        matches!(self.files.held(&server.tree.digest()).unwrap(), Held::Whole { .. })
    }
}

fn disk() -> MemoryDisk {
    MemoryDisk::new(1 << 30)
}

fn operation(number: u8) -> OperationId {
    OperationId::from_bytes([number; 8])
}

fn done(number: u8) -> (OperationId, Result<Fetched, FetchError>) {
    (operation(number), Ok(Fetched::Artifact))
}

const SIZES: [usize; 6] = [0, 1, 16 << 10, (16 << 10) + 1, 50 * (16 << 10), 203 * (16 << 10) + 77];

#[test]
fn an_artifact_of_any_size_comes_whole_and_no_group_twice() {
    for size in SIZES {
        let server = Server::of(size);
        let mut device = Device::new(&disk());
        device.want(1, &server);
        device.link();
        device.serve(&server, Some);
        assert_eq!(device.answers, [done(1)], "{size} bytes");
        assert!(device.holds(&server), "{size} bytes");
        let groups = if size == 0 { 0 } else { server.tree.group_count() };
        assert_eq!(device.groups_written, groups, "{size} bytes");
    }
}

#[test]
fn no_more_than_a_window_is_asked_for_at_once() {
    let server = Server::of(SIZES[5]);
    let mut device = Device::new(&disk());
    device.want(1, &server);
    device.link();
    let mut asked = 0;
    let mut asked_max = 0;
    while let Some(want) = device.sent.pop() {
        let groups = server.answer(&want);
        asked += groups.len();
        asked_max = asked_max.max(asked);
        for group in groups {
            device.give(group);
            asked -= 1;
        }
    }
    assert_eq!(device.answers, [done(1)]);
    let window = usize::try_from(ARTIFACT_WINDOW_GROUPS).unwrap();
    assert!((window / 2..=window).contains(&asked_max), "{asked_max}");
}

#[test]
fn nothing_is_asked_for_that_does_not_fit() {
    let disk = MemoryDisk::new(8 << 20);
    let server = Server::of(50 << 14);
    let mut device = Device::new(&disk);
    device.link();
    device.want_as(1, server.tree.digest(), Wanted::Artifact { size_bytes: 8 << 20 });
    assert!(device.sent.is_empty());
    assert!(matches!(&device.answers[..], [(_, Err(FetchError::NoSpace { .. }))]), "{:?}", device.answers);
}

#[test]
fn what_is_held_is_answered_at_once_and_offline() {
    let (disk, server) = (disk(), Server::of(SIZES[4]));
    let mut device = Device::new(&disk);
    device.want(1, &server);
    device.link();
    device.serve(&server, Some);
    let mut after = Device::new(&disk);
    after.want(2, &server);
    assert_eq!(after.answers, [done(2)]);
    assert!(after.sent.is_empty());
}

#[test]
fn one_artifact_wanted_twice_is_fetched_once() {
    let server = Server::of(SIZES[4]);
    let mut device = Device::new(&disk());
    device.want(1, &server);
    device.link();
    device.want(2, &server);
    device.serve(&server, Some);
    assert_eq!(device.answers, [done(1), done(2)]);
    assert_eq!(device.groups_written, server.tree.group_count());
}

#[test]
fn answers_that_are_lost_are_asked_for_again() {
    let server = Server::of(SIZES[5]);
    let mut device = Device::new(&disk());
    let mut entropy = Entropy::from_seed([7; 32]);
    device.want(1, &server);
    device.link();
    for _ in 0..200 {
        device.serve(&server, |answer| (entropy.below(3) > 0).then_some(answer));
        if !device.answers.is_empty() {
            break;
        }
        device.wait();
    }
    assert_eq!(device.answers, [done(1)]);
    assert_eq!(device.groups_written, server.tree.group_count());
}

#[test]
fn a_flipped_bit_is_never_written() {
    let server = Server::of(SIZES[5]);
    let mut device = Device::new(&disk());
    let mut entropy = Entropy::from_seed([8; 32]);
    device.want(1, &server);
    device.link();
    let mut flips = 0;
    for _ in 0..1000 {
        device.serve(&server, |mut answer| {
            let bytes = match &mut answer {
                Input::Tree(tree) => &mut tree.values,
                Input::Groups(groups) => &mut groups.content,
                other => panic!("{other:?}"),
            };
            if entropy.below(20) == 0 {
                let at = usize::try_from(entropy.below(u64::try_from(bytes.len()).unwrap())).unwrap();
                bytes[at] ^= 1 << entropy.below(8);
                flips += 1;
            }
            Some(answer)
        });
        if !device.answers.is_empty() {
            break;
        }
        device.wait();
    }
    assert!(flips > 0);
    assert_eq!(device.answers, [done(1)]);
    assert!(device.holds(&server), "the disk's own check of the digest agrees");
}

#[test]
fn a_cut_at_any_answer_costs_no_group_twice() {
    let server = Server::of(SIZES[4]);
    for cut in 0..60 {
        let mut device = Device::new(&disk());
        device.want(1, &server);
        device.link();
        let mut left = cut;
        device.serve(&server, |answer| {
            let comes = left > 0;
            left = u64::saturating_sub(left, 1);
            comes.then_some(answer)
        });
        device.give(Input::Unlinked);
        device.sent.clear();
        device.link();
        device.serve(&server, Some);
        assert_eq!(device.answers, [done(1)], "cut at {cut}");
        assert_eq!(device.groups_written, server.tree.group_count(), "cut at {cut}");
    }
}

#[test]
fn a_restart_goes_on_from_what_is_durable() {
    let (disk, server) = (disk(), Server::of(SIZES[5]));
    let mut device = Device::new(&disk);
    device.want(1, &server);
    device.link();
    let mut left = 100;
    device.serve(&server, |answer| {
        left = i32::saturating_sub(left, 1);
        (left > 0).then_some(answer)
    });
    let before = device.groups_written;
    disk.cut_power(&mut Entropy::from_seed([9; 32]));
    let mut after = Device::new(&disk);
    after.want(2, &server);
    after.link();
    let mut asked = BTreeSet::new();
    after.serve(&server, |answer| {
        if let Input::Groups(groups) = &answer {
            assert!(asked.insert(groups.group_first), "group {} is asked for twice", groups.group_first);
        }
        Some(answer)
    });
    assert_eq!(after.answers, [done(2)]);
    let lost = before + after.groups_written - server.tree.group_count();
    assert!(before >= 90 && lost < crate::artifact_files::GROUPS_PER_CHECKPOINT, "{lost} of {before} groups were lost");
}

#[test]
fn an_absent_artifact_is_asked_for_again_and_a_forbidden_one_is_not() {
    let server = Server::of(SIZES[4]);
    let digest = server.tree.digest();
    let mut device = Device::new(&disk());
    device.want(1, &server);
    device.link();
    for _ in 0..5 {
        assert_eq!(std::mem::take(&mut device.sent).len(), 1);
        device.give(Input::Refused(ArtifactRefused { digest, reason: ArtifactRefusal::Absent }));
        assert!(device.sent.is_empty(), "it pauses first");
        device.wait();
    }
    device.serve(&server, Some);
    assert_eq!(device.answers, [done(1)]);

    let mut device = Device::new(&disk());
    device.want(1, &server);
    device.link();
    device.give(Input::Refused(ArtifactRefused { digest, reason: ArtifactRefusal::Forbidden }));
    assert!(matches!(&device.answers[..], [(_, Err(FetchError::Unavailable { .. }))]));
}

#[test]
fn what_is_cancelled_or_abandoned_is_fetched_no_more() {
    let server = Server::of(SIZES[4]);
    let workload = || "coffee".parse().unwrap();
    for end in [Input::Cancel { operation: operation(1) }, Input::Abandon { workload: workload() }] {
        let mut device = Device::new(&disk());
        device.want(1, &server);
        device.link();
        device.give(end);
        device.serve(&server, Some);
        assert!(device.answers.is_empty() && device.groups_written == 0);
        assert_eq!(device.fetcher.poll_timeout(), None);
        device.want(2, &server);
        device.serve(&server, Some);
        assert_eq!(device.answers, [done(2)]);
    }
}

#[test]
fn a_manifest_comes_as_bytes_and_never_touches_the_disk() {
    for size in [120, 16 << 10, (16 << 10) + 200] {
        let server = Server::of(size);
        let mut device = Device::new(&disk());
        device.want_as(1, server.tree.digest(), Wanted::Manifest);
        device.link();
        device.serve(&server, Some);
        assert_eq!(device.answers, [(operation(1), Ok(Fetched::Manifest(server.content.clone())))], "{size} bytes");
        assert!(device.files.list().unwrap().is_empty());
    }
    let huge = Server::of(1 << 20);
    let mut device = Device::new(&disk());
    device.want_as(1, huge.tree.digest(), Wanted::Manifest);
    device.link();
    device.serve(&huge, Some);
    assert!(matches!(&device.answers[..], [(_, Err(FetchError::Unavailable { .. }))]), "{:?}", device.answers);
}

#[test]
fn groups_that_nobody_asked_for_are_not_taken() {
    let server = Server::of(SIZES[5]);
    let mut device = Device::new(&disk());
    device.want(1, &server);
    device.link();
    while let Some(want) = device.sent.pop().filter(|want| want.tree) {
        server.answer(&want).into_iter().for_each(|answer| device.give(answer));
    }
    let (digest, last) = (server.tree.digest(), server.tree.group_count() - 1);
    device.give(Input::Groups(ArtifactGroups { digest, group_first: last, content: server.group(last) }));
    assert_eq!(device.groups_written, 0);
}
