//! The manual pages have everything that the definitions have.

#![allow(clippy::unwrap_used)]

use clap::{Command, CommandFactory, Parser};
use tandem_config::{Config, OPTIONS, WORDS, WordDef};
use tandemadm::cli::Cli;
use tandemadm::man;

fn roff(text: &str) -> String {
    text.replace('-', "\\-")
}

fn verbs<'a>(command: &'a Command, before: &str, found: &mut Vec<(String, &'a Command)>) {
    for one in command.get_subcommands() {
        let name = format!("{before}{}", one.get_name());
        match one.has_subcommands() {
            true => verbs(one, &format!("{name} "), found),
            false => found.push((name, one)),
        }
    }
}

#[test]
fn every_verb_and_each_of_its_options_is_described() {
    let [page, _] = man::pages();
    let (command, mut found) = (Cli::command(), Vec::new());
    verbs(&command, "", &mut found);
    assert!(found.len() > 50);
    for (name, verb) in found {
        let begin = format!("\n.SS\n\\fB{}\\fR", roff(&name));
        let text = page.roff().split(&begin).nth(1).unwrap_or_else(|| panic!("{name} is missing"));
        let text = text.split("\n.SS\n").next().unwrap();
        let about = verb.get_about().map(|about| about.to_string()).unwrap_or_default();
        let word = about.split_whitespace().next().unwrap_or_else(|| panic!("{name} has no text"));
        assert!(text.contains(word), "{name}");
        for argument in verb.get_arguments().filter(|argument| !argument.is_hide_set()) {
            if let Some(long) = argument.get_long() {
                assert!(text.contains(&format!("\\fB\\-\\-{}\\fR", roff(long))), "{name} --{long}");
            }
            assert!(argument.get_help().is_some(), "{name} {}", argument.get_id());
        }
    }
}

#[test]
fn every_option_of_the_configuration_is_described() {
    let [_, page] = man::pages();
    for option in OPTIONS.iter() {
        let begin = format!("\n.TP\n\\fB{}\\fR ", roff(option.name));
        assert!(page.roff().contains(&begin), "{} is missing", option.name);
    }
    for text in ["IP:PORT", "Default: `C`", "seconds"].map(|text| roff(&text.replace("`C`", "\\fBC\\fR"))) {
        assert!(page.roff().contains(&text), "{text}");
    }
}

#[test]
fn every_word_of_the_configuration_is_explained() {
    let [_, page] = man::pages();
    for WordDef { name, help, .. } in WORDS {
        let begin = format!("\n.TP\n\\fB{}\\fR ", roff(name));
        assert!(page.roff().contains(&begin) && help.len() > 10, "{name} is not explained");
    }
}

#[test]
fn the_examples_of_commands_are_understood() {
    let page = man::pages()[0].roff().replace("\\-", "-");
    let examples = page.split(".SH \"EXAMPLES\"").nth(1).unwrap().split(".SH").next().unwrap();
    let lines = examples.lines().filter_map(|line| line.strip_prefix("\\fB")?.strip_suffix("\\fR"));
    let commands: Vec<&str> = lines.flat_map(|line| line.split(" && ")).collect();
    assert!(commands.len() > 5, "{examples}");
    for command in commands {
        Cli::try_parse_from(command.split(' ')).unwrap_or_else(|error| panic!("{command}: {error}"));
    }
}

#[test]
fn the_example_can_be_run() {
    let page = man::pages()[1].roff().to_owned();
    let example = page.split(".nf\n").nth(1).unwrap().split(".fi").next().unwrap().replace("\\-", "-");
    let config = Config::parse("example".as_ref(), &example).unwrap_or_else(|error| panic!("{error}"));
    assert!(config.resources[0].pair("node1").is_ok());
}
