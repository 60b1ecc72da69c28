//! The development stack in containers: the same commands by `docker-compose.yml`, where an engine answers.
//!
//! Must not know what the stack consists of, which is written there alone.

use std::fs;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::env_file;
use super::folder::DevFolder;
use super::replicas::Wanted;
use super::report::{Report, line};
use super::up::farewell;
use crate::devstack::repository;
use crate::environment;
use crate::eventually::eventually;

/// From the first container to the first request served.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// Where the stack of [`env_file`] runs.
const WHERE: &str = "PARLANCE_STACK";
/// The value of [`WHERE`] for containers.
const HERE: &str = "compose";

/// A container engine with its compose.
#[derive(Debug)]
pub struct Compose {
    words: &'static [&'static str],
}

impl Compose {
    /// What `STACK` says: `local` never, `compose` always; without it an engine that answers.
    ///
    /// # Errors
    /// It says `compose` and no engine answers, or something else.
    pub fn find() -> anyhow::Result<Option<Self>> {
        match environment::variable("STACK").as_deref() {
            Some("local") => Ok(None),
            Some("compose") => Self::answering().map(Some).context(
                "STACK=compose needs a container engine that answers and its compose: see `docker info`",
            ),
            None => Ok(Self::answering()),
            Some(other) => bail!("STACK is `{other}`: it may be local or compose"),
        }
    }

    fn answering() -> Option<Self> {
        environment::program("docker")?;
        if !succeeds(&["docker", "info"]) {
            return None;
        }
        let known: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];
        let found = |words: &&&[&str]| succeeds(&[words, &["version"][..]].concat());
        known.iter().find(found).map(|words| Self { words })
    }

    /// Builds the images and brings every container to life, or back to it.
    ///
    /// # Errors
    /// One line: what failed, and where to look.
    pub async fn up(&self, folder: &DevFolder, wanted: Wanted) -> anyhow::Result<()> {
        let mut report = Report::default();
        let secret = match named_secret() {
            Some(secret) => secret,
            None => folder.secret()?,
        };
        report.note("building the images; the first time takes many minutes");
        let mut up = self.command();
        up.args(["up", "--detach", "--build", "--remove-orphans"])
            .args(["--scale", &format!("gateway={}", wanted.gateways)])
            .args(["--scale", &format!("persistence={}", wanted.persistence)])
            .env("PARLANCE_JWT_SECRET", &secret);
        if let Some(port) = wanted.port {
            up.env("PORT", port.to_string());
        }
        let code = up.status().context("cannot run compose")?;
        ensure!(code.success(), "`{}` failed: see above", self.words.join(" "));
        report.done("containers", "started");
        let url = format!("http://{}", self.published("lb", "4004")?);
        let ready = || async {
            let client = reqwest::Client::builder().no_proxy().build()?;
            let answer = client
                .get(format!("{url}/socket.io/?EIO=4&transport=polling"))
                .send()
                .await?;
            anyhow::Ok(answer.error_for_status().map(drop)?)
        };
        eventually(READY_LIMIT, "the load balancer reaches a gateway", ready)
            .await
            .with_context(|| format!("see `{} logs`", self.words.join(" ")))?;
        report.done("gateways", "ready");
        let nats = format!("nats://{}", self.published("nats", "4222")?);
        env_file::write(
            folder,
            &[
                ("PARLANCE_GATEWAYS", url.clone()),
                ("PARLANCE_NATS_URL", nats),
                ("PARLANCE_JWT_SECRET", secret.clone()),
                (WHERE, HERE.to_owned()),
            ],
        )?;
        let logs = format!("{} --project-name parlance logs", self.words.join(" "));
        farewell(&report, folder, &logs, &[url], &secret)
    }

    /// Ends all containers; with `purge` deletes their data and the secret as well.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn down(&self, folder: &DevFolder, purge: bool) -> anyhow::Result<()> {
        let mut down = self.command();
        down.args(["down", "--remove-orphans"]);
        if purge {
            down.arg("--volumes");
        }
        let code = down.status().context("cannot run compose")?;
        ensure!(
            code.success(),
            "`{} down` failed: see above",
            self.words.join(" ")
        );
        fs::remove_file(folder.env_file()).ok();
        if purge {
            fs::remove_file(folder.secret_file()).ok();
            line("Deleted data and the secret.");
        }
        Ok(())
    }

    /// Shows the containers.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn status(&self) -> anyhow::Result<bool> {
        let code = self.command().arg("ps").status().context("cannot run compose")?;
        Ok(code.success())
    }

    /// Where a port of a container is reached from this machine.
    fn published(&self, service: &str, port: &str) -> anyhow::Result<String> {
        let output = self.command().args(["port", service, port]).output()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        ensure!(
            output.status.success() && !text.is_empty(),
            "{service} publishes no port"
        );
        Ok(text)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.words[0]);
        command
            .args(&self.words[1..])
            .args(["--project-name", "parlance"])
            .current_dir(repository())
            // What makes 1.29 build as its successor does.
            .envs([("DOCKER_BUILDKIT", "1"), ("COMPOSE_DOCKER_CLI_BUILD", "1")])
            .stdin(Stdio::null());
        command
    }
}

/// Whether the stack that was started last runs in containers.
#[must_use]
pub fn runs_here(folder: &DevFolder) -> bool {
    env_file::read(folder).is_ok_and(|settings| settings.get(WHERE).is_some_and(|place| place == HERE))
}

/// The secret in the environment or in the file `.env` of the repository, which compose reads.
fn named_secret() -> Option<String> {
    const NAME: &str = "PARLANCE_JWT_SECRET";
    let file = fs::read_to_string(repository().join(".env")).unwrap_or_default();
    let in_file = file
        .lines()
        .filter_map(|line| line.trim().split_once('='))
        .find(|(name, _)| *name == NAME)
        .map(|(_, value)| value.to_owned());
    environment::variable(NAME).or(in_file)
}

fn succeeds(words: &[&str]) -> bool {
    let output: Option<Output> = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .output()
        .ok();
    output.is_some_and(|output| output.status.success())
}
