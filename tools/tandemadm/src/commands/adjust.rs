//! `adjust`: what is up and what the configuration says are compared, and only what differs is changed.

use tandem_control::{Action, Request, ResourceSpec};

use super::change;
use crate::failure::Failure;
use crate::output::{errln, out, outln};
use crate::plan::{Plan, Step};
use crate::session::Session;

pub(crate) fn adjust(session: &Session, specs: &[ResourceSpec]) -> u8 {
    each(session, specs, &|_, _| ())
}

/// The same, with a line for every step, in drbdadm's words.
pub(crate) fn with_progress(session: &Session, specs: &[ResourceSpec]) -> u8 {
    if session.dry_run {
        return adjust(session, specs);
    }
    out!("[");
    let code = each(session, specs, &|step, name| out!("\n{:>15}: {name}", stage(step)));
    outln!("\n]");
    code
}

fn stage(step: Step) -> &'static str {
    match step {
        Step::Detach => "prepare disk",
        Step::Disconnect => "prepare net",
        Step::Change => "adjust net",
        Step::Up => "create res",
        Step::Attach => "adjust disk",
        Step::Connect => "attempt to connect",
    }
}

/// `begins` is told of every step before it is taken, and of the resource.
fn each(session: &Session, specs: &[ResourceSpec], begins: &dyn Fn(Step, &str)) -> u8 {
    session.for_each("adjust", specs, |spec| match session.find_status(&spec.name)? {
        None if session.dry_run => {
            outln!("tandemadm up {}", spec.name);
            Ok(())
        }
        None => {
            begins(Step::Up, &spec.name);
            change::bring_up(session, spec)
        }
        Some(status) => {
            let plan = Plan::new(&status, spec);
            if session.dry_run {
                out!("{plan}");
                return Ok(());
            }
            carry_out(session, &plan, &status.spec, begins)?;
            let left = plan.left_to_do();
            if left.is_empty() { Ok(()) } else { Err(Failure::Config(left.join("\n"), 10)) }
        }
    })
}

/// What was given up is taken again, whatever has come of the change.
fn carry_out(
    session: &Session,
    plan: &Plan,
    running: &ResourceSpec,
    begins: &dyn Fn(Step, &str),
) -> Result<(), Failure> {
    let (down, up): (Vec<Step>, Vec<Step>) = plan.steps.iter().partition(|step| **step <= Step::Change);
    let changed = down.into_iter().try_for_each(|step| {
        begins(step, &running.name);
        match step {
            Step::Detach => session.act(&running.name, Action::Detach { force: false }),
            Step::Disconnect => session.act(&running.name, Action::Disconnect),
            _ => session.change(&Request::Change { spec: Box::new(plan.becomes.clone()) }),
        }
    });
    if up.is_empty() {
        return changed;
    }
    up.iter().for_each(|step| begins(*step, &running.name));
    let spec = if changed.is_ok() { plan.becomes.clone() } else { running.clone() };
    let brought_up = session.change(&Request::Up { spec });
    changed.and(brought_up)?;
    plan.note().iter().for_each(|note| errln!("{note}"));
    Ok(())
}
