//! What is not as it should be, why, and what to do: one definition per trouble, from which come the remarks of `status`,
//! the pages of `explain` and docs/troubles.md.
//!
//! A trouble is a condition on what is known of a resource. Codes are for ever: T0xx the daemon and the metadata, T1xx
//! connections, T2xx disks, T3xx clients, T4xx resyncs.

mod absent;
#[cfg(test)]
mod advice;
mod clients;
mod connection;
mod disk;
pub mod page;
mod reason;
mod resync;
mod sign;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde_json::{Value, json};
use tandem_control::ResourceStatus;
use tandem_core::status::PeerStatus;

pub use absent::{Absent, OnDisk};
pub use sign::{Place, Sign, Step};

/// How bad it is; the numbers are what `status -x` ends with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Severity {
    /// The data is safe and served, but there is no second copy that is as good, or not yet.
    Degraded = 1,
    /// Clients wait or fail, no good data is known, or the nodes refuse each other: it does not end by itself.
    NeedsHand = 2,
}

impl Severity {
    /// For people.
    pub const fn words(self) -> &'static str {
        match self {
            Severity::Degraded => "degraded",
            Severity::NeedsHand => "needs a hand",
        }
    }
}

/// Something that may be amiss.
#[derive(Debug)]
pub struct Trouble {
    /// By which it is known for ever.
    pub code: &'static str,
    /// What it is called.
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// When it is there.
    condition: Condition,
    /// The whole story.
    pub page: Page,
}

/// What `explain` says.
#[derive(Debug)]
pub struct Page {
    /// What happened.
    pub happened: &'static str,
    /// What that means for the data.
    pub data: &'static str,
    /// How to look closer.
    pub look: &'static str,
    /// What to do.
    pub act: &'static str,
    /// What not to do.
    pub avoid: &'static str,
}

/// What shows that it is there.
#[derive(Debug)]
enum Condition {
    /// Of a resource that tandemd does not tell of.
    Absent(fn(&Absent<'_>) -> Option<Sign>),
    /// Of a resource that is up.
    Resource(fn(&ResourceStatus) -> Option<Sign>),
    /// Of one that is up and each of its peers.
    Peer(fn(&ResourceStatus, &PeerStatus) -> Option<Sign>),
}

/// A trouble that is there.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which.
    pub trouble: &'static Trouble,
    /// The resource, if it is one's.
    pub resource: Option<String>,
    /// The peer, if it is one's.
    pub peer: Option<String>,
    /// Why, and what to do next.
    pub sign: Sign,
}

/// The command that shows what lies there; files are no block devices.
fn listing(option: &str, disks: &[&PathBuf]) -> String {
    let look = match disks.iter().all(|disk| disk.starts_with("/dev")) {
        true => format!("lsblk {option}"),
        false => "ls -lL".to_owned(),
    };
    disks.iter().fold(look, |line, disk| format!("{line} {}", disk.display()))
}

/// Every trouble that is known, by code.
pub fn all() -> impl Iterator<Item = &'static Trouble> {
    [absent::TROUBLES, connection::TROUBLES, disk::TROUBLES, clients::TROUBLES, resync::TROUBLES]
        .into_iter()
        .flatten()
}

/// The one with this code, in capitals or not.
pub fn find(code: &str) -> Option<&'static Trouble> {
    all().find(|trouble| trouble.code.eq_ignore_ascii_case(code))
}

/// What is amiss with a resource that is up, the worst first.
pub fn of_resource(status: &ResourceStatus) -> Vec<Finding> {
    let name = Some(status.engine.resource.clone());
    let finding = |trouble, peer, sign| Finding { trouble, resource: name.clone(), peer, sign };
    let mut found = Vec::new();
    for trouble in all() {
        match trouble.condition {
            Condition::Absent(_) => (),
            Condition::Resource(sign) => {
                found.extend(sign(status).map(|sign| finding(trouble, None, sign)));
            }
            Condition::Peer(sign) => {
                let of_peer = |peer: &PeerStatus| {
                    sign(status, peer).map(|sign| finding(trouble, Some(peer.name.clone()), sign))
                };
                found.extend(status.engine.peers.iter().filter_map(of_peer));
            }
        }
    }
    found.sort_by_key(|finding| std::cmp::Reverse(finding.trouble.severity));
    found
}

/// What is amiss where tandemd tells nothing.
pub fn of_absent(absent: &Absent<'_>) -> Vec<Finding> {
    let resource = absent.resource().map(str::to_owned);
    let signs = all().filter_map(|trouble| match trouble.condition {
        Condition::Absent(sign) => Some((trouble, sign(absent)?)),
        _ => None,
    });
    signs.map(|(trouble, sign)| Finding { trouble, resource: resource.clone(), peer: None, sign }).collect()
}

/// The worst of them; `None` if all is well.
pub fn worst(findings: &[Finding]) -> Option<Severity> {
    findings.iter().map(|finding| finding.trouble.severity).max()
}

impl Finding {
    /// As lines that begin with `#`: what and why, what to do next, where to read on.
    pub fn remark(&self) -> String {
        let Trouble { code, name, .. } = self.trouble;
        let with = self.peer.as_ref().map_or(String::new(), |peer| format!(" ({peer})"));
        let mut text = format!("# {code} {name}{with}: {}\n", self.sign.why);
        for step in &self.sign.next {
            text.push_str(&format!("#   {step}\n"));
        }
        text.push_str(&format!("#   to read on: tandemadm explain {code}\n"));
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let steps = self.sign.next.iter().map(|step| {
            let node = match &step.place {
                Place::Here => Value::Null,
                Place::On(node) => json!(node),
            };
            json!({ "when": step.when, "node": node, "command": step.command })
        });
        json!({
            "code": self.trouble.code,
            "name": self.trouble.name,
            "severity": self.trouble.severity.words(),
            "resource": self.resource,
            "peer": self.peer,
            "why": self.sign.why,
            "next": steps.collect::<Vec<_>>(),
        })
    }
}
