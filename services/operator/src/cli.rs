//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Look at a running Parlance and give it orders, over NATS.
///
/// Exit codes: 0 done; 1 could not be done; 2 wrong usage; 3 the answer is no (a token that is not valid, a
/// partition that nobody works); 4 not everyone who should have answered did; 64 settings that cannot work.
#[derive(Debug, Parser)]
#[command(name = "parlance", version)]
pub struct Cli {
    /// Where NATS is, instead of PARLANCE_NATS_URL. Account: PARLANCE_NATS_USER, PARLANCE_NATS_PASSWORD or
    /// PARLANCE_NATS_CREDENTIALS_FILE.
    #[arg(long, global = true, value_name = "URL")]
    pub nats_url: Option<String>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// Seconds to wait for NATS, and for answers.
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds)]
    pub timeout: f64,
    /// What to do.
    #[command(subcommand)]
    pub task: Task,
}

/// What can be asked.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// The gateways and their connections; of one user: each connection.
    Connections {
        /// User id.
        user: Option<String>,
    },
    /// How many conversations each gateway follows; of one conversation: who follows it where.
    Rooms {
        /// Conversation id (UUID).
        conversation: Option<String>,
    },
    /// Who works which partition, and what waits there.
    Partitions,
    /// What waits in the streams.
    Lag,
    /// What cannot be processed as it is.
    #[command(subcommand)]
    DeadLetters(Letters),
    /// Let a gateway end as on SIGTERM: its clients go elsewhere over time.
    Drain {
        /// Its name, as `parlance connections` shows it.
        gateway: String,
    },
    /// Tokens.
    #[command(subcommand)]
    Token(Token),
}

/// What can be done with dead letters.
#[derive(Debug, Subcommand)]
pub enum Letters {
    /// Latest first.
    List {
        /// At most so many, up to 500.
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// Where the page before ended.
        #[arg(long, default_value = "")]
        cursor: String,
    },
    /// One of them.
    Show {
        /// Its id.
        id: String,
        /// Also what users wrote.
        #[arg(long)]
        content: bool,
    },
    /// Hand it in once more: it is checked and authorised like the original, and a repeat changes nothing.
    Replay {
        /// Its id.
        id: String,
    },
    /// Forget it for good.
    Discard {
        /// Its id.
        id: String,
        /// Do not ask back.
        #[arg(long)]
        yes: bool,
    },
}

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Verify a token as every gateway would.
    Check(Check),
}

/// Where the token is. Not on the command line: others may see that.
#[derive(Debug, Args)]
pub struct Check {
    /// A file that holds it; else it is read from standard input.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// What a command came to.
pub enum Verdict {
    /// Done, or shown in full.
    Done,
    /// Shown, but the answer is no: a token that is not valid, a partition that nobody works.
    No,
    /// Shown, but not everyone who should have answered did.
    Incomplete,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.1..=300.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("must be within 0.1 and 300".to_owned())
    }
}
