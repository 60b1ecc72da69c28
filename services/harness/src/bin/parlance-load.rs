//! `make bench`: measures the services beside this program on throw-away stacks, and the stock stack in the same rounds.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use parlance_harness::bench::Contender;
use parlance_harness::bench::dialect::Dialect;
use parlance_harness::bench::{Plan, cases, run};

/// The command line; `make bench` sets the variables.
#[derive(Debug, Parser)]
#[command(about = "Measures Parlance beside the stock Socket.IO stack")]
struct Arguments {
    /// Scenarios or cases, such as connect,join/10x200 [default: all]
    #[arg(long, env = "ONLY", value_delimiter = ',')]
    only: Vec<String>,
    /// 1 for fewer clients, shorter runs and one round
    #[arg(long, env = "QUICK", default_value = "0")]
    quick: String,
    /// How often each case is run on each system [default: 3, quick: 1]
    #[arg(long, env = "ROUNDS")]
    rounds: Option<u32>,
    /// parlance, node or both
    #[arg(long, env = "SYSTEM", default_value = "both")]
    system: String,
    /// What the generator speaks to Parlance
    #[arg(long, env = "DIALECT", value_enum, default_value = "native")]
    dialect: Dialect,
    /// File for all runs as JSON
    #[arg(long, env = "JSON")]
    json: Option<PathBuf>,
    /// Print the names of all cases
    #[arg(long)]
    list: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.list {
        println!("{}", cases().join("\n"));
        return Ok(ExitCode::SUCCESS);
    }
    let quick = !matches!(arguments.quick.as_str(), "" | "0");
    let systems = match arguments.system.as_str() {
        "both" => vec![Contender::Parlance, Contender::Node],
        "parlance" => vec![Contender::Parlance],
        "node" => vec![Contender::Node],
        other => anyhow::bail!("there is no system {other}: parlance, node or both"),
    };
    let outcome = run(&Plan {
        only: arguments
            .only
            .into_iter()
            .filter(|name| !name.is_empty())
            .collect(),
        quick,
        rounds: arguments.rounds.unwrap_or(if quick { 1 } else { 3 }).max(1),
        systems,
        dialect: arguments.dialect,
    })?;
    if let Some(path) = arguments.json {
        std::fs::write(&path, outcome.json()?).with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("all runs are in {}", path.display());
    }
    println!("{}", outcome.table());
    if outcome.kept() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("Parlance lost, duplicated or reordered messages, or delivered them to a wrong room");
    Ok(ExitCode::FAILURE)
}
