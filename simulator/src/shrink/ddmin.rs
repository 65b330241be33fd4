//! Delta debugging: the parts of a list that cannot be left out one by one.

use super::Over;

/// Runs candidates in the order of preference, keeps the first that fails, and says which that was.
type FirstFailing<'a, T> = dyn FnMut(&[Vec<T>]) -> Result<Option<usize>, Over> + 'a;

/// Makes a list shorter for as long as one of its shorter lists fails. `first_failing` gets candidates in the order of
/// preference, keeps what it takes, and says which it took.
pub(super) fn minimise<T: Clone>(mut items: Vec<T>, first_failing: &mut FirstFailing<'_, T>) -> Result<(), Over> {
    if items.is_empty() || first_failing(&[Vec::new()])?.is_some() {
        return Ok(());
    }
    let mut parts = 2_usize;
    while items.len() > 1 {
        parts = parts.min(items.len());
        let candidates = candidates(&items, parts);
        match first_failing(&candidates)? {
            Some(index) => {
                let is_subset = index < parts;
                items = candidates.into_iter().nth(index).unwrap_or_default();
                parts = if is_subset { 2 } else { (parts - 1).max(2) };
            }
            None if parts == items.len() => break,
            None => parts *= 2,
        }
    }
    Ok(())
}

/// Each of `parts` parts of the list, then the list without each of them.
fn candidates<T: Clone>(items: &[T], parts: usize) -> Vec<Vec<T>> {
    let bound = |part: usize| part * items.len() / parts;
    let is_inside = |part: usize, index: usize| (bound(part)..bound(part + 1)).contains(&index);
    let picked = |keeps: &dyn Fn(usize) -> bool| {
        let kept = items.iter().enumerate().filter(|(index, _)| keeps(*index));
        kept.map(|(_, item)| item.clone()).collect::<Vec<T>>()
    };
    let subsets = (0..parts).map(|part| picked(&|index| is_inside(part, index)));
    // With two parts, what is left without one is the other.
    let rests = (0..if parts == 2 { 0 } else { parts }).map(|part| picked(&|index| !is_inside(part, index)));
    subsets.chain(rests).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minimum(of: u32, fails: impl Fn(&[u32]) -> bool) -> (Vec<u32>, usize) {
        let (mut best, mut tried) = ((0..of).collect::<Vec<_>>(), 0);
        minimise(best.clone(), &mut |lists: &[Vec<u32>]| {
            tried += lists.len();
            let found = lists.iter().position(|list| fails(list));
            if let Some(index) = found {
                best.clone_from(&lists[index]);
            }
            Ok(found)
        })
        .unwrap();
        (best, tried)
    }

    #[test]
    fn what_is_left_is_what_is_needed() {
        assert_eq!(minimum(100, |_| true).0, Vec::<u32>::new());
        assert_eq!(minimum(100, |list| list.contains(&77)).0, [77]);
        assert_eq!(minimum(100, |list| list.contains(&3) && list.contains(&98)).0, [3, 98]);
        assert_eq!(minimum(9, |list| list.len() >= 7).0.len(), 7);
        assert_eq!(minimum(1, |list| list.len() == 1).0, [0]);
        assert_eq!(minimum(0, |_| true).0, Vec::<u32>::new());
    }

    #[test]
    fn a_single_cause_among_a_thousand_is_found_in_few_trials() {
        let (list, tried) = minimum(1000, |list| list.contains(&700));
        assert_eq!(list, [700]);
        assert!(tried < 40, "{tried}");
    }
}
