//! Names that people can read to each other over a telephone: `brisk-otter`.

use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::name::{DeviceName, ParseNameError};

/// Draws without a number before one is added: most fleets never see it.
const DRAWS_WITHOUT_NUMBER: u32 = 4;

/// Draws a name; `tries` is how many drawn before were taken. The more there were, the more names there are to draw.
///
/// # Errors
/// Never, while every word of the lists is one of a name.
pub(super) fn draw(entropy: &mut Entropy, tries: u32) -> Result<DeviceName, ParseNameError> {
    let (adjective, animal) = (pick(entropy, ADJECTIVES), pick(entropy, ANIMALS));
    if tries < DRAWS_WITHOUT_NUMBER {
        return format!("{adjective}-{animal}").parse();
    }
    let numbers = 10_u64.saturating_pow(1 + tries - DRAWS_WITHOUT_NUMBER);
    format!("{adjective}-{animal}-{}", 2 + entropy.below(numbers)).parse()
}

fn pick(entropy: &mut Entropy, words: &'static [&'static str]) -> &'static str {
    let index = entropy.below(u64::try_from(words.len()).unwrap_or(0));
    usize::try_from(index).ok().and_then(|index| words.get(index)).copied().unwrap_or("plain")
}

const ADJECTIVES: &[&str] = &[
    "agile", "amber", "ample", "avid", "bold", "brave", "breezy", "bright", "brisk", "bronze", "calm", "candid",
    "cheery", "chilly", "civil", "clear", "clever", "coastal", "copper", "coral", "cosmic", "cosy", "crafty", "crisp",
    "curious", "dapper", "daring", "dewy", "diligent", "dusky", "eager", "early", "earnest", "easy", "elder", "fabled",
    "fair", "famous", "fancy", "fast", "feisty", "festive", "fierce", "fluent", "fond", "frank", "free", "fresh",
    "frosty", "gallant", "gentle", "giddy", "glad", "gleaming", "golden", "graceful", "grand", "hardy", "hasty",
    "hazel", "hearty", "helpful", "honest", "humble", "ideal", "ivory", "jaunty", "jolly", "jovial", "keen", "kind",
    "lively", "loyal", "lucid", "lucky", "lunar", "mellow", "merry", "mighty", "mild", "misty", "modest", "neat",
    "nimble", "noble", "oaken", "olive", "opal", "patient", "peaceful", "placid", "playful", "plucky", "polar",
    "polite", "proud", "quick", "quiet", "rapid", "ready", "regal", "robust", "rosy", "royal", "rustic", "sandy",
    "serene", "sharp", "shiny", "silent", "silver", "sincere", "sleek", "snappy", "snowy", "solar", "solid", "spry",
    "stable", "steady", "stellar", "sturdy", "sunny", "swift", "tender", "thrifty", "tidy", "trusty", "upbeat",
    "valiant", "vivid", "warm", "wise", "witty", "zesty",
];

const ANIMALS: &[&str] = &[
    "adder",
    "albatross",
    "alpaca",
    "antelope",
    "badger",
    "bat",
    "bear",
    "beaver",
    "bee",
    "beetle",
    "bison",
    "bobcat",
    "buffalo",
    "bullfinch",
    "buzzard",
    "camel",
    "caribou",
    "carp",
    "cat",
    "cheetah",
    "chough",
    "cicada",
    "clam",
    "cobra",
    "cod",
    "condor",
    "coot",
    "cormorant",
    "cougar",
    "coyote",
    "crab",
    "crane",
    "cricket",
    "crow",
    "cuckoo",
    "curlew",
    "deer",
    "dingo",
    "dolphin",
    "dormouse",
    "dove",
    "dragonfly",
    "duck",
    "dunlin",
    "eagle",
    "eel",
    "egret",
    "elk",
    "emu",
    "ermine",
    "falcon",
    "ferret",
    "finch",
    "firefly",
    "flamingo",
    "fox",
    "frog",
    "gannet",
    "gazelle",
    "gecko",
    "gibbon",
    "goat",
    "goose",
    "gopher",
    "grouse",
    "gull",
    "hamster",
    "hare",
    "hawk",
    "hedgehog",
    "heron",
    "hornet",
    "horse",
    "hound",
    "ibex",
    "ibis",
    "iguana",
    "jackal",
    "jackdaw",
    "jaguar",
    "kestrel",
    "kingfisher",
    "kite",
    "kiwi",
    "koala",
    "krill",
    "lapwing",
    "lark",
    "lemming",
    "lemur",
    "leopard",
    "limpet",
    "linnet",
    "lion",
    "lizard",
    "llama",
    "lobster",
    "lynx",
    "magpie",
    "mallard",
    "manatee",
    "marmot",
    "marten",
    "mink",
    "mole",
    "mongoose",
    "moose",
    "moth",
    "mouse",
    "newt",
    "nightjar",
    "ocelot",
    "octopus",
    "oriole",
    "osprey",
    "otter",
    "owl",
    "oyster",
    "panda",
    "panther",
    "parrot",
    "partridge",
    "pelican",
    "penguin",
    "pigeon",
    "pike",
    "pipit",
    "plover",
    "pony",
    "porcupine",
    "puffin",
    "puma",
    "quail",
    "rabbit",
    "raccoon",
    "ram",
    "raven",
    "redstart",
    "robin",
    "rook",
    "salmon",
    "seal",
    "shrew",
    "shrike",
    "skylark",
    "sloth",
    "snail",
    "sparrow",
    "squid",
    "squirrel",
    "starling",
    "stoat",
    "stork",
    "swallow",
    "swan",
    "swift",
    "tapir",
    "teal",
    "tern",
    "thrush",
    "tiger",
    "toad",
    "trout",
    "turtle",
    "viper",
    "vole",
    "walrus",
    "wasp",
    "weasel",
    "whale",
    "wolf",
    "wombat",
    "woodcock",
    "wren",
    "yak",
    "zebra",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn there_are_enough_words_and_each_makes_a_name() {
        for words in [ADJECTIVES, ANIMALS] {
            assert!(words.len() >= 100);
            assert!(words.is_sorted(), "in order, so that none is there twice");
            assert_eq!(words.iter().collect::<BTreeSet<_>>().len(), words.len());
            assert!(words.iter().all(|word| word.parse::<DeviceName>().is_ok() && !word.contains('-')));
        }
    }

    #[test]
    fn a_name_gets_a_number_when_plain_ones_are_taken() {
        let mut entropy = Entropy::from_seed([1; 32]);
        let mut hyphens = |tries| draw(&mut entropy, tries).unwrap().as_str().matches('-').count();
        assert_eq!((hyphens(0), hyphens(3), hyphens(4), hyphens(30)), (1, 1, 2, 2));
    }
}
