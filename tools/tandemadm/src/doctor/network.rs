//! The ways to each peer: whether it is there, how long it takes, how large packets may be, what time it is there.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt};
use socket2::{Domain, Socket, Type};
use tandem_control::{NodeSpec, PathSpec, ResourceSpec, ResourceStatus};
use tandem_core::state::ConnectionState;

use super::{Finding, clock};

const NETWORK: &str = "network";
const MTU: &str = "mtu";
const PORT: &str = "port";
const ROUNDS: usize = 5;
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
const ANSWER_LIMIT: Duration = Duration::from_millis(300);
/// Beyond it each write with protocol C takes noticeably longer than the disk needs.
const FAR: Duration = Duration::from_millis(5);
/// A packet's headers: IPv4 and UDP.
const HEADERS: usize = 28;
const MAX_DATAGRAM: usize = 65_507;

/// What was measured on the way to a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Way {
    pub(super) peer: String,
    pub(super) address: SocketAddr,
    /// How long it takes to connect, or why that failed; of what vanishes, whether anything is answered from there says `whole`.
    pub(super) round_trip: Result<Duration, String>,
    /// What the kernel takes for the largest packet.
    pub(super) mtu: Option<usize>,
    /// Whether a packet of that size arrives.
    pub(super) whole: Arrival,
    /// What it is for right now.
    pub(super) usage: Usage,
}

/// Whether replication goes over a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Usage {
    /// It does.
    Carries,
    /// It goes over another one.
    StandsBy,
    /// It does not go anywhere.
    Idle,
    /// The resource is not up.
    Down,
}

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Arrival {
    /// The other side answered that nobody wants it.
    Arrived,
    /// A small one was answered, and this one was not.
    Lost,
    /// Nothing is answered there.
    Unknown,
}

pub(super) fn examine(spec: &ResourceSpec, status: Option<&ResourceStatus>) -> Vec<Finding> {
    let own = spec.own_addresses().into_iter();
    let listens =
        |address| judge_port(&TcpListener::bind(address).map(drop), address, spec, status.is_some());
    let mut findings: Vec<Finding> = own.map(listens).collect();
    for peer in &spec.peers {
        let known = status.and_then(|status| status.engine.peers.iter().find(|p| p.id == peer.id));
        let connected = known.is_some_and(|p| p.connection == ConnectionState::Connected);
        let mut reached = None;
        // Without the address there is no way from it, which is said already.
        for path in spec.paths_to(peer.id).filter(|path| is_here(own_end(path))) {
            let carries = status.is_some_and(|status| status.used_paths.contains(path));
            let usage = match connected {
                true if carries => Usage::Carries,
                true => Usage::StandsBy,
                false if status.is_some() => Usage::Idle,
                false => Usage::Down,
            };
            let way = measure(path, peer, usage);
            for finding in judge(&way, &spec.name) {
                // What is the same on every path is said once.
                if !findings.contains(&finding) {
                    findings.push(finding);
                }
            }
            reached = reached.or(way.round_trip.is_ok().then_some(path));
        }
        if let Some(path) = reached {
            let offset = clock::measure(own_end(path), path.remote);
            findings.push(match offset {
                None if !connected => is_silent(&peer.name, path.remote),
                offset => clock::judge(&peer.name, offset),
            });
        }
    }
    findings
}

pub(super) fn judge(way: &Way, resource: &str) -> Vec<Finding> {
    let Way { peer, address, .. } = way;
    let first = match &way.round_trip {
        Err(error) if way.whole == Arrival::Arrived => Finding::bad(
            NETWORK,
            format!("{peer} is not reached at {address}: {error}, though the machine answers"),
        )
        .todo(format!(
            "a firewall drops TCP port {}, there, here or on the way: nft list ruleset",
            address.port()
        )),
        Err(error) => {
            Finding::bad(NETWORK, format!("{peer} is not reached at {address}: {error}")).todo(format!(
                "on {peer}: tandemadm up {resource}; if it is up there, a firewall or a cable: ping {}",
                address.ip()
            ))
        }
        Ok(time) if *time > FAR => {
            Finding::warn(NETWORK, format!("{peer} at {address} is {} away", millis(*time)))
                .todo("with protocol C every write takes that much longer; protocol A does not wait for it")
        }
        Ok(time) => Finding::ok(NETWORK, format!("{peer} at {address} is {} away", millis(*time))),
    };
    let connected = match way.usage {
        Usage::Carries => Some(Finding::ok(NETWORK, format!("{peer} is connected"))),
        Usage::StandsBy => {
            Some(Finding::ok(NETWORK, format!("{address} stands by, {peer} is connected elsewhere")))
        }
        Usage::Idle => {
            let ask = format!("tandemadm status -x {resource}");
            let todo = match way.round_trip.is_ok() {
                true => format!("{ask}, here and on {peer}: one of them says why"),
                false => ask,
            };
            Some(Finding::warn(NETWORK, format!("{peer} is not connected")).todo(todo))
        }
        Usage::Down => None,
    };
    let mut findings: Vec<Finding> = [Some(first), connected].into_iter().flatten().collect();
    if let Some(mtu) = way.mtu {
        findings.push(match way.whole {
            Arrival::Arrived => Finding::ok(MTU, format!("packets of {mtu} bytes reach {peer} in one piece")),
            Arrival::Unknown => Finding::ok(
                MTU,
                format!("packets to {peer} have up to {mtu} bytes; whether those arrive is not answered there"),
            ),
            Arrival::Lost => Finding::bad(
                MTU,
                format!("packets of {mtu} bytes to {peer} vanish, small ones arrive: the connection will hang"),
            )
            .todo("set the same MTU on both nodes and on every switch between them, or a smaller one on both nodes"),
        });
    }
    findings
}

/// Every tandemd is asked for the time before it is told who asks.
fn is_silent(peer: &str, address: SocketAddr) -> Finding {
    let what = format!("somebody accepts connections at {address} and says nothing");
    Finding::bad(NETWORK, what).todo(format!(
        "tandemd on {peer} hangs or is stopped, or another program has the port: there, tandemadm status -x and ss -tlnp \
         'sport = :{}'",
        address.port()
    ))
}

fn millis(time: Duration) -> String {
    format!("{}.{:03} ms", time.as_millis(), time.as_micros() % 1000)
}

/// What became of an attempt to listen where the resource does.
pub(super) fn judge_port(
    listened: &io::Result<()>,
    address: SocketAddr,
    spec: &ResourceSpec,
    is_up: bool,
) -> Finding {
    match (listened.as_ref().map_err(io::Error::kind), is_up) {
        (Err(io::ErrorKind::AddrInUse), true) => Finding::ok(PORT, format!("tandemd listens on {address}")),
        (Err(io::ErrorKind::AddrInUse), false) => {
            Finding::bad(PORT, format!("{address} is taken, and not by {}, which is not up", spec.name))
                .todo(format!("who is it? ss -tlnp 'sport = :{}'", address.port()))
        }
        (Ok(()), true) => {
            Finding::bad(PORT, format!("nobody listens on {address}, though {} is up", spec.name))
                .todo("look into tandemd's log; peers with a lower node id cannot connect")
        }
        (Ok(()), false) => Finding::ok(PORT, format!("{address} is free, {} is not up", spec.name)),
        (Err(io::ErrorKind::AddrNotAvailable), _) => {
            Finding::bad(PORT, format!("this machine does not have the address {}", address.ip())).todo(
                "correct the address in the configuration, or configure the interface: ip -brief address",
            )
        }
        (Err(kind), _) => Finding::warn(PORT, format!("{address} cannot be tried: {kind}")),
    }
}

fn measure(path: &PathSpec, peer: &NodeSpec, usage: Usage) -> Way {
    let (own, address) = (own_end(path), path.remote);
    let mut times = Vec::new();
    let (mut error, mut mtu, mut tries) = (None, None, 0);
    // Where nothing arrives one attempt is enough: the kernel repeats it.
    while tries < ROUNDS && (error.is_none() || !times.is_empty()) {
        tries += 1;
        match dial(own, address) {
            Ok((time, stream)) => {
                times.push(time);
                mtu = getsockopt(&stream, sockopt::IpMtu).ok().and_then(|mtu| usize::try_from(mtu).ok());
            }
            Err(why) => error = Some(why),
        }
    }
    times.sort();
    let vanishes = error.as_ref().is_some_and(|why| why.kind() == io::ErrorKind::TimedOut);
    let round_trip = match (times.get(times.len() / 2), error) {
        (Some(median), None) => Ok(*median),
        (Some(_), Some(why)) => Err(format!("only {} of {tries} attempts arrive: {why}", times.len())),
        (None, why) => Err(why.map(|why| why.to_string()).unwrap_or_default()),
    };
    let whole = match mtu {
        Some(mtu) => arrival(own, address, mtu),
        None if vanishes => arrival(own, address, HEADERS),
        None => Arrival::Unknown,
    };
    Way { peer: peer.name.clone(), address, round_trip, mtu, whole, usage }
}

fn own_end(path: &PathSpec) -> SocketAddr {
    SocketAddr::new(path.local.ip(), 0)
}

/// This machine has the address.
fn is_here(own: SocketAddr) -> bool {
    UdpSocket::bind(own).map_or_else(|error| error.kind() != io::ErrorKind::AddrNotAvailable, |_| true)
}

/// From this node's own address: the peer listens to no other.
pub(super) fn dial(own: SocketAddr, to: SocketAddr) -> io::Result<(Duration, TcpStream)> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    if !own.ip().is_unspecified() && own.is_ipv4() == to.is_ipv4() {
        socket.bind(&own.into())?;
    }
    let begin = Instant::now();
    socket.connect_timeout(&to.into(), CONNECT_LIMIT)?;
    Ok((begin.elapsed(), socket.into()))
}

/// A datagram that no router may cut: the kernel forbids it while it does not exceed the MTU that it knows.
fn arrival(own: SocketAddr, to: SocketAddr, mtu: usize) -> Arrival {
    let answered = |length: usize| (0..3).any(|_| is_answered(own, to, length).unwrap_or(false));
    match answered(1) {
        false => Arrival::Unknown,
        true if answered((mtu - HEADERS.min(mtu)).min(MAX_DATAGRAM)) => Arrival::Arrived,
        true => Arrival::Lost,
    }
}

/// Nobody listens there: the answer is that nobody does.
fn is_answered(own: SocketAddr, to: SocketAddr, length: usize) -> io::Result<bool> {
    let socket = UdpSocket::bind(own)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(ANSWER_LIMIT))?;
    socket.send(&vec![0; length])?;
    let answer = socket.recv(&mut [0; 1]);
    Ok(answer.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
}
