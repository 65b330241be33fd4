//! What orders over the whole fleet mean for one device, said once more, order by order.

use fleetd_actors::orders::Orders;
use fleetd_sync_core::id::ArtifactDigest;

use super::resolve::Wish;

/// Why a device has to be held, for people; nothing where no order says so. `runs_well` is the release that has proven
/// itself there: where a denied one has, it stays.
#[must_use]
pub fn held_by(orders: &Orders, wish: &Wish, runs_well: Option<ArtifactDigest>) -> Option<String> {
    if let Some(hold) = orders.stops.keys().next() {
        return Some(format!("the whole fleet is stopped by {hold}"));
    }
    let release = wish.release.as_ref()?;
    let is_denied = orders.denials.keys().any(|denied| *denied == release.manifest);
    (is_denied && runs_well != Some(release.whole())).then(|| format!("{} is denied", release.version))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fleetd_actors::orders::{Denial, FleetStop};
    use fleetd_sync_core::id::HoldId;
    use fleetd_sync_core::time::Wall;

    use super::*;
    use crate::fleet::coffee;
    use crate::reference::resolve::Release;

    #[test]
    fn a_stop_holds_everybody_and_a_denial_those_who_do_not_run_it_yet() {
        let (hold, manifest) = (HoldId::from_bytes([1; 10]), ArtifactDigest::of(b"a manifest"));
        let release = Release { version: "1.0.0".to_owned(), manifest, configuration: None, rollout: None, attempt: 1 };
        let (nothing, wished) = (Wish::default(), Wish { release: Some(release), ..Wish::default() });
        let (reason, created_by, created_at) = (String::new(), String::new(), Wall(0));
        let stop = FleetStop { hold, reason: reason.clone(), created_by: created_by.clone(), created_at };
        let stopped = Orders { stops: BTreeMap::from([(hold, stop)]), ..Orders::default() };
        let version = "1.0.0".parse().unwrap();
        let denial = Denial { hold, manifest, workload: coffee(), version, reason, created_by, created_at };
        let denied = Orders { denials: BTreeMap::from([(manifest, denial)]), ..Orders::default() };
        let is_held = |orders, wish, runs_well| held_by(orders, wish, runs_well).is_some();
        assert!(is_held(&stopped, &nothing, None) && is_held(&stopped, &wished, Some(manifest)));
        assert!(is_held(&denied, &wished, None) && !is_held(&denied, &wished, Some(manifest)));
        assert!(!is_held(&denied, &nothing, None) && !is_held(&Orders::default(), &wished, None));
    }
}
