//! The development stack's command line; everything is in [`parlance_harness::dev`].

use std::process::ExitCode;

use clap::Parser;
use parlance_harness::dev::command::{Arguments, run};

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("parlance-dev: {error:#}");
            ExitCode::FAILURE
        }
    }
}
