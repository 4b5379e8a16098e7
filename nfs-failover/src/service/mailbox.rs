//! Where a wish is left. It outlives both the program that leaves it and the service that reads it, but no boot.
//!
//! A wish is a file that replaces the one before in one step, so the newest is the last to arrive, whatever the order in
//! which the service is told about them. Each has a mark of its own, by which the service remembers which it has spent,
//! and which says whose it is.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Wish;

/// The wishes for one service.
#[derive(Clone, Debug)]
pub(crate) struct Mailbox {
    wish: PathBuf,
    spent: PathBuf,
}

/// A wish and the mark that tells it from every other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Letter {
    pub(crate) wish: Wish,
    pub(crate) mark: String,
}

/// What the marks of the operator's wishes begin with.
const BY_HAND: &str = "by-hand-";

impl Letter {
    /// Whether it is the operator's.
    pub(crate) fn is_by_hand(&self) -> bool {
        self.mark.starts_with(BY_HAND)
    }
}

impl Mailbox {
    /// In the service's folder.
    pub(crate) fn new(run: &Path, service: &str) -> Mailbox {
        Mailbox {
            wish: run.join(format!("{service}.wish")),
            spent: run.join(format!("{service}.wish-spent")),
        }
    }

    /// Leaves a wish, which is then the newest, unless somebody else leaves one at the same time.
    pub(crate) fn leave(&self, wish: Wish) -> io::Result<Letter> {
        self.leave_marked(wish, "")
    }

    /// The same for the operator's.
    pub(crate) fn leave_by_hand(&self, wish: Wish) -> io::Result<Letter> {
        self.leave_marked(wish, BY_HAND)
    }

    fn leave_marked(&self, wish: Wish, whose: &str) -> io::Result<Letter> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mark = format!("{whose}{}-{}", std::process::id(), since.as_nanos());
        let word = match wish {
            Wish::Up => "up",
            Wish::Down => "down",
        };
        let draft = self.wish.with_extension(format!("wish-{mark}"));
        fs::write(&draft, format!("{word} {mark}\n"))?;
        fs::rename(&draft, &self.wish)?;
        Ok(Letter { wish, mark })
    }

    /// The newest wish, unless it is spent.
    pub(crate) fn newest(&self) -> io::Result<Option<Letter>> {
        let text = match fs::read_to_string(&self.wish) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let letter = match text.trim().split_once(' ') {
            Some(("up", mark)) => Letter { wish: Wish::Up, mark: mark.into() },
            Some(("down", mark)) => Letter { wish: Wish::Down, mark: mark.into() },
            _ => return Ok(None),
        };
        let spent = fs::read_to_string(&self.spent).unwrap_or_default();
        Ok(Some(letter).filter(|letter| letter.mark != spent))
    }

    /// A wish that shall not be granted again after a restart.
    pub(crate) fn spend(&self, letter: &Letter) -> io::Result<()> {
        fs::write(&self.spent, &letter.mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_wish_counts_until_it_is_spent() {
        let folder = std::env::temp_dir().join(format!("tandem-mailbox-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mailbox = Mailbox::new(&folder, "nfs");
        assert_eq!(mailbox.newest().unwrap(), None);
        mailbox.leave(Wish::Up).unwrap();
        let down = mailbox.leave(Wish::Down).unwrap();
        assert_eq!(mailbox.newest().unwrap().as_ref(), Some(&down));
        assert_eq!(down.wish, Wish::Down);
        mailbox.leave(Wish::Up).unwrap();
        // A spent one does not hide a later one.
        mailbox.spend(&down).unwrap();
        let up = mailbox.newest().unwrap().unwrap();
        assert_eq!((up.wish, up.is_by_hand()), (Wish::Up, false));
        mailbox.spend(&up).unwrap();
        assert_eq!(Mailbox::new(&folder, "nfs").newest().unwrap(), None);
        mailbox.leave_by_hand(Wish::Up).unwrap();
        assert!(mailbox.newest().unwrap().unwrap().is_by_hand());
        fs::remove_dir_all(&folder).unwrap();
    }
}
