//! Two machines with a replicated device, and a prompt: for looking around.

use std::io::BufRead;

use super::lab::Lab;
use super::machine::Machine;
use super::tandem::Tandem;
use crate::process::Result;

const DISK_BYTES: u64 = 128 << 20;
const USAGE: &str = "Each line is a command for a machine, as in: n1 tandemadm status r0. 'n1 off' and 'n1 on' are its \
    switch. The end of the input ends the machines.";

/// Takes lines from standard input until it ends.
pub(super) fn run() -> Result<()> {
    let lab = Lab::prepare("shell")?;
    Tandem.prepare_device(&lab)?;
    let (mut n1, mut n2) = (lab.machine(1, DISK_BYTES)?, lab.machine(2, DISK_BYTES)?);
    lab.boot(&mut [&mut n1, &mut n2])?;
    Tandem.install_device(&mut n1)?;
    Tandem.install_device(&mut n2)?;
    Tandem.create_device(&mut n1, &mut n2)?;
    println!("{USAGE}");
    for line in std::io::stdin().lock().lines() {
        let done = match line?.split_once(' ') {
            Some(("n1", command)) => type_on(&lab, &mut n1, command),
            Some(("n2", command)) => type_on(&lab, &mut n2, command),
            _ => Err(USAGE.into()),
        };
        match done {
            Ok(said) => println!("{}", said.trim_end()),
            Err(error) => println!("{error}"),
        }
    }
    Ok(())
}

fn type_on(lab: &Lab, machine: &mut Machine, command: &str) -> Result<String> {
    match command {
        "off" => machine.cut_power().map(|()| String::new()),
        "on" => {
            lab.boot(&mut [&mut *machine])?;
            Tandem.install_device(machine).map(|()| String::new())
        }
        command => machine.sh(command),
    }
}
