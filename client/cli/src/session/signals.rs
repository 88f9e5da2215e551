//! Signals to this process.

use std::io;

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

/// What was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// A signal that asks for an end: its number.
    End(i32),
    /// The terminal has another size.
    Resized,
}

/// Takes over the signals that ask this process to end, from now on and for good, and those that tell of another size. One that was ignored when this process
/// began stays so: `nohup`.
pub fn signals() -> io::Result<mpsc::Receiver<Heard>> {
    let (sender, receiver) = mpsc::channel(4);
    let ignored = std::fs::read_to_string("/proc/self/status");
    let ignored = ignored.ok().and_then(|status| ignored_of(&status));
    for kind in [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
        SignalKind::quit(),
    ] {
        let heard = Heard::End(kind.as_raw_value());
        if ignored.is_some_and(|ignored| ignored >> (kind.as_raw_value() - 1) & 1 == 1) {
            continue;
        }
        tokio::spawn(forward(signal(kind)?, heard, sender.clone()));
    }
    let resized = signal(SignalKind::window_change())?;
    tokio::spawn(forward(resized, Heard::Resized, sender));
    Ok(receiver)
}

/// The signals that a process ignores, a bit each, from the least for signal 1.
fn ignored_of(status: &str) -> Option<u64> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

async fn forward(mut signal: Signal, heard: Heard, to: mpsc::Sender<Heard>) {
    while signal.recv().await.is_some() {
        if to.send(heard).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nohup_ignores_is_seen() {
        let status = "Name:\tbarge\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n";
        assert_eq!(ignored_of(status), Some(0x1001));
        assert_eq!(ignored_of("Name:\tbarge\n"), None);
    }
}
