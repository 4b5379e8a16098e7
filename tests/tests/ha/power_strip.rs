//! What the cluster's fence agent switches hosts off by. A host finds it by files, as if by a network of its own.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::host::{Cord, Host};
use crate::switch::Switch;

const PAUSE: Duration = Duration::from_millis(10);
const AGENT: &str = include_str!("fence_agent.sh");

/// The power strip. It does nothing on its own: who was switched off stays off.
pub(crate) struct PowerStrip {
    wires: Arc<Wires>,
    thread: Option<JoinHandle<()>>,
}

struct Wires {
    folder: PathBuf,
    switch: Arc<Switch>,
    /// By the address under which agents know the host.
    cords: Mutex<BTreeMap<String, Cord>>,
    /// Whose power was cut.
    cut: Mutex<Vec<String>>,
    end: AtomicBool,
}

impl PowerStrip {
    /// One that nothing is connected to.
    pub(crate) fn new(folder: &Path, switch: &Arc<Switch>) -> PowerStrip {
        let folder = folder.join("power-strip");
        fs::create_dir(&folder).unwrap();
        let (cords, cut, end) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        let wires = Arc::new(Wires { folder, switch: Arc::clone(switch), cords, cut, end });
        let own = Arc::clone(&wires);
        let thread = thread::spawn(move || {
            while !own.end.load(Ordering::Relaxed) {
                own.obey();
                thread::sleep(PAUSE);
            }
        });
        PowerStrip { wires, thread: Some(thread) }
    }

    /// The program that a cluster calls.
    pub(crate) fn install_agent(&self, path: &Path) {
        fs::write(path, AGENT.replace("@FOLDER@", &self.wires.folder.display().to_string())).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }

    /// A host that was switched on.
    pub(crate) fn connect(&self, host: &Host) {
        let address = host.address.replace("10.99.0.", "10.99.9.");
        self.wires.cords.lock().unwrap().insert(address, host.cord());
    }

    /// Whose power was cut since this was asked last, also of those that had none any more.
    pub(crate) fn take_cut(&self) -> Vec<String> {
        std::mem::take(&mut self.wires.cut.lock().unwrap())
    }
}

impl Wires {
    fn obey(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "ask") {
                let asked = fs::read_to_string(&path).unwrap();
                fs::remove_file(&path).unwrap();
                let fresh = path.with_extension("fresh");
                fs::write(&fresh, self.code(asked.trim()).to_string()).unwrap();
                fs::rename(fresh, path.with_extension("answer")).unwrap();
            }
        }
    }

    /// What a fence agent ends with.
    fn code(&self, asked: &str) -> u8 {
        const OFF: u8 = 2;
        let (action, address) = asked.split_once(' ').unwrap();
        let Some(cord) = self.cords.lock().unwrap().get(address).cloned() else { return 1 };
        match action {
            "off" | "reboot" => {
                cord.cut(&self.switch);
                self.cut.lock().unwrap().push(address.to_owned());
                0
            }
            "status" if !cord.is_on() => OFF,
            "status" | "monitor" => 0,
            _ => 1,
        }
    }
}

impl Drop for PowerStrip {
    fn drop(&mut self) {
        self.wires.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}
