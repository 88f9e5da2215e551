//! One question to one server: by UDP, and by TCP when the answer has no room in a datagram.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use hickory_proto::op::{Message, MessageType, ResponseCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::{Instant, timeout_at},
};

use super::{Question, query_for};

/// Bytes of a datagram. Servers were told that a third of it is taken.
const ROOM: usize = 4096;

/// Asks a server. Only an answer from its address, with the question and its number, counts.
pub async fn with(
    server: SocketAddr,
    question: &Question,
    deadline: Instant,
) -> io::Result<Message> {
    let asked = async {
        let mut query = query_for(question);
        let answer = once(server, &query).await?;
        let code = answer.metadata.response_code;
        if !matches!(code, ResponseCode::FormErr | ResponseCode::NotImp) {
            return Ok(answer);
        }
        // A server from before EDNS (RFC 6891, section 6.2.2).
        query.edns = None;
        query.metadata.id = rand::random();
        once(server, &query).await
    };
    timeout_at(deadline, asked).await?
}

async fn once(server: SocketAddr, query: &Message) -> io::Result<Message> {
    let bytes = query.to_vec().map_err(io::Error::other)?;
    let answer = by_udp(server, query, &bytes).await?;
    match answer.metadata.truncation {
        true => by_tcp(server, query, &bytes).await,
        false => Ok(answer),
    }
}

async fn by_udp(server: SocketAddr, query: &Message, bytes: &[u8]) -> io::Result<Message> {
    // A socket of its own has a port that nobody can guess.
    let from: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(from).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; ROOM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = buffer.get(..length).and_then(|bytes| answer(query, bytes)) {
            return Ok(answer);
        }
    }
}

async fn by_tcp(server: SocketAddr, query: &Message, bytes: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes(), bytes].concat())
        .await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; length.into()];
    stream.read_exact(&mut buffer).await?;
    answer(query, &buffer).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn answer(query: &Message, bytes: &[u8]) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    let is_ours = answer.metadata.id == query.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && answer.queries == query.queries;
    is_ours.then_some(answer)
}
