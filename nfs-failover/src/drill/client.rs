//! A client of the service, on this node, that is served all the time, or notes for how long it was not.

use std::thread;
use std::time::{Duration, Instant};

use super::findings::{Findings, Row};
use super::probe::{Caller, Writer};
use crate::config::Service;
use crate::plan::Trouble;

/// For things to be as they should before and after a part.
pub(super) const SETTLE_LIMIT: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Answers and writes before a part begins.
const STEADY: u64 = 20;
/// Longer than a server is silent on a bad day.
const OUTAGE: Duration = Duration::from_millis(500);

/// The client.
pub(super) struct Client {
    caller: Caller,
    writer: Result<Writer, String>,
}

impl Client {
    pub(super) fn start(service: &Service) -> Result<Client, Trouble> {
        let vip = service.vips.first().ok_or_else(|| Trouble::new("the service has no address"))?;
        let caller = Caller::start(vip.address);
        let answered = until("the service answers", SETTLE_LIMIT, || caller.answers() > 0);
        answered.map_err(|_| Trouble::new(format!("nobody serves on {}: promote it first", vip.address)))?;
        let writer = match service.exports.first() {
            Some(export) => Writer::start(vip.address, &export.path)
                .map_err(|error| format!("{} over NFSv3: {error}", export.path.display())),
            None => Err("nothing is exported".into()),
        };
        Ok(Client { caller, writer })
    }

    /// Something is done to the service, once everything is calm; what the client sees of it until it is calm again.
    pub(super) fn watch(
        &self,
        part: &'static str,
        play: impl FnOnce() -> Result<Option<Duration>, Trouble>,
    ) -> Result<Row, Trouble> {
        let named = |trouble: Trouble| Trouble::new(format!("{part}: {trouble}"));
        self.settle().map_err(named)?;
        self.take_longest();
        let took = play().map_err(named)?;
        self.settle().map_err(named)?;
        let (outage, write) = self.take_longest();
        let ms = |duration: Duration| duration.as_millis() as u64;
        Ok(Row {
            part,
            took_ms: took.map(ms),
            outage_ms: ms(outage),
            write_ms: write.map(ms),
            acknowledged: self.writer.as_ref().ok().map(Writer::acknowledged),
        })
    }

    /// Waits until nobody answers any more; that may be over already.
    pub(super) fn wait_for_outage(&self, limit: Duration) -> Result<(), Trouble> {
        until("nobody answers", limit, || self.caller.longest() >= OUTAGE)
    }

    /// Waits until somebody answers again.
    pub(super) fn wait_for_answer(&self, limit: Duration) -> Result<(), Trouble> {
        let answers = self.caller.answers();
        until("somebody answers", limit, || self.caller.answers() > answers)
    }

    fn take_longest(&self) -> (Duration, Option<Duration>) {
        (self.caller.take_longest(), self.writer.as_ref().ok().map(Writer::take_longest))
    }

    /// Waits until calls are answered and writes acknowledged again and again.
    fn settle(&self) -> Result<(), Trouble> {
        let writes = || self.writer.as_ref().map_or(u64::MAX / 2, Writer::acknowledged);
        let (answers, before) = (self.caller.answers(), writes());
        until("clients are served", SETTLE_LIMIT, || {
            self.caller.answers() >= answers + STEADY && (self.writer.is_err() || writes() >= before + STEADY)
        })
    }

    /// Ends it, and looks for everything that it was promised.
    pub(super) fn conclude(self, service: &Service, rows: Vec<Row>) -> Findings {
        let mut findings = Findings {
            service: service.name.clone(),
            rows,
            acknowledged: None,
            lost: None,
            unmeasured: None,
            stopped: None,
            left: Vec::new(),
        };
        match self.writer.map(Writer::finish) {
            Ok(Ok((acknowledged, lost))) => {
                (findings.acknowledged, findings.lost) = (Some(acknowledged), Some(lost));
            }
            Ok(Err(error)) => findings.unmeasured = Some(format!("reading back what was written: {error}")),
            Err(why) => findings.unmeasured = Some(why),
        }
        findings
    }
}

/// Waits until it is so.
pub(super) fn until(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) -> Result<(), Trouble> {
    let began = Instant::now();
    while !is_so() {
        if began.elapsed() > limit {
            return Err(Trouble::new(format!("not within {} s: {what}", limit.as_secs())));
        }
        thread::sleep(LOOK_INTERVAL);
    }
    Ok(())
}
