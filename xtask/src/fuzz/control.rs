//! What libFuzzer says of each input while it merges corpora, and which inputs are enough.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Features that stand for one edge: how often it was passed, in eight steps. They are so fine that nearly every input
/// has one of its own.
///
/// # Source
/// `FuzzerTracePC.h`, `CollectFeatures`.
const FEATURES_AN_EDGE: u64 = 8;

/// An input, and the edges that it reaches.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Input {
    pub(super) path: PathBuf,
    edges: BTreeSet<u64>,
}

/// Reads a control file: how many inputs, how many of them are the first corpus's, their paths, and then for each by
/// its number what it reached.
///
/// # Source
/// `FuzzerMerge.cpp`, `Merger::Parse`: `STARTED n size`, `FT n feature…`, `COV n edge…`; the last has only edges that no
/// input before it reached.
pub(super) fn read(text: &str) -> Vec<Input> {
    let mut lines = text.lines();
    let count = lines.next().and_then(|line| line.parse().ok()).unwrap_or(0_usize);
    let paths: Vec<&str> = lines.by_ref().skip(1).take(count).collect();
    let mut edges: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new();
    for line in lines {
        let mut words = line.split_whitespace();
        let (Some("FT"), Some(number)) = (words.next(), words.next()) else { continue };
        let Ok(number) = number.parse() else { continue };
        let features = words.filter_map(|word| word.parse::<u64>().ok());
        edges.entry(number).or_default().extend(features.map(|feature| feature / FEATURES_AN_EDGE));
    }
    let edges_of = |number: usize| edges.get(&number).cloned().unwrap_or_default();
    paths.iter().enumerate().map(|(number, path)| Input { path: path.into(), edges: edges_of(number) }).collect()
}

/// Chooses inputs, each time the one that reaches most of what is not reached yet, until nothing is left or there are
/// `count_max`.
pub(super) fn cover(mut inputs: Vec<Input>, count_max: usize) -> Vec<PathBuf> {
    let mut chosen = Vec::new();
    while chosen.len() < count_max {
        let best = inputs.iter().enumerate().max_by_key(|(index, input)| (input.edges.len(), usize::MAX - index));
        let Some((index, _)) = best.filter(|(_, input)| !input.edges.is_empty()) else { break };
        let best = inputs.swap_remove(index);
        inputs.iter_mut().for_each(|input| input.edges.retain(|edge| !best.edges.contains(edge)));
        chosen.push(best.path);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewest_inputs_that_reach_everything_are_chosen() {
        let text = "4\n0\na\nb\nc\nd\nSTARTED 0 1\nFT 0 8 9 16\nCOV 0 1 2\nSTARTED 1 9\nFT 1 8 16 24\n\
            STARTED 2 3\nFT 2 39\nSTARTED 3 3\n";
        let inputs = read(text);
        assert_eq!(inputs.len(), 4);
        assert_eq!(cover(inputs, 9), [PathBuf::from("b"), PathBuf::from("c")]);
        assert_eq!(cover(read(text), 1), [PathBuf::from("b")]);
        assert_eq!(read(""), []);
    }
}
