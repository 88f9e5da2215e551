//! barge-server: parse, run until a signal, drain.

use std::{io, process::ExitCode, time::Duration};

use barge_server::{
    cli::{Cli, Command},
    config::Config,
    manager,
    observe::{logging::Logging, spans::Spans},
    recovery::{
        mint, recover,
        restore::{self, RestoreError},
    },
    runtime::{Threads, allocators},
};
use clap::Parser;
use tokio::runtime;

/// Requests allocate hundreds of small pieces on many threads, where this one is a good deal faster than glibc's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is still running when the manager has ended gets this long.
const LINGER: Duration = Duration::from_secs(1);
/// A collector gets this long to take the last spans.
const FLUSH: Duration = Duration::from_secs(2);
/// The databases get this long to close.
const CLOSE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(missing) = missing_of_processor() {
        return fail(1, &io::Error::other(missing));
    }
    match cli.command {
        Command::Run(flags) => match flags.resolve() {
            Ok(config) => run(config),
            Err(error) => fail(2, &error),
        },
        Command::Restore(flags) => restore(&flags),
        Command::Recover(flags) => recover(&flags),
        Command::Credential(flags) => credential(flags),
    }
}

/// What RocksDB was built for (`.cargo/config.toml`) and this processor does not have: it would end the manager at the first write.
fn missing_of_processor() -> Option<&'static str> {
    #[cfg(target_arch = "x86_64")]
    if option_env!("CXXFLAGS_x86_64_unknown_linux_gnu")
        .is_some_and(|flags| flags.contains("-msse4.2"))
        && !(is_x86_feature_detected!("sse4.2") && is_x86_feature_detected!("pclmulqdq"))
    {
        return Some(
            "this processor has no SSE 4.2 or no PCLMULQDQ, which this barge-server was built for: build it without the \
             flags in .cargo/config.toml",
        );
    }
    None
}

fn run(config: Config) -> ExitCode {
    allocators::bound();
    let logging = match Logging::start(config.log_format) {
        Ok(logging) => logging,
        Err(error) => return fail(1, &error),
    };
    let spans = match Spans::start(config.otlp.as_ref(), &config.advertise) {
        Ok(spans) => spans,
        Err(error) => return fail(error.exit_code(), &error),
    };
    let runtime = runtime::Builder::new_multi_thread()
        .enable_all()
        .on_thread_park(allocators::follow)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &error),
    };
    let threads = Threads::default();
    let running = manager::run(config, threads.clone(), logging, spans.clone());
    let ended = runtime.block_on(running);
    // What still runs lets go of the databases; they are closed by their threads, before the process takes itself apart.
    runtime.shutdown_timeout(LINGER);
    spans.close(FLUSH);
    if !threads.wait(CLOSE) {
        tracing::warn!("the databases were not closed within {} s", CLOSE.as_secs());
    }
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.exit_code(), &error),
    }
}

fn restore(flags: &restore::Flags) -> ExitCode {
    match restore::restore(flags) {
        Ok(restored) => {
            println!(
                "restored cluster {}: {} records as of revision {}\n\
                 start it: barge-server run --data-dir {} --advertise {}\n\
                 an administrator's credential is in {}",
                restored.header.cluster_id,
                restored.records,
                restored.header.revision,
                flags.data_dir.display(),
                flags.advertise,
                flags.data_dir.join("admin.toml").display()
            );
            ExitCode::SUCCESS
        }
        Err(error @ RestoreError::Usage(_)) => fail(2, &error),
        Err(error) => fail(1, &error),
    }
}

fn credential(flags: mint::Flags) -> ExitCode {
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &error),
    };
    match runtime.block_on(mint::run(flags)) {
        Ok(done) => {
            println!("{done}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(1, &error),
    }
}

fn recover(flags: &recover::Flags) -> ExitCode {
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &error),
    };
    match runtime.block_on(recover::recover(flags)) {
        Ok(plan) => {
            println!("{plan}");
            ExitCode::from(if plan.done.is_some() { 0 } else { 2 })
        }
        Err(error) => fail(1, &error),
    }
}

fn fail(code: u8, error: &dyn std::error::Error) -> ExitCode {
    eprintln!("barge-server: {error}");
    ExitCode::from(code)
}
