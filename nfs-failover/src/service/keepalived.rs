//! keepalived's notify FIFO: its state changes in their order, which its notify scripts do not keep.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use super::Wish;

/// Longest line that is looked at.
const MAX_LINE_BYTES: usize = 4096;

/// Reads until keepalived is gone. Each instance's new state is handed to `wish`; at the end every instance that was
/// seen is wished down: nobody elects this node any more.
pub fn read_fifo(path: &Path, mut wish: impl FnMut(&str, Wish)) -> io::Result<()> {
    let mut lines = BufReader::new(File::open(path)?);
    let mut instances: Vec<String> = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = io::Read::take(&mut lines, MAX_LINE_BYTES as u64).read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        if let Some((instance, wanted)) = understand(&String::from_utf8_lossy(&line)) {
            if !instances.contains(&instance) {
                instances.push(instance.clone());
            }
            wish(&instance, wanted);
        }
    }
    instances.iter().for_each(|instance| wish(instance, Wish::Down));
    Ok(())
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
        let mut wishes = Vec::new();
        read_fifo(&path, |instance, wish| wishes.push(format!("{instance} {wish}"))).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(wishes, ["nfs down", "nfs up", "nfs up", "db down", "db up", "nfs down", "db down"]);
    }
}
