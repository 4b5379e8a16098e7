//! `net-options` and its kin: single options of a resource that is up.

use tandem_config::{Kind, OPTIONS, OptionDef, Section, Support, Takes};
use tandem_control::{Request, ResourceSpec};

use super::known::Known;
use crate::cli::Changes;
use crate::failure::Failure;
use crate::output::{errln, out};
use crate::plan::Plan;
use crate::session::Session;
use crate::settings::{self, Setting};

/// Options as they stand on the command line.
pub(super) struct Wanted {
    resources: Vec<String>,
    /// What is not named has its default.
    pub(super) set_defaults: bool,
    /// With their values; a flag may stand alone.
    named: Vec<(&'static OptionDef, String)>,
}

/// Changes what is named, or sets what the configuration says.
pub(crate) fn change(
    session: &Session,
    word: &str,
    section: Section,
    changes: &Changes,
) -> Result<u8, Failure> {
    let wanted = Wanted::parse(word, section, &changes.words)?;
    if wanted.resources.is_empty() {
        return Err(Failure::Config("name a resource, or 'all'".into(), 1));
    }
    let specs = Known::of(session)?.specs(&wanted.resources)?;
    Ok(session.for_each(word, &specs, |spec| {
        let status = session.require_status(&spec.name)?;
        let new = wanted.applied(section, &status.spec, spec)?;
        if session.dry_run {
            out!("{}", Plan::new(&status, &new));
            return Ok(());
        }
        if new == status.spec {
            return Ok(());
        }
        session.change(&Request::Change { spec: Box::new(new) })
    }))
}

impl Wanted {
    pub(super) fn parse(command: &str, section: Section, words: &[String]) -> Result<Wanted, Failure> {
        let usage = |text: String| Failure::Config(text, 1);
        let mut wanted = Wanted { resources: Vec::new(), set_defaults: false, named: Vec::new() };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.strip_prefix("--") {
                None => wanted.resources.push(word.clone()),
                Some("set-defaults") => wanted.set_defaults = true,
                Some(option) => {
                    let (name, value) = match option.split_once('=') {
                        Some((name, value)) => (name, Some(value.to_owned())),
                        None => (option, None),
                    };
                    let known = named(section, name);
                    let unknown = || usage(unknown_option(command, section, name));
                    let known = known.ok_or_else(unknown)?;
                    let value = match (value, known.kind) {
                        (Some(value), _) => value,
                        (None, Kind::Flag { .. }) => "yes".to_owned(),
                        // As getopt has it.
                        (None, _) => match words.next().filter(|word| !word.starts_with('-')) {
                            Some(next) => next.clone(),
                            None => {
                                return Err(usage(format!(
                                    "{command}: --{name} needs a value: --{name}=VALUE"
                                )));
                            }
                        },
                    };
                    wanted.named.push((known, value));
                }
            }
        }
        Ok(wanted)
    }

    /// The resource as it shall be; what the configuration would say to that is said.
    pub(super) fn applied(
        &self,
        section: Section,
        running: &ResourceSpec,
        configured: &ResourceSpec,
    ) -> Result<ResourceSpec, Failure> {
        let whole = settings::with_peers(running, configured);
        let settings = self.settings(section, &whole, configured)?;
        let (changed, warnings) = settings::applied(&whole, &settings)?;
        for (option, _) in &self.named {
            let about = |text: &String| text.contains(&format!("`{}`", option.name));
            warnings.iter().map(ToString::to_string).filter(about).for_each(|warning| errln!("{warning}\n"));
        }
        Ok(ResourceSpec { peers: running.peers.clone(), ..changed })
    }

    /// All settings of the resource as they shall be. Those not named keep what they have.
    fn settings(
        &self,
        section: Section,
        running: &ResourceSpec,
        configured: &ResourceSpec,
    ) -> Result<Vec<Setting>, Failure> {
        let mut all = settings::of(running);
        if !self.set_defaults && self.named.is_empty() {
            let from_file = settings::of(configured);
            all.retain(|setting| setting.section != section);
            all.extend(from_file.into_iter().filter(|setting| setting.section == section));
        }
        for (option, value) in &self.named {
            match all.iter_mut().find(|setting| setting.name == option.name) {
                Some(setting) => setting.value.clone_from(value),
                None if option.support == Support::Supported => {
                    return Err(Failure::Config(from_the_file(option, &running.name), 10));
                }
                // The configuration says why it has no effect, or is refused.
                None => all.push(Setting { section, name: option.name, value: value.clone() }),
            }
        }
        if self.set_defaults {
            // What is not said has its default.
            let named = |setting: &Setting| self.named.iter().any(|(option, _)| option.name == setting.name);
            all.retain(|setting| setting.section != section || named(setting));
        }
        Ok(all)
    }
}

/// The section's option of this name, or the only one that begins so, as getopt has it.
fn named(section: Section, name: &str) -> Option<&'static OptionDef> {
    let mut begin_so =
        OPTIONS.iter().filter(|o| o.sections.contains(&section) && o.name.starts_with(name)).peekable();
    let whole = begin_so.clone().find(|o| o.name == name);
    whole.or_else(|| begin_so.next().filter(|_| begin_so.peek().is_none()))
}

fn unknown_option(command: &str, section: Section, name: &str) -> String {
    let names = OPTIONS.iter().filter(|option| option.sections.contains(&section)).map(|option| option.name);
    let near = tandem_config::language::nearest(name, names);
    let hint = near.map_or(String::new(), |near| format!("; did you mean '--{near}'?"));
    format!("{command}: there is no option '--{name}'{hint}")
}

/// What only the file can say.
fn from_the_file(option: &OptionDef, resource: &str) -> String {
    let how = match option.takes {
        Takes::WithNextUp => format!("'tandemadm down {resource}' and 'tandemadm up {resource}'"),
        _ => format!("'tandemadm adjust {resource}'"),
    };
    format!("{} is not set here: write it into the configuration; it counts with {how}", option.name)
}
