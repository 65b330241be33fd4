//! Coverage as a picture: for each kind of machine, what it was in the middle of against what it was given.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::band::amount;
use super::markup::Text;
use super::table::legend;
use crate::set::{PairCount, SetReport};

/// How often a pair was seen, with the colour that says so, from seldom to always; each up to this share of the seeds.
const SHADES: [(&str, &str, f64); 4] = [
    ("seen1", "up to a tenth of the seeds", 0.1),
    ("seen2", "up to half", 0.5),
    ("seen3", "more than half", 0.999),
    ("seen4", "every seed", f64::INFINITY),
];
/// What a machine is in the middle of that tells no phases apart.
const NO_PHASE: &str = "any time";

/// The squares of one machine: in how many seeds it was given an input in the middle of something.
#[derive(Debug, Default)]
struct Board<'a> {
    seeds: BTreeMap<(&'a str, &'a str), usize>,
}

impl<'a> Board<'a> {
    fn phases(&self) -> BTreeSet<&'a str> {
        self.seeds.keys().map(|(phase, _)| *phase).collect()
    }

    fn inputs(&self) -> BTreeSet<&'a str> {
        self.seeds.keys().map(|(_, input)| *input).collect()
    }

    fn draw(&self, f: &mut fmt::Formatter<'_>, machine: &str, all: f64) -> fmt::Result {
        let inputs = self.inputs();
        writeln!(f, "<figure><figcaption>{} <small>{} pairs</small></figcaption>", Text(machine), self.seeds.len())?;
        write!(f, "<table class=\"board\"><thead><tr><th></th>")?;
        inputs.iter().try_for_each(|input| write!(f, "<th><span>{}</span></th>", Text(input)))?;
        writeln!(f, "</tr></thead><tbody>")?;
        for phase in self.phases() {
            write!(f, "<tr><th>{}</th>", Text(phase))?;
            for input in &inputs {
                let seeds = self.seeds.get(&(phase, *input)).copied().unwrap_or(0);
                let shade = shade(amount(seeds) / all);
                write!(f, "<td class=\"{shade}\" title=\"{}, {}: {seeds} seeds\"></td>", Text(phase), Text(input))?;
            }
            writeln!(f, "</tr>")?;
        }
        writeln!(f, "</tbody></table></figure>")
    }
}

/// The class of a square by the share of seeds in which its pair was seen.
fn shade(share: f64) -> &'static str {
    if share <= 0.0 {
        return "unseen";
    }
    SHADES.iter().find(|(_, _, up_to)| share <= *up_to).map_or("unseen", |(class, ..)| *class)
}

/// The machine, what it was in the middle of, and the input, of a pair in words.
fn parts(pair: &PairCount) -> Option<(&str, &str, &str)> {
    let (machine_and_phase, input) = pair.pair.rsplit_once(": ")?;
    let (machine, phase) = machine_and_phase.split_once(", ").unwrap_or((machine_and_phase, NO_PHASE));
    Some((machine, phase, input))
}

/// Draws what the machines of a set were seen to go through.
pub(super) fn draw(f: &mut fmt::Formatter<'_>, report: &SetReport) -> fmt::Result {
    let mut boards: BTreeMap<&str, Board<'_>> = BTreeMap::new();
    for pair in &report.coverage {
        let Some((machine, phase, input)) = parts(pair) else { continue };
        boards.entry(machine).or_default().seeds.insert((phase, input), pair.seeds);
    }
    if boards.is_empty() {
        return Ok(());
    }
    writeln!(
        f,
        "<section><h2>Coverage</h2><p class=\"note\">What each kind of machine was in the middle of (rows) when it was \
        given what (columns): {} pairs of {} kinds. An empty square was seen in no seed of this set: some cannot be, and \
        what should be and is not wants more seeds or another scenario.</p>",
        report.coverage.len(),
        boards.len()
    )?;
    legend(f, &SHADES.map(|(class, label, _)| (class, label)))?;
    writeln!(f, "<div class=\"boards\">")?;
    let all = amount(report.runs.len().max(1));
    boards.iter().try_for_each(|(machine, board)| board.draw(f, machine, all))?;
    writeln!(f, "</div></section>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_in_words_is_taken_apart_again() {
        let pair = |text: &str| PairCount { pair: text.to_owned(), seeds: 1 };
        assert_eq!(parts(&pair("Lobby: Trust")), Some(("Lobby", NO_PHASE, "Trust")));
        assert_eq!(parts(&pair("Workload, watch: its time")), Some(("Workload", "watch", "its time")));
        let two = pair("LogSpool, linked, reading: LinesRead");
        assert_eq!(parts(&two), Some(("LogSpool", "linked, reading", "LinesRead")));
    }

    #[test]
    fn only_what_every_seed_has_shown_is_as_dark_as_can_be() {
        let shades = [0, 1, 2, 10, 11, 19, 20].map(|seeds| shade(amount(seeds) / 20.0));
        assert_eq!(shades, ["unseen", "seen1", "seen1", "seen2", "seen3", "seen3", "seen4"]);
    }
}
