//! The block devices of a resource's volumes: started when a promotion has succeeded, told to go before a demotion, and
//! all or none of them there.

use std::rc::{Rc, Weak};

use tandem_control::{ResourceSpec, RuntimeDir};
use tandem_core::io::{Command, Resize};
use tandem_core::state::Role;
use tokio::sync::Mutex;
use tokio::task::spawn_local;
use tracing::{error, info, warn};

use crate::daemon::Entry;
use crate::device::{Device, held_open};
use crate::failure::Failure;
use crate::resource::{Clients, ExportState, Reign};
use crate::spare::Spare;

/// The devices of a resource on this node.
pub(crate) struct Devices {
    /// One per volume, by ascending number.
    all: Vec<Device>,
    /// One change of the role at a time.
    turn: Mutex<()>,
}

impl Devices {
    pub(crate) fn new(spec: &ResourceSpec, run: &RuntimeDir, spare: &Rc<Spare>) -> Devices {
        let all = spec.volumes().map(|volume| Device::new(spec, volume, run, spare)).collect();
        Devices { all, turn: Mutex::new(()) }
    }

    /// Whether this process keeps the device of the volume, counted from 0.
    pub(crate) fn is_kept_by(&self, volume: usize, pid: Option<i32>) -> bool {
        self.all.get(volume).is_some_and(|device| device.is_kept_by(pid))
    }

    /// An earlier daemon has left one, and nobody has found out yet whether it may go on.
    pub(crate) fn are_adopted(&self) -> bool {
        self.adopted().is_some()
    }

    fn adopted(&self) -> Option<&Device> {
        self.all.iter().find(|device| device.is_adopted())
    }

    /// Takes over the devices that an earlier daemon has left, if there are any; `reign` is what the disk says before any
    /// peer is met.
    pub(crate) async fn adopt(&self, reign: Option<Reign>) -> bool {
        let mut any = false;
        for device in &self.all {
            any |= device.adopt(reign).await;
        }
        any
    }

    /// Fails all their requests, for good.
    pub(crate) async fn fail(&self) {
        for device in &self.all {
            device.fail().await;
        }
    }

    /// Who has each of them open.
    pub(crate) async fn openers(&self) -> Vec<Vec<String>> {
        let mut openers = Vec::with_capacity(self.all.len());
        for device in &self.all {
            openers.push(device.openers().await);
        }
        openers
    }

    async fn appear(&self) -> Result<(), Failure> {
        for device in &self.all {
            device.appear().await?;
        }
        Ok(())
    }

    /// They become as large as their volumes.
    async fn grow(&self) -> Result<(), Failure> {
        for device in &self.all {
            device.grow().await?;
        }
        Ok(())
    }

    /// They are gone when this returns; if not, as many as could go.
    pub(crate) async fn close(&self) -> Result<(), Failure> {
        let mut closed = Ok(());
        for device in &self.all {
            closed = closed.and(device.close().await);
        }
        closed
    }

    /// They are gone when this returns, or are all there, as one is open.
    async fn close_all_or_none(&self) -> Result<(), Failure> {
        for (i, device) in self.all.iter().enumerate() {
            let Err(failure) = device.close().await else { continue };
            for closed in &self.all[..i] {
                if let Err(failure) = closed.appear().await {
                    closed.complain(&failure);
                }
            }
            return Err(failure);
        }
        Ok(())
    }

    /// Those that an earlier reign has left without being told to go.
    async fn close_left_over(&self) -> Result<(), Failure> {
        for device in self.all.iter().filter(|device| !device.is_adopted()) {
            device.close().await?;
        }
        Ok(())
    }
}

/// Promotion and demotion, the device included.
impl Entry {
    /// Primary, and the device is there; or neither.
    pub(crate) async fn promote(self: &Rc<Self>, force: bool) -> Result<(), Failure> {
        let _turn = self.devices.turn.lock().await;
        let was_primary = self.role() == Role::Primary;
        self.check_adopted(false).await?;
        if !was_primary {
            self.devices.close_left_over().await?;
        }
        self.resource.command(Command::Primary { force }).await?;
        // Now that nobody else can be Primary.
        let appeared = match self.check_adopted(true).await {
            Ok(()) => {
                self.devices.all.iter().for_each(Device::goes_on);
                self.devices.appear().await
            }
            Err(failure) => Err(failure),
        };
        let Err(failure) = appeared else {
            if !was_primary {
                spawn_local(end_with_reign(Rc::downgrade(self)));
            }
            return Ok(());
        };
        if was_primary {
            return Err(failure);
        }
        // Some may have appeared.
        let demoted = match self.devices.close_left_over().await {
            Ok(()) => {
                self.resource.stop_clients(Clients::Device).await;
                self.resource.command(Command::Secondary).await
            }
            open => open,
        };
        match demoted {
            Ok(()) => Err(failure.because(format_args!("{} is Secondary again", self.spec().name))),
            Err(stays) => Err(failure.because(format_args!("and it stays Primary: {}", stays.text))),
        }
    }

    /// A device that stayed open while no daemon was there goes on only with the data that it was opened with.
    async fn check_adopted(&self, promoted: bool) -> Result<(), Failure> {
        let Some((device, opened_with)) = self.adopted() else { return Ok(()) };
        let now = self.resource.reign().await;
        // A promotion may begin a generation: from then on only the others matter.
        let same = |now: Reign| now.generation == opened_with.generation || promoted;
        match now.is_some_and(|now| !now.others_wrote && same(now)) {
            true => Ok(()),
            false => Err(device.is_open_with_other_data()),
        }
    }

    fn adopted(&self) -> Option<(&Device, Reign)> {
        let device = self.devices.adopted()?;
        Some((device, device.opened_with()?))
    }

    fn role(&self) -> Role {
        self.resource.export().get().role
    }

    /// Secondary, and the device is gone; or neither.
    pub(crate) async fn demote(&self) -> Result<(), Failure> {
        let _turn = self.devices.turn.lock().await;
        let clients = self.resource.status().await.map_or(Vec::new(), |status| status.openers);
        if !clients.is_empty() {
            return Err(held_open(&clients));
        }
        self.devices.close_all_or_none().await?;
        self.resource.stop_clients(Clients::Device).await;
        let demoted = self.resource.command(Command::Secondary).await;
        if demoted.is_err() && self.role() == Role::Primary {
            let appeared = self.devices.appear().await;
            if let Err(failure) = appeared {
                error!(resource = self.spec().name, "{}", failure.text);
            }
        }
        demoted
    }
}

/// The volume, and the device on it.
impl Entry {
    /// The volume is larger when this returns, and so is its device.
    pub(crate) async fn grow(&self, wish: Resize) -> Result<(), Failure> {
        self.resource.command(Command::Resize(wish)).await?;
        let Some(status) = self.resource.status().await else { return Ok(()) };
        let mut states = self.resource.export().watch();
        // What the device's keeper is told when it asks.
        if states.wait_for(|state| state.size_bytes >= status.size_bytes).await.is_err() {
            return Ok(());
        }
        self.devices.grow().await
    }
}

/// Lets the devices grow with a volume that has grown because of the other node.
pub(crate) async fn follow_size(entry: Weak<Entry>) {
    let Some(mut states) = entry.upgrade().map(|entry| entry.resource.export().watch()) else { return };
    let mut known_bytes = states.borrow_and_update().size_bytes;
    while states.changed().await.is_ok() {
        let size_bytes = states.borrow_and_update().size_bytes;
        let has_grown = size_bytes > std::mem::replace(&mut known_bytes, size_bytes);
        let Some(entry) = entry.upgrade().filter(|_| has_grown) else { continue };
        if let Err(failure) = entry.devices.grow().await {
            error!(resource = entry.spec().name, "{}", failure.text);
        }
    }
}

/// Makes this node Primary again, for the sake of a device that stayed open while no daemon was there, as soon as it is
/// certain that no other node is or was: a peer is there and is not, or this node had gone on alone before.
pub(crate) async fn resume(entry: Weak<Entry>) {
    let Some(mut states) = entry.upgrade().map(|entry| entry.resource.export().watch()) else { return };
    let mut waiting = String::new();
    loop {
        let state = states.borrow_and_update().clone();
        let Some(entry) = entry.upgrade() else { return };
        let Some(device) = entry.devices.adopted() else { return };
        if state.others_wrote {
            error!(resource = entry.spec().name, "{}", device.is_open_with_other_data().text);
            return entry.devices.fail().await;
        }
        if let Some(why) = entry.must_wait(&state).await {
            if waiting != why {
                warn!(resource = entry.spec().name, "{} waits: {why}", device.path().display());
                waiting = why;
            }
        } else {
            info!(resource = entry.spec().name, "{} goes on here", device.path().display());
            return;
        }
        drop(entry);
        if states.changed().await.is_err() {
            return;
        }
    }
}

impl Entry {
    /// Why the device that stayed open must wait; `None` if it goes on.
    async fn must_wait(self: &Rc<Self>, state: &ExportState) -> Option<String> {
        let alone = self.adopted().is_some_and(|(_, reign)| reign.alone);
        if !alone && !state.all_connected {
            let name = &self.spec().name.clone();
            return Some(format!(
                "a peer may be Primary by now; 'tandemadm primary {name}' if you know that it is not, 'tandemadm secondary \
                 --force {name}' if it is"
            ));
        }
        if self.role() == Role::Primary {
            return None;
        }
        let refused = self.promote(false).await.err()?;
        Some([vec![refused.text], refused.detail].concat().join("; "))
    }
}

/// A reign may end without anybody asking for it: what is open then must not go on, whatever comes next.
async fn end_with_reign(entry: Weak<Entry>) {
    let Some(mut states) = entry.upgrade().map(|entry| entry.resource.export().watch()) else { return };
    for primary in [true, false] {
        if states.wait_for(|state| (state.role == Role::Primary) == primary).await.is_err() {
            return;
        }
    }
    let Some(entry) = entry.upgrade() else { return };
    // Whoever has asked for it takes the device away, too.
    let _turn = entry.devices.turn.lock().await;
    if entry.devices.all.iter().any(Device::has_keeper) && entry.role() != Role::Primary {
        error!(resource = entry.spec().name, "no longer Primary: every request of the device fails");
        entry.devices.fail().await;
    }
}
