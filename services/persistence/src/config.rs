//! The settings of the service. Owns their types and allowed values; their documentation stands in
//! `defaults.toml`. Must not read the environment: `parlance-runtime` does.

use std::time::Duration;

use parlance_bus::push::PushSettings;
use parlance_bus::{ConnectSettings, StreamSettings, Tls};
use parlance_runtime::config::{
    Invalid, Sources, Validate, both_or_none, in_range, load, not_empty, one_of, refuse_public_secrets,
};
use parlance_runtime::telemetry::TelemetrySettings;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::database::DatabaseSettings;
use crate::intake;
use crate::model::journal;
use crate::model::state::Bounds;
use crate::presence::Limits;
use crate::store::dead_letters::Kept;

const DEFAULTS: &str = include_str!("defaults.toml");
const ALIASES: &[(&str, &str)] = &[("DATABASE_URL", "database.url")];

/// All settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whether secrets that everybody knows are accepted.
    pub development: bool,
    /// Postgres.
    pub database: DatabaseSettings,
    /// The bus and its streams.
    pub nats: NatsSettings,
    /// The port for probes and metrics.
    pub internal: InternalSettings,
    /// How commands are batched.
    pub ingest: IngestSettings,
    /// What is kept of what can never be carried out.
    pub dead_letters: DeadLetterSettings,
    /// What is kept of reports of messages.
    pub reports: ReportSettings,
    /// How partitions are owned.
    pub lease: LeaseSettings,
    /// How large journals may become.
    pub journals: JournalSettings,
    /// How large conversations may become.
    pub limits: LimitSettings,
    /// How queries are served.
    pub queries: QuerySettings,
    /// Messages of other services.
    pub intake: IntakeSettings,
    /// Who is here.
    pub presence: PresenceSettings,
    /// Those who are not.
    pub push: PushSection,
    /// Services that follow what happens.
    pub feed: FeedSection,
    /// Logs, traces, metrics.
    pub telemetry: TelemetrySettings,
    /// The end.
    pub shutdown: ShutdownSettings,
}

/// Section `nats`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatsSettings {
    /// Addresses, comma-separated.
    pub url: SecretString,
    /// Account name; empty for none.
    pub user: String,
    /// Its password; empty for none.
    pub password: SecretString,
    /// Credentials file; empty for none.
    pub credentials_file: String,
    /// Who signs the server's certificate; empty for the system's.
    pub ca_file: String,
    /// Own certificate; empty for none.
    pub cert_file: String,
    /// Its key; empty for none.
    pub key_file: String,
    /// What the subjects of answers begin with.
    pub inbox_prefix: String,
    /// Copies of each stream.
    pub stream_replicas: usize,
    /// Bytes of waiting commands.
    pub commands_max_bytes: i64,
    /// Bytes of the event feed.
    pub events_max_bytes: i64,
    /// Age of the event feed in hours.
    pub events_max_age_hours: u64,
    /// Age of revocations in hours.
    pub control_max_age_hours: u64,
}

/// Section `internal`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InternalSettings {
    /// Address to listen on.
    pub host: String,
    /// Port; 0 picks a free one.
    pub port: u16,
}

/// Section `ingest`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngestSettings {
    /// Parts of the command stream.
    pub partitions: u16,
    /// Commands per transaction.
    pub batch_max: usize,
    /// Payload bytes per transaction.
    pub batch_bytes: usize,
    /// Milliseconds to wait for more under load.
    pub linger_ms: u64,
    /// Commands waiting in memory.
    pub queue: usize,
    /// Minutes that processed commands are remembered at least.
    pub remember_minutes: u64,
}

/// Section `dead_letters`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadLetterSettings {
    /// The most of commands, and of everything else.
    pub keep: i64,
    /// How old they become.
    pub keep_days: i32,
}

impl IngestSettings {
    /// How long processed commands are remembered at least.
    pub fn remembered(&self) -> Duration {
        Duration::from_secs(self.remember_minutes * 60)
    }
}

impl DeadLetterSettings {
    /// As the database takes it.
    pub fn kept(&self) -> Kept {
        Kept {
            most: self.keep,
            days: self.keep_days,
        }
    }
}

/// Section `lease`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseSettings {
    /// Milliseconds a silent replica keeps its partitions.
    pub ttl_ms: u64,
}

/// Section `journals`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalSettings {
    /// Longest text.
    pub text_bytes: usize,
    /// Longest change.
    pub update_bytes: usize,
    /// Longest document.
    pub document_bytes: usize,
    /// Most work of one change.
    pub work: u64,
}

/// Section `limits`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitSettings {
    /// Participants of a conversation in any answer, notice or confirmation.
    pub inline_participants: usize,
    /// Participants of a conversation.
    pub group_members: u64,
    /// Conversations of a user.
    pub user_conversations: u64,
    /// Users that one may block.
    pub user_blocks: u64,
    /// Users who are banned from a group.
    pub group_bans: u64,
    /// Reports of a user that nobody has settled.
    pub user_reports: u64,
}

/// Section `reports`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportSettings {
    /// How long settled ones are kept.
    pub keep_days: i32,
}

/// Section `queries`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuerySettings {
    /// Queries answered at once.
    pub concurrency: usize,
    /// Queries that wait for their turn.
    pub waiting: usize,
}

/// Section `intake`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntakeSettings {
    /// Whether this replica takes part.
    pub enabled: bool,
    /// Largest content.
    pub content_bytes: usize,
    /// Largest metadata.
    pub metadata_bytes: usize,
    /// Messages of one service that may stream at a time.
    pub streams_per_service: usize,
    /// Messages that may stream in one conversation at a time.
    pub streams_per_conversation: usize,
    /// Bytes of text that one message may take in a second.
    pub stream_bytes_per_second: usize,
    /// Milliseconds after which a message whose service is silent is interrupted.
    pub stream_silence_ms: u64,
}

/// Section `presence`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresenceSettings {
    /// Milliseconds a silent gateway counts as alive.
    pub lease_ms: u64,
    /// Milliseconds a user who closed their last session is still shown.
    pub grace_ms: u64,
    /// Milliseconds between two looks.
    pub sweep_ms: u64,
}

/// Section `push`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushSection {
    /// Whether this replica looks for recipients.
    pub enabled: bool,
    /// Bytes of waiting pushes.
    pub max_bytes: i64,
    /// Age of waiting pushes in hours.
    pub max_age_hours: u64,
    /// How often a push is handed out.
    pub attempts: u32,
    /// Milliseconds until the second time.
    pub backoff_ms: u64,
}

/// Section `feed`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedSection {
    /// One consumer each.
    pub consumers: Vec<String>,
}

/// Section `shutdown`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShutdownSettings {
    /// Milliseconds for an orderly end.
    pub grace_ms: u64,
}

impl Config {
    /// How large what users make may become.
    pub fn bounds(&self) -> Bounds {
        Bounds {
            journals: self.journals.limits(),
            inline_participants: self.limits.inline_participants,
            group_members: self.limits.group_members,
            user_conversations: self.limits.user_conversations,
            group_bans: self.limits.group_bans,
            user_reports: self.limits.user_reports,
        }
    }

    /// Defaults, file and environment of this process.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn from_process() -> anyhow::Result<Self> {
        Ok(load(&Sources::from_process(DEFAULTS, ALIASES))?)
    }
}

impl NatsSettings {
    /// What the bus needs to connect under the name `instance`.
    pub fn connect(&self, instance: &str) -> ConnectSettings {
        ConnectSettings {
            url: self.url.expose_secret().to_owned(),
            name: instance.to_owned(),
            inbox_prefix: self.inbox_prefix.clone(),
            user: self.user.clone(),
            password: self.password.expose_secret().to_owned(),
            credentials_file: self.credentials_file.clone(),
            tls: Tls {
                ca_file: self.ca_file.clone(),
                cert_file: self.cert_file.clone(),
                key_file: self.key_file.clone(),
            },
        }
    }

    /// Sizes of the streams.
    pub fn streams(&self) -> StreamSettings {
        StreamSettings {
            replicas: self.stream_replicas,
            commands_max_bytes: self.commands_max_bytes,
            events_max_bytes: self.events_max_bytes,
            events_max_age: Duration::from_secs(self.events_max_age_hours * 3600),
            control_max_age: Duration::from_secs(self.control_max_age_hours * 3600),
        }
    }
}

impl Validate for FeedSection {
    fn validate(&self) -> Result<(), Invalid> {
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let fits = |name: &str| (1..=64).contains(&name.len()) && name.bytes().all(safe);
        let taken = |name: &str| name == parlance_bus::push::SOURCE;
        match self.consumers.iter().find(|name| !fits(name) || taken(name)) {
            Some(name) => {
                let allowed = "names of 1 to 64 letters, digits, `-` and `_`, other than push-source";
                Err(Invalid::new("feed.consumers", name, allowed))
            }
            None => Ok(()),
        }
    }
}

impl LeaseSettings {
    /// How long a silent replica keeps its partitions.
    pub fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms)
    }
}

impl IntakeSettings {
    /// How large messages of services may be.
    pub fn limits(&self) -> intake::Limits {
        intake::Limits {
            content_bytes: self.content_bytes,
            metadata_bytes: self.metadata_bytes,
            streams: intake::stream::Limits {
                per_service: self.streams_per_service,
                per_conversation: self.streams_per_conversation,
                bytes_per_second: self.stream_bytes_per_second,
                silence: Duration::from_millis(self.stream_silence_ms),
            },
        }
    }
}

impl JournalSettings {
    /// The same for those who merge.
    pub fn limits(&self) -> journal::Limits {
        journal::Limits {
            text_bytes: self.text_bytes,
            update_bytes: self.update_bytes,
            document_bytes: self.document_bytes,
            work: self.work,
        }
    }
}

impl PresenceSettings {
    /// When who counts as gone.
    pub fn limits(&self) -> Limits {
        Limits {
            lease: Duration::from_millis(self.lease_ms),
            grace: Duration::from_millis(self.grace_ms),
        }
    }
}

impl Config {
    fn check_secrets(&self) -> Result<(), Invalid> {
        let secrets = [
            ("database.url", self.database.url.expose_secret()),
            ("nats.password", self.nats.password.expose_secret()),
            ("nats.url", self.nats.url.expose_secret()),
        ];
        refuse_public_secrets(self.development, &[&self.internal.host], &secrets)
    }

    /// Sizes and patience of pushes.
    pub fn pushes(&self) -> PushSettings {
        PushSettings {
            replicas: self.nats.stream_replicas,
            max_bytes: self.push.max_bytes,
            max_age: Duration::from_secs(self.push.max_age_hours * 3600),
            attempts: self.push.attempts,
            backoff: Duration::from_millis(self.push.backoff_ms),
        }
    }
}

impl Validate for NatsSettings {
    fn validate(&self) -> Result<(), Invalid> {
        not_empty("nats.url", self.url.expose_secret(), "the address of NATS")?;
        if !self.user.is_empty() {
            let allowed = "set too, because nats.user is";
            not_empty("nats.password", self.password.expose_secret(), allowed)?;
        }
        both_or_none(
            ("nats.cert_file", &self.cert_file),
            ("nats.key_file", &self.key_file),
        )?;
        if !parlance_bus::subject::is_inbox_prefix(&self.inbox_prefix) {
            let allowed = "_INBOX, and after it tokens of letters, digits, `_` and `-`, joined by dots";
            return Err(Invalid::new("nats.inbox_prefix", &self.inbox_prefix, allowed));
        }
        Ok(())
    }
}

impl Validate for JournalSettings {
    fn validate(&self) -> Result<(), Invalid> {
        // A text is answered in one message, an update travels in one, and a document must fit what may wait for a client.
        in_range("journals.text_bytes", self.text_bytes, 1..=524_288)?;
        in_range("journals.update_bytes", self.update_bytes, 1_024..=786_432)?;
        in_range("journals.document_bytes", self.document_bytes, 1 << 16..=6 << 20)?;
        in_range("journals.work", self.work, 1_000..=100_000_000)
    }
}

impl Validate for IntakeSettings {
    fn validate(&self) -> Result<(), Invalid> {
        // Content, metadata and all else of a message travel in one.
        in_range("intake.content_bytes", self.content_bytes, 1..=524_288)?;
        in_range("intake.metadata_bytes", self.metadata_bytes, 2..=131_072)?;
        in_range("intake.streams_per_service", self.streams_per_service, 1..=10_000)?;
        in_range(
            "intake.streams_per_conversation",
            self.streams_per_conversation,
            1..=1_000,
        )?;
        in_range(
            "intake.stream_bytes_per_second",
            self.stream_bytes_per_second,
            256..=524_288,
        )?;
        in_range(
            "intake.stream_silence_ms",
            self.stream_silence_ms,
            2_000..=3_600_000,
        )
    }
}

impl Validate for Config {
    fn validate(&self) -> Result<(), Invalid> {
        self.check_secrets()?;
        self.database.validate()?;
        self.nats.validate()?;
        one_of(
            "nats.stream_replicas",
            &self.nats.stream_replicas.to_string(),
            &["1", "3", "5"],
        )?;
        in_range(
            "nats.commands_max_bytes",
            self.nats.commands_max_bytes,
            1 << 20..=1 << 50,
        )?;
        in_range(
            "nats.events_max_bytes",
            self.nats.events_max_bytes,
            1 << 20..=1 << 50,
        )?;
        in_range(
            "nats.events_max_age_hours",
            self.nats.events_max_age_hours,
            1..=87_600,
        )?;
        in_range(
            "nats.control_max_age_hours",
            self.nats.control_max_age_hours,
            1..=87_600,
        )?;
        in_range("ingest.partitions", self.ingest.partitions, 1..=1024)?;
        in_range("ingest.batch_max", self.ingest.batch_max, 1..=5_000)?;
        in_range("ingest.batch_bytes", self.ingest.batch_bytes, 1 << 16..=1 << 28)?;
        in_range("ingest.linger_ms", self.ingest.linger_ms, 0..=100)?;
        in_range("ingest.queue", self.ingest.queue, 16..=100_000)?;
        in_range(
            "ingest.remember_minutes",
            self.ingest.remember_minutes,
            // As long as idempotency keys live, at least.
            60..=10_080,
        )?;
        in_range("dead_letters.keep", self.dead_letters.keep, 100..=10_000_000)?;
        in_range("dead_letters.keep_days", self.dead_letters.keep_days, 1..=3_650)?;
        in_range("reports.keep_days", self.reports.keep_days, 1..=3_650)?;
        in_range("lease.ttl_ms", self.lease.ttl_ms, 1_000..=60_000)?;
        self.journals.validate()?;
        let limits = &self.limits;
        in_range("limits.inline_participants", limits.inline_participants, 2..=100)?;
        in_range("limits.group_members", limits.group_members, 2..=1_000_000)?;
        in_range(
            "limits.user_conversations",
            limits.user_conversations,
            1..=1_000_000,
        )?;
        in_range("limits.user_reports", limits.user_reports, 1..=10_000)?;
        in_range("limits.group_bans", limits.group_bans, 1..=10_000)?;
        in_range("limits.user_blocks", limits.user_blocks, 1..=1_000)?;
        in_range("queries.concurrency", self.queries.concurrency, 1..=10_000)?;
        in_range("queries.waiting", self.queries.waiting, 1..=1_000_000)?;
        self.intake.validate()?;
        in_range("presence.lease_ms", self.presence.lease_ms, 1_000..=600_000)?;
        in_range("presence.grace_ms", self.presence.grace_ms, 0..=600_000)?;
        in_range("presence.sweep_ms", self.presence.sweep_ms, 50..=60_000)?;
        in_range("push.max_bytes", self.push.max_bytes, 1 << 20..=1 << 50)?;
        in_range("push.max_age_hours", self.push.max_age_hours, 1..=8_760)?;
        in_range("push.attempts", self.push.attempts, 1..=20)?;
        in_range("push.backoff_ms", self.push.backoff_ms, 100..=600_000)?;
        self.feed.validate()?;
        in_range("shutdown.grace_ms", self.shutdown.grace_ms, 1_000..=600_000)?;
        self.telemetry.validate()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn from(env: &[(&str, &str)]) -> Result<Config, String> {
        let env: BTreeMap<_, _> = env
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        load(&Sources {
            defaults: DEFAULTS,
            file: None,
            env,
            aliases: ALIASES,
        })
        .map_err(|e| e.to_string())
    }

    #[test]
    fn the_defaults_are_valid_and_complete() {
        let config = from(&[]).unwrap();
        assert_eq!((config.ingest.partitions, config.lease.ttl_ms), (16, 3000));
    }

    #[test]
    fn database_url_is_an_alias_and_never_shown() {
        let config = from(&[("DATABASE_URL", "postgres://u:s3cret@db/x")]).unwrap();
        assert_eq!(config.database.url.expose_secret(), "postgres://u:s3cret@db/x");
        let error = from(&[("DATABASE_URL", "mysql://u:s3cret@db/x")]).unwrap_err();
        assert!(
            error.contains("database.url") && !error.contains("s3cret"),
            "{error}"
        );
    }

    #[test]
    fn a_value_out_of_range_is_named() {
        let error = from(&[("PARLANCE_LEASE_TTL_MS", "5")]).unwrap_err();
        assert!(
            error.contains("lease.ttl_ms") && error.contains("1000"),
            "{error}"
        );
    }
}
