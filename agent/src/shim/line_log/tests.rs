use super::*;

const STAMP: Stamp = Stamp(7);
const ROOM: u64 = 256 << 10;

fn open(directory: &Path) -> LineWriter {
    LineWriter::open(directory, ROOM, STAMP).unwrap()
}

fn write(writer: &mut LineWriter, lines: std::ops::RangeInclusive<u64>) {
    for line in lines {
        writer.append(Wall(5), LineSource::Stdout, false, format!("line {line}").as_bytes()).unwrap();
    }
    writer.flush().unwrap();
}

/// Reads everything in small bites, and checks that the numbers have no hole that is not marked.
fn read_all(directory: &Path, after: Option<LinePosition>) -> Vec<LineEntry> {
    let (mut entries, mut position) = (Vec::new(), after);
    loop {
        let batch = read_lines(directory, position, 2000).unwrap();
        let Some(through) = batch.through() else { return entries };
        position = Some(through);
        let mut next = match entries.last() {
            Some(LineEntry::Line(line)) => line.sequence + 1,
            Some(LineEntry::Gap { last, .. }) => last + 1,
            None => after.filter(|after| after.stamp == STAMP).map_or(1, |after| after.sequence + 1),
        };
        for entry in batch.entries {
            match &entry {
                LineEntry::Line(line) => {
                    assert_eq!(line.sequence, next);
                    assert_eq!(line.bytes, format!("line {next}").as_bytes());
                    next += 1;
                }
                LineEntry::Gap { first, last } => {
                    assert_eq!(*first, next);
                    next = last + 1;
                }
            }
            entries.push(entry);
        }
    }
}

fn lines(entries: &[LineEntry]) -> usize {
    entries.iter().filter(|entry| matches!(entry, LineEntry::Line(_))).count()
}

#[test]
fn lines_come_back_in_order_with_all_that_was_said_of_them() {
    let home = tempfile::tempdir().unwrap();
    let mut writer = open(home.path());
    writer.append(Wall(-3), LineSource::Stderr, true, b"\xff\x00 raw").unwrap();
    writer.append(Wall(4), LineSource::Stdout, false, b"").unwrap();
    writer.flush().unwrap();
    let batch = read_lines(home.path(), None, 1 << 20).unwrap();
    assert_eq!(batch.stamp, STAMP);
    assert_eq!(
        batch.entries,
        [
            LineEntry::Line(Line {
                sequence: 1,
                wall: Wall(-3),
                source: LineSource::Stderr,
                cut: true,
                bytes: b"\xff\x00 raw".to_vec()
            }),
            LineEntry::Line(Line { sequence: 2, wall: Wall(4), source: LineSource::Stdout, cut: false, bytes: vec![] }),
        ]
    );
    assert_eq!(read_lines(home.path(), batch.through(), 1 << 20).unwrap().entries, []);
}

#[test]
fn the_numbers_go_on_in_the_next_run_and_begin_again_in_another_log() {
    let home = tempfile::tempdir().unwrap();
    write(&mut open(home.path()), 1..=3);
    let mut again = LineWriter::open(home.path(), ROOM, Stamp(8)).unwrap();
    assert_eq!(again.position(), LinePosition { stamp: STAMP, sequence: 3 });
    write(&mut again, 4..=5);
    drop(LineWriter::open(home.path(), ROOM, Stamp(8)).unwrap());
    assert_eq!(lines(&read_all(home.path(), None)), 5);
    let foreign = LinePosition { stamp: Stamp(1), sequence: 4 };
    assert_eq!(lines(&read_all(home.path(), Some(foreign))), 5, "another log's position reads from the start");
}

#[test]
fn a_full_log_drops_its_oldest_lines_and_shows_the_gap() {
    let home = tempfile::tempdir().unwrap();
    let mut writer = open(home.path());
    write(&mut writer, 1..=100_000);
    let bytes: u64 =
        list_segments(home.path()).unwrap().iter().map(|(_, path)| fs::metadata(path).unwrap().len()).sum();
    assert!(bytes <= ROOM && bytes > ROOM / 2, "{bytes} bytes");
    let entries = read_all(home.path(), None);
    assert!(matches!(entries.first(), Some(LineEntry::Gap { first: 1, .. })));
    assert!(matches!(entries.last(), Some(LineEntry::Line(line)) if line.sequence == 100_000));
    let Some(LineEntry::Gap { last, .. }) = entries.first() else { unreachable!() };
    assert_eq!(lines(&entries) as u64, 100_000 - last, "one gap, then every line");
}

#[test]
fn acknowledged_lines_are_dropped_and_the_numbers_are_kept() {
    let home = tempfile::tempdir().unwrap();
    let mut writer = open(home.path());
    write(&mut writer, 1..=2_000);
    let end = writer.position();
    acknowledge_lines(home.path(), LinePosition { stamp: Stamp(1), ..end }).unwrap();
    assert_eq!(lines(&read_all(home.path(), None)), 2_000, "another log's acknowledgement drops nothing");
    acknowledge_lines(home.path(), LinePosition { sequence: 1_500, ..end }).unwrap();
    let after = LinePosition { sequence: 1_500, ..end };
    assert_eq!(lines(&read_all(home.path(), Some(after))), 500, "what is not acknowledged stays");
    acknowledge_lines(home.path(), end).unwrap();
    assert_eq!(list_segments(home.path()).unwrap().len(), 1);
    assert_eq!(last_position(home.path()).unwrap(), Some(end));
    drop(writer);
    write(&mut open(home.path()), 2_001..=2_002);
    assert_eq!(lines(&read_all(home.path(), Some(end))), 2);
}

#[test]
fn a_log_cut_at_any_byte_keeps_every_whole_line_and_goes_on() {
    let home = tempfile::tempdir().unwrap();
    write(&mut open(home.path()), 1..=3);
    let (_, path) = list_segments(home.path()).unwrap().remove(0);
    let whole = fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let kept = last_position(home.path()).unwrap().map_or(0, |position| position.sequence);
        let mut writer = open(home.path());
        assert_eq!(writer.position().sequence, kept);
        write(&mut writer, kept + 1..=kept + 2);
        let entries = read_all(home.path(), None);
        assert_eq!(lines(&entries) as u64, kept + 2, "cut at {cut}");
        for (_, path) in list_segments(home.path()).unwrap() {
            fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn damage_in_the_middle_is_a_gap_and_not_the_end() {
    let home = tempfile::tempdir().unwrap();
    write(&mut open(home.path()), 1..=3_000);
    let segments = list_segments(home.path()).unwrap();
    let (_, path) = segments.first().unwrap();
    assert!(segments.len() > 1);
    let mut bytes = fs::read(path).unwrap();
    bytes[HEADER_BYTES + RECORD_HEAD_BYTES + 3] ^= 1;
    fs::write(path, bytes).unwrap();
    let entries = read_all(home.path(), None);
    assert!(matches!(entries.first(), Some(LineEntry::Gap { first: 1, .. })));
    assert!(matches!(entries.last(), Some(LineEntry::Line(line)) if line.sequence == 3_000));
}

#[test]
fn a_damaged_number_at_the_end_of_all_numbers_ends_the_reading() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = open(folder.path());
    writer.position.sequence = u64::MAX - 1;
    writer.append(Wall(5), LineSource::Stdout, false, b"last").unwrap();
    writer.append(Wall(5), LineSource::Stdout, false, b"one too many").unwrap();
    writer.flush().unwrap();
    let batch = read_lines(folder.path(), None, 2000).unwrap();
    let through = batch.through().unwrap();
    assert_eq!(through, LinePosition { stamp: STAMP, sequence: u64::MAX });
    assert_eq!(read_lines(folder.path(), Some(through), 2000).unwrap().entries, Vec::new());
    acknowledge_lines(folder.path(), through).unwrap();
    open(folder.path());
}
