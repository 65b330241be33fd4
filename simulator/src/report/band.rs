//! What many runs have in common over time: the middle of them, and where nine of ten lie.

use crate::run::{Outcome, Sample};

/// One point of time in many runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    /// When, in the unit of the chart's axis.
    pub(crate) at: u64,
    /// One in twenty lies below.
    pub(crate) low: f64,
    /// The median.
    pub(crate) middle: f64,
    /// One in twenty lies above.
    pub(crate) high: f64,
}

/// A quantity over time. A run that ended well before the others keeps its last value: its fleet has converged.
pub(crate) fn over_time(runs: &[&Outcome], value: impl Fn(&Sample) -> f64) -> Vec<Point> {
    points(runs, |run, index| {
        let last = run.samples.len().checked_sub(1)?;
        // One that failed or was stopped has no later state.
        let has_gone_on = run.converged_after_ms.is_some();
        let index = if has_gone_on { index.min(last) } else { index };
        run.samples.get(index).map(&value)
    })
}

/// How fast a counter grows, per second.
pub(crate) fn rate(runs: &[&Outcome], value: impl Fn(&Sample) -> u64) -> Vec<Point> {
    let mut points = points(runs, |run, index| {
        let (before, after) = (run.samples.get(index.checked_sub(1)?)?, run.samples.get(index)?);
        let seconds = after.at_s.saturating_sub(before.at_s).max(1);
        Some(number(value(after).saturating_sub(value(before))) / number(seconds))
    });
    points.retain(|point| point.at > 0);
    points
}

fn points(runs: &[&Outcome], value: impl Fn(&Outcome, usize) -> Option<f64>) -> Vec<Point> {
    let Some(longest) = runs.iter().max_by_key(|run| run.samples.len()) else { return Vec::new() };
    let at = longest.samples.iter().enumerate();
    at.filter_map(|(index, sample)| {
        let mut values: Vec<f64> = runs.iter().filter_map(|run| value(run, index)).collect();
        values.sort_by(f64::total_cmp);
        let [low, middle, high] = [5, 50, 95].map(|percent| percentile(&values, percent));
        Some(Point { at: sample.at_s, low: low?, middle: middle?, high: high? })
    })
    .collect()
}

/// The value below which so many percent lie, of values in order: the nearest that was really seen.
pub(crate) fn percentile<T: Copy>(values: &[T], percent: usize) -> Option<T> {
    let last = values.len().checked_sub(1)?;
    values.get((last * percent + 50) / 100).copied()
}

/// A count as what charts are drawn with; counts that a float cannot hold exactly are drawn all the same.
#[expect(clippy::cast_precision_loss, reason = "a chart shows three digits")]
pub(crate) fn number(count: u64) -> f64 {
    count as f64
}

/// A count of things in memory.
pub(crate) fn amount(count: usize) -> f64 {
    number(u64::try_from(count).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        assert_eq!(percentile(&[] as &[u64], 50), None);
        assert_eq!(percentile(&[7], 95), Some(7));
        let values: Vec<u64> = (0..=100).collect();
        assert_eq!([5, 50, 95].map(|percent| percentile(&values, percent)), [Some(5), Some(50), Some(95)]);
    }
}
