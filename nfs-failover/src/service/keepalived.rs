//! keepalived's notify FIFO: its state changes in their order, which its notify scripts do not keep.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::Wish;

/// Longest line that is looked at.
const MAX_LINE_BYTES: u64 = 4096;

/// The reader of a FIFO. Each instance's new state is handed on as a wish.
pub struct Fifo<F> {
    seen: Mutex<Vec<String>>,
    wish: F,
}

impl<F: Fn(&str, Wish)> Fifo<F> {
    /// A reader.
    pub fn new(wish: F) -> Self {
        Fifo { seen: Mutex::default(), wish }
    }

    /// Reads until keepalived is gone.
    pub fn read(&self, path: &Path) -> io::Result<()> {
        let mut lines = BufReader::new(File::open(path)?);
        let mut line = Vec::new();
        loop {
            line.clear();
            if io::Read::take(&mut lines, MAX_LINE_BYTES).read_until(b'\n', &mut line)? == 0 {
                self.end();
                return Ok(());
            }
            if let Some((instance, wanted)) = understand(&String::from_utf8_lossy(&line)) {
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                if !seen.contains(&instance) {
                    seen.push(instance.clone());
                }
                (self.wish)(&instance, wanted);
            }
        }
    }

    /// Nobody elects this node any more: every instance that was seen is wished down.
    pub fn end(&self) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().for_each(|instance| (self.wish)(instance, Wish::Down));
    }
}

/// `INSTANCE "NFS" MASTER 100`. Groups are made of instances, which speak for themselves.
fn understand(line: &str) -> Option<(String, Wish)> {
    let rest = line.trim().strip_prefix("INSTANCE \"")?;
    let (instance, rest) = rest.split_once('"')?;
    let wish = match rest.split_whitespace().next()? {
        // The second is all that the winner of a healed partition gets.
        "MASTER" | "MASTER_RX_LOWER_PRI" => Wish::Up,
        "BACKUP" | "FAULT" | "STOP" | "DELETED" => Wish::Down,
        _ => return None,
    };
    Some((instance.to_owned(), wish))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_become_wishes_and_the_end_is_down() {
        let path = std::env::temp_dir().join(format!("tandem-fifo-{}", std::process::id()));
        let text = "INSTANCE \"nfs\" BACKUP 100\nGROUP \"all\" MASTER 0\nINSTANCE \"nfs\" MASTER 100\nnonsense\n\
                    INSTANCE \"nfs\" MASTER_RX_LOWER_PRI 100\nINSTANCE \"db\" FAULT 0\nINSTANCE \"db\" ODD 0\n\
                    INSTANCE \"db\nINSTANCE \"db\" MASTER 100";
        std::fs::write(&path, text).unwrap();
        let wishes = Mutex::new(Vec::new());
        let fifo =
            Fifo::new(|instance: &str, wish| wishes.lock().unwrap().push(format!("{instance} {wish}")));
        fifo.read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            wishes.into_inner().unwrap(),
            ["nfs down", "nfs up", "nfs up", "db down", "db up", "nfs down", "db down"]
        );
    }
}
