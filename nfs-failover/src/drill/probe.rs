//! What a client sees of a move: for how long nobody answers, and which writes it was promised.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::net::nfs3::File;
use crate::net::rpc;

const NFS_PORT: u16 = 2049;
/// Both servers speak it.
const NFS_VERSION: u32 = 4;
/// Between two calls, whether the one before was answered or not.
const CALL_INTERVAL: Duration = Duration::from_millis(10);
const CALL_LIMIT: Duration = Duration::from_secs(1);
/// Calls that wait for their answer at once.
const MAX_CALLS: usize = 128;
/// A write that has not been answered by then is sent again.
const WRITE_LIMIT: Duration = Duration::from_millis(200);
const WRITE_INTERVAL: Duration = Duration::from_millis(2);
const FILE: &str = ".nfs-failover-drill";
const RECORD_BYTES: u64 = 8;
const READ_BYTES: u32 = 32 << 10;

/// Good moments, and the longest time between two of them.
#[derive(Debug)]
struct Gaps {
    last: Instant,
    longest: Duration,
    count: u64,
}

/// Gaps that one thread notes and another reads.
#[derive(Clone, Debug)]
struct Noted(Arc<Mutex<Gaps>>);

impl Noted {
    fn new() -> Noted {
        Noted(Arc::new(Mutex::new(Gaps { last: Instant::now(), longest: Duration::ZERO, count: 0 })))
    }

    fn with<T>(&self, what: impl FnOnce(&mut Gaps) -> T) -> T {
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A good moment.
    fn note(&self) {
        self.with(|gaps| {
            gaps.longest = gaps.longest.max(gaps.last.elapsed());
            gaps.last = Instant::now();
            gaps.count += 1;
        });
    }

    fn count(&self) -> u64 {
        self.with(|gaps| gaps.count)
    }

    /// The longest since this was asked, the one that still lasts included.
    fn take_longest(&self) -> Duration {
        self.with(|gaps| std::mem::take(&mut gaps.longest).max(gaps.last.elapsed()))
    }
}

/// Whether anybody answers, asked every 10 ms.
pub(super) struct Caller {
    noted: Noted,
    ends: Arc<AtomicBool>,
}

impl Caller {
    /// Begins to call.
    pub(super) fn start(server: IpAddr) -> Caller {
        let (noted, ends, waiting) =
            (Noted::new(), Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let caller = Caller { noted: noted.clone(), ends: Arc::clone(&ends) };
        thread::spawn(move || {
            while !ends.load(Ordering::Acquire) {
                if waiting.fetch_add(1, Ordering::AcqRel) < MAX_CALLS {
                    let (noted, waiting) = (noted.clone(), Arc::clone(&waiting));
                    thread::spawn(move || {
                        let server = SocketAddr::new(server, NFS_PORT);
                        if rpc::answers(server, NFS_VERSION, CALL_LIMIT).is_ok() {
                            noted.note();
                        }
                        waiting.fetch_sub(1, Ordering::AcqRel);
                    });
                } else {
                    waiting.fetch_sub(1, Ordering::AcqRel);
                }
                thread::sleep(CALL_INTERVAL);
            }
        });
        caller
    }

    /// Answers so far.
    pub(super) fn answers(&self) -> u64 {
        self.noted.count()
    }

    /// The longest time without an answer, since it was taken.
    pub(super) fn longest(&self) -> Duration {
        self.noted.with(|gaps| gaps.longest.max(gaps.last.elapsed()))
    }

    /// The same, which begins anew.
    pub(super) fn take_longest(&self) -> Duration {
        self.noted.take_longest()
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
    }
}

/// Writes numbers, each durable before the next, and knows how many were acknowledged.
pub(super) struct Writer {
    noted: Noted,
    ends: Arc<AtomicBool>,
    thread: JoinHandle<File>,
}

impl Writer {
    /// Begins to write into an exported folder.
    pub(super) fn start(server: IpAddr, export: &Path) -> io::Result<Writer> {
        let mut file = File::create(server, export, FILE, CALL_LIMIT)?;
        file.set_limit(WRITE_LIMIT);
        let (noted, ends) = (Noted::new(), Arc::<AtomicBool>::default());
        let (own, end) = (noted.clone(), Arc::clone(&ends));
        let thread = thread::spawn(move || {
            let mut number = 0u64;
            while !end.load(Ordering::Acquire) {
                if file.write(number * RECORD_BYTES, &number.to_be_bytes()).is_ok() {
                    own.note();
                    number += 1;
                }
                thread::sleep(WRITE_INTERVAL);
            }
            file
        });
        Ok(Writer { noted, ends, thread })
    }

    /// Numbers that are promised to be there.
    pub(super) fn acknowledged(&self) -> u64 {
        self.noted.count()
    }

    /// The longest that one of them took, since this was asked.
    pub(super) fn take_longest(&self) -> Duration {
        self.noted.take_longest()
    }

    /// Ends: how many numbers were acknowledged, and how many of those are not there, as whoever serves now reads them. The
    /// file is removed.
    pub(super) fn finish(self) -> io::Result<(u64, u64)> {
        self.ends.store(true, Ordering::Release);
        let mut file = self.thread.join().map_err(|_| io::Error::other("the writer has failed"))?;
        let acknowledged = self.noted.count();
        file.set_limit(CALL_LIMIT);
        let lost = missing(acknowledged, |offset| file.read(offset, READ_BYTES))?;
        file.remove()?;
        Ok((acknowledged, lost))
    }
}

/// How many of so many numbers are not at their places.
fn missing(count: u64, mut read: impl FnMut(u64) -> io::Result<Vec<u8>>) -> io::Result<u64> {
    let (mut number, mut lost) = (0, 0);
    while number < count {
        let bytes = read(number * RECORD_BYTES)?;
        let records = bytes.chunks_exact(RECORD_BYTES as usize);
        // The file ends there.
        if records.len() == 0 {
            return Ok(lost + count - number);
        }
        for record in records.take((count - number) as usize) {
            lost += u64::from(record != number.to_be_bytes());
            number += 1;
        }
    }
    Ok(lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_numbers_are_counted() {
        let file = |numbers: &[u64]| -> Vec<u8> { numbers.iter().flat_map(|n| n.to_be_bytes()).collect() };
        let lost = |count, numbers: &[u64]| {
            let file = file(numbers);
            // Not more than two at a time.
            missing(count, |at| Ok(file[(at as usize).min(file.len())..].iter().copied().take(16).collect()))
        };
        assert_eq!(lost(5, &[0, 1, 2, 3, 4, 5]).unwrap(), 0);
        assert_eq!(lost(5, &[0, 1, 2]).unwrap(), 2);
        assert_eq!(lost(5, &[0, 1, 0, 3, 4]).unwrap(), 1);
        assert_eq!(lost(0, &[]).unwrap(), 0);
        assert!(missing(1, |_| Err(io::ErrorKind::TimedOut.into())).is_err());
    }

    #[test]
    fn the_longest_gap_is_the_one_that_lasts_if_it_is_longer() {
        let noted = Noted::new();
        noted.with(|gaps| gaps.last = Instant::now() - Duration::from_secs(60));
        assert!(noted.take_longest() >= Duration::from_secs(60));
        noted.note();
        assert!(noted.take_longest() >= Duration::from_secs(60));
        assert!(noted.take_longest() < Duration::from_secs(60));
        assert_eq!(noted.count(), 1);
    }
}
