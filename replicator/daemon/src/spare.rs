//! A `tandem-device` in reserve: it has been started, keeps its memory and knows what the kernel has, so that a promotion
//! waits for none of that.
//!
//! It waits on its standard input for what it is to keep. Whether this daemon ends in order or is killed, that input ends, and
//! the spare with it. One that was used is replaced when the promotion is over.

use std::cell::{Cell, RefCell};
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use tandem_control::{DeviceDriver, RuntimeDir};
use tandem_device::serve::Options;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::task::spawn_local;
use tokio::time::sleep;
use tracing::debug;

pub(crate) const PROGRAM: &str = "tandem-device";
/// What follows a promotion does not have to share the processors with its replacement.
const REPLACED_AFTER: Duration = Duration::from_secs(5);

/// The spare of this daemon, while there is one.
pub(crate) struct Spare {
    run: RuntimeDir,
    waiting: RefCell<Option<Child>>,
    /// Some resource may need one.
    is_wanted: Cell<bool>,
}

impl Spare {
    pub(crate) fn new(run: &RuntimeDir) -> Rc<Spare> {
        Rc::new(Spare { run: run.clone(), waiting: RefCell::default(), is_wanted: Cell::new(false) })
    }

    /// From now on there is one. What keeps it from starting, a promotion will meet, too, and tell.
    pub(crate) fn ensure(&self, driver: DeviceDriver) {
        let mut waiting = self.waiting.borrow_mut();
        if driver == DeviceDriver::None || waiting.as_mut().is_some_and(lives) {
            return;
        }
        self.is_wanted.set(true);
        let mut command = program(&self.run);
        command.args(["spare", "--driver", driver.word()]).stdin(Stdio::piped());
        match command.spawn() {
            Ok(spare) => *waiting = Some(spare),
            Err(error) => debug!("no {PROGRAM} in reserve: {error}"),
        }
    }

    /// Nobody needs one any more.
    pub(crate) fn dismiss(&self) {
        self.is_wanted.set(false);
        self.waiting.take();
    }

    /// The spare, told to keep this device; `None` if there is none that lives.
    pub(crate) async fn keeper(self: &Rc<Self>, options: &Options) -> Option<Child> {
        let mut spare = self.waiting.take()?;
        self.replace(options.driver);
        if !lives(&mut spare) {
            return None;
        }
        let mut order = serde_json::to_vec(options).ok()?;
        order.push(b'\n');
        // It reads nothing more.
        spare.stdin.take()?.write_all(&order).await.ok()?;
        Some(spare)
    }

    fn replace(self: &Rc<Self>, driver: DeviceDriver) {
        let spare = Rc::downgrade(self);
        spawn_local(async move {
            sleep(REPLACED_AFTER).await;
            if let Some(spare) = spare.upgrade().filter(|spare| spare.is_wanted.get()) {
                spare.ensure(driver);
            }
        });
    }
}

fn lives(spare: &mut Child) -> bool {
    matches!(spare.try_wait(), Ok(None))
}

/// The program, with the same environment and the same way to say something however it is started.
pub(crate) fn program(run: &RuntimeDir) -> Command {
    let beside = std::env::current_exe().map(|exe| exe.with_file_name(PROGRAM));
    let path = beside.ok().filter(|path| path.is_file()).unwrap_or_else(|| PROGRAM.into());
    let mut command = Command::new(path);
    command.env("TANDEM_RUN_DIR", run.path()).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}
