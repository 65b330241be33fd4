//! What goes wrong with a node: its disk, its clock, its programs, and whoever has turned against the fleet.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use fleetd_actors::window::VETO_LIMIT_MAX;
use fleetd_actors::workload::Command;
use fleetd_agent::disk::{Disk as _, FileMode};
use fleetd_agent::install::Installer as _;
use fleetd_agent::install::memory::MemoryInstaller;
use fleetd_sync_core::time::{Monotonic, Wall};
use fleetd_sync_store::memory::Fault;

use super::device::DISK_BYTES;
use super::{End, Fleet, SERVER, SERVER_ADDRESS, ScenarioError, Setting, device_number, failed};
use crate::clock::{NodeClock, earlier};
use crate::fault::FaultKind;
use crate::hostile::{Hostility, Stranger, flood};
use crate::observation::Observation;

impl Fleet {
    /// The number of a device by what traces call it.
    pub(crate) fn number(&self, node: &str) -> Option<usize> {
        device_number(node)
    }

    /// A node's clock.
    pub(crate) fn clock(&self, node: &str) -> Option<NodeClock> {
        match device_number(node) {
            None => Some(self.server.clock.clone()),
            Some(number) => self.devices.get(number).map(|device| device.clock.clone()),
        }
    }

    /// Sets every clock to a date, as if the world had always gone towards it. Timers go on as they were.
    pub(crate) fn set_date(&self, date: Wall) {
        self.world.begin_at(earlier(date, self.world.monotonic().since(Monotonic(0))));
        self.server.clock.set_right();
        self.devices.iter().for_each(|device| device.clock.set_right());
    }

    /// Makes a node's next commit fail, and with it all that follow until its store is opened again.
    pub(crate) fn fail_store(&self, node: &str) {
        match device_number(node).map(|number| self.devices.get(number)) {
            None => self.server.store.fail_next_commit(Fault::Io),
            Some(Some(device)) => device.store.fail_next_commit(Fault::Io),
            Some(None) => {}
        }
    }

    /// Fills a node's disk, or makes room on it again.
    pub(crate) fn fill_disk(&self, node: &str, is_full: bool) {
        let (ailment, store) = match device_number(node).map(|number| self.devices.get(number)) {
            None => (&self.server.ailment, &self.server.store),
            Some(Some(device)) => {
                device.identity.fail_with(is_full.then_some(io::ErrorKind::StorageFull));
                device.disk.set_capacity(if is_full { 0 } else { DISK_BYTES });
                (&device.ailment, &device.store)
            }
            Some(None) => return,
        };
        ailment.set_full(is_full);
        if !is_full {
            store.forget_faults();
        }
    }

    /// Lets each commit of a node take so much longer.
    pub(crate) fn slow_disk(&self, node: &str, slow_ms: u64) {
        match device_number(node).map(|number| self.devices.get(number)) {
            None => self.server.ailment.set_slow_ms(slow_ms),
            Some(Some(device)) => device.ailment.set_slow_ms(slow_ms),
            Some(None) => {}
        }
    }

    /// Changes a bit of what a node has stored.
    pub(crate) fn rot(&self, node: &str, id: u64) {
        let mut entropy = self.world.entropy("rot").stream(&format!("{id} on {node}"));
        match device_number(node).map(|number| self.devices.get(number)) {
            None => drop(self.server.store.rot(&mut entropy)),
            Some(Some(device)) => drop(device.store.rot(&mut entropy)),
            Some(None) => {}
        }
    }

    /// Makes a node's store not open.
    pub(crate) fn refuse_to_open(&self, node: &str) {
        match device_number(node).map(|number| self.devices.get(number)) {
            None => self.server.store.refuse_to_open(),
            Some(Some(device)) => device.store.refuse_to_open(),
            Some(None) => {}
        }
    }

    /// Ends a node's process and starts it at once, unless it is down.
    pub(crate) fn start_anew(&mut self, node: &str) -> Result<(), ScenarioError> {
        if self.is_down(node) {
            return Ok(());
        }
        self.begin_outage(node, End::Crash);
        self.end_outage(node)
    }

    /// Ends a device for good.
    pub(crate) fn die(&mut self, node: &str) {
        self.begin_outage(node, End::PowerCut);
        if let Some(number) = device_number(node) {
            self.broken.insert(number, FaultKind::Death);
        }
    }

    /// Ends the programs of a device once.
    pub(crate) fn end_programs(&self, number: usize) {
        if let Some(device) = self.devices.get(number).filter(|device| device.node().is_some()) {
            device.runner.end_programs();
        }
    }

    /// Somebody at a device puts the updates of all that it runs off.
    pub(crate) fn put_off(&self, number: usize, lasting: Duration) {
        let device = self.devices.get(number).filter(|_| !lasting.is_zero());
        let Some((device, node)) = device.and_then(|device| Some((device, device.node()?))) else { return };
        for workload in self.operator.workloads() {
            let (tap, name, put_off): (_, Arc<str>, _) =
                (self.tap.clone(), device.name.as_str().into(), workload.clone());
            let done = Box::new(move || tap.note(|| Observation::PutOff { node: name, workload: put_off, lasting }));
            let command = Command::Defer { length: lasting.min(VETO_LIMIT_MAX), reason: "guests are here".to_owned() };
            // Of a workload that is not there nothing is put off.
            let _ = node.command(&workload, command, done);
        }
    }

    /// Lets each program of a device take its update lock.
    pub(crate) fn lock_updates(&self, number: usize) {
        let Some(device) = self.devices.get(number) else { return };
        for workload in self.operator.workloads() {
            let lock = MemoryInstaller::on(&device.disk).update_lock(&workload);
            // A program that cannot take its lock does without.
            if device.runner.running(&workload).is_some() && device.disk.write(&lock, &[], FileMode::Readable).is_ok() {
                self.tap.note(|| Observation::Locked { node: device.name.as_str().into(), workload });
            }
        }
    }

    /// Lets each program of a device give its update lock back.
    pub(crate) fn unlock_updates(&self, number: usize) -> Result<(), ScenarioError> {
        let Some(device) = self.devices.get(number) else { return Ok(()) };
        let installer = MemoryInstaller::on(&device.disk);
        self.operator.workloads().iter().try_for_each(|workload| installer.remove_update_lock(workload).map_err(failed))
    }

    /// Lets a device say from now on that every program runs and is well.
    pub(crate) fn let_lie(&mut self, number: usize) {
        if let Some(device) = self.devices.get(number) {
            device.runner.lie();
            self.broken.insert(number, FaultKind::HostileLies);
        }
    }

    /// Lets somebody else begin to use a copy of a device.
    pub(crate) fn clone_device(&mut self, number: usize) -> Result<(), ScenarioError> {
        let Self { world, network, engines, tap, agenda, devices, .. } = self;
        let setting = Setting { world, network, engines, tap, agenda };
        let Some(device) = devices.get(number) else { return Ok(()) };
        tap.note(|| Observation::Cloned { node: device.name.as_str().into() });
        let mut clone = device.clone_as(format!("{}.clone-{}", device.name, self.clones.len()), &setting)?;
        clone.start(&setting)?;
        self.clones.push(clone);
        self.broken.insert(number, FaultKind::HostileClone);
        Ok(())
    }

    /// Lets a device send made-up messages besides its own.
    pub(crate) fn flood_from(&mut self, number: usize, id: u64, per_second: u64) {
        let Some(device) = self.devices.get(number) else { return };
        self.note_hostile(&device.name);
        let hostility = Hostility::default();
        flood(&self.world, device.link.clone(), &device.name, per_second, hostility.clone());
        self.hostile.entry(id).or_default().push(hostility);
    }

    /// Lets a stranger knock at the server's door.
    pub(crate) fn let_stranger_in(&mut self, id: u64, per_second: u64) {
        let (name, hostility) = (format!("stranger-{id}"), Hostility::default());
        Stranger::knock((&self.world, &self.network), &name, SERVER_ADDRESS, per_second, hostility.clone());
        self.hostile.entry(id).or_default().push(hostility);
    }

    /// Ends what is hostile by a fault.
    pub(crate) fn calm(&mut self, id: u64) {
        for hostility in self.hostile.remove(&id).unwrap_or_default() {
            hostility.end();
        }
    }

    /// Tells checkers that a device sends what nobody honest sends.
    pub(crate) fn note_hostile(&self, node: &str) {
        self.tap.note(|| Observation::Hostile { node: node.into() });
    }

    /// Tells checkers that a node's store was set back or emptied.
    pub(super) fn note_restored(&self, node: &str) {
        self.tap.note(|| Observation::Restored { node: node.into() });
    }

    /// Says whether there is a node of this name.
    pub(crate) fn has_node(&self, node: &str) -> bool {
        let is_there = |number: usize| number < self.devices.len() && !self.absent.contains(&number);
        node == SERVER || device_number(node).is_some_and(is_there)
    }
}
