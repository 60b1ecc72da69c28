//! The scenarios of `make bench` and the cases they are run in.
//!
//! A new scenario: a file beside `connect.rs` with a `world` and a `measure`, a variant of [`Scenario`] and its cases in
//! [`CASES`]. A scenario sees a system that runs, its world stored, and no client connected.

pub mod arrive;
mod connect;
mod growth;
mod join;
mod memory;
mod storm;
mod stream;
mod traffic;

use std::rc::Rc;
use std::time::Duration;

pub use traffic::Load;

use super::figures::Figures;
use super::processes::Meter;
use super::recorder::Recorder;
use super::system::System;
use super::world::World;

/// One line of the table: a scenario with its numbers.
#[derive(Debug)]
pub struct Case {
    /// `scenario/variant`; `ONLY` names either.
    pub name: &'static str,
    /// How many gateways, or replicas of the peer.
    pub gateways: usize,
    /// Whether it is left out of a quick run.
    pub thorough: bool,
    /// What is done.
    pub scenario: Scenario,
}

/// What is done.
#[derive(Clone, Copy, Debug)]
pub enum Scenario {
    /// Users with so many conversations of two connect and join one, 32 at a time.
    Connect {
        /// Of each user.
        conversations: u32,
    },
    /// All members of so many groups connect and join theirs, 64 at a time, until all are in.
    Join {
        /// How many groups.
        groups: u32,
        /// Members of each.
        members: u32,
    },
    /// One member of each room sends, all receive.
    Traffic {
        /// How many rooms.
        rooms: u32,
        /// Members of each.
        members: u32,
        /// How much is sent.
        load: Load,
    },
    /// An agent appends to one message, so many readers see it grow.
    Stream {
        /// How many.
        readers: u32,
    },
    /// Connections that do nothing but answer heartbeats.
    Memory {
        /// Whether each has joined a room of 20.
        rooms: bool,
    },
    /// One of two gateways is killed with half of the clients; they come back and catch up.
    Storm,
    /// What single requests cost as something grows.
    Growth(growth::Grown),
}

const fn case(name: &'static str, scenario: Scenario) -> Case {
    Case {
        name,
        gateways: 1,
        thorough: false,
        scenario,
    }
}

const fn thorough(name: &'static str, scenario: Scenario) -> Case {
    Case {
        thorough: true,
        ..case(name, scenario)
    }
}

const fn two_gateways(name: &'static str, scenario: Scenario) -> Case {
    Case {
        gateways: 2,
        ..case(name, scenario)
    }
}

const fn traffic(rooms: u32, members: u32, load: Load) -> Scenario {
    Scenario::Traffic { rooms, members, load }
}

/// Everything `make bench` measures, in the order of the table.
pub const CASES: &[Case] = &[
    case("connect/1", Scenario::Connect { conversations: 1 }),
    case("connect/20", Scenario::Connect { conversations: 20 }),
    case("connect/200", Scenario::Connect { conversations: 200 }),
    case(
        "join/10x200",
        Scenario::Join {
            groups: 10,
            members: 200,
        },
    ),
    case(
        "join/1x2000",
        Scenario::Join {
            groups: 1,
            members: 2_000,
        },
    ),
    case("fanout/10x200", traffic(10, 200, Load::Window(2))),
    case("fanout/1x2000", traffic(1, 2_000, Load::Window(4))),
    case("fanout/500x4", traffic(500, 4, Load::Window(1))),
    case("pairs/saturated", traffic(1_000, 2, Load::Window(1))),
    two_gateways("pairs/two-gateways", traffic(1_000, 2, Load::Window(1))),
    case("pairs/500", traffic(1_000, 2, Load::PerSecond(500))),
    case("stream/1x200", Scenario::Stream { readers: 200 }),
    case("memory/bare", Scenario::Memory { rooms: false }),
    case("memory/rooms", Scenario::Memory { rooms: true }),
    two_gateways("storm", Scenario::Storm),
    case("rate/20000", traffic(10, 200, Load::PerSecond(100))),
    case(
        "growth/members-100",
        Scenario::Growth(growth::Grown::Members(100)),
    ),
    thorough(
        "growth/members-1000",
        Scenario::Growth(growth::Grown::Members(1_000)),
    ),
    case(
        "growth/members-10000",
        Scenario::Growth(growth::Grown::Members(10_000)),
    ),
    case(
        "growth/conversations-10",
        Scenario::Growth(growth::Grown::Conversations(10)),
    ),
    thorough(
        "growth/conversations-1000",
        Scenario::Growth(growth::Grown::Conversations(1_000)),
    ),
    case(
        "growth/conversations-10000",
        Scenario::Growth(growth::Grown::Conversations(10_000)),
    ),
    case(
        "growth/messages-10000",
        Scenario::Growth(growth::Grown::Messages(10_000)),
    ),
    thorough(
        "growth/messages-100000",
        Scenario::Growth(growth::Grown::Messages(100_000)),
    ),
    case(
        "growth/messages-1000000",
        Scenario::Growth(growth::Grown::Messages(1_000_000)),
    ),
];

/// A system under measurement, and what has been seen of it.
#[derive(Debug)]
pub struct Stage {
    /// The system.
    pub system: System,
    /// Its users and conversations.
    pub world: World,
    /// Conversations of each user, by index.
    pub rooms_of: Vec<Vec<u32>>,
    /// What the clients see.
    pub recorder: Rc<Recorder>,
    /// For REST.
    pub http: reqwest::Client,
    /// Fewer clients, shorter runs.
    pub quick: bool,
}

impl Stage {
    /// One of two values: the one for quick runs, or the one for whole runs.
    pub fn size<T>(&self, quick: T, whole: T) -> T {
        if self.quick { quick } else { whole }
    }

    /// Begins to measure what the servers use.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn meter(&self) -> anyhow::Result<Meter> {
        Meter::start(self.system.servers())
    }

    /// Waits until no event has been emitted for a second, half a minute at most: what a crowd that has just come
    /// still causes is not part of what follows.
    pub async fn settle(&self) {
        const QUIET: Duration = Duration::from_secs(1);
        for _ in 0..30 {
            let before = self.recorder.events.get();
            tokio::time::sleep(QUIET).await;
            if self.recorder.events.get() == before {
                return;
            }
        }
    }
}

impl Scenario {
    /// The users and conversations it needs.
    #[must_use]
    pub fn world(self, quick: bool) -> World {
        match self {
            Self::Connect { conversations } => connect::world(conversations, quick),
            Self::Join { groups, members } => join::world(groups, members),
            Self::Traffic { rooms, members, .. } => World::groups(rooms, members),
            Self::Stream { readers } => stream::world(readers),
            Self::Memory { rooms } => memory::world(rooms, quick),
            Self::Storm => storm::world(quick),
            Self::Growth(grown) => growth::world(grown),
        }
    }

    /// Runs it once.
    ///
    /// # Errors
    /// It cannot be measured; the reason goes into the table.
    pub async fn measure(self, stage: &Stage) -> anyhow::Result<Figures> {
        match self {
            Self::Connect { .. } => connect::measure(stage).await,
            Self::Join { .. } => join::measure(stage).await,
            Self::Traffic { load, .. } => traffic::measure(stage, load).await,
            Self::Stream { .. } => stream::measure(stage).await,
            Self::Memory { .. } => memory::measure(stage).await,
            Self::Storm => storm::measure(stage).await,
            Self::Growth(_) => growth::measure(stage).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_a_name_of_its_own() {
        let mut names: Vec<_> = CASES.iter().map(|case| case.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CASES.len());
    }
}
