//! `make bench`: Parlance beside the stock stack, in the same rounds on the same machine.
//!
//! Every run starts a system of its own on one core, stores the users and conversations of its case, and lets a
//! generator on another core play the clients. The systems take turns, so that both see the same neighbours. Every run
//! checks that nothing was lost, duplicated, reordered or delivered to a wrong room. Must not link either service.

mod checks;
mod client;
pub mod dialect;
mod figures;
mod frame;
mod latency;
mod packet;
mod peer;
pub mod processes;
mod recorder;
mod report;
mod scenario;
mod system;
mod world;

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::task::{LocalSet, spawn_local};

use dialect::Dialect;
use figures::{Figures, Run};
use recorder::Recorder;
use scenario::{CASES, Case, Stage};
use system::System;
pub use world::Contender;

/// Time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(2);

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Scenarios or cases; empty for all.
    pub only: Vec<String>,
    /// Fewer clients, shorter runs, one round.
    pub quick: bool,
    /// How often each case is run on each system.
    pub rounds: u32,
    /// Which systems.
    pub systems: Vec<Contender>,
    /// What the generator speaks to Parlance.
    pub dialect: Dialect,
}

/// All runs of a plan.
#[derive(Debug, Default)]
pub struct Outcome {
    runs: Vec<Run>,
}

impl Outcome {
    /// The table, as Markdown.
    #[must_use]
    pub fn table(&self) -> String {
        report::table(&self.runs)
    }

    /// All runs as JSON.
    ///
    /// # Errors
    /// Never: everything in them can be written as JSON.
    pub fn json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(&self.runs)?)
    }

    /// Whether Parlance kept its promises in every run. What the peer does is only shown.
    #[must_use]
    pub fn kept(&self) -> bool {
        let mut ours = self.runs.iter().filter(|run| run.system == Contender::Parlance);
        ours.all(|run| run.violations.delivered())
    }
}

/// Names of all cases.
#[must_use]
pub fn cases() -> Vec<&'static str> {
    CASES.iter().map(|case| case.name).collect()
}

/// Measures on this thread, in a runtime of its own: servers on one core, the generator on another.
///
/// # Errors
/// The machine has fewer than two cores, a name in `only` is unknown, or a system does not start.
pub fn run(plan: &Plan) -> anyhow::Result<Outcome> {
    let cases = plan.cases()?;
    processes::raise_file_limit();
    // The thread that starts processes is made here and stays on the servers' core.
    processes::pin_servers()?;
    crate::devstack::launch::prepare();
    processes::pin_generator()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let mut outcome = Outcome::default();
        let all = plan.rounds as usize * cases.len() * plan.systems.len();
        for case in cases {
            for round in 1..=plan.rounds {
                for system in &plan.systems {
                    let (number, name) = (outcome.runs.len() + 1, system.name());
                    eprintln!("[{number}/{all}] {} round {round} on {name}", case.name);
                    outcome.runs.push(plan.once(case, *system, round).await?);
                }
            }
        }
        Ok(outcome)
    })
}

impl Plan {
    fn cases(&self) -> anyhow::Result<Vec<&'static Case>> {
        let named = |only: &String, case: &Case| {
            let scenario = case.name.split('/').next();
            case.name == only || scenario == Some(only)
        };
        for only in &self.only {
            ensure!(
                CASES.iter().any(|case| named(only, case)),
                "there is no case {only}: {}",
                cases().join(", ")
            );
        }
        let wanted = |case: &&Case| {
            let whole = !(self.quick && case.thorough);
            if self.only.is_empty() {
                whole
            } else {
                self.only
                    .iter()
                    .any(|only| *only == case.name || (whole && named(only, case)))
            }
        };
        Ok(CASES.iter().filter(wanted).collect())
    }

    /// One run of a case; that it cannot be measured is a result as well.
    async fn once(&self, case: &Case, contender: Contender, round: u32) -> anyhow::Result<Run> {
        let world = case.scenario.world(self.quick);
        let system = System::start(contender, self.dialect, case.gateways, &world)
            .await
            .with_context(|| format!("cannot start {}", contender.name()))?;
        system.lets_clients_in().await?;
        let recorder = Rc::new(Recorder::new(world.rooms.clone()));
        let stage = Stage {
            rooms_of: world.rooms_of_users(),
            world,
            system,
            recorder: Rc::clone(&recorder),
            http: reqwest::Client::builder().no_proxy().build()?,
            quick: self.quick,
        };
        let progress = spawn_local(progress(Rc::clone(&recorder)));
        let measured = case.scenario.measure(&stage).await;
        progress.abort();
        let (figures, error) = match measured {
            Ok(figures) => (figures, None),
            Err(error) => (Figures::default(), Some(format!("{error:#}"))),
        };
        if let Some(error) = &error {
            eprintln!("      not measurable: {error}");
        }
        if let Some(failure) = &*recorder.failure.borrow() {
            eprintln!("      first failure: {failure}");
        }
        Ok(Run {
            case: case.name.to_owned(),
            system: contender,
            round,
            figures,
            violations: *recorder.violations.borrow(),
            refused: recorder.refused.get(),
            failure: recorder.failure.take(),
            error,
        })
    }
}

/// Prints the progress of a run now and then.
async fn progress(recorder: Rc<Recorder>) {
    let began = Instant::now();
    loop {
        tokio::time::sleep(PROGRESS).await;
        eprintln!(
            "      {:3} s: {} clients in, {} messages delivered, {} handshakes refused",
            began.elapsed().as_secs(),
            recorder.arrived.get(),
            recorder.delivered.get(),
            recorder.refused.get(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(only: &[&str], quick: bool) -> Plan {
        Plan {
            only: only.iter().map(ToString::to_string).collect(),
            quick,
            rounds: 1,
            systems: vec![],
            dialect: Dialect::Native,
        }
    }

    fn names(plan: &Plan) -> Vec<&'static str> {
        plan.cases().unwrap().iter().map(|case| case.name).collect()
    }

    #[test]
    fn only_names_scenarios_and_cases() {
        let named = names(&plan(&["connect", "join/10x200"], true));
        assert_eq!(named, ["connect/1", "connect/20", "connect/200", "join/10x200"]);
        assert_eq!(names(&plan(&[], false)), cases());
        assert!(plan(&["conect"], true).cases().is_err());
    }

    #[test]
    fn a_quick_run_leaves_out_what_is_thorough_unless_it_is_named() {
        assert!(!names(&plan(&["growth"], true)).contains(&"growth/members-1000"));
        assert!(names(&plan(&["growth/members-1000"], true)).contains(&"growth/members-1000"));
        assert!(names(&plan(&["growth"], false)).contains(&"growth/members-1000"));
    }
}
