//! Programs that people run in containers and talk with.

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

use super::RuntimeError;

/// What is to be run in a container, beside its own process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Whether it has a standard input; without, that is empty.
    pub stdin: bool,
    /// Whether it has a terminal, which is its standard output and standard error alike.
    pub tty: bool,
    /// The terminal's size at the start.
    pub size: Option<TerminalSize>,
}

/// How large a terminal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Characters in a line.
    pub columns: u32,
    /// Lines.
    pub rows: u32,
}

/// A program that runs. What is not read of its outputs holds it back.
pub struct Running {
    /// Its standard input, if it has one. To end it, drop this and tell `control`.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Sync + Unpin>>,
    /// Its standard output.
    pub stdout: Box<dyn AsyncRead + Send + Sync + Unpin>,
    /// Its standard error, unless it has a terminal.
    pub stderr: Option<Box<dyn AsyncRead + Send + Sync + Unpin>>,
    /// All else. Dropped, it ends the program in the background.
    pub control: Box<dyn Control>,
}

/// What can be done to a program that runs.
#[async_trait]
pub trait Control: Send + Sync {
    /// Waits for its end and answers its exit code: 128 + N when signal N ended it. May be given up and asked again.
    async fn wait(&self) -> Result<i32, RuntimeError>;
    /// Returns once what copies its outputs (the container's shim) has answered: it is not standing still.
    async fn copier_answers(&self) -> Result<(), RuntimeError>;
    /// Sends it a signal. That it has ended is success.
    async fn signal(&self, number: u32) -> Result<(), RuntimeError>;
    /// Its terminal has another size. That it has none or has ended is success.
    async fn resize(&self, size: TerminalSize) -> Result<(), RuntimeError>;
    /// Its standard input ends behind what was written. That it has ended is success.
    async fn close_stdin(&self) -> Result<(), RuntimeError>;
    /// Ends the program, if it still runs, with all that is in its session: HUP when it has a terminal, else TERM, and KILL soon after. Then tidies up.
    /// Goes on when nobody waits any more.
    async fn end(&self);
}
