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

/// Takes over the signals that ask this process to end, from now on and for good, and those that tell of another size.
pub fn signals() -> io::Result<mpsc::Receiver<Heard>> {
    let (sender, receiver) = mpsc::channel(4);
    for kind in [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
        SignalKind::quit(),
    ] {
        let heard = Heard::End(kind.as_raw_value());
        tokio::spawn(forward(signal(kind)?, heard, sender.clone()));
    }
    let resized = signal(SignalKind::window_change())?;
    tokio::spawn(forward(resized, Heard::Resized, sender));
    Ok(receiver)
}

async fn forward(mut signal: Signal, heard: Heard, to: mpsc::Sender<Heard>) {
    while signal.recv().await.is_some() {
        if to.send(heard).await.is_err() {
            return;
        }
    }
}
