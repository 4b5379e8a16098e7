//! `doctor`: whether what lies under a resource is as good as the resource takes it to be.
//!
//! Each room measures something and judges it: the measuring touches the machine, the judging is a function of what was
//! measured. Nothing is ever written to a disk that holds data: beside a file a nameless one is tried, and a device is only
//! asked to flush.

mod clock;
mod flush;
mod losses;
mod machine;
mod network;
mod settings;
#[cfg(test)]
mod tests;

use std::fmt::Write;

use serde_json::{Value, json};
use tandem_control::{ResourceSpec, ResourceStatus, RuntimeDir};

/// How good it is; the numbers are what `doctor` ends with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Level {
    /// As it should be.
    Ok = 0,
    /// Worth a look.
    Warn = 1,
    /// To be mended.
    Bad = 2,
}

impl Level {
    const fn word(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Bad => "bad",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// What was looked at: a word for programs.
    pub check: &'static str,
    /// How good it is.
    pub level: Level,
    /// What was seen.
    pub what: String,
    /// What to do about it.
    pub todo: Option<String>,
}

impl Finding {
    fn new(check: &'static str, level: Level, what: impl Into<String>) -> Finding {
        Finding { check, level, what: what.into(), todo: None }
    }

    fn ok(check: &'static str, what: impl Into<String>) -> Finding {
        Finding::new(check, Level::Ok, what)
    }

    fn warn(check: &'static str, what: impl Into<String>) -> Finding {
        Finding::new(check, Level::Warn, what)
    }

    fn bad(check: &'static str, what: impl Into<String>) -> Finding {
        Finding::new(check, Level::Bad, what)
    }

    fn todo(self, todo: impl Into<String>) -> Finding {
        Finding { todo: Some(todo.into()), ..self }
    }
}

/// What was found of the machine, or of a resource.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// The resource; `None` for the machine.
    pub resource: Option<String>,
    /// Everything that was looked at.
    pub findings: Vec<Finding>,
}

/// Looks at the machine that these resources are on.
pub fn examine_machine(run: &RuntimeDir, specs: &[ResourceSpec]) -> Part {
    Part { resource: None, findings: machine::examine(run, specs) }
}

/// Looks at what a resource needs.
pub fn examine_resource(spec: &ResourceSpec, status: Option<&ResourceStatus>) -> Part {
    let mut findings = flush::examine(spec);
    findings.extend(network::examine(spec, status));
    findings.extend(settings::examine(spec, status));
    findings.extend(losses::examine(spec, status));
    Part { resource: Some(spec.name.clone()), findings }
}

/// The worst of all.
pub fn worst(parts: &[Part]) -> Level {
    parts.iter().flat_map(|part| &part.findings).map(|finding| finding.level).max().unwrap_or(Level::Ok)
}

/// For people.
pub fn text(parts: &[Part]) -> String {
    let mut text = String::new();
    for part in parts {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", part.resource.as_deref().unwrap_or("this machine"));
        for Finding { check, level, what, todo } in &part.findings {
            let _ = writeln!(text, "  {:<5} {check:<10} {what}", level.word());
            if let Some(todo) = todo {
                let _ = writeln!(text, "  {:16} -> {todo}", "");
            }
        }
        text.push('\n');
    }
    text
}

/// For programs.
pub fn json(parts: &[Part]) -> String {
    let all = parts.iter().flat_map(|part| {
        part.findings.iter().map(|finding| {
            json!({
                "resource": part.resource,
                "check": finding.check,
                "level": finding.level.word(),
                "what": finding.what,
                "do": finding.todo,
            })
        })
    });
    format!("{:#}\n", Value::Array(all.collect()))
}
