//! barge-agent: parse, take the data folder, join, run until a signal, drain.

use std::{
    io::{IsTerminal, stderr},
    process::ExitCode,
    time::Duration,
};

use barge_agent::{
    carrier,
    config::{CarrierFlags, Cli, Command, Config, DnsFlags, ForgetFlags, PauseFlags, RunFlags},
    control::{self, ControlError},
    dns, forget, node, pause,
};
use clap::Parser;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// For threads that are at work when all else has ended.
const LINGER: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(flags) => match Config::load(flags, &node::host_name()) {
            Ok(config) => run(config),
            Err(error) => fail(2, &error),
        },
        Command::ForgetPods(flags) => forget(flags),
        Command::Pause(flags) => pause(flags),
        Command::Dns(DnsFlags { data_dir, standby }) => {
            log_to_stderr();
            match dns::run(&dns::Args { data_dir, standby }) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(1, &error),
            }
        }
        Command::Carrier(CarrierFlags { data_dir, standby }) => {
            log_to_stderr();
            match carrier::run(&carrier::Args { data_dir, standby }) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(1, &error),
            }
        }
    }
}

fn run(config: Config) -> ExitCode {
    log_to_stderr();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &error),
    };
    let ended = runtime.block_on(control::run(config));
    // A thread that a disk holds up does not hold up the end: nothing gives life signs any more.
    runtime.shutdown_timeout(LINGER);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        // As settings that do not work: systemd does not start it again.
        Err(error @ ControlError::NodeDeleted { .. }) => fail(2, &error),
        Err(error) => fail(1, &error),
    }
}

fn forget(flags: ForgetFlags) -> ExitCode {
    log_to_stderr();
    let which = match (flags.all, flags.uids.is_empty()) {
        (true, _) => forget::Which::All,
        (false, true) => forget::Which::List,
        (false, false) => forget::Which::Uids(flags.uids),
    };
    let flags = RunFlags {
        data_dir: flags.data_dir,
        containerd: flags.containerd,
        containerd_namespace: flags.containerd_namespace,
        config: flags.config,
        ..RunFlags::default()
    };
    let config = match Config::load(flags, &node::host_name()) {
        Ok(config) => config,
        Err(error) => return fail(2, &error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &error),
    };
    match runtime.block_on(forget::run(&config, which)) {
        Ok(listed) => {
            print!("{listed}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(1, &error),
    }
}

/// Has one thread: a process with more cannot change its namespaces.
fn pause(flags: PauseFlags) -> ExitCode {
    let ended = match (flags.init, flags.pin, flags.note, flags.netns) {
        (false, Some(pin), Some(note), Some(netns)) => pause::launch(&pause::Args {
            pin,
            note,
            netns,
            root: flags.root,
        }),
        _ => pause::hold(&flags.root),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &error),
    }
}

fn log_to_stderr() {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .with_env_var("BARGE_LOG")
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .init();
}

fn fail(code: u8, error: &dyn std::error::Error) -> ExitCode {
    eprintln!("barge-agent: {error}");
    ExitCode::from(code)
}
