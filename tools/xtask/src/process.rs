//! Running other programs.

use std::error::Error;
use std::process::{Command, Output};

/// The result of everything here; the error is a sentence for the terminal.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Runs a program to its end; any exit status but 0 is an error that names the command.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|e| format!("cannot start {}: {e}", shown(command)))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{} failed: {status}", shown(command)).into()),
    }
}

/// Runs a program to its end and keeps what it printed.
pub(crate) fn output(command: &mut Command) -> Result<Output> {
    command.output().map_err(|e| format!("cannot start {}: {e}", shown(command)).into())
}

/// Runs a program that must succeed and returns its standard output.
pub(crate) fn stdout(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{} failed: {}\n{said}", shown(command), output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The command as one would type it: the program's name without its folder.
pub(crate) fn shown(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let mut line = program.rsplit('/').next().unwrap_or_default().to_owned();
    for arg in command.get_args() {
        let arg = arg.to_string_lossy();
        let quote = if arg.contains([' ', '?', '*', '&', ';', '$']) { "'" } else { "" };
        line.push_str(&format!(" {quote}{arg}{quote}"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_named() {
        let error = run(&mut Command::new("false")).unwrap_err().to_string();
        assert!(error.starts_with("false failed"), "{error}");
        let error = run(&mut Command::new("/no/such/program")).unwrap_err().to_string();
        assert!(error.contains("cannot start program"), "{error}");
    }

    #[test]
    fn commands_are_shown_as_typed() {
        let mut command = Command::new("/usr/bin/nbdcopy");
        command.args(["a.img", "nbd+unix:///r0?socket=/s"]);
        assert_eq!(shown(&command), "nbdcopy a.img 'nbd+unix:///r0?socket=/s'");
    }
}
