//! Control's watch over the name server: it holds a connection, whose end is the end of the process, and starts another one.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{Name, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    process::Child,
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    DOMAIN, LINK_LOCAL, Resolver, addresses, names,
    server::{PORT, SUPERVISED},
};
use crate::{desired::Desired, detached, files, runtime::Paths};

/// Between two questions to a server that answers.
const PERIOD: Duration = Duration::from_secs(2);
/// Between two looks whether the addresses are there.
const LOOK: Duration = Duration::from_secs(10);
/// For its answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two tries to reach one that does not answer …
const POLL: Duration = Duration::from_millis(50);
/// … and between two starts of one, doubled by each further one …
const RETRY: Duration = Duration::from_millis(200);
/// … up to this.
const LONGEST_RETRY: Duration = Duration::from_secs(5);
/// A supervisor starts the next one, if it started the last one, within this time.
const SUPERVISOR: Duration = Duration::from_millis(500);
/// New pods are sent elsewhere when no server has answered for so long: one that is started again answers sooner.
const SILENCE: Duration = Duration::from_secs(5);
/// What is told when it answers again.
pub const ANSWERS: &str = "NameServerAnswers";

/// What the watch is made of.
pub struct Keeper {
    /// Program and arguments that start a name server; `--data-dir D` is added.
    pub command: Vec<OsString>,
    /// The data folder.
    pub paths: Paths,
    /// The assignment.
    pub desired: watch::Receiver<Arc<Desired>>,
    /// Learns where new pods are sent.
    pub resolver: watch::Sender<Resolver>,
}

impl Keeper {
    /// Keeps a name server running, for ever. What goes wrong is told: a reason, and a sentence.
    pub async fn keep(self, tell: impl Fn(&str, String)) {
        let mut child: Option<Child> = None;
        let mut heard = Instant::now();
        let (mut start_at, mut retry) = (Instant::now(), RETRY);
        let mut set = BTreeSet::new();
        let mut told = String::new();
        let mut looked: Option<Instant> = None;
        let mut is_silent = false;
        // It is being started.
        self.send_pods(self.address());
        loop {
            if self.desired.borrow().welcome.is_none() {
                // Nobody has said what there is to answer.
                heard = Instant::now();
            }
            let wanted: BTreeSet<_> = [Some(LINK_LOCAL), self.address()]
                .into_iter()
                .flatten()
                .collect();
            let pause = match wanted == set {
                true => LOOK,
                false => RETRY,
            };
            if looked.is_none_or(|looked| looked.elapsed() >= pause) {
                looked = Some(Instant::now());
                match addresses::set(&wanted, &set).await {
                    Ok(()) => set = wanted,
                    Err(error) => {
                        let error =
                            format!("cannot add addresses to the loopback interface: {error}");
                        if told != error {
                            tracing::warn!(error, "names are not answered");
                            told = error;
                        }
                    }
                }
            }
            let answered = self.hear(&mut heard, &mut is_silent, &tell).await;
            if answered {
                (start_at, retry) = (self.start_at().await, RETRY);
                told.clear();
                continue;
            }
            if heard.elapsed() > SILENCE && !is_silent {
                is_silent = true;
                self.resolver.send_replace(Resolver::Silent);
                let message = "the node's name server does not answer: programs on this node do not find names, and new pods ask the \
                     node's own name servers, which do not know Services";
                tracing::error!(message);
                tell("NameServerSilent", message.to_owned());
            }
            let runs = child
                .as_mut()
                .is_some_and(|it| matches!(it.try_wait(), Ok(None)));
            if !runs && Instant::now() >= start_at {
                match self.start().await {
                    Ok(started) => child = Some(started),
                    Err(error) => {
                        let error = format!("cannot start a name server: {error}");
                        if told != error {
                            tracing::error!(error);
                            tell("NameServerFailed", error.clone());
                            told = error;
                        }
                    }
                }
                start_at = Instant::now() + retry;
                retry = (retry * 2).min(LONGEST_RETRY);
            }
            sleep(POLL).await;
        }
    }

    /// Talks with the server until its connection ends. Answers whether it answered at all.
    async fn hear(
        &self,
        heard: &mut Instant,
        is_silent: &mut bool,
        tell: &impl Fn(&str, String),
    ) -> bool {
        let mut answered = false;
        let connect = TcpStream::connect(SocketAddr::from((LINK_LOCAL, PORT)));
        let Ok(Ok(mut stream)) = timeout(PATIENCE, connect).await else {
            return false;
        };
        let until = Instant::now() + LOOK;
        while let Ok(Ok(true)) = timeout(PATIENCE, ask(&mut stream)).await {
            // Pods ask there, and by datagrams.
            for address in [Some(LINK_LOCAL), self.address()].into_iter().flatten() {
                let asked = timeout(PATIENCE, ask_by_datagram(address)).await;
                if !matches!(asked, Ok(Ok(true))) {
                    return answered;
                }
            }
            answered = true;
            *heard = Instant::now();
            if std::mem::take(is_silent) {
                tell(ANSWERS, "the node's name server answers again".to_owned());
            }
            self.send_pods(self.address());
            // Nothing comes but the end.
            let mut nothing = [0];
            let mut desired = self.desired.clone();
            let before = self.address();
            let moved = desired.wait_for(|desired| names::address(desired) != before);
            tokio::select! {
                _ = timeout(PERIOD, stream.read(&mut nothing)) => {}
                // Another address is to be added first.
                _ = moved => return true,
            }
            if Instant::now() >= until {
                return true;
            }
        }
        answered
    }

    /// New pods ask at this address, or where each node answers.
    fn send_pods(&self, address: Option<Ipv4Addr>) {
        let at = Resolver::At(address.unwrap_or(LINK_LOCAL));
        self.resolver.send_if_modified(|now| {
            let is_other = *now != at;
            *now = at;
            is_other
        });
    }

    /// When a server that does not answer any more is started: a supervisor that has done so has its turn first.
    async fn start_at(&self) -> Instant {
        let file = self.paths.dns_lock();
        let note = timeout(PATIENCE, files::reading(move || fs::read(file))).await;
        match note.is_ok_and(|note| note.is_ok_and(|note| note == SUPERVISED)) {
            true => Instant::now() + SUPERVISOR,
            false => Instant::now(),
        }
    }

    fn address(&self) -> Option<Ipv4Addr> {
        names::address(&self.desired.borrow())
    }

    /// Starts a process that outlives this one. It ends at once when another one has the lock.
    async fn start(&self) -> io::Result<Child> {
        let folder = self.paths.data_dir().to_owned();
        detached::start(&self.command, folder, self.paths.dns_log()).await
    }
}

/// Removes what [`Keeper::keep`] added.
///
/// # Errors
/// What the kernel says.
pub async fn clear(desired: &Desired) -> Result<(), rtnetlink::Error> {
    let address = names::address(desired);
    let before = address.into_iter().chain([LINK_LOCAL]).collect();
    addresses::set(&BTreeSet::new(), &before).await
}

/// Whether the server knows the cluster's names.
async fn ask(stream: &mut TcpStream) -> io::Result<bool> {
    let bytes = question()?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes(), bytes.as_slice()].concat())
        .await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    is_known(&answer)
}

/// The same at an address of the server, as programs in pods ask.
async fn ask_by_datagram(address: Ipv4Addr) -> io::Result<bool> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect((address, PORT)).await?;
    socket.send(&question()?).await?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).await?;
    is_known(answer.get(..length).unwrap_or_default())
}

/// For the version of the cluster's names.
fn question() -> io::Result<Vec<u8>> {
    let name = Name::from_ascii(format!("dns-version.{DOMAIN}.")).map_err(io::Error::other)?;
    let mut query = Message::query();
    query.add_query(Query::query(name, RecordType::TXT));
    query.to_vec().map_err(io::Error::other)
}

fn is_known(answer: &[u8]) -> io::Result<bool> {
    let answer = Message::from_vec(answer).map_err(io::Error::other)?;
    let code = answer.metadata.response_code;
    Ok(code == ResponseCode::NoError && !answer.answers.is_empty())
}
