//! `barge exec POD|KIND/NAME -- COMMAND`

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow, ensure};
use barge_client::{Client, ClientError, ExecStream, v1::ExecStart};
use clap::Args;

use crate::{
    args::Namespace,
    context::Connection,
    explain, pods,
    session::{self, Printer},
    terminal::{self, Raw},
};

/// The container has no such program.
pub const PROGRAM_NOT_FOUND: &str = "PROGRAM_NOT_FOUND";

const EXAMPLES: &str = "\
Examples:
  barge exec web-1 -- ls -l /srv
  barge exec -it deployment/web -- sh
  barge exec -i db-1 -c postgres -- psql -U app < dump.sql
  barge exec web-1 -- sh -c 'echo $HOSTNAME'

The exit code is the program's: 128 + N when signal N ended it, 127 when the container has no such program. Ctrl-C and SIGTERM go to the program; a second one ends barge, and the program with it.";

#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    override_usage = "barge exec [-it] [-c CONTAINER] [-n NS] POD|KIND/NAME -- COMMAND [ARGS]..."
)]
pub struct Exec {
    /// POD, or KIND/NAME: a running pod of a deployment or a service
    #[arg(value_name = "POD|KIND/NAME")]
    pod: String,
    /// The program and its arguments, as they are: no shell; after --
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// Pass standard input to the program, until its end
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the program a terminal: with -i, from a terminal
    #[arg(short, long)]
    tty: bool,
    /// The container, in a pod that has several
    #[arg(short, long, default_value = "", hide_default_value = true)]
    container: String,
    /// Print only what the program writes, and errors
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    namespace: Namespace,
}

pub async fn run(to: &Connection, exec: Exec) -> Result<ExitCode> {
    ensure!(
        !exec.command.is_empty(),
        "say what to run: barge exec {} -- COMMAND",
        exec.pod
    );
    let tty = match tty(exec.stdin, exec.tty, io::stdin().is_terminal()) {
        Ok(tty) => tty,
        Err(warning) => {
            if !exec.quiet {
                eprintln!("warning: {warning}");
            }
            false
        }
    };
    let client = to.client()?;
    let namespace = exec.namespace.of(to)?;
    let start = ExecStart {
        pod: pods::named(&client, &namespace, &exec.pod).await?,
        namespace,
        container: exec.container,
        command: exec.command,
        stdin: exec.stdin,
        tty,
        size: terminal::size().filter(|_| tty),
    };
    let stream = match started(&client, start).await {
        Ok(stream) => stream,
        Err(error) => match shells_code(&error) {
            Some(code) => {
                explain::print(&error);
                return Ok(code.into());
            }
            None => return Err(error),
        },
    };
    // From here on signals are the program's; before, they end this process.
    let signals = session::signals().context("listen for signals")?;
    let stdin = match exec.stdin {
        true => Some(session::input(io::stdin()).context("read standard input")?),
        false => None,
    };
    let printer = Printer::standard().context("print what the program writes")?;
    let raw = match tty {
        true => Some(Raw::enter(io::stdin()).context("set the terminal's mode")?),
        false => None,
    };
    if tty && let Some(size) = terminal::size() {
        // It may be another one since the start.
        stream.input.resize(size);
    }
    let ended = session::run(stream, stdin, tty, printer, signals).await;
    drop(raw);
    Ok(ended?.into())
}

/// Whether the program gets a terminal; an error says why it gets none although one was asked for.
fn tty(stdin: bool, tty: bool, is_terminal: bool) -> Result<bool, &'static str> {
    match (tty, stdin, is_terminal) {
        (false, ..) => Ok(false),
        (true, true, true) => Ok(true),
        (true, false, _) => Err("-t goes with -i; without it the program gets no terminal"),
        (true, true, false) => Err(
            "-t: standard input is not a terminal, so the program gets none either (leave out -t)",
        ),
    }
}

/// Starts the program, once at most.
pub async fn started(client: &Client, start: ExecStart) -> Result<ExecStream> {
    let (namespace, pod) = (start.namespace.clone(), start.pod.clone());
    match client.exec(start).await {
        Ok(stream) => Ok(stream),
        Err(ClientError::UnknownOutcome { message }) => Err(anyhow!(
            "the connection broke before the manager said whether the program was started: {message}; it was not asked for again: \
             look whether it ran, then run it again"
        )),
        Err(error) => Err(pods::explained(client, &namespace, &pod, error).await),
    }
}

/// What a shell ends with in place of a program that cannot be run; nothing for other errors.
fn shells_code(error: &anyhow::Error) -> Option<u8> {
    match reason(error)? {
        PROGRAM_NOT_FOUND => Some(127),
        "PROGRAM_NOT_EXECUTABLE" => Some(126),
        _ => None,
    }
}

/// The manager's word for why a program was not started.
pub fn reason(error: &anyhow::Error) -> Option<&str> {
    let mut causes = error.chain();
    let client = causes.find_map(|cause| cause.downcast_ref::<ClientError>());
    client.and_then(ClientError::reason)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::commands::{Cli, Command};

    fn parsed(line: &str) -> Exec {
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Exec(exec) => exec,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_follows_the_dashes_is_the_programs() {
        for line in [
            "barge exec -it web-1 -c app -n shop -- ls -l --color -- x",
            "barge exec web-1 -n shop --container app -i -t -- ls -l --color -- x",
            "barge exec --stdin --tty web-1 -n=shop -capp -- ls -l --color -- x",
        ] {
            let exec = parsed(line);
            assert_eq!(exec.pod, "web-1");
            assert_eq!(exec.command, ["ls", "-l", "--color", "--", "x"]);
            assert_eq!((exec.stdin, exec.tty), (true, true));
            assert_eq!(exec.container, "app");
            assert_eq!(exec.namespace.namespace.as_deref(), Some("shop"));
        }
    }

    #[test]
    fn the_dashes_may_be_left_out() {
        let exec = parsed("barge exec -i web-1 ls -l -t");
        assert_eq!(exec.command, ["ls", "-l", "-t"]);
        assert_eq!((exec.stdin, exec.tty), (true, false));
        assert!(parsed("barge exec web-1").command.is_empty());
    }

    #[test]
    fn a_terminal_is_given_from_a_terminal_only() {
        assert_eq!(tty(true, true, true), Ok(true));
        assert_eq!(tty(true, false, true), Ok(false));
        assert!(tty(false, true, true).unwrap_err().contains("-i"));
        assert!(tty(true, true, false).unwrap_err().contains("no"));
    }
}
