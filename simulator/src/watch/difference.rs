//! What changed between two texts, line by line.

/// Lines that are compared one with another: beyond, a change is shown whole, since nobody reads that much of it.
const LINES_COMPARED_MAX: usize = 400;

/// The lines that went (`-`) and that came (`+`), in order.
#[must_use]
pub fn lines_changed(before: &str, after: &str) -> Vec<String> {
    let (before, after) = (folded(before), folded(after));
    let before: Vec<&str> = before.iter().map(String::as_str).collect();
    let after: Vec<&str> = after.iter().map(String::as_str).collect();
    let head = before.iter().zip(&after).take_while(|(one, other)| one == other).count();
    let (before, after) = (before.split_at(head).1, after.split_at(head).1);
    let tail = before.iter().rev().zip(after.iter().rev()).take_while(|(one, other)| one == other).count();
    let (before, after) = (before.split_at(before.len() - tail).0, after.split_at(after.len() - tail).0);
    let (gone, come) = (before.iter().map(|line| format!("-{line}")), after.iter().map(|line| format!("+{line}")));
    if before.len().max(after.len()) > LINES_COMPARED_MAX {
        return gone.chain(come).collect();
    }
    compared(before, after)
}

/// The lines of a text, where numbers that stand one below the other, as bytes do, share a line.
fn folded(text: &str) -> Vec<String> {
    let is_number = |line: &str| {
        let digits = line.trim().trim_end_matches(',');
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    let (mut lines, mut was_number) = (Vec::<String>::new(), false);
    for line in text.lines() {
        let is_next = was_number && is_number(line);
        match lines.last_mut() {
            Some(last) if is_next => {
                last.push(' ');
                last.push_str(line.trim());
            }
            _ => lines.push(line.to_owned()),
        }
        was_number = is_number(line);
    }
    lines
}

/// The shortest way from one list of lines to another, by their longest common subsequence.
fn compared(before: &[&str], after: &[&str]) -> Vec<String> {
    let width = after.len() + 1;
    let mut common = vec![0_usize; (before.len() + 1) * width];
    let at = |common: &[usize], row: usize, column: usize| common.get(row * width + column).copied().unwrap_or(0);
    for (row, one) in before.iter().enumerate().rev() {
        for (column, other) in after.iter().enumerate().rev() {
            let length = if one == other {
                at(&common, row + 1, column + 1) + 1
            } else {
                at(&common, row + 1, column).max(at(&common, row, column + 1))
            };
            if let Some(cell) = common.get_mut(row * width + column) {
                *cell = length;
            }
        }
    }
    let (mut row, mut column, mut lines) = (0, 0, Vec::new());
    loop {
        match (before.get(row), after.get(column)) {
            (Some(one), Some(other)) if one == other => (row, column) = (row + 1, column + 1),
            (Some(one), other) if other.is_none() || at(&common, row + 1, column) >= at(&common, row, column + 1) => {
                lines.push(format!("-{one}"));
                row += 1;
            }
            (_, Some(other)) => {
                lines.push(format!("+{other}"));
                column += 1;
            }
            (_, None) => return lines,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_told() {
        let changed = |before: &str, after: &str| lines_changed(before, after).join(" ");
        assert_eq!(changed("a\nb\nc", "a\nb\nc"), "");
        assert_eq!(changed("a\nb\nc", "a\nx\nc"), "-b +x");
        assert_eq!(changed("a\nb\nc\nd\ne", "a\nB\nc\nD\ne"), "-b +B -d +D");
        assert_eq!(changed("", "a"), "+a");
        assert_eq!(changed("a\nb", ""), "-a -b");
    }

    #[test]
    fn bytes_share_a_line() {
        let before = "a: [\n    1,\n    2,\n],";
        assert_eq!(lines_changed(before, "a: [\n    1,\n    3,\n],"), ["-    1, 2,", "+    1, 3,"]);
    }

    #[test]
    fn a_long_change_is_told_whole() {
        let text = |word: &str| (0..=LINES_COMPARED_MAX).map(|line| format!("{word}{line}\n")).collect::<String>();
        assert_eq!(lines_changed(&text("a"), &text("b")).len(), 2 * (LINES_COMPARED_MAX + 1));
    }
}
