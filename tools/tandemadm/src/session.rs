//! What every command works with: the options, the configuration once it is needed, and the daemon.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use serde_json::Value;
use tandem_control::{
    Action, CHANGE_LIMIT, ClientError, Reply, Request, ResourceSpec, ResourceStatus, RuntimeDir, ask,
};
use tandem_core::divergence::Divergence;

use crate::bar::{self, Bars};
use crate::config::Files;
use crate::failure::{Failure, GIVE_UP_CODE, additional_info};
use crate::output::{errln, out, outln};

/// How long a snapshot may take.
const STATUS_LIMIT: Duration = Duration::from_secs(10);

/// One run of the program.
#[derive(Clone, Debug)]
pub struct Session {
    /// Where the daemon keeps its sockets.
    pub run: RuntimeDir,
    /// The files of the configuration.
    pub files: Files,
    /// What the program is called.
    pub called: CalledAs,
    /// Only print what would be done.
    pub dry_run: bool,
    /// Say what is asked of the daemon.
    pub verbose: u8,
    /// Who sees how far something is.
    pub bars: Bars,
}

/// Whose part the program plays.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CalledAs {
    /// Its own: what the daemon goes on with by itself is watched on a terminal.
    Tandemadm,
    /// drbdadm's.
    Drbdadm,
    /// drbdsetup's, which was asked with this command: it is about what is up, whatever a configuration says.
    Drbdsetup(String),
}

impl Session {
    /// One that reads no configuration.
    pub(crate) fn without_config(called: CalledAs) -> Session {
        Session {
            run: RuntimeDir::from_env(),
            files: Files::default(),
            called,
            dry_run: false,
            verbose: 0,
            bars: Bars::Never,
        }
    }

    /// Asks the daemon for a state change; what it says besides goes to stderr.
    pub fn change(&self, request: &Request) -> Result<(), Failure> {
        if self.dry_run {
            outln!("{}", shown(request));
            return Ok(());
        }
        if self.verbose > 0 {
            errln!("{}", shown(request));
        }
        let ask = || ask(&self.run.control_socket(), request, CHANGE_LIMIT);
        let reply = bar::waiting(self.bars, &in_words(request), ask)?;
        if reply.exit_code != 0 || reply.error.is_some() {
            return Err(Failure::Refused(Box::new(at_least_one(reply))));
        }
        eprint_lines(additional_info(&reply.detail).trim_start());
        Ok(())
    }

    /// Asks the daemon to do one thing to a resource.
    pub fn act(&self, resource: &str, action: Action) -> Result<(), Failure> {
        self.change(&Request::Act { resource: resource.to_owned(), action })
    }

    /// Every resource that is up, or the one named; none if the daemon does not run or does not know it.
    pub fn status(&self, resource: Option<&str>) -> Result<Vec<ResourceStatus>, Failure> {
        match self.ask_status(resource) {
            Ok(reply) if reply.exit_code == 0 => Ok(reply.status),
            Ok(_) if resource.is_some() => Ok(Vec::new()),
            Ok(reply) => Err(Failure::Refused(Box::new(reply))),
            Err(ClientError::NotRunning(_)) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Asks for snapshots, of all resources or the one named.
    pub fn ask_status(&self, resource: Option<&str>) -> Result<Reply, ClientError> {
        let request = Request::Status { resource: resource.map(str::to_owned) };
        ask(&self.run.control_socket(), &request, STATUS_LIMIT)
    }

    /// The resource's snapshot; `None` if it is not up.
    pub fn find_status(&self, resource: &str) -> Result<Option<ResourceStatus>, Failure> {
        Ok(self.status(Some(resource))?.into_iter().find(|status| status.engine.resource == resource))
    }

    /// The resource's snapshot; a failure if it is not up.
    pub fn require_status(&self, resource: &str) -> Result<ResourceStatus, Failure> {
        self.find_status(resource)?.ok_or_else(|| Failure::NotUp(resource.to_owned()))
    }

    /// What is known of this node's copy and each peer's, with all ranges.
    pub fn divergences(&self, resource: &str) -> Result<Vec<Divergence>, Failure> {
        let mut all: Vec<Divergence> = Vec::new();
        let mut from_bytes = 0;
        loop {
            let request = Request::Divergences { resource: resource.to_owned(), from_bytes };
            let reply = match ask(&self.run.control_socket(), &request, STATUS_LIMIT) {
                Err(ClientError::NotRunning(_)) => return Err(Failure::NotUp(resource.to_owned())),
                reply => reply?,
            };
            if reply.error.is_some() {
                return Err(Failure::Refused(Box::new(at_least_one(reply))));
            }
            let listed_to = reply.divergences.iter().map(|d| d.listed_to_bytes).min().unwrap_or(u64::MAX);
            let volume_bytes = reply.divergences.iter().map(|d| d.volume_bytes).max().unwrap_or(0);
            match all.is_empty() {
                true => all = reply.divergences,
                false => all.iter_mut().zip(reply.divergences).for_each(|(all, more)| all.append(more)),
            }
            if listed_to >= volume_bytes || listed_to <= from_bytes {
                return Ok(all);
            }
            from_bytes = listed_to;
        }
    }

    /// Does `step` to each resource in turn. A failure is printed and does not keep the others from their turn, unless
    /// nothing would come of it (exit codes from 20 on). Returns the highest exit code, as drbdadm does.
    pub fn for_each(
        &self,
        command: &str,
        specs: &[ResourceSpec],
        mut step: impl FnMut(&ResourceSpec) -> Result<(), Failure>,
    ) -> u8 {
        let mut worst = 0;
        for spec in specs {
            let Err(failure) = step(spec) else { continue };
            let code = failure.exit_code();
            eprint_lines(&failure.said_of(&spec.name));
            errln!("Command '{command} {}' terminated with exit code {code}", spec.name);
            if let Some(trouble) = failure.trouble().filter(|_| std::io::stderr().is_terminal()) {
                errln!("# tandemadm explain {trouble}");
            }
            worst = worst.max(code);
            if code >= GIVE_UP_CODE {
                break;
            }
        }
        worst
    }

    /// Asks the operator, or what speaks for him on stdin, for a `yes`.
    pub fn confirm(&self, question: &str) -> Result<(), Failure> {
        out!("{question}\n[need to type 'yes' to confirm] ");
        let failed = |e| Failure::System("asking for confirmation", e);
        std::io::stdout().flush().map_err(failed)?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).map_err(failed)?;
        if !std::io::stdin().is_terminal() {
            out!("\n");
        }
        if answer.trim() == "yes" { Ok(()) } else { Err(Failure::Cancelled) }
    }
}

/// A refusal must end the process with a code other than 0.
fn at_least_one(reply: Reply) -> Reply {
    Reply { exit_code: reply.exit_code.max(1), ..reply }
}

/// As `r0: attach`.
fn in_words(request: &Request) -> String {
    match request {
        Request::Act { resource, action } => format!("{resource}: {}", word(action)),
        Request::Up { spec } => format!("{}: up", spec.name),
        Request::Change { spec } => format!("{}: adjust", spec.name),
        _ => "asking".to_owned(),
    }
}

/// As it stands in the request.
fn word(action: &Action) -> String {
    match serde_json::to_value(action) {
        Ok(Value::String(word)) => word,
        Ok(Value::Object(fields)) => fields.keys().next().cloned().unwrap_or_default(),
        _ => String::new(),
    }
}

/// Without what nobody shall see: this is what people paste.
fn shown(request: &Request) -> String {
    let mut request = request.clone();
    request.specs_mut().into_iter().for_each(ResourceSpec::hide_secrets);
    match serde_json::to_string(&request) {
        Ok(json) => format!("tandemd <- {json}"),
        Err(error) => error.to_string(),
    }
}

fn eprint_lines(text: &str) {
    if !text.is_empty() {
        errln!("{}", text.trim_end_matches('\n'));
    }
}
