//! What `--help` says.

#![allow(clippy::unwrap_used)]

use std::fmt::Write;

use clap::{Command, CommandFactory};
use tandemadm::cli::Cli;

/// Verbs whose help is compared to the letter.
const TO_THE_LETTER: &[&str] =
    &["create-md", "primary", "connect", "disconnect", "wait-connect", "wait-con-int"];

fn leaves(command: Command, before: &str, found: &mut Vec<(String, Command)>) {
    for one in command.get_subcommands().cloned() {
        let name = format!("{before}{}", one.get_name());
        match one.has_subcommands() {
            true => leaves(one, &format!("{name} "), found),
            false => found.push((name, one)),
        }
    }
}

fn verbs() -> Vec<(String, Command)> {
    let mut found = Vec::new();
    leaves(Cli::command(), "", &mut found);
    found
}

#[test]
fn the_help_of_a_verb_is_worded_as_it_was() {
    let mut text = String::new();
    for (name, mut verb) in verbs().into_iter().filter(|(name, _)| TO_THE_LETTER.contains(&name.as_str())) {
        // Wide enough that nothing is wrapped.
        verb = verb.term_width(1000);
        let _ = writeln!(text, "== {name}\n{}", verb.render_long_help());
    }
    insta::assert_snapshot!(text);
}

/// Of every verb, whatever the terminal's width; what cannot be broken is an option with its values.
#[test]
fn help_is_wrapped_at_the_terminals_width() {
    for (name, verb) in verbs() {
        for width in [60, 80] {
            let help = verb.clone().term_width(width).render_long_help().to_string();
            let long = help.lines().find(|line| line.len() > width && line.trim_start().contains(' '));
            assert_eq!(long.filter(|line| !line.contains("Usage: ")), None, "{name} in {width} columns");
        }
    }
}

/// Of every verb: what it is for, how it is called, and what each of its options and names means.
#[test]
fn no_verb_is_without_help() {
    for (name, mut verb) in verbs() {
        let help = verb.render_long_help().to_string();
        let about = help.lines().next().unwrap_or_default();
        assert!(about.len() > 10 && !about.starts_with("Usage"), "{name}: {help}");
        assert!(help.contains("\nUsage: "), "{name}: {help}");
        for argument in verb.get_arguments().filter(|argument| !argument.is_hide_set()) {
            let said = argument.get_help().map(|said| said.to_string()).unwrap_or_default();
            assert!(said.len() > 5, "{name}: {} is not explained", argument.get_id());
        }
    }
}
