//! `parlance-gateway`: the command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use parlance_gateway::{app, config::Settings};
use parlance_runtime::{config, startup};

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
    }
}
