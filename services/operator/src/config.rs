//! Where NATS is and who asks there. The same variables as those of the services; of a file only the services'
//! own settings would be in it, so none is read.

use parlance_bus::{ConnectSettings, Tls};
use parlance_runtime::config::{Invalid, Sources, Validate, both_or_none, load, not_empty};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

const DEFAULTS: &str = include_str!("defaults.toml");

/// All settings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    nats: Nats,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nats {
    url: SecretString,
    user: String,
    password: SecretString,
    credentials_file: String,
    inbox_prefix: String,
    ca_file: String,
    cert_file: String,
    key_file: String,
}

impl Config {
    /// The environment, and what the command line says instead.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn from_process(nats_url: Option<&str>) -> anyhow::Result<Self> {
        let mut sources = Sources::from_process(DEFAULTS, &[]);
        sources.file = None;
        if let Some(url) = nats_url {
            sources.env.insert("PARLANCE_NATS_URL".to_owned(), url.to_owned());
        }
        Ok(load(&sources)?)
    }

    /// What the bus needs.
    pub fn connect(&self) -> ConnectSettings {
        ConnectSettings {
            url: self.nats.url.expose_secret().to_owned(),
            name: "parlance-operator".to_owned(),
            user: self.nats.user.clone(),
            password: self.nats.password.expose_secret().to_owned(),
            credentials_file: self.nats.credentials_file.clone(),
            inbox_prefix: self.nats.inbox_prefix.clone(),
            tls: Tls {
                ca_file: self.nats.ca_file.clone(),
                cert_file: self.nats.cert_file.clone(),
                key_file: self.nats.key_file.clone(),
            },
        }
    }

    /// Where NATS is, without credentials.
    pub fn place(&self) -> String {
        parlance_runtime::config::without_credentials(self.nats.url.expose_secret())
    }
}

impl Validate for Config {
    fn validate(&self) -> Result<(), Invalid> {
        not_empty("nats.url", self.nats.url.expose_secret(), "the address of NATS")?;
        both_or_none(
            ("nats.cert_file", &self.nats.cert_file),
            ("nats.key_file", &self.nats.key_file),
        )
    }
}
