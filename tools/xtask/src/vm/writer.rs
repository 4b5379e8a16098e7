//! A program inside a machine that appends to a file, as the host sees it: begun, watched, stopped, judged.

use std::time::Duration;

use serde_json::Value;

use super::channel::{Call, Reply};
use super::machine::Machine;
use crate::process::Result;

/// Whatever keeps an append from being acknowledged is over within this time.
const LIMIT: Duration = Duration::from_secs(120);
/// So many records more are progress.
const PROGRESS: u32 = 3;

/// A writer that runs. Its log is in the machine's memory.
pub(super) struct Writer {
    call: Call,
    file: String,
    log: String,
}

/// What a writer has done, all of which is in its file, in order.
pub(super) struct Written {
    pub(super) acknowledged: u64,
    /// The longest time between two acknowledgements.
    pub(super) stall: Duration,
    /// When that began, as the machines' clocks have it.
    pub(super) stall_began: Duration,
}

impl Writer {
    /// Begins to append to a file; with `options` of the job.
    pub(super) fn start(machine: &mut Machine, file: &str, options: &str) -> Result<Writer> {
        let log = format!("/tmp/{}.log", file.rsplit('/').next().unwrap_or_default());
        let call = machine.begin(&format!("/host/bin/xtask load append {options} {file} {log}"))?;
        Ok(Writer { call, file: file.to_owned(), log })
    }

    /// Waits until more records are acknowledged.
    pub(super) fn wait_for_progress(&self, machine: &mut Machine) -> Result<()> {
        let script = format!(
            "lines() {{ cat {0} 2>/dev/null | wc -l; }}
            before=$(lines); until [ \"$(lines)\" -gt $((before + {PROGRESS})) ]; do sleep 0.05; done",
            self.log
        );
        machine
            .sh_within(LIMIT, &script)
            .map(drop)
            .map_err(|e| format!("{} stands still: {e}", self.file).into())
    }

    /// Stops it, which may find that it has failed long ago.
    pub(super) fn stop(&self, machine: &mut Machine) -> Result<Reply> {
        machine.sh(&format!("touch {}", self.log.replace(".log", ".stop")))?;
        machine.finish(&self.call, LIMIT)
    }

    /// Stops it; it must not have failed.
    pub(super) fn stop_well(&self, machine: &mut Machine) -> Result<()> {
        let reply = self.stop(machine)?;
        match reply.status {
            0 => Ok(()),
            status => {
                Err(format!("the writer of {}: exit status {status}: {}", self.file, reply.text).into())
            }
        }
    }

    /// Compares the file, as the machine reads it anew, with what was acknowledged.
    pub(super) fn judge(&self, machine: &mut Machine) -> Result<Written> {
        let script = format!(
            "echo 3 >/proc/sys/vm/drop_caches; /host/bin/xtask load check {} {}",
            self.file, self.log
        );
        let found = machine.sh(&script)?;
        print!("{}: {found}", self.file);
        let found: Value = serde_json::from_str(&found)?;
        let number = |key: &str| found[key].as_u64().unwrap_or_default();
        let time = |key: &str| Duration::from_millis(number(key));
        Ok(Written {
            acknowledged: number("acknowledged"),
            stall: time("stall_ms"),
            stall_began: time("stall_began_ms"),
        })
    }
}
