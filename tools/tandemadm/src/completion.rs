//! Completion of the shells' command lines: verbs and options from the definition of the command line, names from the
//! configuration.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::PathBuf;

use clap::ValueEnum;
use clap_complete::env::{EnvCompleter, Fish};
use clap_complete::{CompleteEnv, CompletionCandidate};
use tandem_config::{OPTIONS, OptionDef, Resource, Section};

use crate::address::Address;
use crate::diagnosis;
use crate::plan::COMMANDS;

/// What the shells' scripts set when they ask for candidates.
const VARIABLE: &str = "TANDEMADM_COMPLETE";
const PROGRAM: &str = "tandemadm";

/// Bash takes colons and equals signs, which names and options have, for the end of a word: the line is split at blanks
/// instead, and what stands before the last of them is taken off again.
const BASH: &str = r#"_tandemadm() {
    local line="${COMP_LINE:0:COMP_POINT}" word end before="" IFS=$' \t\n'
    local -a words
    read -r -a words <<< "$line"
    [[ "$line" == *[[:blank:]] ]] && words+=("")
    word="${words[-1]}"
    IFS=$'\013'
    COMPREPLY=( $(_CLAP_IFS="$IFS" _CLAP_COMPLETE_INDEX=$((${#words[@]} - 1)) VARIABLE=bash PROGRAM -- "${words[@]}") )
    for end in : =; do
        if [[ "$word" == *"$end"* && "$COMP_WORDBREAKS" == *"$end"* ]]; then
            before+="${word%"${word##*"$end"}"}"
            word="${word##*"$end"}"
        fi
    done
    COMPREPLY=( "${COMPREPLY[@]#"$before"}" )
    # No blank behind what a value follows.
    [[ "${COMPREPLY[*]}" == *= ]] && compopt -o nospace 2> /dev/null
    return 0
}
complete -o bashdefault -o default -F _tandemadm PROGRAM
"#;

/// The same for zsh. As a file of completions it is run at the first use of what it defines.
const ZSH: &str = r#"#compdef PROGRAM
_tandemadm() {
    local one value
    local -a open whole
    for one in "${(@f)$(_CLAP_IFS=$'\n' _CLAP_COMPLETE_INDEX=$((CURRENT - 1)) VARIABLE=zsh PROGRAM -- "${words[@]}" 2> /dev/null)}"; do
        value="${one%%:*}"
        case "$value" in
            # No blank behind what a value or a file's name follows.
            *[/=]) open+=("$one") ;;
            ?*) whole+=("$one") ;;
        esac
    done
    (( $#open )) && _describe -V values open -S ''
    (( $#whole )) && _describe -V values whole
}
if [[ "${funcstack[1]}" == _tandemadm ]]; then _tandemadm "$@"; else compdef _tandemadm PROGRAM; fi
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
    let own = |script: &str| script.replace("VARIABLE", VARIABLE).replace("PROGRAM", PROGRAM);
    match shell {
        Shell::Bash => Ok(own(BASH)),
        Shell::Zsh => Ok(own(ZSH)),
        Shell::Fish => {
            let mut script = Vec::new();
            Fish.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script)?;
            String::from_utf8(script).map_err(std::io::Error::other)
        }
    }
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

/// Resources, and the options that the command changes, with the words that are their values.
pub(crate) fn changes(current: &OsStr) -> Vec<CompletionCandidate> {
    let (text, line) = (current.to_string_lossy(), line());
    if !text.starts_with('-') {
        return names(current);
    }
    let section =
        COMMANDS.iter().find(|(_, verb)| line.iter().any(|word| word == verb)).map(|(section, _)| section);
    let options =
        OPTIONS.iter().filter(|option| section.is_some_and(|section| option.sections.contains(section)));
    let named = |option: &OptionDef| format!("--{}=", option.name);
    match text.contains('=') {
        true => {
            let values =
                |option: &'static OptionDef| option.kind.words().iter().map(move |word| named(option) + word);
            beginning_with(&text, options.flat_map(values))
        }
        false => beginning_with(&text, options.map(named).chain(["--set-defaults".to_owned()])),
    }
}

/// What `status` may remark.
pub(crate) fn codes(current: &OsStr) -> Vec<CompletionCandidate> {
    let codes = diagnosis::all().map(|trouble| trouble.code.to_owned());
    beginning_with(&current.to_string_lossy().to_uppercase(), codes)
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
    let line = line();
    let is_option = |word: &str| matches!(word, "-c" | "--config-file");
    let apart = line.windows(2).find(|pair| is_option(&pair[0])).map(|pair| pair[1].clone());
    let joined = || line.iter().find_map(|word| word.strip_prefix("--config-file=").map(str::to_owned));
    let file = apart.or_else(joined).map(PathBuf::from);
    tandem_config::Config::load(file.as_deref()).ok()
}

/// What stands on the shell's command line.
fn line() -> Vec<String> {
    std::env::args().skip_while(|word| word != "--").skip(1).collect()
}
