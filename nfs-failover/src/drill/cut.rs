//! The replication link, cut: its packets are dropped on this node, by an nftables table of our own. The addresses in it
//! expire by themselves, in the kernel: the link comes back even if nobody is left to take the table away.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use tandem_control::ResourceSpec;

use crate::plan::{Trouble, trouble};
use crate::system::program::{program, run, run_with};

/// The link is back by itself after this: longer than all that is waited for meanwhile.
pub(super) const LIFETIME: Duration = Duration::from_secs(150);
const NFT_LIMIT: Duration = Duration::from_secs(5);
/// Before the administrator's own rules.
const PRIORITY: i32 = -150;

/// A link that is cut as long as this lives.
pub(super) struct Cut {
    table: String,
}

/// The table that does it.
pub(super) fn table(service: &str) -> String {
    format!("nfs-failover-drill-{service}")
}

impl Cut {
    /// Cuts what connects a resource with its peers, and nothing else.
    pub(super) fn make(service: &str, resource: &ResourceSpec) -> Result<Cut, Trouble> {
        let cut = Cut { table: table(service) };
        nft(&cutting(&cut.table, resource)).map_err(trouble("the link cannot be cut"))?;
        Ok(cut)
    }

    /// The link is back.
    pub(super) fn undo(self) -> Result<(), Trouble> {
        nft(&removing(&self.table)).map_err(trouble(format_args!(
            "the link comes back by itself after {} s; taking table inet {} away",
            LIFETIME.as_secs(),
            self.table
        )))
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        // What is not taken away here expires.
        let _ = nft(&removing(&self.table));
    }
}

/// Whether the table is still there.
pub(super) fn is_made(service: &str) -> bool {
    run(program("nft", &["list", "table", "inet", &table(service)]), NFT_LIMIT).is_ok()
}

/// Works whether the table is there or not.
fn removing(table: &str) -> String {
    format!("table inet {table} {{}}\ndelete table inet {table}\n")
}

/// Either node may have connected to the other: the port of one of the two is the configured one.
fn cutting(table: &str, resource: &ResourceSpec) -> String {
    let mut rules = removing(table);
    let _ = writeln!(rules, "table inet {table} {{");
    for (set, kind, is_v4) in [("peers4", "ipv4_addr", true), ("peers6", "ipv6_addr", false)] {
        let peers: BTreeSet<_> = resource
            .paths
            .iter()
            .map(|path| path.remote.ip())
            .filter(|peer| peer.is_ipv4() == is_v4)
            .collect();
        let peers: Vec<String> =
            peers.iter().map(|peer| format!("{peer} timeout {}s", LIFETIME.as_secs())).collect();
        let _ = write!(rules, " set {set} {{ type {kind}; flags timeout;");
        if !peers.is_empty() {
            let _ = write!(rules, " elements = {{ {} }};", peers.join(", "));
        }
        rules.push_str(" }\n");
    }
    let ports = resource.paths.iter().flat_map(|path| [path.local.port(), path.remote.port()]);
    let ports: BTreeSet<u16> = ports.collect();
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let ports = ports.join(", ");
    for (hook, end) in [("input", "saddr"), ("output", "daddr")] {
        let _ =
            writeln!(rules, " chain {hook} {{ type filter hook {hook} priority {PRIORITY}; policy accept;");
        for (family, set) in [("ip", "peers4"), ("ip6", "peers6")] {
            for port in ["sport", "dport"] {
                let _ = writeln!(rules, "  {family} {end} @{set} tcp {port} {{ {ports} }} drop");
            }
        }
        rules.push_str(" }\n");
    }
    rules + "}\n"
}

fn nft(rules: &str) -> Result<(), Trouble> {
    run_with(program("nft", &["-f", "-"]), rules, NFT_LIMIT)
}
