//! What the interfaces of pods have carried, by the counters of their network namespaces.
//!
//! A pod's namespace is entered by its pin, which is the pod's as long as it is there: a process id may be another process's by now. The
//! counters are those that the pod itself sees, whatever network plugin made its interfaces.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    thread,
};

use nix::sched::{CloneFlags, setns};

use super::{Traffic, sandbox::netns::is_pinned};

/// The counters of the calling thread's network namespace.
const COUNTERS: &str = "/proc/thread-self/net/dev";

/// Reads the counters of the namespaces that are pinned. Blocks. Those that cannot be read are left out: pods in the machine's network have no pin, and that of
/// a pod which ends goes.
pub fn read(pins: Vec<(String, PathBuf)>) -> io::Result<BTreeMap<String, Traffic>> {
    // A thread that changes its namespace is good for nothing else afterwards.
    let reader = thread::Builder::new().name("traffic".into());
    let reader = reader.spawn(move || {
        let mut all = BTreeMap::new();
        for (uid, pin) in pins {
            match look(&pin) {
                Ok(Some(traffic)) => {
                    all.insert(uid, traffic);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(pod = uid, %error, "cannot read what a pod's interfaces carried");
                }
            }
        }
        all
    })?;
    reader
        .join()
        .map_err(|_| io::Error::other("the thread that reads the pods' interfaces panicked"))
}

/// Enters a namespace and reads. `None` when none is pinned there.
fn look(pin: &Path) -> io::Result<Option<Traffic>> {
    if !is_pinned(pin) {
        return Ok(None);
    }
    setns(File::open(pin)?, CloneFlags::CLONE_NEWNET)?;
    Ok(Some(sum(&fs::read_to_string(COUNTERS)?)))
}

/// All interfaces but the loopback.
fn sum(text: &str) -> Traffic {
    let mut all = Traffic::default();
    for line in text.lines() {
        let Some((name, counters)) = line.split_once(':') else {
            continue;
        };
        if name.trim() == "lo" {
            continue;
        }
        let counter = |index: usize| {
            let value = counters.split_ascii_whitespace().nth(index);
            value.and_then(|it| it.parse::<u64>().ok()).unwrap_or(0)
        };
        all.received = all.received.saturating_add(counter(0));
        all.sent = all.sent.saturating_add(counter(8));
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_loopback_carries_nothing() {
        let text = "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    lo: 5176 52 0 0 0 0 0 0 5176 52 0 0 0 0 0 0\n  eth0: 1048576     812    0    0    0     0          0         0    20480     100    0    0    0     0       0          0\n  net1:7 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n";
        let traffic = Traffic {
            received: 1_048_583,
            sent: 20_489,
        };
        assert_eq!(sum(text), traffic);
    }

    #[test]
    fn a_pinned_namespace_is_entered() {
        use std::net::UdpSocket;

        use crate::{runtime::sandbox::netns, testing::netns::Space};

        let (space, folder) = (Space::new(), tempfile::tempdir().unwrap());
        let pin = folder.path().join("u");
        let place = pin.clone();
        space.run(move || netns::pin_own(&place)).unwrap();
        for line in [
            "link add eth0 type veth peer name other",
            "link set other up",
            "link set eth0 up",
            "address add 192.0.2.1/24 dev eth0",
        ] {
            space.ip(line);
        }
        // Nobody has that address: it is asked for.
        let asked = space.run(|| UdpSocket::bind("192.0.2.1:0")?.send_to(b"?", "192.0.2.2:9"));
        asked.unwrap();
        let sent = || {
            let all = read(vec![("u".to_owned(), pin.clone())]).unwrap();
            all["u"].sent
        };
        let begin = std::time::Instant::now();
        while sent() == 0 && begin.elapsed().as_secs() < 30 {
            thread::yield_now();
        }
        let counted = sent();
        netns::unpin(&pin).unwrap();
        assert!(counted > 0);
    }

    #[test]
    fn a_pod_without_a_namespace_of_its_own_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let pin = folder.path().join("u");
        fs::write(&pin, "").unwrap();
        let pins = vec![
            ("u".to_owned(), pin),
            ("v".to_owned(), folder.path().join("v")),
        ];
        assert!(read(pins).unwrap().is_empty());
    }
}
