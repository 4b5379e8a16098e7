//! The shells themselves complete commands, options and names.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::process::Command;

use support::{Node, Ran};

/// A line as far as it was typed, and what its last word may become; the shells show a single candidate in full.
const LINES: &[(&str, &[&str])] = &[
    ("tandemadm sh-minor", &["sh-minor"]),
    ("tandemadm wait-con-", &["wait-con-int"]),
    ("tandemadm primary --fo", &["--force"]),
    ("tandemadm completion fi", &["fish"]),
    ("tandemadm options al-ex", &["al-extents"]),
    ("tandemadm -c CONFIG role r", &["r0", "r1"]),
    ("tandemadm -c CONFIG status al", &["all"]),
    ("tandemadm -c CONFIG role minor-1", &["minor-1"]),
    ("tandemadm -c CONFIG connect r0:b", &["r0:bravo"]),
    ("tandemadm -c CONFIG verify r1:bravo/", &["r1:bravo/0"]),
    ("tandemadm -c CONFIG verify --from br", &["bravo"]),
    ("tandemadm -c CONFIG show r", &["r0", "r1"]),
    ("tandemadm -c CONFIG events2 --now r0", &["r0"]),
    ("tandemadm -c CONFIG del-peer r1:", &["r1:bravo"]),
    ("tandemadm -c CONFIG new-path r0:", &["r0:bravo"]),
    ("tandemadm -c CONFIG net-options r", &["r0", "r1"]),
    ("tandemadm net-options r0 --ping-i", &["--ping-int="]),
    ("tandemadm peer-device-options r0 --c-min", &["--c-min-rate="]),
    ("tandemadm resource-options r0 --on-no-quorum=su", &["--on-no-quorum=suspend-io"]),
    ("tandemadm status --color=al", &["--color=always"]),
    ("tandemadm explain T00", &["T001", "T002", "T003", "T004", "T005", "T006", "T007"]),
    ("tandemadm -c /nonexistent role r", &[]),
];

/// The lines, on a node of their own, whose `tandemadm` every shell finds first.
fn lines(node: &Node) -> Vec<(String, &'static [&'static str])> {
    let config = node.config().display().to_string();
    LINES.iter().map(|(line, candidates)| (line.replace("CONFIG", &config), *candidates)).collect()
}

fn script(node: &Node, shell: &str) -> String {
    let file = node.path(if shell == "zsh" { "_tandemadm" } else { shell });
    fs::write(&file, &node.adm(&format!("completion {shell}")).expect(0, &[]).stdout).unwrap();
    file.display().to_string()
}

fn run(node: &Node, shell: &str, arguments: &[&str]) -> String {
    let folder = node.program.parent().unwrap().display();
    let mut command = Command::new(shell);
    command.args(arguments).current_dir(node.run_dir().path()).env("TANDEM_NODE", "alpha");
    command.env("PATH", format!("{folder}:{}", std::env::var("PATH").unwrap()));
    let ran = Ran::from(command.output().unwrap_or_else(|error| panic!("{shell}: {error}")));
    ran.expect(0, &[]).stdout.clone()
}

#[test]
#[ignore = "needs bash"]
fn bash_completes() {
    let node = Node::new(1 << 20);
    let file = script(&node, "bash");
    for (line, candidates) in lines(&node) {
        let ask =
            r#"source "$1"; COMP_LINE="$2"; COMP_POINT=${#2}; _tandemadm; printf '%s\n' "${COMPREPLY[@]}""#;
        let said = run(&node, "bash", &["-c", ask, "bash", &file, &line]);
        // What stands before the last colon or equals sign of the line bash leaves as it is.
        let word = line.rsplit(' ').next().unwrap();
        let kept = word.rfind([':', '=']).map_or(0, |at| at + 1);
        let shown: Vec<&str> = candidates.iter().map(|one| &one[kept..]).collect();
        assert_eq!(said.split_whitespace().collect::<Vec<_>>(), shown, "{line}");
    }
}

#[test]
#[ignore = "needs fish"]
fn fish_completes() {
    let node = Node::new(1 << 20);
    let file = script(&node, "fish");
    for (line, candidates) in lines(&node) {
        let said = run(&node, "fish", &["-c", &format!("source {file}; complete -C '{line}'")]);
        let words: Vec<&str> = said.lines().filter_map(|line| line.split('\t').next()).collect();
        assert_eq!(words, candidates, "{line}");
    }
}

/// In a terminal, with the Tab key; the file lies where it is loaded at its first use. Where there are several candidates
/// the shell shows what they have in common.
#[test]
#[ignore = "needs zsh"]
fn zsh_completes() {
    let node = Node::new(1 << 20);
    script(&node, "zsh");
    let lines = lines(&node);
    let mut driver = format!(
        "zmodload zsh/zpty; zpty z 'TERM=dumb zsh -f -i'\n\
         zpty -w z \"PS1=''; fpath=({} \\$fpath); autoload -Uz compinit; compinit -u -D; \
         shown() {{ print -r -- \\\"<<\\$BUFFER>>\\\"; BUFFER=; }}; zle -N shown; bindkey '^G' shown; echo ready\"\n\
         zpty -r z out '*ready*ready*'\n",
        node.path("").display(),
    );
    for (line, _) in &lines {
        driver += &format!(
            "zpty -w -n z '{line}'$'\\t\\a'; zpty -r z out '*<<*>>*'; print -r -- \"${{${{out##*<<}}%%>>*}}\"\n"
        );
    }
    let said = run(&node, "zsh", &["-f", "-c", &driver]);
    for ((line, candidates), said) in lines.iter().zip(said.lines()) {
        let word = said.split_whitespace().last().unwrap();
        match candidates {
            [one] => assert_eq!(word, *one, "{line}"),
            _ => assert_eq!(said, *line),
        }
    }
    assert_eq!(said.lines().count(), lines.len(), "{said}");
}
