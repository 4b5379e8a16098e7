//! How resources, their volumes and their peers are named: `RES`, `RES/VOL`, `RES:PEER`, `RES:PEER/VOL`.

use std::net::{AddrParseError, SocketAddr};

/// The parts of a name; `all` and `minor-N` are not taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Address<'a> {
    pub(crate) resource: &'a str,
    /// A host of the configuration, or its node id.
    pub(crate) peer: Option<&'a str>,
    pub(crate) volume: Option<&'a str>,
}

impl<'a> Address<'a> {
    pub(crate) fn parse(name: &'a str) -> Address<'a> {
        let (front, volume) = name.split_once('/').map_or((name, None), |(front, v)| (front, Some(v)));
        // A floating host's name has colons of its own.
        let (resource, peer) = front.split_once(':').map_or((front, None), |(r, peer)| (r, Some(peer)));
        Address { resource, peer, volume }
    }
}

/// The end of a path; its family may stand before it, as in drbdsetup's `ipv4:10.0.0.1:7788`.
pub(crate) fn socket(text: &str) -> Result<SocketAddr, AddrParseError> {
    ["ipv4:", "ipv6:"].iter().find_map(|family| text.strip_prefix(family)).unwrap_or(text).parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_paths_are_read_with_and_without_their_family() {
        for (text, same) in [
            ("10.0.0.1:7788", "10.0.0.1:7788"),
            ("ipv4:10.0.0.1:7788", "10.0.0.1:7788"),
            ("ipv6:[::1]:1", "[::1]:1"),
        ] {
            assert_eq!(socket(text), same.parse(), "{text}");
        }
        assert!(socket("10.0.0.1").is_err());
    }

    #[test]
    fn names_are_taken_apart() {
        let address = |resource, peer, volume| Address { resource, peer, volume };
        for (name, parts) in [
            ("r0", address("r0", None, None)),
            ("r0/1", address("r0", None, Some("1"))),
            ("r0:bravo", address("r0", Some("bravo"), None)),
            ("r0:bravo/1", address("r0", Some("bravo"), Some("1"))),
            ("r0:ipv4 10.0.0.1:7788", address("r0", Some("ipv4 10.0.0.1:7788"), None)),
        ] {
            assert_eq!(Address::parse(name), parts, "{name}");
        }
    }
}
