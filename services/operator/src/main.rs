//! The operators' command `parlance`: inspects the services and gives them orders, over NATS alone.
//!
//! Knows the contract of `chat.ops.…` and nothing else of the services. Must not open a database or a port.

mod ask;
mod cli;
mod config;
mod gateways;
mod letters;
mod persistence;
mod show;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use parlance_runtime::config::ConfigError;
use parlance_runtime::startup::EXIT_BAD_CONFIGURATION;

use ask::Operator;
use cli::{Cli, Task, Verdict};
use config::Config;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| {
            let outcome = runtime.block_on(run(&cli));
            // A name lookup that hangs must not hold up the exit.
            runtime.shutdown_background();
            outcome
        });
    match outcome {
        Ok(Verdict::Done) => ExitCode::SUCCESS,
        Ok(Verdict::No) => ExitCode::from(3),
        Ok(Verdict::Incomplete) => ExitCode::from(4),
        Err(error) => {
            let line = format!("parlance: {error:#}").replace(['\n', '\r'], " ");
            // Nothing is left to report to when stderr is closed.
            let _ = writeln!(std::io::stderr().lock(), "{line}");
            if error.is::<ConfigError>() {
                ExitCode::from(EXIT_BAD_CONFIGURATION)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

async fn run(cli: &Cli) -> anyhow::Result<Verdict> {
    let config = Config::from_process(cli.nats_url.as_deref())?;
    let operator = Operator::connect(&config, cli.json, cli.timeout).await?;
    match &cli.task {
        Task::Connections { user: None } => gateways::connections(&operator).await,
        Task::Connections { user: Some(user) } => gateways::sessions(&operator, user).await,
        Task::Rooms { conversation: None } => gateways::rooms(&operator).await,
        Task::Rooms {
            conversation: Some(conversation),
        } => gateways::followers(&operator, conversation).await,
        Task::Drain { gateway } => gateways::drain(&operator, gateway).await,
        Task::Token(task) => gateways::check_token(&operator, task).await,
        Task::Partitions => persistence::partitions(&operator).await,
        Task::Lag => persistence::lag(&operator).await,
        Task::DeadLetters(task) => letters::run(&operator, task).await,
    }
}
