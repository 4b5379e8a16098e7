//! `status` as it is asked for: once or again and again, everything or only what is not as it should be.

use std::fs;
use std::io::ErrorKind;
use std::time::Duration;

use serde_json::Value;
use tandem_control::{ClientError, ResourceSpec, ResourceStatus};
use tandem_core::metadata::{self, ActivityLogState, LoadError};

use super::known::Known;
use super::show::{self, Format};
use crate::address::Address;
use crate::cli::{Attention, StatusOptions};
use crate::config::Config;
use crate::device::{Access, Target};
use crate::diagnosis::{Absent, Finding, OnDisk, Severity, of_absent, of_resource, worst};
use crate::failure::Failure;
use crate::output::{errln, out};
use crate::session::Session;
use crate::status_text::{self, Look};
use crate::watch;

/// Shows what is asked for. Returns the exit code.
pub(crate) fn status(
    session: &Session,
    names: &[String],
    options: &StatusOptions,
    attention: &Attention,
) -> Result<u8, Failure> {
    let look = show::look(session, options);
    let look = || match attention.exceptions {
        true => Ok(exceptions(session, names, options.json, &look)),
        false => everything(session, names, format(options.json, attention, look)),
    };
    match attention.watch {
        Some(seconds) => watch::repeat(Duration::from_secs(seconds), look),
        None => {
            let (text, code) = look()?;
            out!("{text}");
            Ok(code)
        }
    }
}

/// What a script reads stays as DRBD prints it.
fn format(json: bool, attention: &Attention, look: Look) -> Format {
    match json {
        true => Format::Json,
        false if attention.why || look.is_terminal => Format::Remarks(look),
        false => Format::Plain(look),
    }
}

fn everything(session: &Session, names: &[String], format: Format) -> Result<(String, u8), Failure> {
    match names {
        [] => {
            let (text, code) = show::status_of_all(session, format)?;
            let Format::Remarks(look) = format else { return Ok((text, code)) };
            Ok((text + &not_up(session, &look), code))
        }
        names => Ok(show::status(session, &known(session)?.specs(names)?, format)),
    }
}

/// A configuration that cannot be used is no reason not to show what is up.
fn known(session: &Session) -> Result<Known, Failure> {
    let unusable = match Known::of(session) {
        Err(failure @ (Failure::Config(..) | Failure::Open(_))) => failure,
        known => return known,
    };
    errln!("{unusable}\nwarning: the configuration cannot be used; shown is what is up");
    Known::up(session, "status")
}

/// What is configured, and tandemd does not tell of.
fn not_up(session: &Session, look: &Look) -> String {
    let seen = see(session, &[]).unwrap_or_default();
    seen.iter().filter(|one| one.status.is_none()).map(|one| one.text(look)).collect()
}

/// What is amiss, and 0, 1 or 2.
fn exceptions(session: &Session, names: &[String], json: bool, look: &Look) -> (String, u8) {
    let seen = match see(session, names) {
        Ok(seen) => seen,
        Err(failure) => {
            errln!("{failure}");
            return (String::new(), Severity::NeedsHand as u8);
        }
    };
    let findings = seen.iter().flat_map(|one| &one.findings);
    let code = findings.clone().map(|finding| finding.trouble.severity as u8).max().unwrap_or(0);
    let text = match json {
        true => format!("{:#}\n", Value::Array(findings.map(Finding::json).collect())),
        false => seen.iter().map(|one| one.text(look)).chain([summary(&seen)]).collect(),
    };
    (text, code)
}

/// One resource, or the daemon, as it was found.
struct Seen {
    name: String,
    status: Option<ResourceStatus>,
    findings: Vec<Finding>,
}

impl Seen {
    fn text(&self, look: &Look) -> String {
        match &self.status {
            _ if self.findings.is_empty() => String::new(),
            Some(status) => show::with_remarks(status, &self.findings, look),
            None => {
                let remarks: String = self.findings.iter().map(Finding::remark).collect();
                format!("{}\n{remarks}\n", self.name)
            }
        }
    }
}

/// The resources named, or all that are configured or up.
fn see(session: &Session, names: &[String]) -> Result<Vec<Seen>, Failure> {
    let config = Config::load(&session.files);
    let (specs, broken) = match (config, names) {
        (Err(failure), _) => (Vec::new(), Some(failure.to_string())),
        (Ok(config), _) if config.names().is_empty() && names.is_empty() => (Vec::new(), None),
        (Ok(config), names) => (config.specs(names)?, None),
    };
    // Who is stopped answers nobody.
    let asked = match stopped_daemon(session) {
        Some(_) => Err(ClientError::Mute(session.run.control_socket(), Duration::ZERO)),
        None => session.ask_status(None),
    };
    let (mut up, away) = match asked {
        Ok(reply) => (reply.status, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    // Without a configuration, who is up is known by its name alone.
    let is_named = |resource: &str| match broken {
        Some(_) => names.iter().any(|name| name == "all" || Address::parse(name).resource == resource),
        None => specs.iter().any(|spec| spec.name == resource),
    };
    up.retain(|status| names.is_empty() || is_named(&status.engine.resource));
    let absent = |name: &str, absent: Absent<'_>| Seen {
        name: name.to_owned(),
        status: None,
        findings: of_absent(&absent),
    };
    let mut seen = Vec::new();
    // Who has no resource needs no daemon.
    if let Some(error) = away.as_ref().filter(|_| !specs.is_empty() || broken.is_some()) {
        seen.push(absent("tandemd", why_away(session, error)));
    }
    seen.extend(broken.map(|error| absent("configuration", Absent::NoConfig { error: in_one_line(&error) })));
    let is_up = |spec: &&ResourceSpec| up.iter().any(|status| status.engine.resource == spec.name);
    let mute = away.as_ref().is_some_and(|error| !matches!(error, ClientError::NotRunning(_)));
    for spec in specs.iter().filter(|spec| !is_up(spec) && !mute) {
        let on_disk = on_disk(spec);
        // That it is not up goes without saying.
        if away.is_none() || on_disk != OnDisk::Closed {
            seen.push(absent(&spec.name, Absent::NotUp { spec, on_disk: &on_disk }));
        }
    }
    seen.extend(up.into_iter().map(|status| Seen {
        name: status.engine.resource.clone(),
        findings: of_resource(&status),
        status: Some(status),
    }));
    Ok(seen)
}

fn why_away<'a>(session: &Session, error: &'a ClientError) -> Absent<'a> {
    match error {
        ClientError::NotRunning(socket) => Absent::NoDaemon { socket },
        error => {
            let (error, next) = why_mute(session, error);
            Absent::Mute { error, next }
        }
    }
}

/// The reason, and the command that helps.
fn why_mute(session: &Session, error: &ClientError) -> (String, String) {
    if let ClientError::Io { source, .. } = error
        && source.kind() == ErrorKind::PermissionDenied
    {
        return (error.to_string(), "sudo tandemadm status -x".to_owned());
    }
    if let Some(pid) = stopped_daemon(session) {
        let why = format!("tandemd (pid {pid}) was stopped, with SIGSTOP or by a debugger");
        return (why, format!("kill -CONT {pid}"));
    }
    let log = session.run.log_file();
    let next = match log.exists() {
        true => format!("tail -n 50 {}", log.display()),
        false => "journalctl -u tandemd -n 50".to_owned(),
    };
    (error.to_string(), next)
}

/// Its process, if that is not allowed to run.
fn stopped_daemon(session: &Session) -> Option<u32> {
    let pid = fs::read_to_string(session.run.pid_file()).ok()?.trim().parse().ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, state) = stat.rsplit_once(") ")?;
    state.starts_with(['T', 't']).then_some(pid)
}

/// What the disk of a resource that is not up says.
fn on_disk(spec: &ResourceSpec) -> OnDisk {
    let mut target = match Target::open(spec, Access::Look) {
        Ok(target) => target,
        Err(error) => return OnDisk::Unreadable(error.to_string()),
    };
    let placement = target.placement();
    match metadata::probe(target.metadata_device(), placement) {
        Ok(superblock) => {
            let as_primary = superblock.flags.primary;
            match superblock.activity_log {
                ActivityLogState::Closed if !as_primary => OnDisk::Closed,
                _ => OnDisk::Unclean { as_primary },
            }
        }
        Err(LoadError::NotFound) => OnDisk::NoMetadata,
        Err(error) => OnDisk::Unreadable(error.to_string()),
    }
}

/// Who is how, the worst first.
fn summary(seen: &[Seen]) -> String {
    if seen.is_empty() {
        return status_text::NONE_CONFIGURED.to_owned();
    }
    let classes = [
        (Some(Severity::NeedsHand), "Needs a hand"),
        (Some(Severity::Degraded), "Degraded"),
        (None, "All is well"),
    ];
    let mut parts = Vec::new();
    for (severity, words) in classes {
        let names: Vec<&str> =
            seen.iter().filter(|one| worst(&one.findings) == severity).map(|one| one.name.as_str()).collect();
        let words = if severity.is_none() && !parts.is_empty() { "Well" } else { words };
        if !names.is_empty() {
            parts.push(format!("{words}: {}.", names.join(", ")));
        }
    }
    format!("# {}\n", parts.join(" "))
}

/// What is wrong, and in which line of which file.
fn in_one_line(error: &str) -> String {
    let first = error.lines().next().unwrap_or_default();
    match error.lines().find_map(|line| line.trim_start().strip_prefix("--> ")) {
        Some(place) => format!("{place}: {first}"),
        None => first.to_owned(),
    }
}
