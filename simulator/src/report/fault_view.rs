//! Faults in pictures: how many of each kind began when, and one run's faults as bars.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::band::{amount, number};
use super::chart::{Bar, Moment, draw_moments, draw_time_axis, open_picture, x};
use super::markup::Text;
use crate::fault::{Fault, FaultKind, Target};
use crate::run::Outcome;

/// Colours of the page.
const COLOURS: [&str; 8] = ["c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8"];
/// Bars over the time axis.
const BARS: u64 = 60;
/// Rows of a run's timeline: more fit no screen.
const ROWS_MAX: usize = 24;
const ROW_HEIGHT: f64 = 14.0;
const HEAD_HEIGHT: f64 = 22.0;

/// The kinds that began, the most frequent first, each with a colour. The rarest share the last one.
fn kinds<'a>(faults: impl Iterator<Item = &'a Fault>) -> Vec<(&'static str, FaultKind)> {
    let mut counts: BTreeMap<FaultKind, usize> = BTreeMap::new();
    for fault in faults {
        *counts.entry(fault.kind).or_default() += 1;
    }
    let mut kinds: Vec<_> = counts.into_iter().collect();
    kinds.sort_by_key(|(kind, count)| (std::cmp::Reverse(*count), *kind));
    let coloured = kinds.into_iter().enumerate();
    coloured.map(|(index, (kind, _))| (COLOURS.get(index).copied().unwrap_or("c8"), kind)).collect()
}

/// Bars of the faults that began, per run, and what their colours mean.
pub(super) fn histogram(runs: &[&Outcome], end_s: u64) -> (Vec<(&'static str, String)>, Vec<Bar>) {
    let kinds = kinds(runs.iter().flat_map(|run| &run.faults));
    let width_s = end_s.div_ceil(BARS).max(1);
    let mut counts: BTreeMap<(u64, FaultKind), u64> = BTreeMap::new();
    for fault in runs.iter().flat_map(|run| &run.faults) {
        *counts.entry((fault.at.as_secs() / width_s, fault.kind)).or_default() += 1;
    }
    let bars = (0..end_s.div_ceil(width_s)).map(|bar| {
        let height = |kind| number(counts.get(&(bar, kind)).copied().unwrap_or(0)) / amount(runs.len().max(1));
        let parts = kinds.iter().map(|(colour, kind)| (*colour, height(*kind))).collect();
        Bar { from: bar * width_s, to: ((bar + 1) * width_s).min(end_s), parts }
    });
    let legend = kinds.iter().map(|(colour, kind)| (*colour, kind.to_string())).collect();
    (legend, bars.collect())
}

/// Draws one run's faults as bars, a row for each node or site, up to its end.
pub(super) fn draw_timeline(f: &mut fmt::Formatter<'_>, run: &Outcome, moments: &[Moment]) -> fmt::Result {
    let end_s = run.violation.as_ref().map_or(run.virtual_ms, |failure| failure.at_ms).div_ceil(1000).max(1);
    let kinds = kinds(run.faults.iter());
    let names: Vec<_> = kinds.iter().map(|(colour, kind)| (*colour, kind.to_string())).collect();
    super::table::legend(f, &names.iter().map(|(colour, name)| (*colour, name.as_str())).collect::<Vec<_>>())?;
    let rows = rows(run);
    let bottom = HEAD_HEIGHT + ROW_HEIGHT * amount(rows.len().max(1));
    open_picture(f, bottom + 22.0)?;
    for (place, target) in rows.iter().enumerate() {
        let y = HEAD_HEIGHT + ROW_HEIGHT * amount(place);
        let name = target.to_string();
        writeln!(f, r#"<text class="tick end" x="56" y="{:.1}">{}</text>"#, y + 10.5, Text(&name))?;
        for fault in run.faults.iter().filter(|fault| fault.on == *target) {
            let (from_s, to_s) = (fault.at.as_secs(), (fault.at + fault.lasting).as_secs());
            let (left, right) = (x(from_s, end_s), x(to_s, end_s));
            let colour = kinds.iter().find(|(_, kind)| *kind == fault.kind).map_or("c8", |(colour, _)| *colour);
            let title = format!("{} of {name} at {}", fault.kind, humantime::format_duration(fault.at));
            writeln!(
                f,
                r#"<rect class="fill {colour}" x="{left:.1}" y="{:.1}" width="{:.1}" height="{:.1}" rx="2"><title>{}</title></rect>"#,
                y + 2.0,
                (right - left).max(3.0),
                ROW_HEIGHT - 4.0,
                Text(&title)
            )?;
        }
    }
    draw_time_axis(f, end_s, bottom)?;
    draw_moments(f, moments, &|at_s| x(at_s, end_s), bottom)?;
    f.write_str("</svg>\n")
}

/// The targets of a run's faults: whoever failed, the server, the sites, then those that were hit last.
fn rows(run: &Outcome) -> Vec<Target> {
    let failed = run.violation.as_ref().and_then(|failure| failure.violation.node.parse::<Target>().ok());
    let mut rows: Vec<Target> = failed.into_iter().collect();
    let hit: BTreeSet<Target> = run.faults.iter().map(|fault| fault.on).collect();
    let whole = |target: &&Target| !matches!(target, Target::Device(_));
    let late = run.faults.iter().rev().map(|fault| fault.on);
    for target in hit.iter().filter(whole).copied().chain(late) {
        if !rows.contains(&target) && rows.len() < ROWS_MAX {
            rows.push(target);
        }
    }
    rows
}
