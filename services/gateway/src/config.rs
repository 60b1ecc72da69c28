//! The gateway's settings; `defaults.toml` documents each. Must not act on them.

use std::collections::BTreeMap;
use std::time::Duration;

use parlance_runtime::config::{
    Invalid, Sources, Validate, both_or_none, in_range, not_empty, one_of, refuse_public_secrets,
};
use parlance_runtime::telemetry::TelemetrySettings;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::auth::JwtSettings;
use crate::dialect::{DIALECTS, Streams};
use crate::edge::addresses::Proxies;
use crate::edge::headers::AllowedHeaders;
use crate::edge::origins::{OriginMap, Origins};
use crate::edge::socket::http::Patience;
use crate::edge::socket::settings::SocketSettings;
use crate::edge::socket::tls::Certificate;
use crate::limits::LimitSettings;

const DEFAULTS: &str = include_str!("../defaults.toml");
const ALIASES: &[(&str, &str)] = &[
    ("PORT", "http.port"),
    ("JWT_SECRET", "jwt.secret"),
    ("SOCKET_CORS_ORIGINS", "cors.origins"),
    // Its name while it held one claim.
    ("PARLANCE_JWT_SUBJECT_CLAIM", "jwt.subject_claims"),
];

/// Lets the gateway find out by itself where others reach it.
pub const RELAY_AUTO: &str = "auto";

/// All settings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Whether secrets that everybody knows are accepted.
    pub development: bool,
    /// Clients' side.
    pub http: Http,
    /// Operators' side.
    pub internal: Listen,
    /// Connection to NATS.
    pub nats: Nats,
    /// What all services must agree on.
    pub bus: BusSettings,
    /// Token verification.
    pub jwt: JwtSettings,
    /// What a verified user may do.
    pub auth: Auth,
    /// Browsers.
    pub cors: Cors,
    /// Vocabularies of connections that do not say theirs.
    pub dialect: DialectSettings,
    /// The contract for clients.
    pub docs: Docs,
    /// Socket.IO.
    pub socket: SocketSettings,
    /// Requests that reach another gateway than they should.
    pub relay: Relay,
    /// Sizes and rates.
    pub limits: LimitSettings,
    /// Commands.
    pub send: Send,
    /// Fan-out.
    pub rooms: Rooms,
    /// Who is here.
    pub presence: Presence,
    /// Logs, metrics, traces.
    pub telemetry: TelemetrySettings,
    /// The end of the process.
    pub shutdown: Shutdown,
}

/// Where clients connect.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Address or host name.
    pub host: String,
    /// 0 picks a free one.
    pub port: u16,
    /// Empty for no TLS.
    pub tls_cert_file: String,
    /// Empty for no TLS.
    pub tls_key_file: String,
    /// Whether probes and metrics are answered here too.
    pub probes: bool,
    /// Answers of so many bytes are compressed; 0 for none.
    pub compress_bytes: u64,
    /// Addresses and networks of proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<String>,
    /// Connections of one address, of each kind.
    pub connections_per_address: usize,
    /// Without a whole request head.
    pub idle_timeout_ms: u64,
    /// The same for trusted proxies.
    pub proxy_idle_timeout_ms: u64,
}

/// Where to listen.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Address or host name.
    pub host: String,
    /// 0 picks a free one.
    pub port: u16,
}

/// Connection to NATS.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nats {
    /// Comma-separated addresses.
    pub url: String,
    /// Empty for none.
    pub user: String,
    /// Empty for none.
    pub password: SecretString,
    /// Empty for none.
    pub credentials_file: String,
    /// Empty for the system's.
    pub ca_file: String,
    /// Empty for none.
    pub cert_file: String,
    /// Empty for none.
    pub key_file: String,
    /// What the subjects of answers begin with.
    pub inbox_prefix: String,
}

/// What all services must agree on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BusSettings {
    /// Partitions of the command stream.
    pub partitions: u16,
}

/// What a verified user may do.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// `jit` or `strict`.
    pub provision: String,
    /// Before the end of a token.
    pub expiry_notice_seconds: u64,
    /// Name of the parameter in a handshake's query that may hold the token; empty for none.
    pub query_token: String,
}

/// Browsers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// Allowed besides the own one.
    pub origins: Vec<String>,
    /// Request headers allowed besides those of the routes.
    pub headers: Vec<String>,
}

/// Vocabularies of connections that do not say theirs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DialectSettings {
    /// Where nothing else decides.
    pub default: String,
    /// Whether the first event that only one dialect understands decides, where nothing but `default` did.
    pub learn: bool,
    /// How messages that stream are shown by dialects without an event for their chunks.
    pub streams: Streams,
    /// By the web page's origin.
    pub origins: BTreeMap<String, String>,
}

/// The contract for clients.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Docs {
    /// Whether it is served.
    pub enabled: bool,
}

/// Requests that reach another gateway than they should.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relay {
    /// `host:port`, [`RELAY_AUTO`], or empty for nowhere.
    pub address: String,
}

/// Commands.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Send {
    /// Until the outcome is unknown.
    pub timeout_ms: u64,
}

/// Fan-out.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rooms {
    /// After the last follower left.
    pub linger_ms: u64,
    /// Between two comparisons with the database.
    pub check_interval_ms: u64,
}

/// Who is here.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Presence {
    /// Between two signs of life.
    pub renew_ms: u64,
    /// Over which changes are gathered.
    pub gather_ms: u64,
    /// Participants.
    pub large_group: usize,
}

/// The end of the process.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    /// Unready before anything else.
    pub wait_ms: u64,
    /// Over which clients are disconnected.
    pub drain_ms: u64,
    /// Until the end in any case.
    pub grace_ms: u64,
}

impl Settings {
    /// Where the settings come from in a running process.
    pub fn sources() -> Sources {
        Sources::from_process(DEFAULTS, ALIASES)
    }

    /// What clients are shown; none without TLS.
    ///
    /// # Errors
    /// A file holds no certificate or key, or the two do not belong together.
    pub fn certificate(&self) -> Result<Option<Certificate>, Invalid> {
        if self.http.tls_cert_file.is_empty() {
            return Ok(None);
        }
        let (certificate, key) = (&self.http.tls_cert_file, &self.http.tls_key_file);
        Certificate::read(certificate.as_ref(), key.as_ref()).map(Some)
    }

    /// How long a command may take.
    pub fn send_timeout(&self) -> Duration {
        Duration::from_millis(self.send.timeout_ms)
    }

    /// The connection settings under the name of this instance.
    pub fn connection(&self, name: String) -> parlance_bus::ConnectSettings {
        parlance_bus::ConnectSettings {
            url: self.nats.url.clone(),
            name,
            inbox_prefix: self.nats.inbox_prefix.clone(),
            user: self.nats.user.clone(),
            password: self.nats.password.expose_secret().to_owned(),
            credentials_file: self.nats.credentials_file.clone(),
            tls: parlance_bus::Tls {
                ca_file: self.nats.ca_file.clone(),
                cert_file: self.nats.cert_file.clone(),
                key_file: self.nats.key_file.clone(),
            },
        }
    }
}

impl Http {
    /// How long connections may ask nothing.
    pub fn patience(&self) -> Patience {
        Patience {
            client: Duration::from_millis(self.idle_timeout_ms),
            proxy: Duration::from_millis(self.proxy_idle_timeout_ms),
        }
    }
}

impl DialectSettings {
    /// The dialects of web pages by their origins.
    ///
    /// # Errors
    /// The first that is no origin.
    pub fn by_origin(&self) -> Result<OriginMap<String>, Invalid> {
        let entries = self.origins.iter();
        OriginMap::new(
            "dialect.origins",
            entries.map(|(origin, dialect)| (origin.as_str(), dialect.clone())),
        )
    }
}

impl Validate for Nats {
    fn validate(&self) -> Result<(), Invalid> {
        not_empty("nats.url", &self.url, "one or more nats:// addresses")?;
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

impl Validate for Http {
    fn validate(&self) -> Result<(), Invalid> {
        not_empty("http.host", &self.host, "an address or host name")?;
        both_or_none(
            ("http.tls_cert_file", &self.tls_cert_file),
            ("http.tls_key_file", &self.tls_key_file),
        )?;
        Proxies::new(&self.trusted_proxies)?;
        in_range(
            "http.connections_per_address",
            self.connections_per_address,
            1..=10_000_000,
        )?;
        in_range("http.idle_timeout_ms", self.idle_timeout_ms, 100..=3_600_000)?;
        in_range(
            "http.proxy_idle_timeout_ms",
            self.proxy_idle_timeout_ms,
            100..=3_600_000,
        )
    }
}

impl Validate for Settings {
    fn validate(&self) -> Result<(), Invalid> {
        self.http.validate()?;
        not_empty("internal.host", &self.internal.host, "an address or host name")?;
        self.nats.validate()?;
        in_range("bus.partitions", self.bus.partitions, 1..=1024)?;
        self.jwt.validate()?;
        one_of("auth.provision", &self.auth.provision, &["jit", "strict"])?;
        in_range(
            "auth.expiry_notice_seconds",
            self.auth.expiry_notice_seconds,
            0..=86_400,
        )?;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        // What the engine itself reads from the query.
        let taken = ["EIO", "transport", "sid", "t", "b64", "dialect"];
        let name = self.auth.query_token.as_str();
        if !name.bytes().all(is_name) || taken.contains(&name) {
            let allowed =
                "the name of a parameter, such as token, that Socket.IO does not use itself; or empty";
            return Err(Invalid::new("auth.query_token", name, allowed));
        }
        Origins::new(&self.cors.origins)?;
        AllowedHeaders::new(&self.cors.headers)?;
        let dialects: Vec<&str> = DIALECTS.iter().map(|dialect| dialect.name()).collect();
        one_of("dialect.default", &self.dialect.default, &dialects)?;
        for dialect in self.dialect.origins.values() {
            one_of("dialect.origins", dialect, &dialects)?;
        }
        self.dialect.by_origin()?;
        self.socket.validate()?;
        let limits = &self.limits;
        // One message must fit a bus message of 900 KiB together with its metadata.
        in_range("limits.content_bytes", limits.content_bytes, 1..=524_288)?;
        // Text and change of a journal must fit one together.
        in_range("limits.journal_bytes", limits.journal_bytes, 1..=393_216)?;
        in_range("limits.metadata_bytes", limits.metadata_bytes, 2..=131_072)?;
        in_range("limits.title_chars", limits.title_chars, 1..=10_000)?;
        // As many users as persistence takes in one command.
        in_range("limits.participants", limits.participants, 1..=1_000)?;
        in_range("limits.sync_conversations", limits.sync_conversations, 1..=5_000)?;
        in_range(
            "limits.events_per_second",
            limits.events_per_second,
            1..=1_000_000,
        )?;
        in_range("limits.events_burst", limits.events_burst, 1..=10_000_000)?;
        in_range(
            "limits.bytes_per_second",
            limits.bytes_per_second,
            1_024..=1_073_741_824,
        )?;
        in_range("limits.bytes_burst", limits.bytes_burst, 1_024..=1_073_741_824)?;
        in_range("limits.presence_users", limits.presence_users, 1..=2_000)?;
        in_range("presence.renew_ms", self.presence.renew_ms, 100..=60_000)?;
        in_range("presence.gather_ms", self.presence.gather_ms, 0..=10_000)?;
        in_range("presence.large_group", self.presence.large_group, 0..=5_000)?;
        in_range("send.timeout_ms", self.send.timeout_ms, 100..=60_000)?;
        in_range("rooms.linger_ms", self.rooms.linger_ms, 0..=600_000)?;
        in_range(
            "rooms.check_interval_ms",
            self.rooms.check_interval_ms,
            100..=600_000,
        )?;
        self.telemetry.validate()?;
        in_range("shutdown.wait_ms", self.shutdown.wait_ms, 0..=600_000)?;
        in_range("shutdown.drain_ms", self.shutdown.drain_ms, 0..=3_600_000)?;
        let least = self.shutdown.wait_ms + self.shutdown.drain_ms;
        in_range("shutdown.grace_ms", self.shutdown.grace_ms, least..=7_200_000)?;
        refuse_public_secrets(
            self.development,
            &[&self.http.host, &self.internal.host],
            &[
                ("jwt.secret", self.jwt.secret.expose_secret()),
                ("nats.password", self.nats.password.expose_secret()),
                ("nats.url", &self.nats.url),
            ],
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use parlance_runtime::config::load;

    use super::*;

    fn with(variables: &[(&str, &str)]) -> Result<Settings, String> {
        let mut env = BTreeMap::from([("PARLANCE_JWT_SECRET".to_owned(), "0123456789abcdef".to_owned())]);
        env.extend(
            variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        let sources = Sources {
            defaults: DEFAULTS,
            file: None,
            env,
            aliases: ALIASES,
        };
        load(&sources).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_need_only_a_key() {
        let settings = with(&[]).unwrap();
        assert_eq!(settings.http.port, 4004);
        assert!(with(&[("PARLANCE_JWT_SECRET", "")]).unwrap_err().contains("jwt"));
    }

    #[test]
    fn a_public_secret_is_for_development_only() {
        let public = ("PARLANCE_JWT_SECRET", "dev-only-secret-change-me");
        let error = with(&[public]).unwrap_err();
        assert!(
            error.contains("jwt.secret") && !error.contains(public.1),
            "{error}"
        );
        assert!(with(&[public, ("PARLANCE_DEVELOPMENT", "true")]).is_ok());
        let loopback = [
            public,
            ("PARLANCE_HTTP_HOST", "127.0.0.1"),
            ("PARLANCE_INTERNAL_HOST", "::1"),
        ];
        assert!(with(&loopback).is_ok());
        assert!(with(&[("PARLANCE_NATS_PASSWORD", "dev-only-gateway")]).is_err());
    }

    #[test]
    fn a_bad_value_is_named_with_what_is_allowed() {
        for (name, value, part) in [
            ("PARLANCE_BUS_PARTITIONS", "0", "bus.partitions"),
            ("PARLANCE_LIMITS_CONTENT_BYTES", "many", "limits.content_bytes"),
            ("PARLANCE_AUTH_PROVISION", "never", "jit"),
            ("PARLANCE_SHUTDOWN_GRACE_MS", "1", "shutdown.grace_ms"),
            ("PARLANCE_LIMITS_CONTENT", "1", "PARLANCE_LIMITS_CONTENT"),
            ("PARLANCE_HTTP_TLS_CERT_FILE", "/a.pem", "http.tls_key_file"),
            ("PARLANCE_NATS_KEY_FILE", "/a.pem", "nats.cert_file"),
            ("PARLANCE_NATS_USER", "gateway", "nats.password"),
            ("PARLANCE_CORS_ORIGINS", "https://a.example/chat", "cors.origins"),
            (
                "PARLANCE_HTTP_TRUSTED_PROXIES",
                "10.0.0.0/8,lb.example",
                "http.trusted_proxies = \"lb.example\"",
            ),
            ("PARLANCE_CORS_HEADERS", "x y", "cors.headers"),
            (
                "PARLANCE_DIALECT_ORIGINS",
                "a.example=chats",
                "dialect.origins = \"a.example\"",
            ),
            ("PARLANCE_SOCKET_PATH", "ws", "socket.path"),
            ("PARLANCE_SOCKET_NAMESPACES", "chat", "socket.namespaces"),
            ("PARLANCE_AUTH_QUERY_TOKEN", "sid", "auth.query_token"),
        ] {
            let error = with(&[(name, value)]).unwrap_err();
            assert!(error.contains(part), "{name}={value}: {error}");
        }
    }

    #[test]
    fn well_known_names_work_too() {
        let settings = with(&[("PORT", "5000"), ("SOCKET_CORS_ORIGINS", "http://a,http://b")]).unwrap();
        assert_eq!(settings.http.port, 5000);
        assert_eq!(settings.cors.origins, ["http://a", "http://b"]);
        let settings = with(&[("PARLANCE_JWT_SUBJECT_CLAIM", "userId")]).unwrap();
        assert_eq!(settings.jwt.subject_claims, ["userId"]);
    }
}
