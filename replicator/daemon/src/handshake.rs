//! The first frames on a new stream to a peer: both say who they are. Whoever only asks for the time says nothing else.

use std::io;
use std::os::fd::OwnedFd;

use bytes::{Bytes, BytesMut};
use tandem_control::{ResourceSpec, clock};
use tandem_core::units::NodeId;
use tandem_core::wire::{
    FRAME_HEADER_BYTES, FrameHeader, Message, Preamble, Stream, VERSION_MAX, VERSION_MIN, decode, encode,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What this node says of itself.
pub(crate) fn preamble(spec: &ResourceSpec, to: NodeId, stream: Stream, session: u64) -> Preamble {
    Preamble {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        stream,
        session,
        from: spec.node.id,
        to,
        resource: spec.name.clone(),
        node_name: spec.node.name.clone(),
    }
}

/// Sends one message without payload.
pub(crate) async fn send(stream: &mut TcpStream, message: &Message) -> io::Result<()> {
    let mut frame = BytesMut::new();
    encode(message, &mut frame);
    stream.write_all(&frame).await
}

/// What whoever connects begins with.
pub(crate) enum First {
    /// A frame.
    Message(Message),
    /// The question what time it is here.
    Clock,
}

/// Receives it, and not a byte more.
pub(crate) async fn receive_first(stream: &mut TcpStream) -> io::Result<First> {
    let mut header = [0; FRAME_HEADER_BYTES];
    stream.read_exact(&mut header).await?;
    match header == clock::QUESTION {
        true => Ok(First::Clock),
        false => receive_behind(header, stream).await.map(First::Message),
    }
}

/// Says what time it is.
pub(crate) async fn answer_clock(stream: &mut TcpStream, received_us: u64) -> io::Result<()> {
    stream.write_all(&clock::Answer { received_us, sent_us: clock::now_us() }.encode()).await
}

/// Receives one message without payload, and not a byte more.
pub(crate) async fn receive(stream: &mut TcpStream) -> io::Result<Message> {
    let mut header = [0; FRAME_HEADER_BYTES];
    stream.read_exact(&mut header).await?;
    receive_behind(header, stream).await
}

async fn receive_behind(header: [u8; FRAME_HEADER_BYTES], stream: &mut TcpStream) -> io::Result<Message> {
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    let header = FrameHeader::parse(&header).map_err(|e| invalid(e.to_string()))?;
    if header.payload_bytes > 0 {
        return Err(invalid("the first frame carries a payload".into()));
    }
    let mut body = vec![0; header.body_bytes as usize];
    stream.read_exact(&mut body).await?;
    decode(&header, &body, Bytes::new()).map_err(|e| invalid(e.to_string()))
}

/// The stream as the resource's thread wants it.
pub(crate) fn into_fd(stream: TcpStream) -> io::Result<OwnedFd> {
    stream.set_nodelay(true)?;
    let stream = stream.into_std()?;
    // The ring waits for what would block; with O_NONBLOCK it would not.
    stream.set_nonblocking(false)?;
    Ok(stream.into())
}
