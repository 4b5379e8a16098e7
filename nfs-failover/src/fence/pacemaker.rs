//! Pacemaker is asked what has become of the peer: the cluster fences whoever it loses, and this waits for that.
//!
//! The right to go on alone is a constraint in the cluster's configuration, which lets nobody but its holder be promoted;
//! there is one for each resource, and whoever comes second is refused. While both are in the cluster (only the
//! replication link is cut) all of them see the same configuration, so that the claim alone decides. Once they have lost
//! each other, each has a configuration of its own: then nothing is claimed before the peer is known to be down.

use std::thread;
use std::time::{Duration, Instant};

use super::met::must_have_met;
use super::{Broken, Context, Verdict};
use crate::system::pacemaker::{self, ANSWER_LIMIT, attribute};
use tandem_control::output::outln;

/// Noticing, electing who coordinates, and fencing with its delay; less than tandemd gives a handler.
const LIMIT: Duration = Duration::from_secs(100);
const PAUSE: Duration = Duration::from_millis(200);
/// One word from the peer's controller.
const PEER_LIMIT: &str = "--timeout=3";

/// What the cluster knows of the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    /// It was fenced, or has left in good order: nothing of the cluster runs on it.
    Down,
    /// It is in the cluster and has just answered through it.
    Member,
    /// Nobody can say.
    Unclear,
}

/// What is asked of the cluster.
trait Cluster {
    /// What has become of the peer.
    fn standing(&self) -> Result<Standing, Broken>;
    /// Claims the right to go on; who has it now.
    fn claim(&self) -> Result<String, Broken>;
}

/// Claims the right to go on alone, as soon as it is clear what has become of the peer.
pub(super) fn claim(context: &Context) -> Result<Verdict, Broken> {
    must_have_met(context)?;
    let cluster = Pacemaker::new(context)?;
    cluster.expect_stonith()?;
    let _lock = context.lock()?;
    let end = Instant::now() + LIMIT;
    loop {
        let attempt = attempt(&cluster, cluster.me);
        match attempt {
            Ok(Some(verdict)) => return Ok(verdict),
            // It may be without a coordinator at the moment.
            Err(error) if Instant::now() >= end => return Err(error),
            Ok(None) if Instant::now() >= end => {
                return Err(Broken(format!(
                    "{} is neither in the cluster nor fenced after {} s: see its stonith resources",
                    context.peer,
                    LIMIT.as_secs()
                )));
            }
            _ => thread::sleep(PAUSE),
        }
    }
}

/// Gives the claim back: either may be promoted from now on.
pub(super) fn release(context: &Context) -> Result<(), Broken> {
    let cluster = Pacemaker::new(context)?;
    let _lock = context.lock()?;
    let own = format!("{}[rule/expression/@value='{}']", cluster.constraint(), cluster.me);
    // There may be nothing to delete.
    let deleted = ask("cibadmin", &["--delete", "--sync-call", ANSWER_LIMIT, "--xpath", &own]);
    match cluster.holder()? {
        Some(holder) if holder == cluster.me => deleted.and(Err(Broken("the claim is still there".into()))),
        _ => Ok(()),
    }
}

fn attempt(cluster: &impl Cluster, me: &str) -> Result<Option<Verdict>, Broken> {
    if cluster.standing()? == Standing::Unclear {
        return Ok(None);
    }
    let holder = cluster.claim()?;
    if holder != me {
        outln!("{holder} has claimed the resource and goes on alone");
        return Ok(Some(Verdict::PeerServes));
    }
    // What it says now, it says knowing of the claim.
    Ok(match cluster.standing()? {
        Standing::Down => Some(Verdict::Fenced),
        Standing::Member => Some(Verdict::Outdated),
        Standing::Unclear => None,
    })
}

/// The cluster, as this node's Pacemaker knows it.
struct Pacemaker<'a> {
    resource: &'a str,
    me: &'a str,
    peer: &'a str,
}

impl<'a> Pacemaker<'a> {
    fn new(context: &'a Context) -> Result<Pacemaker<'a>, Broken> {
        let cluster = Pacemaker { resource: &context.resource, me: context.me()?, peer: &context.peer };
        // They become part of XML and XPath.
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        match [cluster.resource, cluster.me, cluster.peer].into_iter().find(|name| !name.chars().all(plain)) {
            Some(name) => Err(Broken(format!("Pacemaker cannot be asked about a name like '{name}'"))),
            None => Ok(cluster),
        }
    }

    /// Without STONITH a node that was lost counts as gone, whatever it does.
    fn expect_stonith(&self) -> Result<(), Broken> {
        let said = query("//crm_config//nvpair[@name='stonith-enabled']", &[])?;
        match attribute(&said, "value").map(str::to_ascii_lowercase).as_deref() {
            Some("false" | "no" | "off" | "n" | "0") => {
                Err(Broken("stonith-enabled is false: the cluster cannot say that the peer is dead".into()))
            }
            _ => Ok(()),
        }
    }

    fn constraint(&self) -> String {
        format!("//rsc_location[@id='tandem-fence-{}']", self.resource)
    }

    /// Who has the claim.
    fn holder(&self) -> Result<Option<String>, Broken> {
        let said = query(&format!("{}/rule/expression", self.constraint()), &[])?;
        Ok(attribute(&said, "value").map(str::to_owned))
    }

    /// The clone that is promoted and demoted.
    fn promotable(&self) -> Result<String, Broken> {
        let resource = format!("nvpair[@name='resource'][@value='{}']", self.resource);
        let path = format!("//primitive[@type='tandem'][instance_attributes/{resource}]/..");
        let said = query(&path, &["--node-path"])?;
        let found = said.rsplit_once("[@id='").and_then(|(_, rest)| rest.split_once("']"));
        found.map(|(name, _)| name.to_owned()).ok_or_else(|| {
            Broken(format!("the cluster has no clone of ocf:tandem:tandem with resource={}", self.resource))
        })
    }
}

impl Cluster for Pacemaker<'_> {
    fn standing(&self) -> Result<Standing, Broken> {
        let said = query(&format!("//node_state[@uname='{}']", self.peer), &["--no-children"])?;
        match standing(&said) {
            // It may be lost without anybody having noticed.
            Standing::Member => match ask("crmadmin", &["--status", self.peer, PEER_LIMIT]) {
                Ok(_) => Ok(Standing::Member),
                Err(_) => Ok(Standing::Unclear),
            },
            standing => Ok(standing),
        }
    }

    fn claim(&self) -> Result<String, Broken> {
        if let Some(holder) = self.holder()? {
            return Ok(holder);
        }
        let (id, me) = (format!("tandem-fence-{}", self.resource), self.me);
        let constraint = format!(
            "<rsc_location id='{id}' rsc='{}'><rule id='{id}-rule' role='Promoted' score='-INFINITY'>\
             <expression id='{id}-node' attribute='#uname' operation='ne' value='{me}'/></rule></rsc_location>",
            self.promotable()?
        );
        let create = ["--create", "--sync-call", ANSWER_LIMIT, "--scope", "constraints", "--xml-text"];
        let created = ask("cibadmin", &[&create[..], &[&constraint]].concat());
        // The peer may have been quicker.
        self.holder()?.ok_or_else(|| match created {
            Err(error) => error,
            Ok(_) => Broken("the claim was made and is gone".into()),
        })
    }
}

/// What Pacemaker has noted of a node. Newer ones note since when, and 0 for not.
fn standing(node_state: &str) -> Standing {
    let is = |name: &str, yes: &str| {
        let value = attribute(node_state, name)?;
        Some(value == yes || value.parse::<u64>().is_ok_and(|since| since > 0))
    };
    let is_left = |name: &str| attribute(node_state, name) == Some("down");
    match (is("in_ccm", "true"), is("crmd", "online")) {
        (Some(true), Some(true)) => Standing::Member,
        (Some(false), Some(false)) if is_left("join") && is_left("expected") => Standing::Down,
        _ => Standing::Unclear,
    }
}

fn query(path: &str, how: &[&str]) -> Result<String, Broken> {
    pacemaker::query(path, how).map_err(Broken)
}

fn ask(program: &str, arguments: &[&str]) -> Result<String, Broken> {
    pacemaker::ask(program, arguments).map_err(Broken)
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::super::tests::context;
    use super::*;

    /// One whose peer's standing is told in advance.
    struct Told {
        standings: RefCell<Vec<Standing>>,
        holder: &'static str,
        claimed: Cell<bool>,
    }

    impl Cluster for Told {
        fn standing(&self) -> Result<Standing, Broken> {
            Ok(self.standings.borrow_mut().remove(0))
        }

        fn claim(&self) -> Result<String, Broken> {
            self.claimed.set(true);
            Ok(self.holder.into())
        }
    }

    #[test]
    fn it_goes_on_when_the_peer_is_down_or_knows_of_the_claim() {
        use Standing::{Down, Member, Unclear};
        for (standings, holder, verdict, claimed) in [
            (vec![Down, Down], "alpha", Some(Verdict::Fenced), true),
            (vec![Member, Member], "alpha", Some(Verdict::Outdated), true),
            (vec![Member, Down], "alpha", Some(Verdict::Fenced), true),
            (vec![Member], "bravo", Some(Verdict::PeerServes), true),
            (vec![Down], "bravo", Some(Verdict::PeerServes), true),
            // It was lost in between, and has perhaps not heard of the claim.
            (vec![Member, Unclear], "alpha", None, true),
            (vec![Unclear], "alpha", None, false),
        ] {
            let told = Told { standings: RefCell::new(standings.clone()), holder, claimed: Cell::new(false) };
            let result = attempt(&told, "alpha").unwrap();
            assert_eq!((result, told.claimed.get()), (verdict, claimed), "{standings:?} {holder}");
        }
    }

    #[test]
    fn a_node_is_down_only_if_everything_says_so() {
        let state = |in_ccm, crmd, join, expected| {
            standing(&format!(
                "<node_state id=\"2\" uname=\"b\" in_ccm=\"{in_ccm}\" crmd=\"{crmd}\" join=\"{join}\" expected=\"{expected}\"/>"
            ))
        };
        assert_eq!(state("true", "online", "member", "member"), Standing::Member);
        assert_eq!(state("1700000000", "1700000001", "member", "member"), Standing::Member);
        assert_eq!(state("false", "offline", "down", "down"), Standing::Down);
        assert_eq!(state("0", "0", "down", "down"), Standing::Down);
        for (in_ccm, crmd, join, expected) in [
            ("false", "offline", "down", "member"),
            ("false", "offline", "member", "member"),
            ("true", "offline", "down", "down"),
            ("false", "online", "down", "down"),
        ] {
            assert_eq!(state(in_ccm, crmd, join, expected), Standing::Unclear);
        }
        assert_eq!(standing(""), Standing::Unclear);
    }

    #[test]
    fn only_a_node_that_has_met_its_peer_asks_the_cluster() {
        assert!(claim(&context(&[]).unwrap()).unwrap_err().0.contains("has not met bravo"));
        let odd = context(&[("DRBD_RESOURCE", "r0']")]).unwrap();
        assert!(Pacemaker::new(&odd).is_err());
    }
}
