//! The life of one process: its tasks, when they begin to stop, and what the exit code says.
//!
//! Owns the signals and two tokens. The *soft* token asks tasks to finish what they have and end;
//! the *hard* token orders them to end now. It must not know what the tasks do.

use std::collections::BTreeMap;
use std::future::Future;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::tasks;

/// How long tasks may take to end after the hard token.
const HARD_GRACE: Duration = Duration::from_secs(1);

/// The tasks of a process and their stop signals. Clones share one life.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    soft: CancellationToken,
    hard: CancellationToken,
    tracker: TaskTracker,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    failed: AtomicBool,
    next_task: AtomicU64,
    /// Names of the tasks that have not ended, to name those that had to be abandoned.
    running: Mutex<BTreeMap<u64, &'static str>>,
}

impl Lifecycle {
    /// A life without tasks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From here on a panic anywhere in the process, also in a task that nobody waits for, is logged as before, makes the
    /// exit code non-zero and begins the end of the process: what it left undone nobody would do.
    pub fn end_on_panic(&self) {
        let life = self.clone();
        // Also where a library took the hook away.
        tasks::on_panic(move || life.fail());
        let life = self.clone();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            before(panic);
            life.fail();
        }));
    }

    fn fail(&self) {
        self.state.failed.store(true, Ordering::Relaxed);
        self.soft.cancel();
    }

    /// Cancelled when tasks shall finish and end. Cancelling it begins the end of the process.
    #[must_use]
    pub fn soft(&self) -> CancellationToken {
        self.soft.clone()
    }

    /// Cancelled when tasks shall end at once.
    #[must_use]
    pub fn hard(&self) -> CancellationToken {
        self.hard.clone()
    }

    /// Runs `task` until it ends. One that fails or panics is logged, makes the exit code non-zero
    /// and begins the end of the process: half a service must not look like a whole one.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let id = self.state.next_task.fetch_add(1, Ordering::Relaxed);
        self.state.running().insert(id, name);
        let supervised = self.supervise(name, task);
        let state = Arc::clone(&self.state);
        self.tracker.spawn(async move {
            supervised.await;
            state.running().remove(&id);
        });
    }

    /// Runs a task that the others need until they have ended: the end of the process does not wait for it, so it
    /// should end with the hard token. One that fails or panics is treated as by [`Self::spawn`].
    pub fn spawn_background<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        tasks::spawn(name, self.supervise(name, task));
    }

    fn supervise<F>(&self, name: &'static str, task: F) -> impl Future<Output = ()> + Send + 'static
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let life = self.clone();
        // The task runs in one of its own so that its panic arrives here as a value.
        let task = tasks::spawn(name, task);
        async move {
            match task.await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => tracing::error!(task = name, error = one_line(&error), "task failed"),
                Err(error) if error.is_panic() => tracing::error!(task = name, "task panicked"),
                // Only the end of the runtime cancels a task.
                Err(_) => return,
            }
            life.fail();
        }
    }

    /// Waits for SIGTERM, SIGINT or the soft token, then for the tasks, for at most `grace`; a
    /// second signal cuts the grace short. Tasks that outlive the hard token are abandoned.
    /// Non-zero if a task failed or was abandoned.
    pub async fn run(&self, grace: Duration) -> ExitCode {
        let signals = signal(SignalKind::terminate())
            .and_then(|terminate| Ok((terminate, signal(SignalKind::interrupt())?)));
        let (mut terminate, mut interrupt) = match signals {
            Ok(signals) => signals,
            Err(error) => {
                tracing::error!(%error, "cannot listen for signals");
                return ExitCode::FAILURE;
            }
        };
        let clean = self
            .run_until(grace, async || {
                tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                }
            })
            .await;
        if clean {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    /// As [`Self::run`] with the signals passed in. True when all tasks ended and none failed.
    async fn run_until(&self, grace: Duration, mut next_signal: impl AsyncFnMut() -> &'static str) -> bool {
        tokio::select! {
            signal = next_signal() => tracing::info!(signal, "stopping"),
            () = self.soft.cancelled() => tracing::info!("stopping"),
        }
        self.soft.cancel();
        self.tracker.close();
        tokio::select! {
            () = self.tracker.wait() => {}
            signal = next_signal() => tracing::warn!(signal, "second signal: stopping at once"),
            () = tokio::time::sleep(grace) => {
                tracing::warn!(tasks = self.state.running_names(), "grace elapsed: stopping at once");
            }
        }
        self.hard.cancel();
        let all_ended = timeout(HARD_GRACE, self.tracker.wait()).await.is_ok();
        if !all_ended {
            tracing::error!(tasks = self.state.running_names(), "tasks abandoned");
        }
        all_ended && !self.state.failed.load(Ordering::Relaxed)
    }
}

impl State {
    fn running(&self) -> MutexGuard<'_, BTreeMap<u64, &'static str>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running_names(&self) -> String {
        self.running().values().copied().collect::<Vec<_>>().join(", ")
    }
}

fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use anyhow::anyhow;
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;

    const GRACE: Duration = Duration::from_secs(20);
    /// Held by tests that change what the whole process does on a panic.
    static HOOK: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    async fn run(life: &Lifecycle, mut signals: mpsc::Receiver<&'static str>) -> bool {
        life.run_until(GRACE, async || match signals.recv().await {
            Some(signal) => signal,
            None => pending().await,
        })
        .await
    }

    fn signals(count: usize) -> mpsc::Receiver<&'static str> {
        let (sender, receiver) = mpsc::channel(2);
        for _ in 0..count {
            sender.try_send("SIGTERM").unwrap();
        }
        receiver
    }

    async fn until(token: CancellationToken) -> anyhow::Result<()> {
        token.cancelled().await;
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_signal_lets_tasks_finish() {
        let life = Lifecycle::new();
        let soft = life.soft();
        life.spawn("drain", async move {
            soft.cancelled().await;
            tokio::time::sleep(GRACE / 2).await;
            Ok(())
        });
        let started = Instant::now();
        assert!(run(&life, signals(1)).await);
        assert_eq!(started.elapsed(), GRACE / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn cancelling_the_soft_token_ends_the_run() {
        let life = Lifecycle::new();
        life.spawn("worker", until(life.soft()));
        life.soft().cancel();
        assert!(run(&life, signals(0)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_well_ends_nothing_else() {
        let life = Lifecycle::new();
        life.spawn("once", async { Ok(()) });
        let run = run(&life, signals(0));
        assert!(timeout(GRACE, run).await.is_err());
        assert!(!life.soft().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_task_stops_the_others_and_fails_the_run() {
        let life = Lifecycle::new();
        life.spawn("worker", until(life.soft()));
        life.spawn("broken", async { Err(anyhow!("no more")) });
        assert!(!run(&life, signals(0)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_stops_the_others_and_fails_the_run() {
        let life = Lifecycle::new();
        life.spawn("worker", until(life.soft()));
        life.spawn("broken", async { panic!("expected in this test") });
        assert!(!run(&life, signals(0)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_of_a_task_that_nobody_waits_for_fails_the_run() {
        let _hook = HOOK.lock().await;
        let life = Lifecycle::new();
        life.spawn("worker", until(life.soft()));
        life.end_on_panic();
        drop(tokio::spawn(async { panic!("expected in this test") }));
        assert!(!run(&life, signals(0)).await);
        drop(std::panic::take_hook());
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_of_any_task_fails_the_run_whatever_became_of_the_hook() {
        let _hook = HOOK.lock().await;
        let life = Lifecycle::new();
        life.spawn("worker", until(life.soft()));
        life.end_on_panic();
        // As a library might.
        drop(std::panic::take_hook());
        drop(tasks::spawn("broken", async { panic!("expected in this test") }));
        assert!(!run(&life, signals(0)).await);

        let life = Lifecycle::new();
        life.end_on_panic();
        drop(std::panic::take_hook());
        drop(tasks::blocking("broken", || panic!("expected in this test")));
        assert!(!run(&life, signals(0)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_background_task_is_not_waited_for_but_fails_the_run() {
        let life = Lifecycle::new();
        life.spawn_background("idle", pending());
        life.spawn("worker", until(life.soft()));
        let started = Instant::now();
        assert!(run(&life, signals(1)).await);
        assert_eq!(started.elapsed(), Duration::ZERO);

        let life = Lifecycle::new();
        life.spawn("worker", until(life.soft()));
        life.spawn_background("broken", async { panic!("expected in this test") });
        assert!(!run(&life, signals(0)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_hard_token_comes_when_the_grace_is_over() {
        let life = Lifecycle::new();
        life.spawn("slow", until(life.hard()));
        let started = Instant::now();
        assert!(run(&life, signals(1)).await);
        assert_eq!(started.elapsed(), GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_cuts_the_grace_short() {
        let life = Lifecycle::new();
        life.spawn("slow", until(life.hard()));
        let started = Instant::now();
        assert!(run(&life, signals(2)).await);
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_never_ends_is_abandoned_and_fails_the_run() {
        let life = Lifecycle::new();
        life.spawn("stuck", pending());
        let started = Instant::now();
        assert!(!run(&life, signals(1)).await);
        assert_eq!(started.elapsed(), GRACE + HARD_GRACE);
        assert_eq!(life.state.running_names(), "stuck");
    }
}
