//! The commands: each takes its resources in the order of the configuration and returns an exit code.

mod adjust;
mod attention;
mod change;
mod countdown;
mod doctor;
mod drbdmeta;
mod events2;
mod follow;
mod known;
mod low_level;
mod md_image;
mod metadata;
mod options;
mod paths;
mod peers;
mod pieces;
mod resize;
mod restore;
mod scripts;
mod show;
mod show_running;
mod split_brain;
mod undo;
mod wait;
mod waiting;

use std::path::Path;

use clap::CommandFactory;
use tandem_config::Section;
use tandem_control::{Action, ResourceSpec, RuntimeDir};

use crate::address::Address;
use crate::bar::Bars;
use crate::cli::{Cli, Command, Invalidation, Names, NewGeneration, Script, SplitBrain, YesNo};
use crate::completion;
use crate::config::{Config, Files};
use crate::daemon_start;
use crate::diagnosis::{self, page};
use crate::failure::Failure;
use crate::man;
use crate::output::{self, errln, out};
use crate::session::{CalledAs, Session};
use crate::top;

pub use drbdmeta::run as drbdmeta;
pub use follow::Following;
use known::Known;
use md_image::Forgotten;
pub use pieces::run as piece;
pub use resize::ResizeOptions;

pub(crate) use scripts::Local;

/// Does what the command line asks; `verb` is the command's word. Returns the exit code.
pub fn run(cli: Cli, verb: &str, called: CalledAs) -> u8 {
    let result = check_usage(&cli).and_then(|()| {
        let files =
            Files { main: cli.config_file, to_test: cli.config_to_test, to_exclude: cli.config_to_exclude };
        let Cli { dry_run, verbose, no_progress, command, .. } = cli;
        let run = RuntimeDir::from_env();
        let bars = if no_progress { Bars::Never } else { Bars::OnTerminal };
        let session = Session { run, files, called, dry_run, verbose, bars };
        dispatch(&session, command)
    });
    output::verdict(result.unwrap_or_else(|failure| {
        if let Failure::AllVolumes(_) = failure {
            errln!("{verb} operates on whole resources, but you specified a specific volume!");
        }
        errln!("{failure}");
        failure.exit_code()
    }))
}

/// What drbdadm knows and the definition of the command line does not say.
fn check_usage(cli: &Cli) -> Result<(), Failure> {
    let usage = |text: &str| Err(Failure::Usage(text.to_owned()));
    let only_checks = matches!(cli.command, Command::Dump(_) | Command::Script(Script::ShNop));
    if cli.stacked {
        return usage("stacked resources are not supported: give a third node its own copy with other means");
    }
    if cli.config_to_test.is_some() && !only_checks {
        return usage("The --config-to-test (-t) option is only allowed with the dump and sh-nop commands");
    }
    Ok(())
}

fn dispatch(session: &Session, command: Command) -> Result<u8, Failure> {
    let specs =
        |names: &Names| -> Result<Vec<ResourceSpec>, Failure> { Known::of(session)?.specs(&names.names) };
    let of_any_part = |names: &Names| Known::of(session)?.specs_of_any_part(&names.names);
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
        Command::ShowGi(names) => Ok(metadata::show_gi(session, &of_any_part(&names)?)),
        Command::GetGi(names) => Ok(metadata::get_gi(session, &of_any_part(&names)?)),
        Command::Up(names) => {
            let (specs, code) = runnable(session, &names)?;
            Ok(change::up(session, &specs).max(code))
        }
        Command::Adjust(names) => {
            let (specs, code) = runnable(session, &names)?;
            Ok(adjust::adjust(session, &specs).max(code))
        }
        Command::NetOptions(changes) => options::change(session, "net-options", Section::Net, &changes),
        Command::DiskOptions(changes) => options::change(session, "disk-options", Section::Disk, &changes),
        Command::PeerDeviceOptions(changes) => {
            options::change(session, "peer-device-options", Section::PeerDevice, &changes)
        }
        Command::ResourceOptions(changes) => {
            options::change(session, "resource-options", Section::Options, &changes)
        }
        Command::NewPeer(names) => peers::change(session, "new-peer", &names.names, peers::Change::NewPeer),
        Command::DelPeer(names) => peers::change(session, "del-peer", &names.names, peers::Change::DelPeer),
        Command::NewPath(names) => paths::change(session, "new-path", &names, paths::Change::Add),
        Command::DelPath(names) => paths::change(session, "del-path", &names, paths::Change::Remove),
        Command::Down(names) => Ok(change::down(session, &specs(&names)?)),
        Command::Attach(names) => act("attach", &names, Action::Attach),
        Command::Detach { names, force } => act("detach", &names, Action::Detach { force }),
        Command::Connect { names, discard_my_data, tentative } => {
            Ok(change::connect(session, &specs(&names)?, discard_my_data, tentative))
        }
        Command::Disconnect { names, force: false } => act("disconnect", &names, Action::Disconnect),
        Command::Disconnect { names, force: true } => act("disconnect", &names, Action::ForceDisconnect),
        Command::Primary { names, force } => act("primary", &names, Action::Primary { force }),
        Command::Secondary { names, force } => act("secondary", &names, Action::Secondary { force }),
        Command::Verify(options) => {
            let chosen = Known::of(session)?.specs_with_volume(&options.names.names)?;
            Ok(change::verify(session, chosen, &options))
        }
        Command::Invalidate {
            invalidation: Invalidation { names, reset_bitmap, following },
            sync_from_peer_node_id,
        } => Ok(metadata::invalidate(
            session,
            &specs(&names)?,
            reset_bitmap == YesNo::Yes,
            sync_from_peer_node_id,
            following,
        )),
        Command::InvalidateRemote(Invalidation { names, reset_bitmap, following }) => {
            let all = reset_bitmap == YesNo::Yes;
            Ok(change::invalidate_remote(session, &specs(&names)?, all, following))
        }
        Command::NewCurrentUuid(NewGeneration { names, force_resync: true, .. }) => {
            Ok(change::force_resync(session, &specs(&names)?))
        }
        Command::NewCurrentUuid(NewGeneration { names, clear_bitmap, .. }) => {
            act("new-current-uuid", &names, Action::NewCurrentUuid { clear_bitmap })
        }
        Command::AdoptMd { names, force } => Ok(metadata::adopt(session, &specs(&names)?, force)),
        Command::ResyncUndo { names, force } => Ok(undo::resync_undo(session, &specs(&names)?, force)),
        Command::Resize(options) => {
            let chosen = Known::of(session)?.specs_with_volume(&options.names.names)?;
            Ok(resize::resize(session, chosen, &options))
        }
        Command::PauseSync(names) => act("pause-sync", &names, Action::PauseSync),
        Command::ResumeSync(names) => act("resume-sync", &names, Action::ResumeSync),
        Command::Outdate(names) => Ok(metadata::outdate(session, &specs(&names)?)),
        Command::SuspendIo(names) => {
            Ok(change::act(session, "suspend-io", &of_any_part(&names)?, Action::SuspendIo))
        }
        Command::ResumeIo(names) => {
            Ok(change::act(session, "resume-io", &of_any_part(&names)?, Action::ResumeIo))
        }
        Command::Status { names, options, attention } => {
            attention::status(session, &names.names, &options, &attention)
        }
        Command::Doctor { names, json } => doctor::doctor(session, &names.names, json),
        Command::Top { once: true } => print(&top::once(session)?),
        Command::Top { once: false } => top::run(session).map(|()| 0),
        Command::Explain { markdown: true, .. } => print(&page::markdown()),
        Command::Explain { code: None, .. } => print(&page::list()),
        Command::Explain { code: Some(code), .. } => {
            let unknown =
                || Failure::Config(format!("{code} is no trouble's code; 'tandemadm explain' lists them"), 1);
            print(&page::text(diagnosis::find(&code).ok_or_else(unknown)?))
        }
        Command::Events2 { name, options } => {
            events2::events2(session, name.as_deref().filter(|name| *name != "all"), &options)
        }
        Command::Show(show) => show_running::show(session, &show),
        Command::Role(names) => Ok(show::role(session, &specs(&names)?)),
        Command::Cstate(names) => Ok(show::cstate(session, &specs(&names)?)),
        Command::Dstate(names) => {
            Ok(show::dstate(session, Known::of(session)?.specs_with_volume(&names.names)?))
        }
        Command::WaitConInt(limits) => {
            let config = config(session)?;
            let refresh = config.dialog_refresh();
            let all = waiting::all(&Known::Configured(Box::new(config)), &[], &limits)?;
            Ok(wait::at_boot(session, &all, refresh))
        }
        Command::WaitConnect(options) => Ok(wait::connect(
            session,
            &waiting::all(&Known::of(session)?, &options.names.names, &options.limits)?,
        )),
        Command::WaitSync { wait, progress } => {
            let waiting = waiting::all(&Known::of(session)?, &wait.names.names, &wait.limits)?;
            Ok(wait::sync(session, &waiting, progress))
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
        Command::Completion { shell } => {
            print(&completion::script(shell).map_err(|e| Failure::System("writing the script", e))?)
        }
        Command::Man { folder } => {
            let write = |page: &tandem_man::Page| page.write_below(&folder);
            man::pages().iter().try_for_each(write).map_err(|e| Failure::System("writing the pages", e))?;
            Ok(0)
        }
        Command::HiddenCommands => print(&hidden_commands()),
        Command::Syncer(_) => Err(Failure::Usage(SYNCER.to_owned())),
        Command::LowLevel(command) => low_level::run(session, &command),
        Command::Script(script) => print(&scripts::answer(&config(session)?, &script)?),
        Command::ShExecDetached { program } => Err(exec_failure(&program)),
    }
}

/// The resources named that this version can run, and the exit code that says whether that is all of them. What is to be said of
/// the configuration is said.
fn runnable(session: &Session, names: &Names) -> Result<(Vec<ResourceSpec>, u8), Failure> {
    let config = config(session)?;
    config.print_warnings();
    let specs = config.specs(&names.names)?;
    config.print_missing_addresses(&specs);
    let left_out = config.left_out(&names.names);
    left_out.iter().for_each(|why| errln!("{why}\n"));
    Ok((specs, left_out.iter().map(Failure::exit_code).max().unwrap_or(0)))
}

/// Each `RES`, `RES:PEER` or `all` in turn; the highest exit code counts.
fn forget_peers(session: &Session, names: &[String]) -> Result<u8, Failure> {
    let known = Known::of(session)?;
    let mut wanted = Vec::new();
    for name in names {
        let address = Address::parse(name);
        let volume = address.volume.map_or(String::new(), |volume| format!("/{volume}"));
        for spec in known.specs(&[format!("{}{volume}", address.resource)])? {
            wanted.push(Forgotten::new(spec, address.peer)?);
        }
    }
    Ok(wanted.iter().map(|wanted| md_image::forget_peer(session, wanted)).max().unwrap_or(0))
}

const SYNCER: &str = "there is no 'syncer' any more, as in DRBD since 8.4: write its options into 'disk { }', 'net { }' and \
                      'options { }'";

/// drbdadm has those that scripts use apart, too.
fn hidden_commands() -> String {
    let mut text = "These additional commands are for scripts:\n\n".to_owned();
    for command in Cli::command().get_subcommands().filter(|command| command.is_hide_set()) {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        text += &format!("  {:<18} {about}\n", command.get_name());
    }
    text
}

fn config(session: &Session) -> Result<Config, Failure> {
    Config::load(&session.files)
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
