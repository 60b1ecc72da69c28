//! Answers operators over the bus: who works what, what waits, what was parked; and hands in again what was parked.
//!
//! One replica answers, whichever: everything told is in the database or in NATS. Content is shown only where it
//! is asked for.

mod letters;

use std::collections::HashMap;
use std::time::Duration;

use parlance_bus::{Bus, IncomingOps};
use parlance_proto::v1::{
    self, Error, ErrorCode, Instances, Lag, PartitionLease, Partitions, ops, ops_reply,
};
use parlance_runtime::backoff::Backoff;
use tokio_util::sync::CancellationToken;

use crate::database::Database;
use crate::error::without_content;
use crate::store::leases;

/// Pauses before the subscription is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
/// Patience for whatever an operator asks.
const PATIENCE: Duration = Duration::from_secs(15);
/// Patience for NATS to tell what waits: below that of an operator.
const LOOK: Duration = Duration::from_secs(3);

/// What the answering needs.
#[derive(Clone)]
pub(crate) struct Operations {
    pub(crate) bus: Bus,
    pub(crate) database: Database,
    pub(crate) partitions: u16,
    pub(crate) intake_limits: crate::intake::Limits,
    /// How long a silent gateway counts as alive.
    pub(crate) gateway_lease: Duration,
}

/// Why something is not answered.
enum Failure {
    Refused(Error),
    Database(sqlx::Error),
    Bus(parlance_bus::Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<parlance_bus::Error> for Failure {
    fn from(error: parlance_bus::Error) -> Self {
        Self::Bus(error)
    }
}

impl Failure {
    fn refused(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Refused(Error::with(code, message))
    }

    /// What the operator is told.
    fn told(self) -> Error {
        let cause = match self {
            Self::Refused(error) => return error,
            Self::Database(error) => without_content(&error),
            Self::Bus(error) => error.to_string(),
        };
        Error::with(ErrorCode::Unavailable, cause)
    }
}

impl Operations {
    /// Answers until `stop`.
    ///
    /// # Errors
    /// The connection to the bus was closed for good.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        let mut server = loop {
            match self.bus.serve_persistence_operations().await {
                Ok(server) => break server,
                Err(error) => {
                    tracing::warn!(%error, "cannot serve operators yet");
                    if !backoff.pause_unless(&stop).await {
                        return Ok(());
                    }
                }
            }
        };
        loop {
            let incoming = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                incoming = server.next() => incoming,
            };
            let Some(incoming) = incoming else {
                anyhow::ensure!(stop.is_cancelled(), "the connection to NATS is closed for good");
                return Ok(());
            };
            // One after the other: operators are few, and none of them shall crowd out those who chat.
            // What is left halfway by the end can be asked again.
            tokio::select! {
                () = self.serve(incoming) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    async fn serve(&self, incoming: IncomingOps) {
        let answer = async {
            match &incoming.ops {
                Ok(v1::Ops { body: Some(body) }) => self.answer(body).await.map_err(Failure::told),
                _ => Err(unknown()),
            }
        };
        let late = || Error::with(ErrorCode::Unknown, "it took too long; look whether it is done");
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        let answer = answer.unwrap_or_else(|_| Err(late()));
        let body = answer.unwrap_or_else(ops_reply::Body::Error);
        if let Err(error) = incoming.reply(env!("CARGO_PKG_VERSION"), body).await {
            tracing::debug!(%error, "an operator is not answered");
        }
    }

    async fn answer(&self, body: &ops::Body) -> Result<ops_reply::Body, Failure> {
        Ok(match body {
            ops::Body::CountInstances(_) => ops_reply::Body::Instances(self.instances().await?),
            ops::Body::ListPartitions(_) => ops_reply::Body::Partitions(self.leases().await?),
            ops::Body::GetLag(_) => ops_reply::Body::Lag(Lag {
                streams: looked(self.bus.lag()).await?,
            }),
            ops::Body::ListDeadLetters(asked) => ops_reply::Body::DeadLetters(self.list(asked).await?),
            ops::Body::GetDeadLetter(asked) => ops_reply::Body::DeadLetter(self.show(asked).await?),
            ops::Body::ReplayDeadLetter(asked) => ops_reply::Body::Replayed(self.replay(&asked.id).await?),
            ops::Body::DiscardDeadLetter(asked) => ops_reply::Body::Discarded(self.discard(&asked.id).await?),
            _ => return Err(Failure::Refused(unknown())),
        })
    }

    async fn instances(&self) -> Result<Instances, Failure> {
        let mut connection = self.database.reads.acquire().await?;
        let gateways = leases::gateways(&mut connection, self.gateway_lease).await?;
        Ok(Instances {
            gateways: u32::try_from(gateways).unwrap_or_default(),
            replicas: leases::replicas(&mut connection).await?,
        })
    }

    async fn leases(&self) -> Result<Partitions, Failure> {
        let rows = {
            let mut connection = self.database.reads.acquire().await?;
            leases::all(&mut connection).await?
        };
        let lag = looked(self.bus.partition_lag()).await?;
        let pulled: HashMap<_, _> = lag
            .iter()
            .map(|lag| ((i32::from(lag.partition), lag.epoch), lag))
            .collect();
        let partitions = rows.into_iter().map(|row| {
            let epoch = u64::try_from(row.epoch).unwrap_or_default();
            let lag = pulled.get(&(row.partition, epoch));
            PartitionLease {
                partition: u32::try_from(row.partition).unwrap_or_default(),
                owner: row.owner.unwrap_or_default(),
                epoch,
                expires_in_ms: row.expires_in_ms,
                pulled: lag.is_some(),
                waiting: lag.map_or(0, |lag| lag.waiting),
                in_work: lag.map_or(0, |lag| lag.in_work),
            }
        });
        Ok(Partitions {
            partitions: partitions.collect(),
        })
    }
}

/// What NATS tells. It does not answer what a role may not ask.
async fn looked<T>(look: impl Future<Output = Result<T, parlance_bus::Error>>) -> Result<T, Failure> {
    let late = || {
        let message =
            "NATS does not say what waits; its log tells whether persistence may list its consumers";
        Failure::refused(ErrorCode::Unavailable, message)
    };
    Ok(tokio::time::timeout(LOOK, look).await.map_err(|_| late())??)
}

fn unknown() -> Error {
    Error::with(
        ErrorCode::UnknownEvent,
        "this version of persistence does not know that question",
    )
}
