//! The four streams and their limits. Creating them is idempotent and safe from several processes at once.

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};

use crate::connection::Bus;
use crate::error::{Error, ErrorKind};
use crate::subject;

/// Accepted commands that wait for persistence.
pub const COMMANDS: &str = "COMMANDS";
/// Committed events, the feed for other services.
pub const EVENTS: &str = "EVENTS";
/// Messages of other services that wait to become commands.
pub const SYSTEM: &str = "SYSTEM";

/// Orders to the gateways, the latest of each subject.
pub const CONTROL: &str = "CONTROL";

/// Bytes of orders; beyond it new ones are refused.
const CONTROL_MAX_BYTES: i64 = 256 * 1024 * 1024;

/// Sizes of the streams.
#[derive(Debug, Clone)]
pub struct StreamSettings {
    /// Copies of each stream in a NATS cluster: 1 or 3.
    pub replicas: usize,
    /// Bytes of accepted but not yet stored commands; beyond it new ones are refused.
    pub commands_max_bytes: i64,
    /// Bytes of the event feed; beyond it the oldest are dropped.
    pub events_max_bytes: i64,
    /// Age of the event feed; beyond it the oldest are dropped.
    pub events_max_age: Duration,
    /// How long revocations are kept: no token may live longer.
    pub control_max_age: Duration,
}

/// How full a stream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamUse {
    /// Its name.
    pub name: String,
    /// What it holds; in a work queue that is what nobody has acknowledged yet.
    pub messages: u64,
    /// Their size.
    pub bytes: u64,
    /// The size at which it refuses more, or drops the oldest.
    pub limit_bytes: u64,
}

/// The streams as they are.
#[derive(Debug, Clone, Default)]
pub struct StreamsFound {
    /// Not there, although they were made.
    pub missing: Vec<String>,
    /// Those that are there.
    pub used: Vec<StreamUse>,
}

impl Bus {
    /// Which streams are there, and how full they are. Only looks, because making is dear in a cluster.
    ///
    /// # Errors
    /// NATS does not answer.
    pub async fn look_at_streams(&self, settings: &StreamSettings) -> Result<StreamsFound, Error> {
        let mut found = StreamsFound::default();
        for Config { name, .. } in configs(settings) {
            let error = match self.jetstream.get_stream(&name).await {
                Ok(stream) => {
                    let info = stream.cached_info();
                    found.used.push(StreamUse {
                        name,
                        messages: info.state.messages,
                        bytes: info.state.bytes,
                        limit_bytes: u64::try_from(info.config.max_bytes).unwrap_or(0),
                    });
                    continue;
                }
                Err(error) => error,
            };
            match error.kind() {
                GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    found.missing.push(name);
                }
                _ => {
                    return Err(Error::with(
                        ErrorKind::Other,
                        "cannot look for the streams",
                        error,
                    ));
                }
            }
        }
        Ok(found)
    }

    /// When the oldest command that waits or is in hand was accepted, by the clock of NATS in unix milliseconds; `None`
    /// where there is none.
    ///
    /// # Errors
    /// NATS does not answer, or the stream is not there.
    pub async fn oldest_command(&self) -> Result<Option<i64>, Error> {
        let failed = |e| Error::with(ErrorKind::Other, "cannot look at the stream", e);
        let stream = self.jetstream.get_stream(COMMANDS).await.map_err(failed)?;
        let state = &stream.cached_info().state;
        let seconds = state.first_timestamp.unix_timestamp();
        Ok((state.messages > 0).then_some(seconds.saturating_mul(1_000)))
    }

    /// Creates what is missing and adjusts what differs.
    ///
    /// # Errors
    /// NATS is away, has no JetStream, or the account may not do this.
    pub async fn ensure_streams(&self, settings: &StreamSettings) -> Result<(), Error> {
        for config in configs(settings) {
            self.jetstream
                .create_or_update_stream(config)
                .await
                .map_err(|e| Error::with(ErrorKind::Other, "cannot ensure the streams", e))?;
        }
        Ok(())
    }
}

impl Bus {
    /// Makes the consumers by which other services follow the feed; those that are there stay as they are.
    ///
    /// # Errors
    /// NATS is away, the stream is not there, or the account may not do this.
    pub async fn ensure_followers(&self, names: &[String]) -> Result<(), Error> {
        for name in names {
            let stream = self
                .jetstream
                .get_stream_no_info(EVENTS)
                .await
                .map_err(|e| Error::with(ErrorKind::Other, "cannot reach the stream EVENTS", e))?;
            let config = pull::Config {
                durable_name: Some(name.clone()),
                description: Some("A service that follows what happens".to_owned()),
                deliver_policy: DeliverPolicy::All,
                ack_policy: AckPolicy::Explicit,
                filter_subject: subject::ALL_EVENTS.to_owned(),
                ..pull::Config::default()
            };
            stream
                .get_or_create_consumer(name, config)
                .await
                .map_err(|e| Error::with(ErrorKind::Other, "cannot make a consumer of the feed", e))?;
        }
        Ok(())
    }
}

fn configs(settings: &StreamSettings) -> [Config; 4] {
    let queue = |name: &str, subjects: &str, repeats: Duration, description: &str| Config {
        name: name.to_owned(),
        subjects: vec![subjects.to_owned()],
        description: Some(description.to_owned()),
        retention: RetentionPolicy::WorkQueue,
        // The default `old` would drop accepted commands.
        discard: DiscardPolicy::New,
        max_bytes: settings.commands_max_bytes,
        storage: StorageType::File,
        num_replicas: settings.replicas,
        duplicate_window: repeats,
        ..Config::default()
    };
    [
        queue(
            COMMANDS,
            subject::ALL_COMMANDS,
            Duration::from_secs(120),
            "Accepted commands that wait for persistence",
        ),
        queue(
            SYSTEM,
            subject::ALL_SYSTEM,
            // The shortest there is: the stream compares ids of NATS over all senders and conversations, and would swallow
            // the message of one for that of another. Messages that have nothing else are refused; persistence finds repeats by
            // sender and conversation.
            Duration::from_millis(100),
            "Messages of other services that wait to become commands",
        ),
        Config {
            name: EVENTS.to_owned(),
            subjects: vec![subject::ALL_EVENTS.to_owned()],
            description: Some("Committed events, the feed for other services".to_owned()),
            retention: RetentionPolicy::Limits,
            discard: DiscardPolicy::Old,
            max_bytes: settings.events_max_bytes,
            max_age: settings.events_max_age,
            storage: StorageType::File,
            num_replicas: settings.replicas,
            allow_direct: true,
            ..Config::default()
        },
        Config {
            name: CONTROL.to_owned(),
            subjects: vec![subject::ALL_CONTROL.to_owned()],
            description: Some("Orders to the gateways, the latest of each subject".to_owned()),
            retention: RetentionPolicy::Limits,
            // The default `old` would forget revocations.
            discard: DiscardPolicy::New,
            max_messages_per_subject: 1,
            max_bytes: CONTROL_MAX_BYTES,
            max_age: settings.control_max_age,
            storage: StorageType::File,
            num_replicas: settings.replicas,
            ..Config::default()
        },
    ]
}
