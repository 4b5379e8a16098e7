//! What the operator does by hand: moves a service, looks at it, checks what is configured.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::carry_out::{Way, carry_out};
use crate::check::{complaints, warnings};
use crate::cli::{Cli, reported_code};
use crate::config::{Config, Service};
use crate::drill::{self, Drill};
use crate::health::{Phase, ServiceView};
use crate::here::{Here, Standing, State};
use crate::plan::{Cancel, Ending, FileJournal, Line, Report, Trouble, trouble};
use crate::service::{self, Mover, Plans};
use crate::steps::{self, Scene};
use crate::switchover;
use crate::tandem;
use tandem_control::output::{errln, out, outln};
use tandem_control::reason;

/// A promotion may have to wait for the peer, for fencing, and for a database to recover.
const SERVICE_LIMIT: Duration = Duration::from_secs(180);
const FAILURE_CODE: u8 = 1;
/// This node cannot give the service up.
const MUST_FENCE_CODE: u8 = 20;

/// Which service.
#[derive(Clone, Debug, Args)]
pub struct Which {
    /// The service; need not be named if there is only one.
    #[arg(value_name = "SERVICE")]
    pub service: Option<String>,
}

/// Which service, and whether in earnest.
#[derive(Clone, Debug, Args)]
pub struct Move {
    /// Which service.
    #[command(flatten)]
    pub which: Which,
    /// Only show what would be done.
    #[arg(short, long)]
    pub dry_run: bool,
}

/// Which service leaves this node, or all of them.
#[derive(Clone, Debug, Args)]
pub struct Leave {
    /// One.
    #[command(flatten)]
    pub one: Move,
    /// Every service: the node is left.
    #[arg(short, long, conflicts_with = "service")]
    pub all: bool,
}

/// What goes on while a service is up.
pub(crate) fn keep(cli: &Cli, config: &Config, which: &Which) -> Result<u8, Trouble> {
    steps::keep(&scene(cli, chosen(config, which)?)).map(|()| 0)
}

fn scene(cli: &Cli, service: &Service) -> Arc<Scene> {
    service::scene(service.clone(), Here::new(&cli.config_file))
}

fn chosen<'a>(config: &'a Config, which: &Which) -> Result<&'a Service, Trouble> {
    config.service(which.service.as_deref()).ok_or_else(|| {
        let names: Vec<&str> = config.services.iter().map(|service| service.name.as_str()).collect();
        let names = names.join(", ");
        Trouble::new(match &which.service {
            Some(unknown) => format!("there is no service {unknown}; the configuration has {names}"),
            None => format!("which service? The configuration has {names}"),
        })
    })
}

/// Moves the service.
pub(crate) fn go(cli: &Cli, config: &Config, how: &Move, way: Way) -> Result<u8, Trouble> {
    let scene = scene(cli, chosen(config, &how.which)?);
    if how.dry_run {
        print_plan(cli, &scene, way);
        return Ok(0);
    }
    if let Some(view) = ask_service(&scene, way)? {
        return Ok(conclude_view(cli, way, &view));
    }
    let mut log = |line: &Line| match cli.json {
        true => print_json(line),
        false => outln!("{line}"),
    };
    if way == Way::Promote {
        expect_no_fence(&scene.service.name, &scene.here.standing(&scene.service.name))?;
    }
    let run = scene.here.folder().map_err(trouble("the runtime folder"))?;
    service::note_by_hand(&run, &scene.service.name, way.wish()).map_err(trouble("nfs-failover"))?;
    let report = carry_out(&scene, way, &Cancel::default(), &mut log)?;
    if (way, report.ending) == (Way::Demote, Ending::Done) {
        // Whoever demotes it by hand looks after it, and sees that nothing is left.
        clear(&scene.here, &scene.service.name)?;
    }
    Ok(conclude(cli, &report))
}

/// A node that must be fenced does not promote, with a service that runs or without.
fn expect_no_fence(service: &str, standing: &Standing) -> Result<(), Trouble> {
    match standing {
        Standing { state: State::MustFence, why } => {
            let why = why.as_deref().unwrap_or_default();
            let advice = format!("'nfs-failover clear {service}' when nothing of it is left");
            Err(Trouble::new(format!("this node could not give the volume up: {why}; {advice}")))
        }
        _ => Ok(()),
    }
}

/// Takes one service down, or all, one after the other: one that cannot be holds up no other. The worst exit code.
pub(crate) fn leave(cli: &Cli, config: &Config, how: &Leave) -> u8 {
    let go = |how: &Move| reported_code(go(cli, config, how, Way::Demote));
    if !how.all {
        return go(&how.one);
    }
    let named = |service: &Service| Move {
        which: Which { service: Some(service.name.clone()) },
        dry_run: how.one.dry_run,
    };
    config.services.iter().map(|service| go(&named(service))).max().unwrap_or_default()
}

/// Has a service, or each, export what the configuration says now.
pub(crate) fn reload(cli: &Cli, config: &Config, which: &Which) -> Result<u8, Trouble> {
    let here = Here::new(&cli.config_file);
    let run = here.folder().map_err(trouble("the runtime folder"))?;
    let mut code = 0;
    for service in named(config, which)? {
        let by_service = service::reload(&run, &service.name).map_err(trouble(&service.name));
        let changed = by_service.and_then(|changed| match changed {
            Some(changed) => Ok(changed),
            None => Plans::new(service.clone(), here.clone()).reload(),
        });
        match changed {
            Ok(changed) => print_changed(cli, &service.name, &changed),
            Err(trouble) => code = reported_code(Err(trouble)),
        }
    }
    Ok(code)
}

fn print_changed(cli: &Cli, service: &str, changed: &[String]) {
    match cli.json {
        true => print_json(&serde_json::json!({ "service": service, "changed": changed })),
        false if changed.is_empty() => outln!("{service}: nothing that is exported here has changed"),
        false => changed.iter().for_each(|change| outln!("{service}: {change}")),
    }
}

/// The one that is named, or all.
fn named<'a>(config: &'a Config, which: &Which) -> Result<Vec<&'a Service>, Trouble> {
    match &which.service {
        Some(_) => Ok(vec![chosen(config, which)?]),
        None => Ok(config.services.iter().collect()),
    }
}

/// Clears what the operator names: a service of the configuration, or one that was when it could not be demoted.
pub(crate) fn clear_named(cli: &Cli, config: &Config, name: &str) -> Result<(), Trouble> {
    let here = Here::new(&cli.config_file);
    if here.standing(name) == Standing::default() {
        chosen(config, &Which { service: Some(name.to_owned()) })?;
    }
    clear(&here, name)
}

/// Says that nothing is left of a service that could not be demoted.
pub(crate) fn clear(here: &Here, service: &str) -> Result<(), Trouble> {
    let run = here.folder().map_err(trouble("the runtime folder"))?;
    let views = service::views(&run).map_err(trouble("nfs-failover"))?;
    let view = views.and_then(|views| views.into_iter().find(|view| view.name == service));
    // What a plan has noted this moment, and the service has not heard of, nobody has looked after.
    let is_known = view.is_none_or(|view| view.must_fence.is_some());
    if is_known && here.standing(service).state == State::MustFence {
        // Whoever promotes or demotes it next finds out what is there.
        here.set_standing(service, State::Failed, None).map_err(trouble("the runtime folder"))?;
    }
    service::clear(&run, service).map(drop).map_err(trouble("nfs-failover"))
}

/// Moves the service to the other node, wherever it is.
pub(crate) fn switchover(cli: &Cli, config: &Config, how: &Move) -> Result<u8, Trouble> {
    let service = chosen(config, &how.which)?;
    if !switchover::leads_away(service, &Here::new(&cli.config_file))? {
        return go(cli, config, how, Way::Promote);
    }
    if how.dry_run {
        print_plan(cli, &scene(cli, service), Way::Demote);
        outln!("and the same service is promoted on the other node");
        return Ok(0);
    }
    let state = switchover::away(service, &Here::new(&cli.config_file))?;
    Ok(conclude_view(cli, Way::Promote, &state.view))
}

/// Rehearses moves and prints what was found.
pub(crate) fn drill(cli: &Cli, config: &Config, how: &Drill) -> Result<u8, Trouble> {
    let service = chosen(config, &how.which)?;
    let findings = drill::drill(service, &Here::new(&cli.config_file), how, &mut drill::ask)?;
    match cli.json {
        true => print_json(&findings),
        false => out!("{}", findings.text()),
    }
    Ok(if findings.are_good() { 0 } else { FAILURE_CODE })
}

/// Has the service do it, if one runs: it alone moves what it keeps.
fn ask_service(scene: &Scene, way: Way) -> Result<Option<ServiceView>, Trouble> {
    let run = scene.here.folder().map_err(trouble("the runtime folder"))?;
    service::change(&run, &scene.service.name, way.wish(), SERVICE_LIMIT).map_err(trouble("nfs-failover"))
}

fn conclude_view(cli: &Cli, way: Way, view: &ServiceView) -> u8 {
    let done = match way {
        Way::Promote => view.phase == Phase::Up,
        Way::Demote => view.phase == Phase::Down,
    };
    let why = view.must_fence.as_ref().or(view.trouble.as_ref()).map_or("see its log", String::as_str);
    match (cli.json, done) {
        (true, _) => print_json(view),
        (false, true) => outln!("{way} {}: done by the service", view.name),
        (false, false) => errln!("{way} {}: FAILED: {why}", view.name),
    }
    match (done, &view.must_fence) {
        (_, Some(_)) => MUST_FENCE_CODE,
        (true, None) => 0,
        (false, None) => FAILURE_CODE,
    }
}

/// Keeps every service until the process is ended.
pub(crate) fn serve(cli: &Cli, config: &Config) -> Result<u8, Trouble> {
    let here = Here::new(&cli.config_file);
    let run = here.folder().map_err(trouble("the runtime folder"))?;
    let mover = |service: &Service| Arc::new(Plans::new(service.clone(), here.clone())) as Arc<dyn Mover>;
    let _served = service::serve(config, here.tandem.clone(), &run, mover).map_err(trouble("serve"))?;
    // Only systemd listens, if anybody.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let names: Vec<&str> = config.services.iter().map(|service| service.name.as_str()).collect();
    outln!("nfs-failover keeps {}", names.join(", "));
    loop {
        std::thread::park();
    }
}

fn conclude(cli: &Cli, report: &Report) -> u8 {
    let Report { plan, service, ending, why, took_ms, .. } = report;
    let why = why.as_deref().unwrap_or_default();
    match (cli.json, ending) {
        (true, _) => {
            print_json(&serde_json::json!({ "plan": plan, "service": service, "ending": ending, "why": why,
            "took-ms": took_ms }))
        }
        (false, Ending::Done) => outln!("{plan} {service}: done in {took_ms} ms"),
        (false, Ending::MustFence) => {
            errln!("{plan} {service}: {why}");
            errln!("This node MUST BE FENCED: it cannot give the service up.");
        }
        (false, Ending::Failed | Ending::Cancelled) => errln!("{plan} {service}: FAILED: {why}"),
        (false, Ending::Halfway) => {
            let advice = format!("something of it is left here: nfs-failover demote {service}");
            errln!("{plan} {service}: FAILED: {why}; {advice}");
        }
    }
    match ending {
        Ending::Done => 0,
        Ending::Failed | Ending::Halfway | Ending::Cancelled => FAILURE_CODE,
        Ending::MustFence => MUST_FENCE_CODE,
    }
}

/// Shows what the services are on this node.
pub(crate) fn status(cli: &Cli, config: &Config, which: &Which) -> Result<u8, Trouble> {
    let here = Here::new(&cli.config_file);
    // Who may not look is not told that all is quiet.
    here.look().map_err(|error| Trouble::new(reason(&error)))?;
    // One that does not run, or does not answer, is in no trouble that it would know of.
    let views = here.folder().ok().and_then(|run| service::views(&run).ok().flatten()).unwrap_or_default();
    for service in named(config, which)? {
        let view = views.iter().find(|view| view.name == service.name);
        let shown = shown(&here, service, view.and_then(|view| view.trouble.clone()));
        match cli.json {
            true => print_json(&shown),
            false => out!("{}", shown.text()),
        }
    }
    Ok(0)
}

/// A service on this node.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    service: &'a str,
    #[serde(flatten)]
    standing: Standing,
    /// Why the service was given up, or cannot be had, as `nfs-failover serve` knows it.
    trouble: Option<String>,
    resource: &'a str,
    role: String,
    disk: String,
    peers: Vec<String>,
    /// It was promoted and does not serve: why. A cluster's agent reads this.
    broken: Option<String>,
    /// A plan that was killed.
    interrupted: Option<String>,
}

fn shown<'a>(here: &Here, service: &'a Service, trouble: Option<String>) -> Shown<'a> {
    let (engine, unknown) = match tandem::find_status(here, &service.resource) {
        Ok(status) => (status.map(|status| status.engine), None),
        Err(trouble) => (None, Some(trouble.message)),
    };
    let otherwise = if unknown.is_some() { "unknown" } else { "not up" };
    let interrupted = FileJournal::unfinished(&here.file(&service.name, "journal")).ok().flatten();
    let standing = here.standing(&service.name);
    let broken = (standing.state == State::Primary).then(|| service::broken(service, here)).flatten();
    let word = |known: Option<String>| known.unwrap_or_else(|| otherwise.into());
    Shown {
        service: &service.name,
        standing,
        trouble: trouble.or(unknown),
        resource: &service.resource,
        role: word(engine.as_ref().map(|engine| engine.role.to_string())),
        disk: word(engine.as_ref().map(|engine| engine.disk.to_string())),
        peers: engine
            .iter()
            .flat_map(|engine| &engine.peers)
            .map(|p| format!("{} {} {}", p.name, p.role, p.disk))
            .collect(),
        broken,
        interrupted: interrupted.map(|(plan, _)| plan),
    }
}

impl Shown<'_> {
    fn text(&self) -> String {
        let Shown { service, standing, trouble, resource, role, disk, peers, broken, interrupted } = self;
        let what = if role == disk { role.clone() } else { format!("{role} {disk}") };
        let mut text = format!("{service}: {}\n  {resource} {what}\n", standing.state.as_str());
        peers.iter().for_each(|peer| text.push_str(&format!("  peer {peer}\n")));
        let mut whys: Vec<&String> = standing.why.iter().chain(broken).chain(trouble).collect();
        whys.dedup();
        whys.iter().for_each(|why| text.push_str(&format!("  {why}\n")));
        interrupted
            .iter()
            .for_each(|plan| text.push_str(&format!("  an interrupted {plan}: run it again\n")));
        text
    }
}

/// Says what is dangerous about the configuration, where it differs from the other node's, and what a move would fail for.
pub(crate) fn check(cli: &Cli, config: &Config) -> Result<u8, Trouble> {
    config.warnings.iter().for_each(|warning| errln!("{warning}\n"));
    let here = Here::new(&cli.config_file);
    let mut code = 0;
    for service in &config.services {
        let (complaints, warnings) = (complaints(service, &here), warnings(service, &here));
        code = code.max(if complaints.is_empty() { 0 } else { FAILURE_CODE });
        if cli.json {
            let found = serde_json::json!({
                "service": service.name, "complaints": complaints, "warnings": warnings
            });
            print_json(&found);
            continue;
        }
        if complaints.is_empty() {
            outln!("{}: can be moved here", service.name);
        }
        complaints.iter().chain(&warnings).for_each(|complaint| errln!("{}: {complaint}", service.name));
    }
    Ok(code)
}

/// Shows every step of both plans.
pub(crate) fn plan(cli: &Cli, config: &Config, which: &Which) -> Result<u8, Trouble> {
    let scene = scene(cli, chosen(config, which)?);
    [Way::Promote, Way::Demote].into_iter().for_each(|way| print_plan(cli, &scene, way));
    Ok(0)
}

fn print_plan(cli: &Cli, scene: &Arc<Scene>, way: Way) {
    for (index, step) in way.plan(scene).steps.iter().enumerate() {
        let (number, name, intention, limit_s) =
            (index + 1, step.name(), step.intention(), step.limit().as_secs());
        match cli.json {
            true => print_json(&serde_json::json!({ "plan": way, "step": name, "intention": intention,
                "limit-s": limit_s, "optional": step.optional() })),
            false => outln!("{way} {number:>2} {name:<10} {intention} (at most {limit_s} s)"),
        }
    }
}

fn print_json(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => outln!("{text}"),
        Err(error) => errln!("{error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_be_fenced_is_cleared_while_no_service_runs() {
        let folder = nix::unistd::mkdtemp(&std::env::temp_dir().join("nfs-failover-XXXXXX")).unwrap();
        let here = Here { tandem: tandem_control::RuntimeDir::new(&folder), config_file: "nfs.conf".into() };
        clear(&here, "nfs").unwrap();
        assert_eq!(here.standing("nfs"), Standing::default());
        here.set_standing("nfs", State::MustFence, Some("umount hangs".into())).unwrap();
        let refused = expect_no_fence("nfs", &here.standing("nfs")).unwrap_err().message;
        assert!(refused.contains("umount hangs; 'nfs-failover clear nfs'"), "{refused}");
        clear(&here, "nfs").unwrap();
        expect_no_fence("nfs", &here.standing("nfs")).unwrap();
        assert_eq!(here.standing("nfs"), Standing { state: State::Failed, why: None });
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn status_says_why_a_service_was_given_up_and_says_it_once() {
        let why = || Some("the server died".to_owned());
        let mut shown = Shown {
            service: "nfs",
            standing: Standing::default(),
            trouble: why(),
            resource: "r0",
            role: "Secondary".into(),
            disk: "UpToDate".into(),
            peers: vec![],
            broken: None,
            interrupted: None,
        };
        let text = "nfs: secondary\n  r0 Secondary UpToDate\n  the server died\n";
        assert_eq!(shown.text(), text);
        shown.standing.why = why();
        assert_eq!(shown.text(), text);
    }
}
