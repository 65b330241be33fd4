//! Text that goes into a page: whatever a device or a file chose stays text there.

use std::fmt;
use std::time::Duration;

/// A text that is shown as it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text<'a>(pub(crate) &'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                control if control.is_control() && control != '\n' => f.write_str(" ")?,
                other => write!(f, "{other}")?,
            }
        }
        Ok(())
    }
}

/// A number with its thousands apart, so that it can be read (`3,486,495`).
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// An amount of bytes with a binary unit (`14.2 MiB`).
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut rest = super::band::number(count);
    while rest >= 1024.0 && unit + 1 < UNITS.len() {
        rest /= 1024.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{count} {name}") } else { format!("{rest:.1} {name}") }
}

/// A span in its two largest units (`1h 5m`).
pub(crate) fn span(milliseconds: u64) -> String {
    let rounded = if milliseconds < 10_000 { milliseconds } else { milliseconds / 1000 * 1000 };
    let text = humantime::format_duration(Duration::from_millis(rounded)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_becomes_markup() {
        let text = Text("<script>alert(\"1\" & '2')</script>\u{1b}[1m").to_string();
        assert_eq!(text, "&lt;script&gt;alert(&quot;1&quot; &amp; &#39;2&#39;)&lt;/script&gt; [1m");
    }

    #[test]
    fn numbers_and_spans_are_readable() {
        assert_eq!([bytes(0), bytes(1023), bytes(1536), bytes(5 << 30)], ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
        assert_eq!([grouped(7), grouped(1000), grouped(3_486_495)], ["7", "1,000", "3,486,495"]);
        assert_eq!([span(0), span(1500), span(3_905_250)], ["0s", "1s 500ms", "1h 5m"]);
    }
}
