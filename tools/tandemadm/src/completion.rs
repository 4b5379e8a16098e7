//! Completion of the shells' command lines: verbs and options from the definition of the command line, names from the
//! configuration.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::PathBuf;

use clap::ValueEnum;
use clap_complete::env::{EnvCompleter, Fish, Zsh};
use clap_complete::{CompleteEnv, CompletionCandidate};
use tandem_config::{OPTIONS, Resource, Section};

use crate::address::Address;

/// What the shells' scripts set when they ask for candidates.
const VARIABLE: &str = "TANDEMADM_COMPLETE";
const PROGRAM: &str = "tandemadm";

/// Bash takes a colon for the end of a word, which names have: the line is split at blanks instead, and what stands before
/// the last colon is taken off again.
const BASH: &str = r#"_tandemadm() {
    local line="${COMP_LINE:0:COMP_POINT}" word before IFS=$' \t\n'
    local -a words
    read -r -a words <<< "$line"
    [[ "$line" == *[[:blank:]] ]] && words+=("")
    word="${words[-1]}"
    IFS=$'\013'
    COMPREPLY=( $(_CLAP_IFS="$IFS" _CLAP_COMPLETE_INDEX=$((${#words[@]} - 1)) VARIABLE=bash PROGRAM -- "${words[@]}") )
    if [[ "$word" == *:* && "$COMP_WORDBREAKS" == *:* ]]; then
        before="${word%"${word##*:}"}"
        COMPREPLY=( "${COMPREPLY[@]#"$before"}" )
    fi
}
complete -o bashdefault -o default -F _tandemadm PROGRAM
"#;

/// A shell whose command lines are completed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Shell {
    /// GNU's.
    Bash,
    /// The Z shell.
    Zsh,
    /// The friendly one.
    Fish,
}

/// What a shell has to load.
pub fn script(shell: Shell) -> std::io::Result<String> {
    let mut script = Vec::new();
    match shell {
        Shell::Bash => {
            return Ok(BASH.replace("VARIABLE", VARIABLE).replace("PROGRAM", PROGRAM));
        }
        Shell::Zsh => {
            Zsh.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script)?;
            // As a file of completions it is run at the first use of what it defines.
            script.extend_from_slice(
                b"[[ \"${funcstack[1]}\" == _tandemadm ]] && _clap_dynamic_completer_tandemadm \"$@\"\n",
            );
        }
        Shell::Fish => Fish.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script)?,
    }
    String::from_utf8(script).map_err(std::io::Error::other)
}

/// Answers a shell's script and ends the process, if it was one that called.
pub fn answer(definition: impl Fn() -> clap::Command) {
    CompleteEnv::with_factory(definition).var(VARIABLE).complete();
}

/// `all`, resources, their peers and volumes.
pub(crate) fn names(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else { return Vec::new() };
    let (config, node) = (configuration(), tandem_config::node_name());
    let resources = config.iter().flat_map(|config| config.for_node(&node));
    let named = Address::parse(current).resource;
    let mut candidates = Vec::new();
    if !current.contains(['/', ':']) {
        candidates.push("all".to_owned());
    }
    for resource in resources {
        match current.contains(['/', ':']) {
            true if resource.name == named => candidates.extend(parts(resource, current, &node)),
            true => {}
            false => candidates.push(resource.name.clone()),
        }
    }
    // Who does not think of numbers is not shown them.
    if !current.is_empty() && ("minor-".starts_with(current) || current.starts_with("minor-")) {
        let locals = config.iter().flat_map(|config| config.for_node(&node));
        let volumes = locals.filter_map(|resource| resource.local(&node)).flat_map(|host| &host.volumes);
        candidates.extend(volumes.map(|volume| format!("minor-{}", volume.minor)));
    }
    beginning_with(current, candidates)
}

/// `RES:PEER` or, behind a slash, each volume of what stands before it.
fn parts(resource: &Resource, current: &str, node: &str) -> Vec<String> {
    match current.split_once('/') {
        None => {
            resource.peers(node).iter().map(|peer| format!("{}:{}", resource.name, peer.name())).collect()
        }
        Some((front, _)) => {
            let volumes = resource.local(node).into_iter().flat_map(|host| &host.volumes);
            volumes.map(|volume| format!("{front}/{}", volume.number)).collect()
        }
    }
}

/// The hosts of this node's resources.
pub(crate) fn nodes(current: &OsStr) -> Vec<CompletionCandidate> {
    let (config, node) = (configuration(), tandem_config::node_name());
    let resources = config.iter().flat_map(|config| config.for_node(&node));
    let hosts = resources.flat_map(|resource| resource.hosts.iter().map(|host| host.name()));
    beginning_with(&current.to_string_lossy(), hosts)
}

/// The sections and options of the configuration.
pub(crate) fn options(current: &OsStr) -> Vec<CompletionCandidate> {
    let sections = Section::ALL.into_iter().map(Section::keyword).filter(|keyword| !keyword.is_empty());
    let all = sections.chain(OPTIONS.iter().map(|option| option.name)).map(str::to_owned);
    beginning_with(&current.to_string_lossy(), all)
}

fn beginning_with(current: &str, all: impl IntoIterator<Item = String>) -> Vec<CompletionCandidate> {
    let fitting: BTreeSet<String> = all.into_iter().filter(|one| one.starts_with(current)).collect();
    fitting.into_iter().map(CompletionCandidate::new).collect()
}

/// The one that the line names, or the default one. Where there is none there is nothing to complete.
fn configuration() -> Option<tandem_config::Config> {
    let line: Vec<String> = std::env::args().skip_while(|word| word != "--").skip(1).collect();
    let is_option = |word: &str| matches!(word, "-c" | "--config-file");
    let apart = line.windows(2).find(|pair| is_option(&pair[0])).map(|pair| pair[1].clone());
    let joined = || line.iter().find_map(|word| word.strip_prefix("--config-file=").map(str::to_owned));
    let file = apart.or_else(joined).map(PathBuf::from);
    tandem_config::Config::load(file.as_deref()).ok()
}
