//! `parlance-gateway`: the command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use parlance_gateway::{app, config::Settings};
use parlance_runtime::{config, healthcheck, startup};

/// The Socket.IO and REST front of Parlance.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves clients.
    Run,
    /// Reads and checks the configuration, then ends.
    CheckConfig,
    /// Asks the gateway that runs here whether it lives; exits 0 or 1. For containers, which have no curl.
    Healthcheck {
        /// Asks whether it is ready for clients instead
        #[arg(long)]
        ready: bool,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    startup::exit_with("gateway", start(cli.command).await)
}

async fn start(command: Command) -> anyhow::Result<ExitCode> {
    let settings: Settings = config::load(&Settings::sources())?;
    match command {
        Command::Run => app::run(settings).await,
        Command::CheckConfig => Ok(ExitCode::SUCCESS),
        Command::Healthcheck { ready } => {
            healthcheck::ask(&settings.internal.host, settings.internal.port, ready).await
        }
    }
}
