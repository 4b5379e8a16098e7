//! Who may go on alone, as a third party remembers it: one holder for each resource, until it gives the claim back.
//!
//! A claim is on disk before it is granted. In a shared folder each claim is a file that comes into being in one step
//! (`link`), and so does a witness keep its own: whoever is killed at any moment, at most one node has been told yes.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What comes of a claim.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Answer {
    /// It is yours.
    Granted,
    /// It is another's.
    Held(String),
}

/// A folder with a file for each claim.
pub(super) struct Claims {
    folder: PathBuf,
}

impl Claims {
    /// The claims in this folder, which is made if it is missing.
    pub(super) fn open(folder: &Path) -> io::Result<Claims> {
        fs::create_dir_all(folder)?;
        Ok(Claims { folder: folder.to_owned() })
    }

    /// Grants the claim if nobody else holds it. Asking again changes nothing.
    pub(super) fn claim(&self, what: &str, who: &str) -> io::Result<Answer> {
        let path = self.path(what)?;
        let draft = self.draft(&path, who)?;
        let linked = fs::hard_link(&draft, &path);
        // A draft is nothing to anybody.
        let _ = fs::remove_file(&draft);
        match linked {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let holder = fs::read_to_string(&path)?;
                if holder != who {
                    return Ok(Answer::Held(holder));
                }
            }
            Err(error) => return Err(error),
        }
        // Also when it was there before: whoever made it may have been killed before this.
        File::open(&self.folder)?.sync_all()?;
        Ok(Answer::Granted)
    }

    /// Gives a claim back; one that is not held by `who` stays.
    pub(super) fn release(&self, what: &str, who: &str) -> io::Result<()> {
        let path = self.path(what)?;
        match fs::read_to_string(&path) {
            Ok(holder) if holder == who => {
                fs::remove_file(&path)?;
                File::open(&self.folder)?.sync_all()
            }
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The holder's name in a file of its own, durable.
    fn draft(&self, path: &Path, who: &str) -> io::Result<PathBuf> {
        let mut random = [0; 8];
        io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut random)?;
        let draft = path.with_extension(format!("draft-{:016x}", u64::from_ne_bytes(random)));
        let mut file = File::create_new(&draft)?;
        file.write_all(who.as_bytes())?;
        file.sync_all()?;
        Ok(draft)
    }

    fn path(&self, what: &str) -> io::Result<PathBuf> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "@,._+-".contains(c);
        if what.is_empty() || what.len() > 200 || what.starts_with('.') || !what.chars().all(plain) {
            return Err(io::Error::new(ErrorKind::InvalidInput, format!("'{what}' cannot be claimed")));
        }
        Ok(self.folder.join(format!("{what}.claim")))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    fn with_folder(name: &str, test: impl FnOnce(&Path)) {
        let folder = std::env::temp_dir().join(format!("tandem-claims-{name}-{}", std::process::id()));
        test(&folder);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_claim_has_one_holder_until_that_one_gives_it_back() {
        with_folder("one", |folder| {
            let claims = Claims::open(folder).unwrap();
            assert_eq!(claims.claim("r0@a,b", "a").unwrap(), Answer::Granted);
            assert_eq!(claims.claim("r0@a,b", "a").unwrap(), Answer::Granted);
            assert_eq!(claims.claim("r0@a,b", "b").unwrap(), Answer::Held("a".into()));
            assert_eq!(claims.claim("r1@a,b", "b").unwrap(), Answer::Granted);
            claims.release("r0@a,b", "b").unwrap();
            // It outlives the process.
            let claims = Claims::open(folder).unwrap();
            assert_eq!(claims.claim("r0@a,b", "b").unwrap(), Answer::Held("a".into()));
            claims.release("r0@a,b", "a").unwrap();
            claims.release("r0@a,b", "a").unwrap();
            assert_eq!(claims.claim("r0@a,b", "b").unwrap(), Answer::Granted);
            let left: Vec<_> = fs::read_dir(folder).unwrap().flatten().map(|f| f.file_name()).collect();
            assert_eq!(left.len(), 2, "{left:?}");
        });
    }

    #[test]
    fn of_many_who_claim_at_once_one_is_told_yes() {
        with_folder("many", |folder| {
            let barrier = Barrier::new(8);
            let claim = |n: usize| {
                let claims = Claims::open(folder).unwrap();
                barrier.wait();
                claims.claim("r0", &format!("node{n}")).unwrap() == Answer::Granted
            };
            let granted: Vec<bool> = thread::scope(|scope| {
                let claim = &claim;
                let threads: Vec<_> = (0..8).map(|n| scope.spawn(move || claim(n))).collect();
                threads.into_iter().map(|t| t.join().unwrap()).collect()
            });
            assert_eq!(granted.iter().filter(|yes| **yes).count(), 1);
        });
    }

    #[test]
    fn names_do_not_lead_elsewhere() {
        with_folder("names", |folder| {
            let claims = Claims::open(folder).unwrap();
            for name in ["", "../r0", "a/b", ".hidden", "a b", "a\nb", &"x".repeat(201)] {
                assert!(claims.claim(name, "a").is_err(), "{name}");
            }
        });
    }
}
