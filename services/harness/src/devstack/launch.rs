//! Starting a child process from a recipe that can be repeated.
//!
//! Must not wait for readiness; see [`super::probe`].

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};

use anyhow::Context;

use super::account::{Account, succeeds};
use crate::environment;

/// How long a child lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Until the starting process ends, however it ends (where the system offers that).
    WithParent,
    /// Beyond the starting process and its terminal.
    Detached,
}

/// Everything needed to start a program, and to start it again in the same way.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Short name for logs, such as `gateway-1`.
    pub name: String,
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables set for it. `PARLANCE_*`, `PG*` and `DATABASE_URL` of the caller are not inherited.
    pub environment: Vec<(String, String)>,
    /// File for standard output, replaced at every start; none: goes to `log`.
    pub stdout: Option<PathBuf>,
    /// File for standard error, appended.
    pub log: PathBuf,
    /// How long it lives.
    pub lifetime: Lifetime,
    /// Account it runs under.
    pub account: Account,
    /// Name of the signal sent to it when the parent dies.
    pub orphan_signal: &'static str,
}

impl Launch {
    /// Starts the program once.
    ///
    /// # Errors
    /// A log file cannot be written or the program cannot be executed.
    pub fn spawn(&self) -> anyhow::Result<Child> {
        let mut words = Vec::new();
        if self.lifetime == Lifetime::Detached && environment::program("setsid").is_some() {
            words.push("setsid".to_owned());
        }
        words.extend(self.account.wrapper());
        if self.lifetime == Lifetime::WithParent && can_die_with_parent() {
            words.extend([
                "setpriv".into(),
                "--pdeathsig".into(),
                self.orphan_signal.into(),
                "--".into(),
            ]);
        }
        words.push(self.program.display().to_string());
        words.extend(self.arguments.iter().cloned());

        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null());
        if words[0] != "setsid" {
            // A group of its own keeps the terminal's Ctrl-C away; a new session does so by itself.
            command.process_group(0);
        }
        for (name, _) in environment::variables("") {
            if name.starts_with("PARLANCE_") || name.starts_with("PG") || name == "DATABASE_URL" {
                command.env_remove(name);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let describe = || format!("cannot start {} ({})", self.name, self.program.display());
        let log = self.open(&self.log, true).with_context(describe)?;
        let stdout = match &self.stdout {
            Some(path) => self.open(path, false).with_context(describe)?,
            None => log.try_clone().with_context(describe)?,
        };
        command.stdout(stdout).stderr(log);
        spawn_from_lasting_thread(command).with_context(describe)
    }

    /// The last `lines` lines of the log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let text = fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default();
        let all: Vec<_> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    fn open(&self, path: &PathBuf, append: bool) -> io::Result<File> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        File::options()
            .create(true)
            .append(append)
            .write(true)
            .truncate(!append)
            .open(path)
    }
}

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// Makes the thread that starts processes, which stays on the cores that the caller may use now; and so do they.
pub fn prepare() {
    spawner();
}

/// Linux ends a child at the death of the *thread* that started it, so that thread has to last as
/// long as the process. Pool threads do not.
fn spawner() -> &'static mpsc::Sender<Order> {
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                // The asker may have given up; its child then dies with this process.
                answer.send(command.spawn()).ok();
            }
        });
        orders
    })
}

fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    let (answer, outcome) = mpsc::channel();
    let gone = |_| io::Error::other("the thread that starts processes has ended");
    spawner()
        .send((command, answer))
        .map_err(|_| gone(mpsc::RecvError))?;
    outcome.recv().map_err(gone)?
}

fn can_die_with_parent() -> bool {
    static ABLE: OnceLock<bool> = OnceLock::new();
    *ABLE.get_or_init(|| succeeds(&["setpriv", "--pdeathsig", "KILL", "true"].map(str::to_owned)))
}
