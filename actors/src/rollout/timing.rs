//! A rollout's windows: by which clock each device has them, when they open, and what that means for deadlines.
//!
//! A wave's time is counted from the moment at which the windows of all its devices have opened once. Who says that it
//! waits, for its window or since somebody at the device put it off, does not fail when that time is over: it holds
//! nobody up from then on, and follows when its turn comes.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetd_sync_core::id::LocalId;
use fleetd_sync_core::time::Wall;

use super::plan::Plan;
use super::run::RolloutRun;
use super::status::StageTimer;
use crate::targeting::{Described, DeviceRow};
use crate::window::{DeviceTerms, Terms, TermsError, Zone, ZoneChoice};

/// The label by which an operator says in which time zone a device is, and the fact by which it says so itself.
const ZONE_KEY: &str = "timezone";

/// Time zones of devices, each read once.
#[derive(Debug, Default)]
pub(super) struct Zones(BTreeMap<String, Option<Zone>>);

impl Zones {
    /// A zone by its name, if there is one.
    pub(super) fn named(&mut self, name: &str) -> Option<Zone> {
        if let Some(known) = self.0.get(name) {
            return known.clone();
        }
        let zone = name.parse().ok();
        self.0.insert(name.to_owned(), zone.clone());
        zone
    }

    /// The zone of a device, where that matters and is known: what the operator says wins over what the device says. A
    /// label's value has no slash, and a dot stands for it.
    pub(super) fn of(&mut self, terms: &Terms, row: &DeviceRow) -> Option<Zone> {
        if !terms.is_bounded() || terms.zone != ZoneChoice::Device {
            return None;
        }
        match row.label(ZONE_KEY) {
            Some(label) => self.named(&label.replace('.', "/")),
            None => self.named(row.fact(ZONE_KEY)?),
        }
    }
}

/// When the devices of a zone may begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneOpening {
    /// By whose clocks; `None` for devices whose zone nobody knows: they have UTC.
    pub zone: Option<Zone>,
    /// How many devices these are.
    pub devices: usize,
    /// When they may begin, at the earliest.
    pub opens: Wall,
    /// The same, as the clocks there show it.
    pub shown: String,
}

impl Plan {
    /// The terms of a device.
    #[must_use]
    pub fn terms_of(&self, zone: Option<&Zone>) -> DeviceTerms {
        let priority = self.strategy.priority;
        DeviceTerms { priority, ..self.strategy.terms.of(&zone.cloned().unwrap_or_default()) }
    }

    /// When the devices of each zone may begin, of one wave or of all; empty where they may at any time.
    ///
    /// # Errors
    /// [`TermsError::NeverOpen`] when those of a zone could not begin within a year.
    pub fn openings(&self, wave: Option<u32>, now: Wall) -> Result<Vec<ZoneOpening>, TermsError> {
        let terms = &self.strategy.terms;
        if !terms.is_bounded() {
            return Ok(Vec::new());
        }
        let mut zones = BTreeMap::<String, (Option<&Zone>, usize)>::new();
        for device in self.assigned() {
            if wave.is_none() || device.place.map(|place| place.wave) == wave {
                let name = device.zone.as_ref().map(ToString::to_string).unwrap_or_default();
                zones.entry(name).or_insert((device.zone.as_ref(), 0)).1 += 1;
            }
        }
        let opening = |(zone, devices): (Option<&Zone>, usize)| {
            let known = match (&terms.zone, zone) {
                (ZoneChoice::Fixed(zone), _) => Some(zone.clone()),
                (ZoneChoice::Device, zone) => zone.cloned(),
            };
            let of_devices = known.clone().unwrap_or_default();
            let opens = terms.opens(&of_devices, now)?;
            Ok(ZoneOpening { shown: of_devices.show(opens), zone: known, devices, opens })
        };
        let mut openings = zones.into_values().map(opening).collect::<Result<Vec<_>, _>>()?;
        openings.sort_by_key(|opening| opening.opens);
        Ok(openings)
    }
}

impl RolloutRun {
    /// The time that a wave has which begins at `from`: its deadline, once the last of its devices' windows has opened.
    pub(super) fn wave_time(&self, wave: u32, from: Wall) -> Duration {
        // A window that does not open within a year is none that was planned with: the clock has jumped.
        let openings = self.plan.openings(Some(wave), from).unwrap_or_default();
        let last = openings.last().map_or(from, |opening| opening.opens);
        (last - from).saturating_add(self.plan.strategy.deadline)
    }

    /// The time that one device has by itself.
    pub(super) fn device_time(&self, device: LocalId, from: Wall) -> Duration {
        let opens = self.terms_of(device).calendar.opens(from).unwrap_or(from);
        (opens - from).saturating_add(self.plan.strategy.deadline)
    }

    /// Says whether the newest wave's time is over: who still waits for a window holds nobody up then.
    pub(super) fn is_wave_overdue(&self) -> bool {
        self.header.wave.timer == StageTimer::Unbounded
    }
}
