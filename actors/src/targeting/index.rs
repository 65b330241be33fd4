//! An index over devices: what each has of every attribute, column by column.
//!
//! A column holds each value once, and for each device the number of its value. What a term of a selector, or a part of
//! a condition that asks for one attribute, says of a value is asked once for each value that there is, and not for each
//! device. What is left to ask is asked of those devices alone that it can still mean, by the same [`Matcher`] that
//! decides everywhere: the index answers for a device as well as its record does.

mod bits;
mod column;

use std::collections::{BTreeMap, BTreeSet};

use fleetd_sync_core::id::{DeviceId, LocalId};
use fleetd_sync_core::name::DeviceName;

use self::bits::Bits;
use self::column::Column;
use super::attribute::{Attribute, Described, arch, os};
use super::condition::{Condition, Part};
use super::group::Members;
use super::{Answer, Chosen, DeviceRow, Matcher, Targets, UndecidedDevices, note_undecided};
use crate::selector::{Selector, Term};

/// Devices by their attributes.
#[derive(Debug, Default)]
pub struct TargetIndex {
    slots: Vec<Option<(LocalId, DeviceId)>>,
    free: Vec<u32>,
    by_local: BTreeMap<LocalId, u32>,
    by_device: BTreeMap<DeviceId, u32>,
    by_name: BTreeSet<(DeviceName, u32)>,
    name: Column,
    site: Column,
    platform: Column,
    labels: BTreeMap<String, Column>,
    facts: BTreeMap<String, Column>,
}

/// What targets mean of an index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selected {
    /// The devices that are meant, in no order.
    pub meant: Vec<LocalId>,
    /// The devices that nobody can say it of, by the reason.
    pub undecided: Vec<UndecidedDevices>,
}

impl TargetIndex {
    /// Takes in a device, in place of what was known of it.
    pub fn put(&mut self, row: &DeviceRow) {
        self.remove(row.local);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = Some((row.local, row.device));
        }
        self.by_local.insert(row.local, slot);
        self.by_device.insert(row.device, slot);
        self.by_name.insert((row.name.clone(), slot));
        self.name.set(slot, row.name.as_str());
        if !row.site.is_empty() {
            self.site.set(slot, &row.site);
        }
        if let Some(platform) = row.platform() {
            self.platform.set(slot, platform);
        }
        for (key, value) in &row.labels {
            column_of(&mut self.labels, key.as_str()).set(slot, value.as_str());
        }
        for (key, value) in &row.facts {
            column_of(&mut self.facts, key).set(slot, value);
        }
    }

    /// Forgets a device.
    pub fn remove(&mut self, local: LocalId) {
        let Some(slot) = self.by_local.remove(&local) else { return };
        if let Some((_, device)) = self.slots.get_mut(slot as usize).and_then(Option::take) {
            self.by_device.remove(&device);
        }
        if let Some(name) = self.name.value(slot).and_then(|name| name.parse().ok()) {
            self.by_name.remove(&(name, slot));
        }
        for column in [&mut self.name, &mut self.site, &mut self.platform] {
            column.clear(slot);
        }
        for columns in [&mut self.labels, &mut self.facts] {
            columns.retain(|_, column| {
                column.clear(slot);
                !column.is_empty()
            });
        }
        self.free.push(slot);
    }

    /// How many devices there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_local.len()
    }

    /// Says whether there is no device.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_local.is_empty()
    }

    /// Says which devices are meant. `is_online` tells which can be reached, which no record says.
    #[must_use]
    pub fn select(&self, targets: &Targets, is_online: &(dyn Fn(LocalId) -> bool + Sync)) -> Selected {
        let matcher = Matcher::new(targets);
        let (possible, sure) = match targets {
            Targets::All => (self.live(), self.live()),
            Targets::Some(chosen) => self.chosen(chosen),
        };
        let (mut meant, mut undecided) = (Vec::new(), BTreeMap::new());
        for slot in possible.iter() {
            let Some(Some((local, device))) = self.slots.get(slot as usize) else { continue };
            let entry = Entry { index: self, slot, local: *local, device: *device, is_online };
            let answer = if sure.has(slot) { Answer::Holds } else { matcher.answer(&entry) };
            match answer {
                Answer::Holds => meant.push(*local),
                Answer::Fails => {}
                Answer::Undecided(why) => note_undecided(&mut undecided, why.to_string(), entry.name()),
            }
        }
        Selected { meant, undecided: undecided.into_values().collect() }
    }

    fn live(&self) -> Bits {
        Bits::of(self.slots.len(), |slot| self.slots.get(slot).is_some_and(Option::is_some))
    }

    /// Devices that may be meant, and those of them that surely are.
    fn chosen(&self, chosen: &Chosen) -> (Bits, Bits) {
        let none = || (Bits::none(self.slots.len()), Bits::none(self.slots.len()));
        let (mut possible, mut sure) =
            if chosen.is_listed() { none() } else { self.both(chosen.selector.as_ref(), chosen.condition.as_ref()) };
        let mut add = |slots: &mut dyn Iterator<Item = u32>| {
            slots.for_each(|slot| {
                possible.set(slot);
                sure.set(slot);
            });
        };
        for named in &chosen.devices {
            if let Ok(local) = named.parse::<LocalId>() {
                add(&mut self.by_local.get(&local).copied().into_iter());
            } else if let Ok(device) = named.parse::<DeviceId>() {
                add(&mut self.by_device.get(&device).copied().into_iter());
            } else if let Ok(name) = named.parse::<DeviceName>() {
                let named = self.by_name.range((name.clone(), 0)..=(name, u32::MAX));
                add(&mut named.map(|(_, slot)| *slot));
            }
        }
        for group in chosen.groups.values() {
            match &group.members {
                Members::Fixed(locals) => add(&mut locals.iter().filter_map(|local| self.by_local.get(local).copied())),
                Members::Dynamic { .. } => {}
            }
        }
        for group in chosen.groups.values() {
            if let Members::Dynamic { selector, condition } = &group.members {
                let (more, surely) = self.both(selector.as_ref(), condition.as_ref());
                possible.or(&more);
                sure.or(&surely);
            }
        }
        (possible, sure)
    }

    fn both(&self, selector: Option<&Selector>, condition: Option<&Condition>) -> (Bits, Bits) {
        let mut possible = self.live();
        for term in selector.into_iter().flat_map(Selector::terms) {
            self.keep_selected(term, &mut possible);
        }
        // What the selector leaves is sure as far as no condition is asked.
        let mut sure = possible.clone();
        for part in condition.into_iter().flat_map(Condition::parts) {
            if !self.keep_answered(part, &mut possible, &mut sure) {
                sure = Bits::none(self.slots.len());
            }
        }
        (possible, sure)
    }

    /// Keeps the devices of which a term of a selector holds.
    fn keep_selected(&self, term: &Term, possible: &mut Bits) {
        let key = term.key();
        let known = |column: &Column, part: fn(&str) -> Option<&str>| -> Vec<bool> {
            column.ask(|value| term.holds(value.and_then(part)))
        };
        let whole: fn(&str) -> Option<&str> = |value| Some(value);
        let behind = match key {
            "name" => Some((&self.name, known(&self.name, whole))),
            "site" => Some((&self.site, known(&self.site, whole))),
            "platform" => Some((&self.platform, known(&self.platform, whole))),
            "os" => Some((&self.platform, known(&self.platform, os))),
            "arch" => Some((&self.platform, known(&self.platform, arch))),
            "id" => {
                let device = |slot: u32| self.slots.get(slot as usize).copied().flatten();
                possible.keep(|slot| {
                    let of_label = self.labels.get(key).and_then(|column| column.value(slot));
                    let id = || device(slot).map(|(_, device)| device.to_string());
                    of_label.map_or_else(|| term.holds(id().as_deref()), |value| term.holds(Some(value)))
                });
                return;
            }
            _ => None,
        };
        match (self.labels.get(key), behind) {
            (Some(label), None) => {
                let holds = known(label, whole);
                possible.keep(|slot| holds.get(label.code(slot)).copied().unwrap_or_default());
            }
            (None, Some((column, holds))) => {
                possible.keep(|slot| holds.get(column.code(slot)).copied().unwrap_or_default());
            }
            // A label hides what the server knows by its key.
            (Some(label), Some((column, behind))) => {
                let holds = known(label, whole);
                possible.keep(|slot| match label.code(slot) {
                    0 => behind.get(column.code(slot)).copied().unwrap_or_default(),
                    code => holds.get(code).copied().unwrap_or_default(),
                });
            }
            (None, None) if term.holds(None) => {}
            (None, None) => *possible = Bits::none(self.slots.len()),
        }
    }

    /// Keeps the devices of which a part of a condition may hold, and among the sure ones those of which it does. Says
    /// `false`, and keeps all, where that is to be asked of each device.
    fn keep_answered(&self, part: &Part, possible: &mut Bits, sure: &mut Bits) -> bool {
        let absent = Column::default();
        let Some(attribute) = part.only_asks() else { return false };
        let column = match attribute {
            Attribute::Label(key) => self.labels.get(key).unwrap_or(&absent),
            Attribute::Fact(key) => self.facts.get(key).unwrap_or(&absent),
            Attribute::Name => &self.name,
            Attribute::Site => &self.site,
            Attribute::Platform | Attribute::Os | Attribute::Arch => &self.platform,
            Attribute::Id | Attribute::Online => return false,
        };
        let answers = column.ask(|value| part.answer(&One(value)));
        possible.keep(|slot| answers.get(column.code(slot)).is_some_and(|answer| *answer != Answer::Fails));
        sure.keep(|slot| answers.get(column.code(slot)).is_some_and(|answer| *answer == Answer::Holds));
        true
    }
}

fn column_of<'c>(columns: &'c mut BTreeMap<String, Column>, key: &str) -> &'c mut Column {
    if !columns.contains_key(key) {
        columns.insert(key.to_owned(), Column::default());
    }
    columns.entry(key.to_owned()).or_default()
}

/// A device of an index.
struct Entry<'a> {
    index: &'a TargetIndex,
    slot: u32,
    local: LocalId,
    device: DeviceId,
    is_online: &'a (dyn Fn(LocalId) -> bool + Sync),
}

impl Described for Entry<'_> {
    fn local(&self) -> LocalId {
        self.local
    }

    fn device(&self) -> DeviceId {
        self.device
    }

    fn name(&self) -> &str {
        self.index.name.value(self.slot).unwrap_or_default()
    }

    fn site(&self) -> &str {
        self.index.site.value(self.slot).unwrap_or_default()
    }

    fn platform(&self) -> Option<&str> {
        self.index.platform.value(self.slot)
    }

    fn is_online(&self) -> bool {
        (self.is_online)(self.local)
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.index.labels.get(key)?.value(self.slot)
    }

    fn fact(&self, key: &str) -> Option<&str> {
        self.index.facts.get(key)?.value(self.slot)
    }
}

/// A device of which one attribute is asked, and nothing else: whatever is asked, that is the answer.
struct One<'a>(Option<&'a str>);

impl Described for One<'_> {
    fn local(&self) -> LocalId {
        LocalId::from_bytes([0; LocalId::LENGTH])
    }

    fn device(&self) -> DeviceId {
        DeviceId::from_bytes([0; DeviceId::LENGTH])
    }

    fn name(&self) -> &str {
        self.0.unwrap_or_default()
    }

    fn site(&self) -> &str {
        self.0.unwrap_or_default()
    }

    fn platform(&self) -> Option<&str> {
        // Its parts are taken from the whole.
        self.0
    }

    fn is_online(&self) -> bool {
        false
    }

    fn label(&self, _: &str) -> Option<&str> {
        self.0
    }

    fn fact(&self, _: &str) -> Option<&str> {
        self.0
    }
}

#[cfg(test)]
mod tests;
