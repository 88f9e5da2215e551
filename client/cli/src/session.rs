//! A program in a container, connected with this process: its input, its outputs, and signals.
//!
//! Each end holds back the other: what the terminal does not take is not asked of the manager, and what the program does not read is not read here.

use std::{convert::Infallible, io, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use barge_client::{ExecEvent, ExecInput, ExecOutput, ExecStream};
use nix::libc::SIGHUP;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use crate::terminal;

mod input;
mod print;
mod signals;

pub use input::{Input, input};
pub use print::{Printer, To};
pub use signals::{Heard, signals};

/// The terminal's character for the end of the input.
const END_OF_FILE: u8 = 4;
/// For a program to end after it was told that the terminal has gone.
const GRACE: Duration = Duration::from_secs(5);
/// What a shell says of a program whose output nobody takes.
const NOBODY_READS: i32 = 128 + nix::libc::SIGPIPE;

/// What it means for a program that its stream broke.
const LOST: &str = "the program's stream broke, and the program was ended with it";

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The program, with this code.
    Program(i32),
    /// This process is to end by this signal, whatever the program does.
    Signal(i32),
}

impl From<Ended> for ExitCode {
    fn from(ended: Ended) -> Self {
        let code = match ended {
            Ended::Program(code) => code,
            Ended::Signal(number) => 128 + number,
        };
        u8::try_from(code).unwrap_or(u8::MAX).into()
    }
}

/// Connects a program with this process until it ends. The first signal goes to the program, a second one ends the wait.
pub async fn run(
    stream: ExecStream,
    stdin: Option<Input>,
    tty: bool,
    printer: Printer,
    signals: mpsc::Receiver<Heard>,
) -> Result<Ended> {
    let ExecStream { input, output } = stream;
    tokio::select! {
        biased;
        code = listen(output, printer, LOST) => code.map(Ended::Program),
        number = heed(&input, signals) => Ok(Ended::Signal(number)),
        never = speak(&input, stdin, tty) => match never {},
    }
}

/// Prints what the program writes, until its exit code. `lost` says what it means that the stream broke.
pub async fn listen(
    mut output: ExecOutput,
    mut printer: Printer,
    lost: &'static str,
) -> Result<i32> {
    let written = loop {
        let written = match output.next().await.context(lost)? {
            ExecEvent::Stdout(data) => printer.print(To::Stdout, data).await,
            ExecEvent::Stderr(data) => printer.print(To::Stderr, data).await,
            ExecEvent::Exit(code) => break printer.finish().await.map(|()| code),
        };
        if let Err(error) = written {
            break Err(error);
        }
    };
    match written {
        // The program is ended with its stream.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(NOBODY_READS),
        written => written.context("print what the program writes"),
    }
}

/// Sends signals and sizes on. Returns the second signal, or HUP after [`GRACE`]: the terminal has gone, and nobody is left to send a second one.
async fn heed(input: &ExecInput, mut signals: mpsc::Receiver<Heard>) -> i32 {
    let mut sent = false;
    let mut hung_up = None;
    loop {
        let heard = tokio::select! {
            heard = signals.recv() => heard,
            () = sleep_until(hung_up.unwrap_or_else(Instant::now)), if hung_up.is_some() => return SIGHUP,
        };
        match heard {
            Some(Heard::Resized) => {
                if let Some(size) = terminal::size() {
                    input.resize(size);
                }
            }
            Some(Heard::End(number)) if sent => return number,
            Some(Heard::End(number)) => {
                sent = true;
                hung_up = (number == SIGHUP).then(|| Instant::now() + GRACE);
                // A stream that has ended says so to those who listen.
                let _ = input.signal(number.unsigned_abs());
            }
            // Nothing more comes.
            None if hung_up.is_none() => return std::future::pending().await,
            None => {
                sleep(GRACE).await;
                return SIGHUP;
            }
        }
    }
}

/// Sends the input on, then its end. Never returns: the program ends the session.
async fn speak(input: &ExecInput, stdin: Option<Input>, tty: bool) -> Infallible {
    if let Some(mut stdin) = stdin {
        let mut open = true;
        while open {
            match stdin.recv().await {
                Some(Ok(data)) => open = input.write(&data).await.is_ok(),
                Some(Err(error)) => eprintln!("error: read standard input: {error}"),
                None => break,
            }
        }
        // A stream that has ended says so to those who listen.
        let _ = match tty {
            true => input.write(&[END_OF_FILE]).await,
            false => input.end().await,
        };
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests;
