//! What is left when this node cannot give the volume up, if the administrator has said so: it reboots itself, at once, with
//! the kernel's own means, since nothing that ends in good order can be waited for.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::config::OnStuck;
use crate::plan::{Ending, Report, Trouble, trouble};
use tandem_control::output::errln;

/// Reboots without writing anything back: what was acknowledged is on the disk, and the peer has it.
const REBOOT: &str = "b";

/// How this machine is rebooted, and where its last words go.
#[derive(Clone, Debug)]
pub(crate) struct LastResort {
    /// Does what the letter written to it says.
    trigger: PathBuf,
    /// The kernel's log: nothing else is sure to be read.
    log: PathBuf,
}

impl Default for LastResort {
    fn default() -> Self {
        Self { trigger: "/proc/sysrq-trigger".into(), log: "/dev/kmsg".into() }
    }
}

impl LastResort {
    /// Reboots if this is how the plan ended and what the administrator wants; whether it was tried. Does not return
    /// where it works.
    pub(crate) fn consider(&self, on_stuck: OnStuck, report: &Report) -> Result<bool, Trouble> {
        if report.ending != Ending::MustFence || on_stuck != OnStuck::Reboot {
            return Ok(false);
        }
        let why = report.why.as_deref().unwrap_or_default();
        let last_words = format!(
            "nfs-failover: REBOOTING THIS NODE AT ONCE (on-stuck reboot): {} of {} cannot give the volume up: {why}",
            report.plan, report.service
        );
        errln!("{last_words}");
        // A node that cannot even say so is rebooted all the same.
        let _ = append(&self.log, &format!("<0>{last_words}\n"));
        append(&self.trigger, REBOOT).map_err(trouble("this node cannot reboot itself, fence it"))?;
        Ok(true)
    }
}

fn append(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().append(true).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::plan::{Cancel, FileJournal, Plan, Step, Turn, run};

    struct Machine(PathBuf);

    impl Machine {
        fn new(name: &str) -> Machine {
            let folder = std::env::temp_dir().join(format!("tandem-{name}-{}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            for file in ["trigger", "log"] {
                fs::write(folder.join(file), "").unwrap();
            }
            Machine(folder)
        }

        fn last_resort(&self) -> LastResort {
            LastResort { trigger: self.0.join("trigger"), log: self.0.join("log") }
        }

        fn read(&self, file: &str) -> String {
            fs::read_to_string(self.0.join(file)).unwrap()
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn report(ending: Ending) -> Report {
        let why = Some("unmount: the kernel waits for the device".into());
        Report { plan: "demote", service: "nfs".into(), ending, why, took_ms: 1, lines: Vec::new() }
    }

    #[test]
    fn only_who_is_stuck_and_told_to_reboots() {
        let machine = Machine::new("stays");
        let consider = |on_stuck, ending| machine.last_resort().consider(on_stuck, &report(ending)).unwrap();
        for ending in [Ending::Done, Ending::Failed, Ending::Cancelled] {
            assert!(!consider(OnStuck::Reboot, ending), "{ending:?}");
        }
        assert!(!consider(OnStuck::None, Ending::MustFence));
        assert_eq!((machine.read("trigger"), machine.read("log")), (String::new(), String::new()));
    }

    /// What never ends, as a process in the kernel that waits for its disk.
    struct Hanging;

    impl Step for Hanging {
        fn name(&self) -> &'static str {
            "unmount"
        }

        fn intention(&self) -> String {
            String::new()
        }

        fn limit(&self) -> Duration {
            Duration::from_millis(10)
        }

        fn check(&self) -> Result<Option<String>, Trouble> {
            Ok(None)
        }

        fn act(&self, _turn: &Turn) -> Result<String, Trouble> {
            loop {
                std::thread::park();
            }
        }
    }

    #[test]
    fn a_demotion_that_hangs_reboots() {
        let machine = Machine::new("hangs");
        let step: Arc<dyn Step> = Arc::new(Hanging);
        let plan = Plan { name: "demote", service: "nfs".into(), steps: vec![step], undo_on_failure: false };
        let mut journal = FileJournal::new(machine.0.join("journal"));
        let report = run(&plan, &mut journal, &Cancel::default(), &mut |_| {});
        assert!(machine.last_resort().consider(OnStuck::Reboot, &report).unwrap());
        assert_eq!(machine.read("trigger"), "b");
        assert!(machine.read("log").contains("demote of nfs cannot give the volume up: unmount: hangs"));
    }

    #[test]
    fn its_last_words_say_why() {
        let machine = Machine::new("reboots");
        assert!(machine.last_resort().consider(OnStuck::Reboot, &report(Ending::MustFence)).unwrap());
        assert_eq!(machine.read("trigger"), "b");
        let said = machine.read("log");
        assert!(said.contains("REBOOTING") && said.ends_with("the kernel waits for the device\n"), "{said}");
    }

    #[test]
    fn a_machine_that_cannot_be_rebooted_says_so() {
        let nowhere = LastResort { trigger: "/no/such/trigger".into(), log: "/no/such/log".into() };
        let trouble = nowhere.consider(OnStuck::Reboot, &report(Ending::MustFence)).unwrap_err();
        assert!(trouble.message.contains("fence it"), "{trouble}");
    }
}
