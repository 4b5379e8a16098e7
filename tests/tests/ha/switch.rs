//! The switch between the hosts: a bridge in a network namespace of its own, whose ports can be pulled.

use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::outcome::Outcome;
use crate::wait;

const BRIDGE: &str = "br0";

/// The switch. It is gone with this value.
pub(crate) struct Switch {
    holder: Child,
    ports: AtomicU32,
}

/// A port, by the name of its interface. Each gets a new one: the kernel takes its time to give old ones back.
#[derive(Clone, Debug)]
pub(crate) struct Port(String);

impl Switch {
    /// A switch that nothing is connected to.
    pub(crate) fn new(folder: &Path) -> Switch {
        let holder = Command::new("unshare")
            .args(["--net", "--", "sleep", "infinity"])
            // By this, whoever cleans up after an interrupted run finds it.
            .env("TANDEM_RUN_DIR", folder.join("switch"))
            .spawn()
            .unwrap_or_else(|e| panic!("unshare: {e}"));
        let switch = Switch { holder, ports: AtomicU32::new(0) };
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        wait::until("the switch is there", || {
            std::fs::read_link(switch.namespace()).is_ok_and(|namespace| namespace != own)
        });
        // It passes on whatever comes, without listening first.
        switch.ip(&["link", "add", BRIDGE, "type", "bridge", "forward_delay", "0", "mcast_snooping", "0"]);
        switch.ip(&["link", "set", BRIDGE, "up"]);
        switch
    }

    /// Connects the interface `eth0` of a namespace, named by a process in it. It has its Ethernet address for ever, as
    /// real ones do: others remember it.
    pub(crate) fn connect(&self, process: i32, mac: &str) -> Port {
        let port = Port(format!("port{}", self.ports.fetch_add(1, Ordering::Relaxed)));
        let process = process.to_string();
        let end = ["peer", "name", "eth0", "address", mac, "netns", &process];
        self.ip(&[&["link", "add", &port.0, "type", "veth"][..], &end].concat());
        self.mend(&port);
        self.plug(&port);
        port
    }

    /// Nothing gets through the port; its host sees that it has lost its carrier.
    pub(crate) fn unplug(&self, port: &Port) {
        self.ip(&["link", "set", &port.0, "down"]);
    }

    /// It works again.
    pub(crate) fn plug(&self, port: &Port) {
        self.ip(&["link", "set", &port.0, "up"]);
    }

    /// Nothing gets through the port; its host sees nothing of that.
    pub(crate) fn black_hole(&self, port: &Port) {
        self.ip(&["link", "set", &port.0, "nomaster"]);
    }

    /// It gets through again.
    pub(crate) fn mend(&self, port: &Port) {
        self.ip(&["link", "set", &port.0, "master", BRIDGE]);
    }

    /// Ports that are isolated reach all others, but not each other.
    pub(crate) fn isolate(&self, port: &Port, is_on: bool) {
        let value = if is_on { "on" } else { "off" };
        self.ip(&["link", "set", &port.0, "type", "bridge_slave", "isolated", value]);
    }

    fn ip(&self, arguments: &[&str]) {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace())).args(["--", "ip"]).args(arguments);
        Outcome::of(command).ok();
    }

    fn namespace(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.id())
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
