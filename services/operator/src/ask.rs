//! Requests over NATS: to which instances, with which timeout, and what a missing reply means.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use parlance_bus::{Audience, Bus, ErrorKind};
use parlance_proto::v1::{CountInstances, Instances, OpsReply, ops, ops_reply};
use parlance_runtime::tasks;

use crate::config::Config;

/// A connection to NATS and how to show what comes back.
pub struct Operator {
    bus: Bus,
    patience: Duration,
    /// Print JSON.
    pub json: bool,
}

/// The answers of all gateways that gave one.
pub struct Gathered {
    /// By the gateway's name.
    pub replies: Vec<OpsReply>,
    /// How many gateways the database knows to live; `None` where persistence does not answer.
    pub expected: Option<usize>,
}

impl Operator {
    /// Connects.
    pub async fn connect(config: &Config, json: bool, seconds: f64) -> anyhow::Result<Self> {
        let patience = Duration::from_secs_f64(seconds);
        let settings = config.connect();
        let bus = Bus::connect(&settings).await.context("nats.url")?;
        tasks::spawn("explain NATS", settings.explain(&bus));
        if tokio::time::timeout(patience, bus.connected()).await.is_err() {
            bail!(
                "no connection to NATS at {} within {seconds} s: check --nats-url or PARLANCE_NATS_URL, and the account \
                 (PARLANCE_NATS_USER, PARLANCE_NATS_PASSWORD or PARLANCE_NATS_CREDENTIALS_FILE)",
                config.place()
            );
        }
        Ok(Self { bus, patience, json })
    }

    /// Asks one persistence replica.
    pub async fn persistence(&self, body: ops::Body) -> anyhow::Result<ops_reply::Body> {
        self.one(&Audience::Persistence, body).await.map_err(|error| {
            error.context(
                "persistence does not answer: check that a replica runs and is ready (/readyz), and that the account \
                 may publish chat.ops.> and subscribe to its inbox",
            )
        })
    }

    /// Asks one gateway.
    pub async fn gateway(&self, name: &str, body: ops::Body) -> anyhow::Result<ops_reply::Body> {
        let audience = Audience::Gateway(name.to_owned());
        self.one(&audience, body).await.map_err(|error| {
            error.context(format!(
                "the gateway {name} does not answer: `parlance connections` shows the names of those that run"
            ))
        })
    }

    /// Asks all gateways.
    pub async fn gateways(&self, body: ops::Body) -> anyhow::Result<Gathered> {
        let expected = self.live_gateways().await;
        let asked = self
            .bus
            // At least one: an instance that has not reported yet is not known.
            .operate(
                &Audience::Gateways,
                body,
                expected.filter(|count| *count > 0),
                self.patience,
            )
            .await;
        let replies = asked.map_err(|error| {
            anyhow!(error).context(
                "no gateway answers: check that one runs (/livez), and that the account may publish chat.ops.> and \
                 subscribe to its inbox",
            )
        })?;
        Ok(Gathered { replies, expected })
    }

    /// How many gateways report to the database; unknown where persistence is away, which does not hinder those.
    async fn live_gateways(&self) -> Option<usize> {
        let asked = ops::Body::CountInstances(CountInstances {});
        let patience = self.patience / 2;
        let answers = self
            .bus
            .operate(&Audience::Persistence, asked, Some(1), patience)
            .await;
        match answers.ok()?.pop()?.body? {
            ops_reply::Body::Instances(Instances { gateways, .. }) => usize::try_from(gateways).ok(),
            _ => None,
        }
    }

    async fn one(&self, audience: &Audience, body: ops::Body) -> anyhow::Result<ops_reply::Body> {
        let answered = self.bus.operate(audience, body, Some(1), self.patience).await;
        let mut replies = match answered {
            Ok(replies) => replies,
            Err(error) if error.kind() == ErrorKind::NoResponders => bail!("nobody listens"),
            Err(error) => return Err(error.into()),
        };
        let body = replies.pop().and_then(|reply| reply.body);
        body.ok_or_else(|| anyhow!("an empty answer; are versions mixed?"))
    }
}

/// The error of an answer that is one.
pub fn refused(body: ops_reply::Body) -> anyhow::Error {
    match body {
        ops_reply::Body::Error(error) => anyhow!("{}", error.message),
        _ => anyhow!("an answer to another question; are versions mixed?"),
    }
}
