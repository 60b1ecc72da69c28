//! Clients that arrive: connect, show their token, join. A client that is answered 503 retries.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures::{StreamExt, stream};

use super::Stage;
use crate::bench::client::{Client, Refusal};
use crate::bench::recorder::add;
use crate::bench::world::World;

/// Pause before a refused handshake is repeated.
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// Users that warm a system up before it is measured.
pub const WARMING: u32 = 500;

/// Which of its conversations a client joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// The first one.
    One,
    /// Each.
    All,
}

/// How clients arrive.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Clients on their way at a time.
    pub at_once: usize,
    /// What they join.
    pub join: Join,
    /// Clients that are not in after this are given up.
    pub within: Duration,
}

/// Clients that are in.
#[derive(Debug)]
pub struct Arrived {
    /// Clients by index of their user, in the order of arrival.
    pub clients: Vec<(u32, Client)>,
    /// Time until the last of them; all the time that was given, if not all are in.
    pub elapsed: Duration,
}

impl Arrival {
    /// Lets these users arrive, spread over the gateways.
    ///
    /// # Errors
    /// A token cannot be signed.
    pub async fn run(self, stage: &Stage, users: impl IntoIterator<Item = u32>) -> anyhow::Result<Arrived> {
        let addresses = stage.system.addresses()?;
        let signed = |user: u32| {
            let address = addresses[(user as usize + 1) % addresses.len()];
            Ok((user, address, stage.system.token(&World::user(user))?))
        };
        // Signing is the generator's own work and not measured.
        let users = users
            .into_iter()
            .map(signed)
            .collect::<anyhow::Result<Vec<_>>>()?;
        let (expected, began) = (users.len(), Instant::now());
        let mut arriving = stream::iter(users)
            .map(|(user, address, token)| self.one(stage, user, address, token))
            .buffer_unordered(self.at_once);
        let mut clients = vec![];
        let mut elapsed = Duration::ZERO;
        let end = tokio::time::Instant::now() + self.within;
        while let Ok(Some(client)) = tokio::time::timeout_at(end, arriving.next()).await {
            elapsed = began.elapsed();
            clients.push(client);
            add(&stage.recorder.arrived, 1);
        }
        if clients.len() < expected {
            elapsed = self.within;
        }
        Ok(Arrived { clients, elapsed })
    }

    /// [`Arrival::run`] for all users.
    ///
    /// # Errors
    /// Not all are in in time.
    pub async fn all(self, stage: &Stage) -> anyhow::Result<Vec<Client>> {
        let mut arrived = self.run(stage, 0..stage.world.users).await?.clients;
        let (there, all) = (arrived.len(), stage.world.users);
        ensure!(
            there == all as usize,
            "{there} of {all} clients are in after {:?}",
            self.within
        );
        arrived.sort_unstable_by_key(|(user, _)| *user);
        Ok(arrived.into_iter().map(|(_, client)| client).collect())
    }

    /// Retries until it is in; the latency counts from the first attempt.
    async fn one(self, stage: &Stage, user: u32, address: SocketAddr, token: String) -> (u32, Client) {
        let due = stage.recorder.micros(Instant::now());
        loop {
            match self.attempt(stage, user, address, &token).await {
                Ok(client) => {
                    stage.recorder.acked(due);
                    return (user, client);
                }
                Err(Refusal::Busy) => add(&stage.recorder.refused, 1),
                Err(Refusal::Failed(reason)) => stage.recorder.failed(&reason),
            }
            tokio::time::sleep(BUSY_PAUSE).await;
        }
    }

    async fn attempt(
        self,
        stage: &Stage,
        user: u32,
        address: SocketAddr,
        token: &str,
    ) -> Result<Client, Refusal> {
        let dialect = stage.system.dialect;
        let rooms = &stage.rooms_of[user as usize];
        let member_of = rooms.iter().copied();
        let client = Client::connect(address, dialect, (token, ""), member_of, &stage.recorder).await?;
        let joined = match self.join {
            Join::One => 1,
            Join::All => rooms.len(),
        };
        for room in rooms.iter().take(joined) {
            client
                .request(dialect.join(&stage.world.rooms[*room as usize].id))
                .await?;
        }
        Ok(client)
    }
}
