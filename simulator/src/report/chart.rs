//! A chart over time: lines with bands, and moments that are marked.

use std::fmt;

use super::band::{Point, number};
use super::markup::{Text, span};

/// The plot's own width and height within its picture, and the room left of it, above and below it.
const PLOT: (f64, f64) = (648.0, 150.0);
const ROOM: (f64, f64, f64) = (62.0, 18.0, 22.0);
/// Ticks of the time axis, at most.
const TICKS_MAX: u64 = 8;
/// Spans between two ticks, in seconds.
const TICK_SPANS: [u64; 18] =
    [1, 5, 10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 604_800, 2_592_000];

/// Where a logarithmic axis begins: nothing of a rollout is faster.
const LOG_FROM_MS: u64 = 100;
/// Ticks of such an axis.
const LOG_TICKS_MS: [u64; 16] = [
    100,
    1000,
    3000,
    10_000,
    30_000,
    60_000,
    300_000,
    600_000,
    1_800_000,
    3_600_000,
    10_800_000,
    43_200_000,
    86_400_000,
    259_200_000,
    604_800_000,
    2_592_000_000,
];
/// Room for one of their labels.
const LOG_TICK_WIDTH: f64 = 34.0;

/// One quantity of a chart.
pub(crate) struct Series {
    /// Its colour: the name of a class of the page.
    pub(crate) colour: &'static str,
    /// Its course.
    pub(crate) points: Vec<Point>,
}

/// A moment that is marked.
pub(crate) struct Moment {
    /// When, in the unit of the axis.
    pub(crate) at: u64,
    /// What happened.
    pub(crate) label: String,
    /// Whether it is the worst that a run can show.
    pub(crate) is_failure: bool,
}

/// A stack of bars at one place of the time axis: for each colour its height.
pub(crate) struct Bar {
    /// From when, in the unit of the axis.
    pub(crate) from: u64,
    /// Until when.
    pub(crate) to: u64,
    /// Colours and heights, from the bottom up.
    pub(crate) parts: Vec<(&'static str, f64)>,
}

/// What the time axis counts, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TimeAxis {
    /// Seconds, evenly.
    #[default]
    Seconds,
    /// Milliseconds, each power of ten as wide as any other. Every time of the chart is in milliseconds then.
    Logarithmic,
}

impl TimeAxis {
    /// Where a time lies.
    fn x(self, at: u64, end: u64) -> f64 {
        match self {
            Self::Seconds => x(at, end),
            Self::Logarithmic => {
                let over = |time: u64| (number(time.max(LOG_FROM_MS)) / number(LOG_FROM_MS)).ln();
                ROOM.0 + PLOT.0 * (over(at) / over(end.max(LOG_FROM_MS * 10))).clamp(0.0, 1.0)
            }
        }
    }

    fn draw(self, f: &mut fmt::Formatter<'_>, end: u64, bottom: f64) -> fmt::Result {
        if self == Self::Seconds {
            return draw_time_axis(f, end, bottom);
        }
        let mut free_from = 0.0;
        for at in LOG_TICKS_MS.into_iter().filter(|at| *at <= end) {
            let x = self.x(at, end);
            writeln!(f, r#"<line class="grid" x1="{x:.1}" x2="{x:.1}" y1="{:.1}" y2="{:.1}"/>"#, ROOM.1, bottom + 4.0)?;
            if x >= free_from {
                let text = span(at);
                writeln!(f, r#"<text class="tick middle" x="{x:.1}" y="{:.1}">{}</text>"#, bottom + 16.0, Text(&text))?;
                free_from = x + LOG_TICK_WIDTH;
            }
        }
        Ok(())
    }
}

/// A chart over time.
#[derive(Default)]
pub(crate) struct Chart {
    /// What its times are.
    pub(crate) axis: TimeAxis,
    /// The end of the time axis, in its unit.
    pub(crate) end: u64,
    /// The top of the other axis; what lies above widens it.
    pub(crate) top: f64,
    /// The unit of the other axis, behind its numbers.
    pub(crate) unit: &'static str,
    /// Lines with bands.
    pub(crate) series: Vec<Series>,
    /// Bars.
    pub(crate) bars: Vec<Bar>,
    /// Moments.
    pub(crate) moments: Vec<Moment>,
}

impl Chart {
    fn top(&self) -> f64 {
        let lines = self.series.iter().flat_map(|series| &series.points).map(|point| point.high);
        let bars = self.bars.iter().map(|bar| bar.parts.iter().map(|(_, height)| height).sum());
        rounded_up(lines.chain(bars).fold(self.top, f64::max))
    }

    fn x(&self, at: u64) -> f64 {
        self.axis.x(at, self.end)
    }

    fn y(&self, value: f64) -> f64 {
        ROOM.1 + PLOT.1 * (1.0 - (value / self.top()).clamp(0.0, 1.0))
    }

    fn draw_series(&self, f: &mut fmt::Formatter<'_>, series: &Series) -> fmt::Result {
        let place = |at: u64, value: f64| format!("{:.1},{:.1}", self.x(at), self.y(value));
        let upper = series.points.iter().map(|point| place(point.at, point.high));
        let lower = series.points.iter().rev().map(|point| place(point.at, point.low));
        let around: Vec<String> = upper.chain(lower).collect();
        let middle: Vec<String> = series.points.iter().map(|point| place(point.at, point.middle)).collect();
        writeln!(f, r#"<polygon class="band {}" points="{}"/>"#, series.colour, around.join(" "))?;
        writeln!(f, r#"<polyline class="line {}" points="{}"/>"#, series.colour, middle.join(" "))
    }

    fn draw_bar(&self, f: &mut fmt::Formatter<'_>, bar: &Bar) -> fmt::Result {
        let (left, right) = (self.x(bar.from), self.x(bar.to));
        let mut below = 0.0;
        for (colour, height) in bar.parts.iter().filter(|(_, height)| *height > 0.0) {
            let (bottom, top) = (self.y(below), self.y(below + height));
            let width = (right - left - 1.0).max(1.0);
            writeln!(
                f,
                r#"<rect class="fill {colour}" x="{left:.1}" y="{top:.1}" width="{width:.1}" height="{:.1}"/>"#,
                bottom - top
            )?;
            below += height;
        }
        Ok(())
    }

    fn draw_value_axis(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let top = self.top();
        for quarter in 0..=4_u32 {
            let value = top * f64::from(quarter) / 4.0;
            let y = self.y(value);
            writeln!(
                f,
                r#"<line class="grid" x1="{:.1}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}"/>"#,
                ROOM.0,
                ROOM.0 + PLOT.0
            )?;
            let text = format!("{}{}", short(value), self.unit);
            writeln!(f, r#"<text class="tick end" x="{:.1}" y="{:.1}">{}</text>"#, ROOM.0 - 6.0, y + 3.5, Text(&text))?;
        }
        Ok(())
    }
}

impl fmt::Display for Chart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let height = ROOM.1 + PLOT.1 + ROOM.2;
        open_picture(f, height)?;
        self.draw_value_axis(f)?;
        self.axis.draw(f, self.end, ROOM.1 + PLOT.1)?;
        self.bars.iter().try_for_each(|bar| self.draw_bar(f, bar))?;
        self.series.iter().try_for_each(|series| self.draw_series(f, series))?;
        draw_moments(f, &self.moments, &|at| self.x(at), ROOM.1 + PLOT.1)?;
        f.write_str("</svg>\n")
    }
}

/// Opens a picture as wide as a chart.
pub(crate) fn open_picture(f: &mut fmt::Formatter<'_>, height: f64) -> fmt::Result {
    let width = ROOM.0 + PLOT.0 + 10.0;
    writeln!(f, r#"<svg viewBox="0 0 {width:.0} {height:.0}" role="img" preserveAspectRatio="xMidYMid meet">"#)
}

/// Where a time lies on the time axis.
pub(crate) fn x(at_s: u64, end_s: u64) -> f64 {
    ROOM.0 + PLOT.0 * (number(at_s) / number(end_s.max(1))).clamp(0.0, 1.0)
}

/// Draws the time axis below a plot that ends at `bottom`.
pub(crate) fn draw_time_axis(f: &mut fmt::Formatter<'_>, end_s: u64, bottom: f64) -> fmt::Result {
    let step = TICK_SPANS.into_iter().find(|step| end_s / step <= TICKS_MAX).unwrap_or(end_s / TICKS_MAX);
    let mut at_s = 0;
    while at_s <= end_s {
        let x = x(at_s, end_s);
        writeln!(f, r#"<line class="grid" x1="{x:.1}" x2="{x:.1}" y1="{bottom:.1}" y2="{:.1}"/>"#, bottom + 4.0)?;
        let text = if at_s == 0 { "0".to_owned() } else { span(at_s * 1000) };
        writeln!(f, r#"<text class="tick middle" x="{x:.1}" y="{:.1}">{}</text>"#, bottom + 16.0, Text(&text))?;
        at_s += step.max(1);
    }
    Ok(())
}

/// Draws marked moments over a plot that ends at `bottom`. A label that would lie on another is left out, and its
/// title still tells it.
pub(crate) fn draw_moments(
    f: &mut fmt::Formatter<'_>,
    moments: &[Moment],
    place: &dyn Fn(u64) -> f64,
    bottom: f64,
) -> fmt::Result {
    let mut free_from = 0.0;
    for moment in moments {
        let (x, class) = (place(moment.at), if moment.is_failure { "moment bad" } else { "moment" });
        writeln!(f, r#"<g class="{class}"><title>{}</title>"#, Text(&moment.label))?;
        writeln!(f, r#"<line x1="{x:.1}" x2="{x:.1}" y1="{:.1}" y2="{bottom:.1}"/>"#, ROOM.1 - 4.0)?;
        let width = 6.0 * number(u64::try_from(moment.label.chars().count()).unwrap_or(0));
        let is_at_the_end = x + width > ROOM.0 + PLOT.0;
        let left = if is_at_the_end { x - width } else { x };
        if left >= free_from {
            let (anchor, at) = if is_at_the_end { ("end", x - 3.0) } else { ("start", x + 3.0) };
            writeln!(
                f,
                r#"<text class="{anchor}" x="{at:.1}" y="{:.1}">{}</text>"#,
                ROOM.1 - 6.0,
                Text(&moment.label)
            )?;
            free_from = left + width + 6.0;
        }
        f.write_str("</g>\n")?;
    }
    Ok(())
}

/// The next number that people divide by four without thinking.
fn rounded_up(value: f64) -> f64 {
    let value = value.max(1.0);
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 1.2, 1.6, 2.0, 2.4, 3.0, 4.0, 6.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|step| *step >= value).unwrap_or(value)
}

/// A number in few letters.
fn short(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        small if small < 10.0 => trimmed(&format!("{small:.2}"), ""),
        middle if middle < 1000.0 => trimmed(&format!("{middle:.1}"), ""),
        thousands if thousands < 1e6 => trimmed(&format!("{:.1}", thousands / 1e3), "k"),
        millions => trimmed(&format!("{:.1}", millions / 1e6), "M"),
    }
}

fn trimmed(digits: &str, unit: &str) -> String {
    format!("{}{unit}", digits.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        assert_eq!([0.3, 30.0, 97.0, 1001.0].map(rounded_up), [1.0, 30.0, 100.0, 1200.0]);
        assert_eq!([0.0, 7.5, 22.5, 1200.0, 2.5e6].map(short), ["0", "7.5", "22.5", "1.2k", "2.5M"]);
    }
}
