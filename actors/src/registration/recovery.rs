//! Devices that were lost with a store: their certificates prove them, and they get a record and a name anew.

use std::collections::{BTreeMap, VecDeque};

use fleetd_sync_core::id::{DeviceId, LocalId, OperationId};
use fleetd_sync_core::key::PublicKey;
use fleetd_sync_core::name::DeviceName;
use fleetd_sync_core::session::CloseCode;
use fleetd_sync_core::time::{Now, Wall};

use super::token::Decision;
use super::{Effect, NAME_TRIES_MAX, OPEN_MAX, Registration, RegistrationTurn, Stage, device_name};
use crate::device::record::{DeviceRecord, Membership};

impl Registration {
    pub(super) fn on_recover(&mut self, now: Now, device: LocalId, key: PublicKey, turn: &mut RegistrationTurn) {
        let is_denied = self.pending.get(&device).is_some_and(|pending| pending.decision == Decision::Denied);
        let refusal = match () {
            () if self.roster.is_device_revoked(device) => Some(CloseCode::Revoked),
            () if is_denied => Some(CloseCode::Unknown),
            () if self.open.len() >= OPEN_MAX || self.joining.contains(&device) => Some(CloseCode::Busy),
            () => None,
        };
        match refusal {
            Some(code) => turn.effect(Effect::NotRecovered { device, code }),
            None => self.find_lost(now, (device, key), 0, turn),
        }
    }

    fn find_lost(&mut self, now: Now, (device, key): (LocalId, PublicKey), tries: u32, turn: &mut RegistrationTurn) {
        let Ok(name) = device_name::draw(&mut self.entropy, tries) else {
            return turn.effect(Effect::NotRecovered { device, code: CloseCode::Busy });
        };
        self.joining.insert(device);
        // Nobody waits for the answer but the device's actor.
        let asked = OperationId::random(&mut self.entropy);
        let operation = self.open(now, asked, device, Stage::FindLost { key, name: name.clone(), tries });
        turn.effect(Effect::Find { operation, device, name });
    }

    pub(super) fn on_lost_found(
        &mut self,
        now: Now,
        (local, key): (LocalId, PublicKey),
        is_known: bool,
        (name, is_free, tries): (DeviceName, bool, u32),
        turn: &mut RegistrationTurn,
    ) {
        if is_known || (!is_free && tries >= NAME_TRIES_MAX) {
            return turn.effect(Effect::NotRecovered { device: local, code: CloseCode::Busy });
        }
        if !is_free {
            return self.find_lost(now, (local, key), tries + 1, turn);
        }
        let record = Box::new(recovered(local, key, DeviceId::random(&mut self.entropy), name, now.wall));
        self.trace_lost(now, record, turn);
    }
}

/// All that a certificate says of a device. Its lanes bring the rest, but for what operators had said of it.
fn recovered(local: LocalId, key: PublicKey, device: DeviceId, name: DeviceName, at: Wall) -> DeviceRecord {
    DeviceRecord {
        local,
        device,
        name,
        key: key.into(),
        sealing_key: [0; 32],
        token: None,
        membership: Membership::Recovered,
        labels: BTreeMap::new(),
        site: String::new(),
        facts: BTreeMap::new(),
        registered_at: at,
        last_heard_at: None,
        wanted: BTreeMap::new(),
        holds: BTreeMap::new(),
        pins: BTreeMap::new(),
        reports: BTreeMap::new(),
        events: VecDeque::new(),
    }
}
