//! One attempt of a probe: asked once, ended by its deadline.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    sync::Semaphore,
    task::spawn_blocking,
    time::{Instant, timeout},
};

use super::target::Target;
use crate::runtime::Runtime;

mod grpc;
mod http;
mod tls;

/// An attempt that ends so much later than its deadline was not looked after: this process or the machine stood still.
const STALL: Duration = Duration::from_millis(500);
/// So long after its deadline a runtime has to answer what became of a program.
const HUNG: Duration = Duration::from_secs(10);
/// Names that are looked up at a time. A look-up holds a thread, and cannot be ended.
const LOOKUPS: usize = 4;

/// For a turn to look up a name: less than the least time of an attempt.
const LOOKUP_TURN: Duration = Duration::from_millis(500);
/// Addresses of a name that are tried.
const MOST_ADDRESSES: usize = 4;

static LOOKING_UP: Semaphore = Semaphore::const_new(LOOKUPS);

/// What an attempt found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The container answered as it should.
    Success,
    /// It answered as it should, with something worth telling.
    Warning(String),
    /// It did not, for this reason.
    Failure(String),
    /// Nothing about the container: the node could not ask.
    Void(String),
}

/// Why an exchange found no success.
#[derive(Debug)]
enum Trouble {
    /// The container's.
    Theirs(String),
    /// The node's own.
    Ours(String),
}

impl Trouble {
    fn connect(to: &str, error: &io::Error) -> Self {
        let text = format!("cannot connect to {to}: {error}");
        match is_ours(error) {
            true => Self::Ours(text),
            false => Self::Theirs(text),
        }
    }
}

/// Whether the node, and not what it asks, is the reason: it has no descriptor, port, memory or route left.
fn is_ours(error: &io::Error) -> bool {
    use nix::errno::Errno as E;
    let errno = error.raw_os_error().map(E::from_raw);
    let ours = [
        E::EMFILE,
        E::ENFILE,
        E::ENOMEM,
        E::ENOBUFS,
        E::EADDRNOTAVAIL,
        E::EAGAIN,
        E::ENETUNREACH,
        E::ENETDOWN,
        E::EPERM,
    ];
    errno.is_some_and(|errno| ours.contains(&errno))
}

/// Asks once. `id` is the container's.
pub async fn attempt(
    runtime: &dyn Runtime,
    id: &str,
    target: &Target,
    within: Duration,
) -> Finding {
    let begun = Instant::now();
    let asked = async {
        match target {
            Target::Http { url, headers } => http::get(url, headers).await,
            Target::Tcp { host, port } => connect(host, *port).await.map(|_| Finding::Success),
            Target::Grpc {
                host,
                port,
                service,
            } => grpc::check(host, *port, service).await,
            Target::Exec { command } => return exec(runtime, id, command, within).await,
            Target::None(why) => Err(Trouble::Ours(why.clone())),
        }
        .unwrap_or_else(|trouble| match trouble {
            Trouble::Theirs(why) => Finding::Failure(why),
            Trouble::Ours(why) => Finding::Void(why),
        })
    };
    if matches!(target, Target::Exec { .. }) {
        // The runtime keeps the deadline, because it has to kill what runs.
        return asked.await;
    }
    match timeout(within, asked).await {
        Ok(finding) => finding,
        Err(_) if begun.elapsed() > within + STALL => {
            Finding::Void("the node was too busy to look".to_owned())
        }
        Err(_) => Finding::Failure(format!("no answer within {within:?}")),
    }
}

/// Makes a hook's request: any answer is success.
pub async fn reach(target: &Target, within: Duration) -> Result<(), String> {
    let Target::Http { url, headers } = target else {
        return Err("it is no request".to_owned());
    };
    let why = |trouble| match trouble {
        Trouble::Theirs(why) | Trouble::Ours(why) => why,
    };
    match timeout(within, http::ask(url, headers)).await {
        Ok(answer) => answer.map(|_| ()).map_err(why),
        Err(_) => Err(format!("no answer within {within:?}")),
    }
}

/// Runs a hook's program in the container: exit code 0 is success.
pub async fn run(
    runtime: &dyn Runtime,
    id: &str,
    command: &[String],
    within: Duration,
) -> Result<(), String> {
    match exec(runtime, id, command, within).await {
        Finding::Success | Finding::Warning(_) => Ok(()),
        Finding::Failure(why) | Finding::Void(why) => Err(why),
    }
}

/// Runs a program in the container. A runtime that does not answer says nothing about the container.
async fn exec(runtime: &dyn Runtime, id: &str, command: &[String], within: Duration) -> Finding {
    let ran = timeout(within + HUNG, runtime.exec(id, command, within)).await;
    let Ok(ran) = ran else {
        return Finding::Void("containerd does not answer".to_owned());
    };
    match ran {
        Ok(outcome) if outcome.exit_code == Some(0) => Finding::Success,
        Ok(outcome) => {
            let how = match outcome.exit_code {
                Some(code) => format!("exit code {code}"),
                None => format!("no end within {within:?}, killed"),
            };
            let said = String::from_utf8_lossy(&outcome.output);
            Finding::Failure(quoted(&how, &said))
        }
        Err(error) => Finding::Void(error.message),
    }
}

/// A result with the beginning of what was said.
fn quoted(how: &str, said: &str) -> String {
    const LONGEST: usize = 200;
    let said = said.trim();
    let shown: String = said.chars().take(LONGEST).collect();
    match shown.as_str() {
        "" => how.to_owned(),
        shown => format!("{how}: {shown}"),
    }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, Trouble> {
    let to = super::target::authority(host, port);
    let addresses = match host.parse::<IpAddr>() {
        Ok(ip) => vec![(ip, port).into()],
        Err(_) => look_up(&to).await?,
    };
    let mut trouble = Trouble::Ours(format!("{to} has no address"));
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => trouble = Trouble::connect(&to, &error),
        }
    }
    Err(trouble)
}

/// The addresses of a name. That there are none says nothing of the container: names are the resolver's.
async fn look_up(to: &str) -> Result<Vec<SocketAddr>, Trouble> {
    // Look-ups of other containers' names may hang: that is not this one's fault.
    let Ok(permit) = timeout(LOOKUP_TURN, LOOKING_UP.acquire()).await else {
        let why = format!("cannot look up {to}: {LOOKUPS} other look-ups get no answer");
        return Err(Trouble::Ours(why));
    };
    let permit = permit.map_err(|_| Trouble::Ours("name look-ups have ended".to_owned()))?;
    let name = to.to_owned();
    let found = spawn_blocking(move || {
        // Held until the look-up ends, also when nobody waits for it any more.
        let _permit = permit;
        let all = std::net::ToSocketAddrs::to_socket_addrs(&name)?;
        Ok::<_, io::Error>(all.take(MOST_ADDRESSES).collect())
    });
    match found.await {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => Err(Trouble::Ours(format!("cannot look up {to}: {error}"))),
        Err(error) => Err(Trouble::Ours(format!("cannot look up {to}: {error}"))),
    }
}

#[cfg(test)]
mod tests;
