//! The commands of `parlance-dev` and what each of them calls.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use super::compose::{self, Compose};
use super::folder::DevFolder;
use super::replicas::Wanted;
use super::report::line;
use super::{
    demo::demo, demo_agent::demo_agent, doctor::doctor, down::down, env_file, status::status, up::up,
};
use crate::token::Token;

/// The command line.
#[derive(Debug, Parser)]
#[command(about = "Runs Parlance on this machine")]
pub struct Arguments {
    #[command(subcommand)]
    command: Order,
}

#[derive(Debug, Subcommand)]
enum Order {
    /// Start whatever is missing or does not answer
    Up {
        /// Number of gateways
        #[arg(long, env = "GATEWAYS", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
        gateways: u8,
        /// Number of persistence replicas
        #[arg(long, env = "PERSISTENCE", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
        persistence: u8,
        /// First gateway port; 0 picks free ones [default: as before, at first 4004]
        #[arg(long, env = "PORT")]
        port: Option<u16>,
    },
    /// Stop everything
    Down {
        /// Delete data, logs and the secret as well
        #[arg(long)]
        purge: bool,
    },
    /// Print what `up` would use; exit 0 for containers, 1 for processes of this machine
    Engine,
    /// Show what runs; exit 1 unless all of it serves
    Status,
    /// Print a token for a user
    Token {
        /// The user's id
        subject: String,
        /// The user's name; the id by default
        name: Option<String>,
    },
    /// Run a conversation of two users through two gateways
    Demo,
    /// Let agents in Rust and in Python answer word by word, on a stack of their own
    DemoAgent,
    /// Check what this machine needs; exit 1 if something is missing
    Doctor,
}

/// Runs one command; an unhealthy answer is an exit code, not an error.
///
/// # Errors
/// One line: what failed, where, and what to do.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let folder = DevFolder::default();
    let good = match arguments.command {
        Order::Up {
            gateways,
            persistence,
            port,
        } => {
            let wanted = Wanted {
                gateways: gateways.into(),
                persistence: persistence.into(),
                port,
            };
            match Compose::find()? {
                Some(compose) => compose.up(&folder, wanted).await?,
                None => up(&folder, wanted).await?,
            }
            true
        }
        Order::Down { purge } => {
            match Compose::find()?.filter(|_| compose::runs_here(&folder)) {
                Some(compose) => compose.down(&folder, purge)?,
                None => down(&folder, purge)?,
            }
            true
        }
        Order::Engine => {
            let containers = Compose::find()?.is_some();
            line(if containers { "compose" } else { "local" });
            containers
        }
        Order::Status => match Compose::find()?.filter(|_| compose::runs_here(&folder)) {
            Some(compose) => compose.status()?,
            None => status(&folder).await,
        },
        Order::Token { subject, name } => {
            let settings = env_file::read(&folder)?;
            let secret = settings
                .get("PARLANCE_JWT_SECRET")
                .map(String::as_str)
                .unwrap_or_default();
            line(format_args!(
                "{}",
                Token::new(&subject)
                    .name(name.as_deref().unwrap_or(&subject))
                    .sign(secret)?
            ));
            true
        }
        Order::Demo => return demo(&folder),
        Order::DemoAgent => demo_agent().await?,
        Order::Doctor => doctor(&folder),
    };
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
