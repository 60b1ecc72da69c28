//! The command line of the persistence service.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use parlance_persistence::config::Config;
use parlance_persistence::service;
use parlance_runtime::healthcheck;
use parlance_runtime::startup::exit_with;

/// Stores what people say to each other in Parlance, and answers questions about it.
#[derive(Parser)]
#[command(name = "parlance-persistence", version)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Serve until SIGTERM or SIGINT.
    Run,
    /// Apply missing migrations and exit.
    Migrate,
    /// After a restore from a backup: make every client read everything anew.
    NewEpoch,
    /// Ask the replica that runs here whether it lives; exits 0 or 1. For containers, which have no curl.
    Healthcheck {
        /// Ask whether it serves instead
        #[arg(long)]
        ready: bool,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    exit_with("persistence", start(&cli.command))
}

fn start(task: &Task) -> anyhow::Result<ExitCode> {
    let config = Config::from_process()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let code = runtime.block_on(async {
        match task {
            Task::Run => service::run(config).await,
            Task::Migrate => service::migrate(config).await,
            Task::NewEpoch => service::new_epoch(config).await,
            Task::Healthcheck { ready } => {
                healthcheck::ask(&config.internal.host, config.internal.port, *ready).await
            }
        }
    });
    // A name lookup that hangs must not hold up the exit.
    runtime.shutdown_background();
    code
}
