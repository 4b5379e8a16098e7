//! `nfs-failover drill`: a rehearsal on the live configuration. What a client sees of a move is measured, and what it was
//! promised is looked for afterwards.

mod probe;

use std::io::{self, BufRead, Write};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use tandem_core::state::DiskState;

use crate::by_hand::Which;
use crate::config::Service;
use crate::here::Here;
use crate::plan::{Trouble, trouble};
use crate::switchover;
use crate::tandem;
use probe::{Caller, Writer};

/// For things to be as they should before and after a part.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// For somebody to cut the power, and for the other node to serve.
const BY_HAND_LIMIT: Duration = Duration::from_secs(600);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Answers and writes before a part begins.
const STEADY: u64 = 20;
/// Longer than a server is silent on a bad day.
const OUTAGE: Duration = Duration::from_millis(500);

/// What is rehearsed.
#[derive(Clone, Debug, Args)]
pub struct Drill {
    /// Which service.
    #[command(flatten)]
    pub which: Which,
    /// Do not ask first.
    #[arg(short, long)]
    pub yes: bool,
    /// Also the loss of the node that serves: it is moved to the other node, whose power you are asked to cut.
    #[arg(long)]
    pub power_cut: bool,
}

/// What became of one part.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Row {
    /// Which part.
    part: &'static str,
    /// How long it took whoever moved it.
    took_ms: Option<u64>,
    /// The longest time in which nobody answered a client's calls.
    outage_ms: u64,
    /// The longest that a client's write took.
    write_ms: Option<u64>,
    /// Writes that were acknowledged by the end of it.
    acknowledged: Option<u64>,
}

/// What became of all of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Findings {
    service: String,
    rows: Vec<Row>,
    acknowledged: Option<u64>,
    /// Of these.
    lost: Option<u64>,
    /// Why nothing was written.
    unmeasured: Option<String>,
}

/// Rehearses; `ask` says whether the operator agrees to something.
pub(crate) fn drill(
    service: &Service,
    here: &Here,
    how: &Drill,
    ask: &mut dyn FnMut(&str) -> bool,
) -> Result<Findings, Trouble> {
    expect_rehearsable(service, here)?;
    let name = &service.name;
    let intention = format!(
        "{name} is going to be moved to the other node and back, under its clients: each move is a short outage."
    );
    if !how.yes && !ask(&intention) {
        return Err(Trouble::new("nothing was done"));
    }
    let mut client = Client::start(service)?;
    let mut rows = vec![client.rehearse("planned move there", || switch(service, here))?];
    rows.push(client.rehearse("planned move back", || switch(service, here))?);
    if how.power_cut {
        if !switchover::leads_away(service, here)? {
            rows.push(client.power_cut(service, ask)?);
        } else {
            client.rehearse("to the other node", || switch(service, here))?;
            rows.push(client.power_cut(service, ask)?);
        }
    }
    client.finish(service, rows)
}

/// Whether what is rehearsed can be expected to work.
fn expect_rehearsable(service: &Service, here: &Here) -> Result<(), Trouble> {
    let refuse = |why: String| Err(Trouble::new(format!("not now: {why}")));
    if !service.is_nfs() {
        return refuse("a client's view is measured by NFS, and this service has no NFS server".into());
    }
    if service.shared_secret.is_none() {
        return refuse("the other node cannot be asked: configure `peer` and `shared-secret`".into());
    }
    match is_whole(service, here)? {
        true => Ok(()),
        false => refuse(format!("both disks must be UpToDate: tandemadm status {}", service.resource)),
    }
}

fn is_whole(service: &Service, here: &Here) -> Result<bool, Trouble> {
    let engine = tandem::status(here, &service.resource)?.engine;
    let peers_are = |disk| !engine.peers.is_empty() && engine.peers.iter().all(|peer| peer.disk == disk);
    Ok(engine.disk == DiskState::UpToDate && peers_are(DiskState::UpToDate))
}

/// To the other node, wherever it is.
fn switch(service: &Service, here: &Here) -> Result<(), Trouble> {
    until("both disks are UpToDate", SETTLE_LIMIT, || is_whole(service, here).unwrap_or(false))?;
    match switchover::leads_away(service, here)? {
        true => switchover::to_the_other(service).map(drop),
        false => switchover::to_this(service, here),
    }
}

/// A client of the service, on this node.
struct Client {
    caller: Caller,
    writer: Result<Writer, String>,
}

impl Client {
    fn start(service: &Service) -> Result<Client, Trouble> {
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

    /// One part, once everything is calm.
    fn rehearse(
        &mut self,
        part: &'static str,
        play: impl FnOnce() -> Result<(), Trouble>,
    ) -> Result<Row, Trouble> {
        self.settle()?;
        self.take_longest();
        let began = Instant::now();
        play()?;
        let took_ms = Some(began.elapsed().as_millis() as u64);
        self.settle()?;
        Ok(self.row(part, took_ms))
    }

    /// The operator cuts the power of the node that serves.
    fn power_cut(&mut self, service: &Service, ask: &mut dyn FnMut(&str) -> bool) -> Result<Row, Trouble> {
        let name = &service.name;
        let please = format!(
            "The other node serves {name} now. A machine cannot cut another's power from here: after you agree, cut it \
             within {} minutes. Your decider, or 'nfs-failover promote {name}' here, moves it back.",
            BY_HAND_LIMIT.as_secs() / 60
        );
        if !ask(&please) {
            return Err(Trouble::new("the power cut was not rehearsed; the other node serves"));
        }
        self.settle()?;
        self.take_longest();
        let mut outage = Duration::ZERO;
        until("nobody answers", BY_HAND_LIMIT, || {
            outage = outage.max(self.caller.take_longest());
            outage >= OUTAGE
        })?;
        let answers = self.caller.answers();
        until("this node serves", BY_HAND_LIMIT, || {
            outage = outage.max(self.caller.take_longest());
            self.caller.answers() > answers
        })?;
        self.settle()?;
        let row = self.row("power cut", None);
        Ok(Row { outage_ms: row.outage_ms.max(outage.as_millis() as u64), ..row })
    }

    fn row(&self, part: &'static str, took_ms: Option<u64>) -> Row {
        let (outage, write) = self.take_longest();
        Row {
            part,
            took_ms,
            outage_ms: outage.as_millis() as u64,
            write_ms: write.map(|write| write.as_millis() as u64),
            acknowledged: self.writer.as_ref().ok().map(Writer::acknowledged),
        }
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

    fn finish(self, service: &Service, rows: Vec<Row>) -> Result<Findings, Trouble> {
        let mut findings = Findings {
            service: service.name.clone(),
            rows,
            acknowledged: None,
            lost: None,
            unmeasured: None,
        };
        match self.writer.map(Writer::finish) {
            Ok(Ok((acknowledged, lost))) => {
                (findings.acknowledged, findings.lost) = (Some(acknowledged), Some(lost));
            }
            Ok(Err(error)) => return Err(trouble("reading back what was written")(error)),
            Err(why) => findings.unmeasured = Some(why),
        }
        Ok(findings)
    }
}

fn until(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) -> Result<(), Trouble> {
    let began = Instant::now();
    while !is_so() {
        if began.elapsed() > limit {
            return Err(Trouble::new(format!("not within {} s: {what}", limit.as_secs())));
        }
        thread::sleep(LOOK_INTERVAL);
    }
    Ok(())
}

impl Findings {
    /// Whether nothing is lost.
    pub(crate) fn are_good(&self) -> bool {
        self.lost.is_none_or(|lost| lost == 0)
    }

    /// As a table.
    pub(crate) fn text(&self) -> String {
        let shown = |value: Option<u64>| value.map_or_else(|| "-".into(), |value| value.to_string());
        let mut text = format!(
            "{:<20} {:>10} {:>18} {:>18} {:>13}\n",
            self.service, "move, ms", "no answer for, ms", "slowest write, ms", "acknowledged"
        );
        for row in &self.rows {
            text += &format!(
                "{:<20} {:>10} {:>18} {:>18} {:>13}\n",
                row.part,
                shown(row.took_ms),
                row.outage_ms,
                shown(row.write_ms),
                shown(row.acknowledged)
            );
        }
        text + &match (&self.unmeasured, self.acknowledged, self.lost) {
            (Some(why), ..) => format!("whether anything is lost was not measured: {why}\n"),
            (None, acknowledged, lost) => {
                format!("of {} acknowledged writes {} are lost\n", shown(acknowledged), shown(lost))
            }
        }
    }
}

/// Asks on the terminal; whoever does not say yes says no.
pub(crate) fn ask(question: &str) -> bool {
    print!("{question}\nGo on? [yes/no] ");
    let _ = io::stdout().flush();
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).is_ok() && answer.trim() == "yes"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(lost: Option<u64>, unmeasured: Option<&str>) -> Findings {
        let row = Row {
            part: "planned move there",
            took_ms: Some(310),
            outage_ms: 280,
            write_ms: Some(301),
            acknowledged: Some(99),
        };
        Findings {
            service: "nfs".into(),
            rows: vec![row],
            acknowledged: lost.map(|_| 120),
            lost,
            unmeasured: unmeasured.map(str::to_owned),
        }
    }

    #[test]
    fn the_table_says_what_is_lost_or_that_nobody_knows() {
        let good = findings(Some(0), None);
        assert!(good.are_good() && good.text().ends_with("of 120 acknowledged writes 0 are lost\n"));
        assert!(
            good.text().contains(
                "planned move there          310                280                301            99"
            )
        );
        assert!(!findings(Some(1), None).are_good());
        let unknown = findings(None, Some("/srv/nfs/data over NFSv3: no"));
        assert!(
            unknown.are_good() && unknown.text().contains("was not measured: /srv/nfs/data over NFSv3: no")
        );
    }
}
