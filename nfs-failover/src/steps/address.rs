//! The addresses that clients know.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::Scene;
use crate::config::{Service, Vip};
use crate::net::addresses;
use crate::net::link::Link;
use crate::plan::{Cancel, Step, Trouble, Turn, all, trouble};
use crate::system::interfaces::{self, Carried};

/// An owner answers within this. The question is asked early, so that hardly anybody waits for it.
const ANSWER_LIMIT: Duration = Duration::from_millis(50);

/// The question that was asked, who has the addresses: one link for each.
pub(super) struct Question {
    links: Vec<Link>,
    asked: Instant,
}

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

fn is_here(vip: &Vip, present: &[Carried]) -> bool {
    present.iter().any(|one| is(vip, one))
}

/// With whatever prefix somebody may have added it.
fn is(vip: &Vip, one: &Carried) -> bool {
    (&one.interface, one.address) == (&vip.interface, vip.address)
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

    fn check(&self) -> Result<Option<String>, Trouble> {
        Ok(all_here(&self.0.service)?.then(|| "the addresses are here".into()))
    }

    fn act(&self, _turn: &Turn) -> Result<String, Trouble> {
        let question = Question { links: links(&self.0.service)?, asked: Instant::now() };
        for (link, vip) in question.links.iter().zip(&self.0.service.vips) {
            link.ask(vip.address).map_err(trouble(&vip.interface))?;
        }
        if let Ok(mut slot) = self.0.question.lock() {
            *slot = Some(question);
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

    fn check(&self) -> Result<Option<String>, Trouble> {
        Ok(all_here(&self.0.service)?.then(|| "here".into()))
    }

    fn act(&self, turn: &Turn) -> Result<String, Trouble> {
        let service = &self.0.service;
        let question = self.0.question.lock().ok().and_then(|mut slot| slot.take());
        let question = question.ok_or_else(|| Trouble::new("nobody was asked who has the addresses"))?;
        expect_no_other_owner(&question, service)?;
        let present = interfaces::addresses()?;
        for vip in service.vips.iter().filter(|vip| !is_here(vip, &present)) {
            addresses::add(vip.address, vip.prefix, &vip.interface, turn.left()).map_err(trouble(vip))?;
        }
        all(question
            .links
            .iter()
            .zip(&service.vips)
            .map(|(link, vip)| link.announce(vip.address).map_err(trouble(&vip.interface))))?;
        // The kernel takes its time to close such a socket.
        thread::spawn(move || drop(question));
        let vips: Vec<String> = service.vips.iter().map(|vip| vip.address.to_string()).collect();
        Ok(format!("{} announced", vips.join(", ")))
    }

    fn undo(&self, turn: &Turn) -> Result<(), Trouble> {
        remove(&self.0, turn).map(|_| ())
    }
}

fn expect_no_other_owner(question: &Question, service: &Service) -> Result<(), Trouble> {
    let left = ANSWER_LIMIT.saturating_sub(question.asked.elapsed());
    let answers = Turn::new(left, Cancel::default());
    for (link, vip) in question.links.iter().zip(&service.vips) {
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

/// A link for each address.
fn links(service: &Service) -> Result<Vec<Link>, Trouble> {
    service
        .vips
        .iter()
        .map(|vip| Link::open(&vip.interface, vip.address).map_err(trouble(&vip.interface)))
        .collect()
}

/// Says to everybody that the addresses are here; an interface that is down keeps none of the others from it.
pub(super) fn announce(service: &Service) -> Result<(), Trouble> {
    all(service.vips.iter().map(|vip| {
        let announced = Link::open(&vip.interface, vip.address).and_then(|link| link.announce(vip.address));
        announced.map_err(trouble(&vip.interface))
    }))
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

    /// The volume is given up all the same, and [`Withdraw`] tries again.
    fn optional(&self) -> bool {
        true
    }

    fn check(&self) -> Result<Option<String>, Trouble> {
        Ok((!any_here(&self.0.service)?).then(|| "not here".into()))
    }

    fn act(&self, turn: &Turn) -> Result<String, Trouble> {
        remove(&self.0, turn)
    }
}

/// Nothing is served here any more: sees that no address has stayed, which clients would ask in vain.
pub(super) struct Withdraw(pub(super) Arc<Scene>);

impl Step for Withdraw {
    fn name(&self) -> &'static str {
        "withdraw"
    }

    fn intention(&self) -> String {
        "see that no address has stayed".into()
    }

    fn check(&self) -> Result<Option<String>, Trouble> {
        Remove(Arc::clone(&self.0)).check()
    }

    fn act(&self, turn: &Turn) -> Result<String, Trouble> {
        let advice =
            |trouble| format!("the volume is given up and the address is not: {trouble}; remove it by hand");
        remove(&self.0, turn).map_err(|trouble| Trouble::stuck(advice(trouble)))
    }
}

/// One that cannot be removed keeps no other.
fn remove(scene: &Scene, turn: &Turn) -> Result<String, Trouble> {
    let mut removed = Ok("removed".to_owned());
    for one in interfaces::addresses()?.iter().filter(|one| scene.service.vips.iter().any(|vip| is(vip, one)))
    {
        let Carried { interface, address, prefix } = one;
        if let Err(error) = addresses::remove(*address, *prefix, interface, turn.left()) {
            removed = Err(trouble(format_args!("{address}/{prefix} dev {interface}"))(error));
        }
    }
    removed
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use nix::sched::{CloneFlags, unshare};

    use super::*;
    use crate::config::Config;
    use crate::here::Here;

    /// A service with two addresses of a network of their own.
    fn scene() -> Arc<Scene> {
        let text = "service nfs { resource r0; mount /srv/nfs { fstype ext4; } server none; \
                    vip 10.0.0.100/24 dev lo; vip 10.0.0.101/24 dev lo; vip fd00::100/64 dev lo; }";
        let service = Config::parse(Path::new("nfs.conf"), text).unwrap().services.remove(0);
        let tandem = tandem_control::RuntimeDir::new("/no/such");
        Scene::new(service, Here { tandem, config_file: "nfs.conf".into() }, None)
    }

    #[test]
    #[ignore = "needs root and ip"]
    fn addresses_go_however_they_were_added_and_whoever_is_quicker() {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let ip = |arguments: &str| {
            let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
            assert!(status.success(), "ip {arguments}");
        };
        ip("link set lo up");
        for addresses in [
            // The first takes the second along.
            &["10.0.0.100/24", "10.0.0.101/24", "fd00::100/64 nodad"][..],
            // As keepalived adds them, once more, with a label, and with another end.
            &["10.0.0.100/32", "10.0.0.100/24", "10.0.0.101/32 label lo:vip", "fd00::100/128 nodad"],
            &["10.0.0.101 peer 10.0.0.7/32"],
        ] {
            fs::write("/proc/sys/net/ipv4/conf/lo/promote_secondaries", "0").unwrap();
            for address in addresses {
                ip(&format!("address add dev lo {address}"));
            }
            let scene = scene();
            assert!(any_here(&scene.service).unwrap(), "{addresses:?}");
            let turn = Turn::new(Duration::from_secs(30), Cancel::default());
            assert_eq!(Remove(Arc::clone(&scene)).act(&turn), Ok("removed".into()), "{addresses:?}");
            assert!(!any_here(&scene.service).unwrap(), "{addresses:?}");
        }
    }
}
