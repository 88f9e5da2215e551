//! Messages to the supervisor of this process (ready, alive, stopping): systemd's notification protocol, one datagram each.
//!
//! Without a supervisor that listens (`$NOTIFY_SOCKET`) nothing is sent.

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process,
    time::Duration,
};

/// The supervisor of this process, if it has one. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Supervisor {
    socket: Option<OsString>,
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// The variables by which a supervisor is found. Programs that are no part of what it supervises do without them.
    pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

    /// The one that the environment names.
    #[must_use]
    pub fn from_environment() -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty());
        // The variables of a parent that was supervised itself are not meant for us.
        let ours = env::var("WATCHDOG_PID").map_or(true, |pid| pid == process::id().to_string());
        let watchdog = env::var("WATCHDOG_USEC")
            .ok()
            .and_then(|text| text.parse().ok())
            .filter(|micros| ours && *micros > 0)
            .map(Duration::from_micros);
        Self { socket, watchdog }
    }

    /// Whether there is one: it starts this process again when it ends.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// Says that this process lives, as often as it should and as long as its tasks are run. Never returns if a
    /// supervisor wants to hear it.
    pub async fn keep_alive(self) {
        let Some(period) = self.watchdog() else {
            return;
        };
        let mut ticks = tokio::time::interval(period);
        loop {
            ticks.tick().await;
            self.alive();
        }
    }

    /// How often to say that this process lives: at twice the rate that the supervisor asks for.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        self.socket
            .as_ref()
            .and(self.watchdog)
            .map(|period| period / 2)
    }

    /// This process does its work from now on.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// It still does.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// It is about to end.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=draining");
    }

    fn tell(&self, message: &str) {
        let Some(socket) = &self.socket else {
            return;
        };
        if let Err(error) = send(socket, message) {
            tracing::warn!(%error, message, "the supervisor cannot be told");
        }
    }
}

fn send(socket: &OsStr, message: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?
        .send_to_addr(message.as_bytes(), &address)
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supervisor(socket: OsString) -> Supervisor {
        Supervisor {
            socket: Some(socket),
            watchdog: Some(Duration::from_secs(2)),
        }
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn speaks_to_a_socket_in_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let supervisor = supervisor(path.into());
        supervisor.ready("well");
        assert_eq!(received(&socket), "READY=1\nSTATUS=well");
        supervisor.alive();
        assert_eq!(received(&socket), "WATCHDOG=1");
        assert_eq!(supervisor.watchdog(), Some(Duration::from_secs(1)));
    }

    #[test]
    fn speaks_to_an_abstract_socket() {
        let name = format!("barge-test-{}", process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        supervisor(format!("@{name}").into()).stopping();
        assert!(received(&socket).starts_with("STOPPING=1\n"));
    }

    #[test]
    fn nobody_listening_is_no_trouble() {
        Supervisor::default().ready("well");
        assert_eq!(Supervisor::default().watchdog(), None);
        supervisor("/nowhere/notify".into()).alive();
    }
}
