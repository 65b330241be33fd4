//! Splits what a workload writes into lines, whatever the pieces in which it arrives.

use fleetd_sync_core::limit::LOG_LINE_BYTES_MAX;

/// Collects one stream's bytes until they make a line.
#[derive(Debug, Default)]
pub(super) struct LineSplitter {
    partial: Vec<u8>,
    /// Bytes of the present line were dropped.
    cut: bool,
}

impl LineSplitter {
    /// Takes bytes, and gives each line that they complete, with whether it was cut.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8], bool)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (head, tail) = bytes.split_at(end);
            self.collect(head);
            line(self.partial.strip_suffix(b"\r").unwrap_or(&self.partial), self.cut);
            self.partial.clear();
            self.cut = false;
            bytes = tail.get(1..).unwrap_or_default();
        }
        self.collect(bytes);
    }

    /// Gives what is left when the stream has ended without a newline.
    pub(super) fn finish(&mut self, line: impl FnOnce(&[u8], bool)) {
        if !self.partial.is_empty() || self.cut {
            line(&self.partial, self.cut);
            self.partial.clear();
            self.cut = false;
        }
    }

    fn collect(&mut self, bytes: &[u8]) {
        let room = LOG_LINE_BYTES_MAX.saturating_sub(self.partial.len());
        self.cut |= bytes.len() > room;
        self.partial.extend(bytes.iter().take(room));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&[u8]]) -> Vec<(String, bool)> {
        let mut lines = Vec::new();
        let mut splitter = LineSplitter::default();
        for piece in pieces {
            splitter.push(piece, |line, cut| lines.push((String::from_utf8_lossy(line).into_owned(), cut)));
        }
        splitter.finish(|line, cut| lines.push((String::from_utf8_lossy(line).into_owned(), cut)));
        lines
    }

    #[test]
    fn pieces_make_the_same_lines_wherever_they_are_cut() {
        let text = b"one\ntwo\r\n\nfour";
        let whole = split(&[text]);
        assert_eq!(whole.iter().map(|(line, _cut)| line.as_str()).collect::<Vec<_>>(), ["one", "two", "", "four"]);
        for at in 0..text.len() {
            assert_eq!(split(&[&text[..at], &text[at..]]), whole);
        }
    }

    #[test]
    fn a_line_without_end_is_cut_and_says_so() {
        let long = vec![b'x'; LOG_LINE_BYTES_MAX + 1];
        let lines = split(&[&long, b"y\nshort\n"]);
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0].0.len(), lines[0].1), (LOG_LINE_BYTES_MAX, true));
        assert_eq!(lines[1], ("short".to_owned(), false));
    }
}
