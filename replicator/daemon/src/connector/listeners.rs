//! Where a resource is listened for: at its own end of every path.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::Poll;

use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

use crate::failure::Failure;
use crate::sockets::{Address, failure, try_listen};

/// All of them.
#[derive(Default)]
pub(super) struct Listeners(BTreeMap<SocketAddr, TcpListener>);

impl Listeners {
    /// From now on at these addresses. If that cannot be, nothing changes; but one of several may come later.
    pub(super) fn become_like(&mut self, addresses: &BTreeSet<SocketAddr>) -> Result<(), Failure> {
        let (mut new, mut missing) = (BTreeMap::new(), Vec::new());
        for address in addresses.iter().filter(|address| !self.0.contains_key(address)) {
            match try_listen(*address, Address::IsHere) {
                Ok(listener) => drop(new.insert(*address, listener)),
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                    missing.push((*address, failure(*address, &error)));
                }
                Err(error) => return Err(failure(*address, &error)),
            }
        }
        let are_all_missing = missing.len() == addresses.len();
        for (address, absent) in missing {
            if are_all_missing {
                return Err(absent);
            }
            warn!(%address, "this machine does not have the address; listening for when it has");
            new.insert(address, try_listen(address, Address::MayCome).map_err(|_| absent)?);
        }
        self.0.retain(|address, _| addresses.contains(address));
        self.0.extend(new);
        Ok(())
    }

    /// Whoever connects next, at any of them.
    pub(super) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        poll_fn(|context| {
            let mut polled = self.0.values().map(|listener| listener.poll_accept(context));
            polled.find(Poll::is_ready).unwrap_or(Poll::Pending)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener as StdListener, TcpStream as StdStream};

    use super::*;

    /// Of the documentation's addresses nobody has one.
    const ABSENT: &str = "192.0.2.77:17999";

    fn addresses(all: &[SocketAddr]) -> BTreeSet<SocketAddr> {
        all.iter().copied().collect()
    }

    #[test]
    fn one_address_of_several_may_be_missing_and_what_cannot_be_changes_nothing() {
        // An address of this process alone.
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let [free, taken] = [17998, 17999].map(|port| SocketAddr::from(([127, 77, high, low], port)));
        let _other = StdListener::bind(taken).unwrap();
        let absent: SocketAddr = ABSENT.parse().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut listeners = Listeners::default();
            assert!(listeners.become_like(&addresses(&[absent])).is_err());
            listeners.become_like(&addresses(&[absent, free])).unwrap();
            assert!(listeners.become_like(&addresses(&[taken])).is_err());
            let caller = StdStream::connect(free).unwrap();
            let (_, remote) = listeners.accept().await.unwrap();
            assert_eq!(remote, caller.local_addr().unwrap());
            listeners.become_like(&addresses(&[])).unwrap();
            assert!(StdStream::connect(free).is_err());
        });
    }
}
