//! The page of a command line, from its definition.

use clap::{Arg, ArgAction, Command};

use crate::{Page, Term};

impl Page {
    /// Begins the page of a command, with everything that its definition says: how it is called, its options, its commands.
    pub fn of_command(command: &Command, section: u8) -> Page {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let summary = about.trim_end_matches('.');
        let mut page =
            Page::new(command.get_name(), section, command.get_version().unwrap_or_default(), summary);
        page.section("synopsis");
        page.line(&synopsis(command.get_name(), command).0);
        page.section("description");
        let long = command.get_long_about().map(ToString::to_string);
        page.paragraphs(&sentence(long.unwrap_or(about)));
        page.section("options");
        page.arguments(command);
        if command.has_subcommands() {
            page.section("commands");
            page.commands("", command, false);
            if command.get_subcommands().any(Command::is_hide_set) {
                page.section("commands for scripts");
                page.commands("", command, true);
            }
        }
        if let Some(text) = command.get_after_help() {
            page.section("notes");
            page.paragraphs(&text.to_string());
        }
        page
    }

    fn commands(&mut self, before: &str, command: &Command, hidden: bool) {
        for one in command.get_subcommands().filter(|one| one.is_hide_set() == hidden) {
            let name = format!("{before}{}", one.get_name());
            if one.has_subcommands() {
                self.commands(&format!("{name} "), one, false);
                continue;
            }
            self.request(".SS");
            self.line(&synopsis(&name, one).0);
            let about = one.get_long_about().or(one.get_about()).map(ToString::to_string);
            self.paragraphs(&sentence(about.unwrap_or_default()));
            self.arguments(one);
        }
    }

    /// The options first, then what stands without a dash.
    fn arguments(&mut self, command: &Command) {
        let shown: Vec<&Arg> = command.get_arguments().filter(|argument| !argument.is_hide_set()).collect();
        let (names, options): (Vec<&Arg>, Vec<&Arg>) = shown.into_iter().partition(|a| a.is_positional());
        for argument in options.into_iter().chain(names) {
            self.entry(&term(argument), &explanation(argument));
        }
    }
}

/// How a command is called: its name, that there are options, and what it is about.
fn synopsis(name: &str, command: &Command) -> Term {
    let mut line = Term::default().literal(name);
    if command.get_arguments().any(|a| !a.is_positional() && !a.is_hide_set()) {
        line = line.plain(" [").placeholder("OPTION").plain("]...");
    }
    for argument in command.get_positionals().filter(|a| !a.is_hide_set()) {
        let (open, close) = if argument.is_required_set() { (" ", "") } else { (" [", "]") };
        let more = if matches!(argument.get_action(), ArgAction::Append) { "..." } else { "" };
        line = line.plain(open).placeholder(&value_name(argument)).plain(close).plain(more);
    }
    match command.has_subcommands() {
        true => line.plain(" ").placeholder("COMMAND").plain(" ..."),
        false => line,
    }
}

fn term(argument: &Arg) -> Term {
    if argument.is_positional() {
        return Term::default().placeholder(&value_name(argument));
    }
    let mut term = Term::default();
    if let Some(short) = argument.get_short() {
        term = term.literal(&format!("-{short}"));
    }
    if let Some(long) = argument.get_long() {
        let comma = if argument.get_short().is_some() { ", " } else { "" };
        term = term.plain(comma).literal(&format!("--{long}"));
    }
    let may_be_bare = argument.get_num_args().is_some_and(|count| count.min_values() == 0);
    match takes_value(argument) {
        true if may_be_bare => term.plain("[=").placeholder(&value_name(argument)).plain("]"),
        true => term.plain(" ").placeholder(&value_name(argument)),
        false => term,
    }
}

fn takes_value(argument: &Arg) -> bool {
    matches!(argument.get_action(), ArgAction::Set | ArgAction::Append)
}

fn value_name(argument: &Arg) -> String {
    match argument.get_value_names() {
        Some(names) => names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" "),
        None => argument.get_id().as_str().to_uppercase(),
    }
}

/// With the full stop that clap has taken off.
fn sentence(mut text: String) -> String {
    if !text.is_empty() && !text.ends_with(['.', ':', '?']) {
        text.push('.');
    }
    text
}

/// What the help says, the words that are possible, and what holds without it.
fn explanation(argument: &Arg) -> String {
    let help = argument.get_long_help().or(argument.get_help()).map(ToString::to_string);
    let mut text = sentence(help.unwrap_or_default());
    if takes_value(argument) && !argument.is_positional() && argument.is_required_set() {
        text += " Required.";
    }
    let words: Vec<String> = argument
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    if takes_value(argument) && !words.is_empty() {
        text += &format!(" One of {}.", words.join(", "));
    }
    let defaults: Vec<String> =
        argument.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    if takes_value(argument) && !defaults.is_empty() {
        text += &format!(" Default: `{}`.", defaults.join(" "));
    }
    text
}
