//! Turns to do a handshake: so many at a time, so many of these for one address; further clients wait in line.
//!
//! A client waits first for a turn of its address, and only then for one of all turns. So a crowd at one address has a
//! line of its own, and a client at another address waits behind `from_one_address` of the crowd at most. A client with a turn never loses it to
//! a later client: the manager does not throw away a handshake that it has signed because many more arrive.

use std::{io, net::IpAddr, sync::Arc};

use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::{
    Limits,
    slow::{Address, Addresses},
};

/// Clients in the lines of their addresses. Further ones are closed and dial again; no work is lost with them.
const IN_LINE: usize = 8192;
/// Clients of one address, in line or with a turn.
const IN_LINE_AT_ONE_ADDRESS: usize = 4096;

/// The turns of the listener, or of a lane. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Turns {
    all: Arc<Semaphore>,
    addresses: Addresses,
    /// Room in the lines of the addresses.
    in_line: Arc<Semaphore>,
    /// Room for clients that have a turn of their address.
    in_front: Arc<Semaphore>,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    _permits: [OwnedSemaphorePermit; 3],
    _address: Address,
}

impl Turns {
    /// All of them free.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            all: Arc::new(Semaphore::new(limits.handshakes)),
            addresses: Addresses::with_turns(IN_LINE_AT_ONE_ADDRESS, limits.from_one_address),
            in_line: Arc::new(Semaphore::new(IN_LINE)),
            in_front: Arc::new(Semaphore::new(limits.connections)),
        }
    }

    /// Waits for a turn, for as long as the client does not hang up.
    ///
    /// # Errors
    /// The lines are full, or the client hung up.
    pub async fn wait(&self, address: IpAddr, tcp: &TcpStream) -> io::Result<Turn> {
        tokio::select! {
            biased;
            error = hung_up(tcp) => Err(error),
            turn = self.next(address) => turn,
        }
    }

    async fn next(&self, address: IpAddr) -> io::Result<Turn> {
        let full = || io::Error::other("there are too many handshakes");
        let address = self.addresses.enter(address).ok_or_else(full)?;
        let of_address = match address.turns().clone().try_acquire_owned() {
            Ok(turn) => turn,
            Err(_) => {
                let _in_line = self.in_line.try_acquire().map_err(|_| full())?;
                let turn = address.turns().clone().acquire_owned().await;
                turn.map_err(io::Error::other)?
            }
        };
        let in_front = self.in_front.clone().try_acquire_owned();
        let in_front = in_front.map_err(|_| full())?;
        let turn = self.all.clone().acquire_owned().await;
        Ok(Turn {
            _permits: [turn.map_err(io::Error::other)?, in_front, of_address],
            _address: address,
        })
    }
}

/// Waits until the client hangs up, and for ever when it sent something before that. While it waits for the ServerHello it has nothing
/// to send.
async fn hung_up(tcp: &TcpStream) -> io::Error {
    match tcp.peek(&mut [0]).await {
        Ok(0) => io::ErrorKind::UnexpectedEof.into(),
        Ok(_) => std::future::pending().await,
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::net::TcpListener;

    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn turns(handshakes: usize, from_one_address: usize) -> Turns {
        Turns::new(&Limits {
            handshakes,
            from_one_address,
            ..Limits::default()
        })
    }

    /// Both ends of a connection: the client's and the manager's.
    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn a_line_at_one_address_is_not_in_front_of_another() {
        let (turns, (_client, tcp)) = (turns(3, 2), connection().await);
        let mut held = Vec::new();
        for _ in 0..2 {
            held.push(turns.wait(ONE, &tcp).await.unwrap());
        }
        let mut in_line = Box::pin(turns.wait(ONE, &tcp));
        assert!((&mut in_line).now_or_never().is_none());
        turns.wait(OTHER, &tcp).await.unwrap();
        held.pop();
        in_line.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_hangs_up_leaves_the_line() {
        let (turns, (client, tcp)) = (turns(1, 1), connection().await);
        let _held = turns.wait(ONE, &tcp).await.unwrap();
        let waits = turns.wait(ONE, &tcp);
        drop(client);
        let error = waits.await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
