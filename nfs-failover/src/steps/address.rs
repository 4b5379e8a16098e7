//! The addresses that clients know.

use std::sync::Arc;
use std::time::Duration;

use super::{PROGRAM_LIMIT, Scene};
use crate::config::{Service, Vip};
use crate::net::link::Link;
use crate::plan::{Step, Trouble, Turn, trouble};
use crate::system::interfaces;
use crate::system::program::{program, run};

/// An owner answers within this. The question is asked early, so that nobody waits for it.
const ANSWER_LIMIT: Duration = Duration::from_millis(20);

/// Whether every address is on this node.
pub(super) fn all_here(service: &Service) -> Result<bool, Trouble> {
    let present = interfaces::addresses()?;
    Ok(service.vips.iter().all(|vip| is_here(vip, &present)))
}

/// Whether some address is on this node.
pub(super) fn any_here(service: &Service) -> Result<bool, Trouble> {
    let present = interfaces::addresses()?;
    Ok(service.vips.iter().any(|vip| is_here(vip, &present)))
}

fn is_here(vip: &Vip, present: &[(String, std::net::IpAddr)]) -> bool {
    present.iter().any(|(interface, address)| *interface == vip.interface && *address == vip.address)
}

/// Asks who has the addresses. Nobody may, now that this node is Primary.
pub(super) struct Ask(pub(super) Arc<Scene>);

impl Step for Ask {
    fn name(&self) -> &'static str {
        "ask"
    }

    fn intention(&self) -> String {
        "ask the network whether somebody has the addresses".into()
    }

    fn limit(&self) -> Duration {
        PROGRAM_LIMIT
    }

    fn check(&self) -> Result<Option<String>, Trouble> {
        Ok(all_here(&self.0.service)?.then(|| "the addresses are here".into()))
    }

    fn act(&self, _turn: &Turn) -> Result<String, Trouble> {
        let mut links = Vec::new();
        for vip in &self.0.service.vips {
            let link = Link::open(&vip.interface).map_err(trouble(&vip.interface))?;
            link.ask(vip.address).map_err(trouble(&vip.interface))?;
            links.push(link);
        }
        if let Ok(mut questions) = self.0.questions.lock() {
            *questions = links;
        }
        Ok("asked".into())
    }
}

/// Adds them and announces them.
pub(super) struct Add(pub(super) Arc<Scene>);

impl Step for Add {
    fn name(&self) -> &'static str {
        "address"
    }

    fn intention(&self) -> String {
        let vips: Vec<String> = self.0.service.vips.iter().map(Vip::to_string).collect();
        format!("unless somebody has it, add and announce {}", vips.join(", "))
    }

    fn limit(&self) -> Duration {
        PROGRAM_LIMIT
    }

    fn check(&self) -> Result<Option<String>, Trouble> {
        Ok(all_here(&self.0.service)?.then(|| "here".into()))
    }

    fn act(&self, turn: &Turn) -> Result<String, Trouble> {
        let service = &self.0.service;
        self.expect_no_other_owner()?;
        let present = interfaces::addresses()?;
        for vip in service.vips.iter().filter(|vip| !is_here(vip, &present)) {
            run(ip("add", vip), turn.left())?;
        }
        announce(service)?;
        let vips: Vec<String> = service.vips.iter().map(|vip| vip.address.to_string()).collect();
        Ok(format!("{} announced", vips.join(", ")))
    }

    fn undo(&self, turn: &Turn) -> Result<(), Trouble> {
        remove(&self.0.service, turn).map(|_| ())
    }
}

impl Add {
    fn expect_no_other_owner(&self) -> Result<(), Trouble> {
        let links = self.0.questions.lock().map(|mut links| std::mem::take(&mut *links)).unwrap_or_default();
        let answers = Turn::new(ANSWER_LIMIT, crate::plan::Cancel::default());
        for (link, vip) in links.iter().zip(&self.0.service.vips) {
            let owner = answers.until(|| link.other_owner(vip.address).transpose());
            match owner {
                None => {}
                Some(Err(error)) => return Err(trouble(&vip.interface)(error)),
                Some(Ok(mac)) => {
                    let mac: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
                    let (address, mac) = (vip.address, mac.join(":"));
                    let advice = "take it away there: a node without the volume must not have it";
                    return Err(Trouble::new(format!("{address} is in use by {mac}; {advice}")));
                }
            }
        }
        Ok(())
    }
}

/// Says to everybody that the addresses are here.
pub(super) fn announce(service: &Service) -> Result<(), Trouble> {
    for vip in &service.vips {
        let link = Link::open(&vip.interface).map_err(trouble(&vip.interface))?;
        link.announce(vip.address).map_err(trouble(&vip.interface))?;
    }
    Ok(())
}

/// Takes them away.
pub(super) struct Remove(pub(super) Arc<Scene>);

impl Step for Remove {
    fn name(&self) -> &'static str {
        "address"
    }

    fn intention(&self) -> String {
        let vips: Vec<String> = self.0.service.vips.iter().map(Vip::to_string).collect();
        format!("remove {}", vips.join(", "))
    }

    fn limit(&self) -> Duration {
        PROGRAM_LIMIT
    }

    fn check(&self) -> Result<Option<String>, Trouble> {
        Ok((!any_here(&self.0.service)?).then(|| "not here".into()))
    }

    fn act(&self, turn: &Turn) -> Result<String, Trouble> {
        remove(&self.0.service, turn)
    }
}

fn remove(service: &Service, turn: &Turn) -> Result<String, Trouble> {
    let present = interfaces::addresses()?;
    for vip in service.vips.iter().filter(|vip| is_here(vip, &present)) {
        run(ip("del", vip), turn.left())?;
    }
    Ok("removed".into())
}

/// `ip address add|del`. The kernel's own search for duplicates would hold an IPv6 address back for a second.
fn ip(verb: &str, vip: &Vip) -> std::process::Command {
    let address = format!("{}/{}", vip.address, vip.prefix);
    let mut arguments = vec!["address", verb, &address, "dev", &vip.interface];
    if verb == "add" && vip.address.is_ipv6() {
        arguments.push("nodad");
    }
    program("ip", &arguments)
}
