//! Faults of all kinds one after the other under load, for as long as one likes. Not part of the regular tests:
//! `PARLANCE_SOAK_SECONDS=600 cargo test -p parlance-harness --test it soak -- --ignored --nocapture`.

use std::time::Duration;

use parlance_harness::environment;

use crate::faults::{REPAIRED, Scene};

#[derive(Clone, Copy, Debug)]
enum Fault {
    KillPersistence(usize),
    KillBothPersistence,
    PausePersistence(usize),
    KillGateway(usize),
    KillNats,
    KillPostgres,
}

const FAULTS: [Fault; 10] = [
    Fault::KillPersistence(0),
    Fault::KillPersistence(1),
    Fault::KillBothPersistence,
    Fault::PausePersistence(0),
    Fault::PausePersistence(1),
    Fault::KillGateway(0),
    Fault::KillGateway(1),
    Fault::KillNats,
    Fault::KillPostgres,
    Fault::KillNats,
];

/// Random numbers that can be had again from the same seed (xorshift).
pub(crate) struct Dice(u64);

impl Dice {
    /// From `PARLANCE_FAULTS_SEED`, else from chance; printed, so that it can be had again.
    pub(crate) fn seeded() -> Self {
        let seed = number("PARLANCE_FAULTS_SEED")
            .unwrap_or_else(environment::scatter)
            .max(1);
        println!("PARLANCE_FAULTS_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

fn number(name: &str) -> Option<u64> {
    environment::variable(name).and_then(|value| value.parse().ok())
}

impl Scene {
    async fn suffers(&mut self, fault: Fault, away: Duration) {
        let killed = match fault {
            Fault::PausePersistence(index) => {
                self.stack.persistence(index).pause();
                self.goes_on_for(away).await;
                self.stack.persistence(index).resume();
                return;
            }
            Fault::KillPersistence(index) => vec![self.stack.persistence(index)],
            Fault::KillBothPersistence => self.stack.persistence_replicas().iter().collect(),
            Fault::KillGateway(index) => vec![self.stack.gateway(index)],
            Fault::KillNats => vec![self.stack.nats()],
            Fault::KillPostgres => vec![self.stack.postgres()],
        };
        killed.iter().for_each(|process| process.kill());
        self.player.goes_on_for(away).await.unwrap();
        for process in killed {
            process.start().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes as long as PARLANCE_SOAK_SECONDS says"]
async fn faults_of_all_kinds_one_after_the_other_break_nothing() {
    let seconds = number("PARLANCE_SOAK_SECONDS").unwrap_or(120);
    let mut dice = Dice::seeded();
    let seed = dice.0;
    let mut scene = Scene::open().await;
    let begun = tokio::time::Instant::now();
    let mut count = 0;
    while begun.elapsed() < Duration::from_secs(seconds) {
        let fault = FAULTS[usize::try_from(dice.roll(FAULTS.len() as u64)).unwrap()];
        let away = Duration::from_millis(200 + dice.roll(8_000));
        let between = Duration::from_millis(dice.roll(6_000));
        println!("{:>6.1} s: {fault:?} for {away:?}", begun.elapsed().as_secs_f64());
        scene.suffers(fault, away).await;
        scene.goes_on_for(between).await;
        count += 1;
    }
    scene.heals().await;
    let report = scene.close(&format!("soak of {count} faults, seed {seed}")).await;
    assert!(report.timing.converged <= REPAIRED, "{report}");
}
