//! Pacemaker's own programs: they know the cluster's configuration and state, and take what this node knows sooner.

use std::process::{Command, Stdio};

/// One question; the cluster does not answer while it elects who coordinates.
pub const ANSWER_LIMIT: &str = "--timeout=10";

/// The agent's instance of a service on this node.
pub struct Instance {
    resource: String,
    node: String,
}

impl Instance {
    /// That of this service.
    pub fn of(service: &str) -> Result<Instance, String> {
        let path = format!(
            "//primitive[@type='tandem'][instance_attributes/nvpair[@name='service'][@value='{service}']]"
        );
        let said = query(&path, &["--no-children"])?;
        let unknown = || format!("the cluster has no ocf:tandem:tandem with service={service}");
        let resource = attribute(&said, "id").ok_or_else(unknown)?.to_owned();
        Ok(Instance { resource, node: ask("crm_node", &["--name"])? })
    }

    /// Has the cluster find out now that it has failed, and not when it is asked for the next time.
    pub fn has_failed(self) -> Result<(), String> {
        ask("crm_resource", &["--fail", "--resource", &self.resource, "--node", &self.node]).map(drop)
    }
}

/// What the configuration or the state of the cluster holds there; nothing if nothing does.
pub fn query(path: &str, how: &[&str]) -> Result<String, String> {
    const NOTHING: &str = "No such device or address";
    match ask("cibadmin", &[&["--query", "--sync-call", ANSWER_LIMIT, "--xpath", path], how].concat()) {
        Err(error) if error.contains(NOTHING) => Ok(String::new()),
        result => result,
    }
}

/// Runs one of its programs; what it said.
pub fn ask(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).output();
    let output = output.map_err(|e| format!("{program}: {e}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("{program}: {}: {}", output.status, text(&output.stderr))),
    }
}

/// The first attribute of this name.
pub fn attribute<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!(" {name}=\""))?;
    rest.split_once('"').map(|(value, _)| value)
}
