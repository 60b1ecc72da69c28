//! Measures a gateway's memory per idle WebSocket on a throw-away stack of the binaries beside this one.

use std::process::ExitCode;

use clap::Parser;
use parlance_harness::Stack;
use parlance_harness::idle::measure;

/// The command line.
#[derive(Debug, Parser)]
#[command(about = "Measures a gateway's memory per idle WebSocket")]
struct Arguments {
    /// Connections to open
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Users they belong to [default: one each]
    #[arg(long)]
    users: Option<usize>,
    /// Fail if one takes more KiB than this
    #[arg(long)]
    at_most: Option<f64>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let Arguments {
        connections,
        users,
        at_most,
    } = Arguments::parse();
    let stack = Stack::builder().start().await?;
    let footprint = measure(&stack, connections, users.unwrap_or(usize::MAX)).await?;
    println!(
        "{connections} idle websockets: {} KiB before, {} KiB when open, {} KiB after a heartbeat: {:.1} KiB each",
        footprint.before,
        footprint.opened,
        footprint.idle,
        footprint.per_connection()
    );
    let within = at_most.is_none_or(|limit| footprint.per_connection() <= limit);
    Ok(if within {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
