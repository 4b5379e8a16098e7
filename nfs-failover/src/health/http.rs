//! The sockets of the health endpoint. Each connection asks one thing and is closed; there is a limit on everything:
//! connections, bytes, time.

use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::{Answer, Question};
use crate::sockets;

/// Connections at once. A proxy opens one at a time.
const MAX_CONNECTIONS: usize = 64;
/// Of a request's head; no check says as much.
const MAX_HEAD_BYTES: usize = 8 << 10;
/// From the connection to the end of the reply.
const TIME_LIMIT: Duration = Duration::from_secs(2);

/// Answers questions until the process ends. Returns the address it listens on.
pub fn serve(
    address: SocketAddr,
    answer: impl Fn(&Question<'_>) -> Answer + Send + Sync + 'static,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    let bound = listener.local_addr()?;
    sockets::serve(listener, "health", MAX_CONNECTIONS, move |stream| {
        // Whoever resets the connection has what it wanted.
        let _ = converse(stream, &answer);
    })?;
    Ok(bound)
}

/// The reply goes out in one write: HAProxy resets the connection as soon as it has seen the status.
fn converse(mut stream: TcpStream, answer: &dyn Fn(&Question<'_>) -> Answer) -> io::Result<()> {
    let end = Instant::now() + TIME_LIMIT;
    stream.set_write_timeout(Some(TIME_LIMIT))?;
    let reply = match read_head(&mut stream, end)? {
        Some(head) => reply_to(&head, answer),
        None => plain(431, "the request's head is too long", true),
    };
    stream.write_all(&reply)
}

/// Everything up to the empty line; `None` if that is too long.
fn read_head(stream: &mut TcpStream, end: Instant) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    while !head.windows(4).any(|w| w == b"\r\n\r\n") && !head.windows(2).any(|w| w == b"\n\n") {
        if head.len() > MAX_HEAD_BYTES {
            return Ok(None);
        }
        match sockets::read_before(stream, end, &mut chunk)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => head.extend_from_slice(&chunk[..n]),
        }
    }
    Ok(Some(head))
}

/// The reply's bytes. OPTIONS and HEAD have the status of GET and no body, as Patroni's users expect.
fn reply_to(head: &[u8], answer: &dyn Fn(&Question<'_>) -> Answer) -> Vec<u8> {
    let line = head.split(|b| *b == b'\n').next().unwrap_or_default();
    let words: Option<Vec<&str>> = std::str::from_utf8(line).ok().map(|l| l.split_whitespace().collect());
    match words.as_deref() {
        Some([method @ ("GET" | "HEAD" | "OPTIONS"), target, version]) if version.starts_with("HTTP/1.") => {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            render(&answer(&Question { path, query }), *method == "GET")
        }
        Some([_, _, version]) if version.starts_with("HTTP/1.") => {
            plain(405, "only GET, HEAD and OPTIONS are answered", true)
        }
        _ => plain(400, "this is not an HTTP/1 request", true),
    }
}

fn plain(status: u16, text: &str, with_body: bool) -> Vec<u8> {
    let body = format!("{text}\n");
    render(&Answer { status, content_type: "text/plain; charset=utf-8", body }, with_body)
}

fn render(answer: &Answer, with_body: bool) -> Vec<u8> {
    let Answer { status, content_type, body } = answer;
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        _ => "Service Unavailable",
    };
    let shown = if with_body { body.as_str() } else { "" };
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nAllow: GET, HEAD, OPTIONS\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n{shown}",
        body.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::thread;

    use super::*;

    fn yes(question: &Question<'_>) -> Answer {
        let status = if question.path == "/primary" { 200 } else { 503 };
        Answer { status, content_type: "application/json", body: format!("{question:?}\n") }
    }

    fn server() -> SocketAddr {
        serve("127.0.0.1:0".parse().unwrap(), yes).unwrap()
    }

    fn say(address: SocketAddr, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(bytes).unwrap();
        let mut reply = Vec::new();
        // A refusal may come before everything was read: the connection is then reset behind the reply.
        let _ = stream.read_to_end(&mut reply);
        String::from_utf8(reply).unwrap()
    }

    #[test]
    fn methods_differ_only_in_the_body() {
        let address = server();
        let get = say(address, b"GET /primary?x=1 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(get.starts_with("HTTP/1.1 200 OK\r\n"), "{get}");
        let (head, body) = get.split_once("\r\n\r\n").unwrap();
        assert!(body.contains("\"/primary\"") && body.contains("\"x=1\""), "{body}");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        for method in ["HEAD", "OPTIONS"] {
            let reply = say(address, format!("{method} /primary?x=1 HTTP/1.0\r\n\r\n").as_bytes());
            assert_eq!(reply, format!("{head}\r\n\r\n"));
        }
        assert!(say(address, b"OPTIONS /nfs HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 503 "));
    }

    #[test]
    fn nonsense_is_refused() {
        let address = server();
        for (said, status) in [
            (&b"POST /primary HTTP/1.1\r\n\r\n"[..], "405"),
            (b"GET /primary\r\n\r\n", "400"),
            (b"\xff\xfe\n\n", "400"),
            (b"\r\n\r\n", "400"),
            (b"GET /a b HTTP/1.1\r\n\r\n", "400"),
            (&[b'x'; MAX_HEAD_BYTES + 2000], "431"),
        ] {
            let reply = say(address, said);
            assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{reply}");
        }
    }

    #[test]
    fn idle_and_resetting_clients_cost_nobody_anything() {
        let address = server();
        // More than may be connected at once, of whom none says anything.
        let idle: Vec<TcpStream> =
            (0..MAX_CONNECTIONS + 8).map(|_| TcpStream::connect(address).unwrap()).collect();
        drop(idle);
        let answered = || {
            let mut stream = TcpStream::connect(address).unwrap();
            let mut reply = [0; 12];
            stream.write_all(b"GET /primary HTTP/1.0\r\n\r\n").is_ok()
                && stream.read_exact(&mut reply).is_ok()
        };
        let end = Instant::now() + 4 * TIME_LIMIT;
        while !answered() {
            assert!(Instant::now() < end, "nobody is answered any more");
            thread::yield_now();
        }
    }
}
