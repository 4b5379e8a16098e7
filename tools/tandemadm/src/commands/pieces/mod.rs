//! drbdsetup's commands that make, change and take away the pieces of a resource. What they come to is worked out from what the
//! daemon knows so far; it keeps the pieces and makes the resource once it is whole.

mod wish;

use tandem_control::{Action, Request};

use crate::daemon_start;
use crate::drbdsetup::Piece;
use crate::failure::Failure;
use crate::output::{self, errln};
use crate::session::{CalledAs, Session};
use wish::Wish;

/// What drbdsetup ends with if it is called wrongly.
const USAGE_CODE: u8 = 20;

/// Does what the command line asks. Returns the exit code.
pub fn run(piece: Piece) -> u8 {
    let session = Session::without_config(CalledAs::Drbdsetup(piece.command.clone()));
    output::verdict(match carry_out(&session, &piece) {
        Ok(()) => 0,
        Err(failure) => {
            errln!("{failure}");
            match failure.exit_code() {
                // drbdadm's, for a line that makes no sense.
                1 | 2 => USAGE_CODE,
                code => code,
            }
        }
    })
}

fn carry_out(session: &Session, piece: &Piece) -> Result<(), Failure> {
    if piece.command == "new-resource" {
        daemon_start::ensure_running(&session.run)?;
    }
    let Wish { was, becomes, leaves, attaches, connects } = Wish::new(piece, &session.status(None)?)?;
    let Some(name) = was.as_ref().or(becomes.as_ref()).map(|spec| spec.name.clone()) else { return Ok(()) };
    if leaves {
        session.act(&name, Action::Disconnect)?;
    }
    let prepared = if was == becomes {
        Ok(())
    } else {
        session.change(&Request::Prepare { was: was.map(Box::new), becomes: becomes.map(Box::new) })
    };
    if connects {
        // Whatever has come of it.
        session.act(&name, Action::Connect { discard_my_data: false, tentative: false })?;
    }
    prepared?;
    if attaches { session.act(&name, Action::Attach) } else { Ok(()) }
}
