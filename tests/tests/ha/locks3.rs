//! Locks of NFSv3 clients outlive NFS-Ganesha.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nfs_failover::net::rpc::{Caller, Credential, MOUNT, NFS};

use crate::host::{Host, Network};
use crate::lab::VIP;
use crate::servers::{EXPORT, Servers};
use crate::wait;
use crate::xdr::{Arguments, Results};

const LIMIT: Duration = Duration::from_secs(10);
const PORTMAPPER: u32 = 100_000;
const LOCKS: u32 = 100_021;
const STATD: u32 = 100_024;
const PORTMAPPER_PORT: u16 = 111;

// What a server says of a lock.
const GRANTED: u32 = 0;
const DENIED: u32 = 1;
const GRACE: u32 = 4;

/// A client's kernel.
struct Client {
    network: Network,
    name: &'static str,
    handle: Vec<u8>,
}

impl Client {
    /// One that has looked a file up, which is made if it is not there.
    fn new(host: &Host, name: &'static str) -> Client {
        let network = host.network();
        let mut folder = Arguments::default();
        folder.opaque(EXPORT.as_bytes());
        let mut mounted = call(&network, 20048, (MOUNT, 3, 1), &folder);
        assert_eq!(mounted.word(), 0);
        let mut file = Arguments::default();
        // Whoever has made it; with no attributes.
        file.opaque(&mounted.opaque()).opaque(b"locked").word(0);
        (0..6).for_each(|_| {
            file.word(0);
        });
        let mut made = call(&network, 2049, (NFS, 3, 8), &file);
        assert_eq!((made.word(), made.word()), (0, 1), "it is made, and has a handle");
        Client { handle: made.opaque(), name, network }
    }

    /// Locks all of it, if nobody else has; or takes the lock again that it had at a server before this one.
    fn lock(&self, again: bool) -> u32 {
        let mut lock = Arguments::default();
        // No cookie, not to be waited for, exclusive.
        lock.opaque(b"").word(0).word(1);
        self.range(&mut lock).word(u32::from(again)).word(1);
        self.ask(2, &lock)
    }

    fn unlock(&self) -> u32 {
        let mut lock = Arguments::default();
        lock.opaque(b"");
        self.range(&mut lock);
        self.ask(4, &lock)
    }

    fn range<'a>(&self, lock: &'a mut Arguments) -> &'a mut Arguments {
        let name = self.name.as_bytes();
        lock.opaque(name).opaque(&self.handle).opaque(name).word(7).long(0).long(0)
    }

    fn ask(&self, procedure: u32, lock: &Arguments) -> u32 {
        let mut said = call(&self.network, 32803, (LOCKS, 4, procedure), lock);
        said.opaque();
        said.word()
    }
}

/// On a connection of its own.
fn call(
    network: &Network,
    port: u16,
    (program, version, procedure): (u32, u32, u32),
    what: &Arguments,
) -> Results {
    let to = SocketAddr::new(VIP.parse().unwrap(), port);
    let stream = network.run(move || TcpStream::connect_timeout(&to, LIMIT).unwrap());
    let mut caller = Caller::new(stream, LIMIT).unwrap();
    Results::new(caller.call(program, version, procedure, Credential::Root, &what.bytes).unwrap())
}

/// A client's `rpc.statd`, and who is asked for its port: who has told it that which server has restarted.
fn statd(host: &Host) -> Receiver<(IpAddr, String)> {
    let socket = host.network().run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORTMAPPER_PORT)).unwrap());
    let (say, said) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = [0; 1024];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            let mut question = Results::new(bytes[..length].to_vec());
            let transaction = question.word();
            question.skip(2);
            let program = question.word();
            // Version, procedure; who asks, and what proves it.
            question.skip(2);
            for _ in 0..2 {
                question.skip(1);
                question.opaque();
            }
            let mut answer = Arguments::default();
            answer.word(transaction).word(1).word(0).word(0).word(0).word(0);
            match program {
                PORTMAPPER => {
                    answer.word(PORTMAPPER_PORT.into());
                }
                _ => {
                    assert_eq!(program, STATD);
                    let server = String::from_utf8(question.opaque()).unwrap();
                    let _ = say.send((from.ip(), server));
                }
            }
            let _ = socket.send_to(&answer.bytes, from);
        }
    });
    said
}

#[test]
#[ignore = "needs root, nfs-ganesha, nfs-common and the release binaries"]
fn an_nfs3_lock_is_taken_again_after_a_move_and_a_crash_and_kept_from_others() {
    let mut servers = Servers::new("nfs3-locks yes;");
    println!("{}", servers.failover(&servers.lab.a, &["promote"]).ok().stdout);
    let told = statd(&servers.lab.c);
    let expect_told = || {
        let server = (VIP.parse().unwrap(), VIP.to_owned());
        assert_eq!(told.recv_timeout(wait::LIMIT), Ok(server), "by the address that it knows, and of that");
    };
    let [holder, other] = ["holder", "other"].map(|name| Client::new(&servers.lab.c, name));
    // Nobody had anything before: nobody is waited for.
    assert_eq!((holder.lock(false), other.lock(false)), (GRANTED, DENIED));

    println!("{}", servers.failover(&servers.lab.a, &["demote"]).ok().stdout);
    servers.expect_down(&servers.lab.a);
    println!("{}", servers.failover(&servers.lab.b, &["promote"]).ok().stdout);
    let since = Instant::now();
    expect_told();
    assert_eq!((other.lock(false), holder.lock(false)), (GRACE, GRACE));
    assert_eq!(holder.lock(true), GRANTED);
    wait::until("the grace is over", || other.lock(false) != GRACE);
    println!("the grace was over {:.1?} after the promotion", since.elapsed());
    assert_eq!(other.lock(false), DENIED);
    assert_eq!((holder.unlock(), other.lock(false)), (GRANTED, GRANTED));

    // It is noted durably: the power fails.
    while told.try_recv().is_ok() {}
    servers.power_off("b");
    servers.failover(&servers.lab.a, &["promote"]).ok();
    expect_told();
    assert_eq!((holder.lock(false), other.lock(true)), (GRACE, GRANTED));
}
