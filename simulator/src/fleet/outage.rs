//! Nodes that go down and come back: by a fault that lasts, by a fault in the middle of a call, by themselves.

use std::time::Duration;

use fleetd_sync_store::state_store::StateStore as _;

use super::{End, Fleet, NodeImage, ScenarioError, device_number};
use crate::agenda::Task;
use crate::fuse::Fuse;

/// Time after which a process that ended by itself is started again.
///
/// # Source
/// `RestartSec` of the units in `docs/`.
const RESTART_AFTER: Duration = Duration::from_secs(2);

impl Fleet {
    /// Ends a node, and keeps it down until [`end_outage`](Self::end_outage) was called as often as this.
    pub(crate) fn begin_outage(&mut self, node: &str, end: End) {
        *self.outages.entry(node.to_owned()).or_default() += 1;
        self.end(node, end);
    }

    /// Takes one reason away for which a node is down, and starts it when it was the last.
    ///
    /// # Errors
    /// [`ScenarioError`] when it does not start.
    pub(crate) fn end_outage(&mut self, node: &str) -> Result<(), ScenarioError> {
        let Some(reasons) = self.outages.get_mut(node) else { return Ok(()) };
        *reasons = reasons.saturating_sub(1);
        if *reasons > 0 {
            return Ok(());
        }
        self.outages.remove(node);
        self.start(node)
    }

    /// Says whether something keeps a node down.
    #[must_use]
    pub fn is_down(&self, node: &str) -> bool {
        self.outages.contains_key(node)
    }

    /// Lets a node end at the N-th call that it makes to its seams from now on.
    pub(crate) fn light_fuse(&mut self, node: &str, end: End, calls: u64) {
        if self.is_down(node) || self.lit.contains_key(node) {
            return;
        }
        if let Some(fuse) = self.fuse(node) {
            fuse.light(calls);
            self.lit.insert(node.to_owned(), (end, false));
        }
    }

    /// Lets a node lose its power within its next writes.
    pub(crate) fn cut_power_within(&mut self, node: &str, writes: u64) {
        if self.is_down(node) || self.lit.contains_key(node) {
            return;
        }
        match device_number(node).map(|number| self.devices.get(number)) {
            None => self.server.store.cut_power_after(writes),
            Some(Some(device)) => {
                device.store.cut_power_after(writes);
                device.disk.fail_after(writes);
            }
            Some(None) => return,
        }
        self.lit.insert(node.to_owned(), (End::PowerCut, false));
    }

    /// Ends what [`light_fuse`](Self::light_fuse) or [`cut_power_within`](Self::cut_power_within) began: a node that
    /// went down comes back, and one that did not is spared.
    ///
    /// # Errors
    /// [`ScenarioError`] when it does not start.
    pub(crate) fn put_out_fuse(&mut self, node: &str) -> Result<(), ScenarioError> {
        match self.lit.remove(node) {
            None => Ok(()),
            Some((_, true)) => self.end_outage(node),
            Some((_, false)) => {
                if let Some(fuse) = self.fuse(node) {
                    fuse.spare();
                }
                match device_number(node).map(|number| self.devices.get(number)) {
                    None => self.server.store.forget_faults(),
                    Some(Some(device)) => {
                        device.store.forget_faults();
                        device.disk.fail_after(u64::MAX);
                    }
                    Some(None) => {}
                }
                Ok(())
            }
        }
    }

    fn fuse(&self, node: &str) -> Option<Fuse> {
        match device_number(node) {
            None => Some(self.server.fuse.clone()),
            Some(number) => self.devices.get(number).map(|device| device.fuse.clone()),
        }
    }

    fn is_out_of_power(&self, node: &str) -> bool {
        let is_out = match device_number(node) {
            None => self.server.store.is_out_of_power(),
            Some(number) => {
                let device = self.devices.get(number);
                device.is_some_and(|device| device.store.is_out_of_power() || device.disk.is_out_of_power())
            }
        };
        is_out || self.fuse(node).is_some_and(|fuse| fuse.is_blown())
    }

    /// Does what the last event has left to do. To be called between two events.
    ///
    /// # Errors
    /// [`ScenarioError`] when a node does not start.
    pub fn settle(&mut self) -> Result<(), ScenarioError> {
        if !self.lit.is_empty() {
            self.end_blown();
        }
        while let Some(task) = self.agenda.take() {
            match task {
                Task::Fail(node) => self.fail(&node),
                Task::Start(node) => self.end_outage(&node)?,
                Task::Pursue(errand) => self.pursue(errand)?,
            }
        }
        Ok(())
    }

    fn end_blown(&mut self) {
        let blown: Vec<(String, End)> = self
            .lit
            .iter()
            .filter(|(node, (_, has_ended))| !has_ended && self.is_out_of_power(node))
            .map(|(node, (end, _))| (node.clone(), *end))
            .collect();
        for (node, end) in blown {
            self.lit.insert(node.clone(), (end, true));
            self.begin_outage(&node, end);
        }
    }

    /// Ends a process whose store takes nothing any more; whoever watches over it starts it again.
    fn fail(&mut self, node: &str) {
        let has_failed = match device_number(node) {
            None => self.server.store.failure(),
            Some(number) => self.devices.get(number).and_then(|device| device.whole_store()?.failure()),
        };
        if self.is_down(node) || has_failed.is_none() {
            return;
        }
        self.begin_outage(node, End::Crash);
        let (agenda, start) = (self.agenda.clone(), Task::Start(node.to_owned()));
        self.world.schedule(RESTART_AFTER, node, b"restart", move || agenda.add(start));
    }

    /// Takes an image of a node's disk, for a fault to come.
    pub(crate) fn take_image(&mut self, nodes: Vec<String>, id: u64) {
        let image = |node: &String| match device_number(node) {
            None => Some(NodeImage::Server(self.server.store.image())),
            Some(number) => self.devices.get(number).map(|device| NodeImage::Device(device.image())),
        };
        let images: Vec<_> = nodes.iter().filter_map(|node| Some((node.clone(), image(node)?))).collect();
        self.images.insert(id, images);
    }

    /// Puts the images that were taken back in place. The nodes are down.
    pub(crate) fn restore_images(&mut self, id: u64) {
        for (node, image) in self.images.remove(&id).unwrap_or_default() {
            match (&image, device_number(&node)) {
                (NodeImage::Server(image), None) => self.server.store.restore(image),
                (NodeImage::Device(image), Some(number)) => {
                    if let Some(device) = self.devices.get(number) {
                        device.restore(image);
                    }
                }
                _ => {}
            }
            self.note_restored(&node);
        }
    }
}
