//! The commands: each takes its resources in the order of the configuration and returns an exit code.

mod change;
mod md_image;
mod metadata;
mod restore;
mod scripts;
mod show;
mod split_brain;
mod undo;
mod wait;

use std::path::Path;

use tandem_control::{Action, ResourceSpec, RuntimeDir};

use crate::cli::{Cli, Command, Invalidation, Names, SplitBrain, YesNo};
use crate::config::Config;
use crate::daemon_start;
use crate::failure::Failure;
use crate::output::{errln, out};
use crate::session::Session;

use md_image::Forgotten;

pub(crate) use scripts::Local;

/// Does what the command line asks. Returns the exit code.
pub fn run(cli: Cli) -> u8 {
    let session = Session { run: RuntimeDir::from_env(), config_file: cli.config_file, dry_run: cli.dry_run };
    dispatch(&session, cli.command).unwrap_or_else(|failure| {
        errln!("{failure}");
        failure.exit_code()
    })
}

fn dispatch(session: &Session, command: Command) -> Result<u8, Failure> {
    let specs =
        |names: &Names| -> Result<Vec<ResourceSpec>, Failure> { config(session)?.specs(&names.names) };
    let act = |word: &str, names: &Names, action| Ok(change::act(session, word, &specs(names)?, action));
    match command {
        Command::CreateMd { names, max_peers, force } => {
            Ok(metadata::create_md(session, &specs(&names)?, max_peers, force))
        }
        Command::WipeMd { names, force } => Ok(metadata::wipe_md(session, &specs(&names)?, force)),
        Command::DumpMd(names) => Ok(md_image::dump_md(session, &specs(&names)?)),
        Command::RestoreMd { name, file, force } => {
            Ok(md_image::restore_md(session, &specs(&Names { names: vec![name] })?, &file, force))
        }
        Command::ApplyAl(names) => Ok(md_image::apply_al(session, &specs(&names)?)),
        Command::ForgetPeer { names } => forget_peers(session, &names),
        Command::SplitBrain(SplitBrain::Show { names, json }) => {
            Ok(split_brain::show(session, &specs(&names)?, json))
        }
        Command::SplitBrain(SplitBrain::Resolve(options)) => {
            let specs = config(session)?.specs(std::slice::from_ref(&options.name))?;
            Ok(split_brain::resolve(session, &specs, &options))
        }
        Command::ShowGi(names) => Ok(metadata::show_gi(session, &specs(&names)?)),
        Command::GetGi(names) => Ok(metadata::get_gi(session, &specs(&names)?)),
        Command::Up(names) => {
            let config = config(session)?;
            config.print_warnings();
            let specs = config.specs(&names.names)?;
            config.print_missing_addresses(&specs);
            let left_out = config.left_out(&names.names);
            left_out.iter().for_each(|why| errln!("{why}\n"));
            let code = left_out.iter().map(Failure::exit_code).max().unwrap_or(0);
            Ok(change::up(session, &specs).max(code))
        }
        Command::Down(names) => Ok(change::down(session, &specs(&names)?)),
        Command::Attach(names) => act("attach", &names, Action::Attach),
        Command::Detach { names, force } => act("detach", &names, Action::Detach { force }),
        Command::Connect { names, discard_my_data, tentative } => {
            Ok(change::connect(session, &specs(&names)?, discard_my_data, tentative))
        }
        Command::Disconnect(names) => act("disconnect", &names, Action::Disconnect),
        Command::Primary { names, force } => act("primary", &names, Action::Primary { force }),
        Command::Secondary { names, force } => act("secondary", &names, Action::Secondary { force }),
        Command::Verify(options) => {
            let chosen = config(session)?.specs_with_volume(&options.names.names)?;
            Ok(change::verify(session, chosen, &options))
        }
        Command::Invalidate(Invalidation { names, reset_bitmap }) => {
            Ok(metadata::invalidate(session, &specs(&names)?, reset_bitmap == YesNo::Yes))
        }
        Command::InvalidateRemote(Invalidation { names, reset_bitmap }) => act(
            "invalidate-remote",
            &names,
            Action::InvalidateRemote { reset_bitmap: reset_bitmap == YesNo::Yes },
        ),
        Command::NewCurrentUuid { names, clear_bitmap } => {
            act("new-current-uuid", &names, Action::NewCurrentUuid { clear_bitmap })
        }
        Command::AdoptMd { names, force } => Ok(metadata::adopt(session, &specs(&names)?, force)),
        Command::ResyncUndo { names, force } => Ok(undo::resync_undo(session, &specs(&names)?, force)),
        Command::PauseSync(names) => act("pause-sync", &names, Action::PauseSync),
        Command::ResumeSync(names) => act("resume-sync", &names, Action::ResumeSync),
        Command::Outdate(names) => Ok(metadata::outdate(session, &specs(&names)?)),
        Command::SuspendIo(names) => act("suspend-io", &names, Action::SuspendIo),
        Command::ResumeIo(names) => act("resume-io", &names, Action::ResumeIo),
        Command::Status { names, json } if names.names.is_empty() => show::status_of_all(session, json),
        Command::Status { names, json } => {
            Ok(show::status(session, &config(session)?.specs(&names.names)?, json))
        }
        Command::Role(names) => Ok(show::role(session, &specs(&names)?)),
        Command::Cstate(names) => Ok(show::cstate(session, &specs(&names)?)),
        Command::Dstate(names) => Ok(show::dstate(session, &specs(&names)?)),
        Command::WaitConnect(options) => {
            Ok(wait::connect(session, &specs(&options.names)?, options.wfc_timeout))
        }
        Command::WaitSync { wait, progress } => {
            Ok(wait::sync(session, &specs(&wait.names)?, wait.wfc_timeout, progress))
        }
        Command::Dump(names) => {
            let config = config(session)?;
            config.print_warnings();
            print(&config.dump(&names.names)?)
        }
        Command::Options { about: None } => print(&tandem_config::help(None)),
        Command::Options { about: Some(word) } => {
            print(&tandem_config::help_about(&word).map_err(|unknown| Failure::Config(unknown, 1))?)
        }
        Command::DumpXml(names) => print(&config(session)?.dump_xml(&names.names)?),
        Command::Script(script) => print(&scripts::answer(&config(session)?, &script)?),
        Command::ShExecDetached { program } => Err(exec_failure(&program)),
    }
}

/// Each `RES`, `RES:PEER` or `all` in turn; the highest exit code counts.
fn forget_peers(session: &Session, names: &[String]) -> Result<u8, Failure> {
    let config = config(session)?;
    let mut wanted = Vec::new();
    for name in names {
        let (resource, peer) = name.split_once(':').map_or((name.as_str(), None), |(r, p)| (r, Some(p)));
        for spec in config.specs(&[resource.to_owned()])? {
            wanted.push(Forgotten::new(spec, peer)?);
        }
    }
    Ok(wanted.iter().map(|wanted| md_image::forget_peer(session, wanted)).max().unwrap_or(0))
}

fn config(session: &Session) -> Result<Config, Failure> {
    Config::load(session.config_file.as_deref())
}

fn print(text: &str) -> Result<u8, Failure> {
    out!("{text}");
    Ok(0)
}

fn exec_failure(program: &Path) -> Failure {
    let error = daemon_start::exec_detached(program);
    errln!("cannot run {}:", program.display());
    Failure::System("exec", error)
}
