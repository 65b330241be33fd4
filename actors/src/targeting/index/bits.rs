//! A set of slots: one bit for each.

/// Bits of one word.
const WORD: usize = u64::BITS as usize;

/// A set of slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    /// No slot of so many.
    pub(super) fn none(slots: usize) -> Self {
        Self(vec![0; slots.div_ceil(WORD)])
    }

    /// Those of so many slots that are in it.
    pub(super) fn of(slots: usize, is_in: impl Fn(usize) -> bool) -> Self {
        let word = |first: usize| {
            (first..slots.min(first + WORD)).fold(0, |word, slot| word | (u64::from(is_in(slot)) << (slot % WORD)))
        };
        Self((0..slots.div_ceil(WORD)).map(|index| word(index * WORD)).collect())
    }

    pub(super) fn set(&mut self, slot: u32) {
        if let Some(word) = self.0.get_mut(slot as usize / WORD) {
            *word |= 1 << (slot as usize % WORD);
        }
    }

    pub(super) fn has(&self, slot: u32) -> bool {
        self.0.get(slot as usize / WORD).is_some_and(|word| word & (1 << (slot as usize % WORD)) != 0)
    }

    /// Takes out every slot that is not kept. Of a word without a slot nothing is asked.
    pub(super) fn keep(&mut self, is_kept: impl Fn(u32) -> bool) {
        for (index, word) in (0_u32..).zip(&mut self.0) {
            let mut rest = *word;
            while rest != 0 {
                let bit = rest.trailing_zeros();
                rest &= rest - 1;
                if !is_kept(index * u64::BITS + bit) {
                    *word &= !(1 << bit);
                }
            }
        }
    }

    /// Takes in the slots of another set of as many.
    pub(super) fn or(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word |= other);
    }

    /// The slots, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        (0_u32..).zip(&self.0).flat_map(|(index, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                Some(index * u64::BITS + bit)
            })
        })
    }
}
