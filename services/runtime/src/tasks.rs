//! The one way to begin a task, on whatever runtime, tracker or thread: it has a name, and one that panics ends the process
//! with a failure, whoever waits for it or nobody. The life of the process says by `on_panic` how it ends.
//!
//! What would go on with a task missing would look like a whole service. Must not know what the tasks do.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::task::TaskTracker;

type Reaction = Arc<dyn Fn() + Send + Sync>;

/// Of threads that compute: beside a busy thread of the runtime one gets about a tenth of the core.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// What a panic of any task leads to.
static ON_PANIC: Mutex<Option<Reaction>> = Mutex::new(None);

/// From here on this follows a panic of any task of the process, and nothing that was set before.
pub(crate) fn on_panic(reaction: impl Fn() + Send + Sync + 'static) {
    *ON_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(reaction));
}

/// Watches one task: dropped by a panic, it reports that.
struct Watch(&'static str);

impl Drop for Watch {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!(task = self.0, "task panicked");
            let reaction = ON_PANIC.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(react) = reaction {
                react();
            }
        }
    }
}

/// Begins a task on the current runtime. Nobody needs to wait for it.
pub fn spawn<F>(name: &'static str, task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(watched(name, task))
}

/// Begins a task on another runtime.
pub fn spawn_at<F>(runtime: &Handle, name: &'static str, task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    runtime.spawn(watched(name, task))
}

/// Begins a task that the tracker waits for.
pub fn spawn_on<F>(tracker: &TaskTracker, name: &'static str, task: F)
where
    F: Future<Output: Send> + Send + 'static,
{
    drop(tracker.spawn(watched(name, task)));
}

/// Begins a task whose result the set yields.
pub fn spawn_in<T: Send + 'static>(
    set: &mut JoinSet<T>,
    name: &'static str,
    task: impl Future<Output = T> + Send + 'static,
) {
    set.spawn(watched(name, task));
}

/// Computes on a thread that may be kept busy and gives way to the runtime's: where cores are short, what answers everybody goes
/// before what one user has computed.
pub fn blocking<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    tokio::task::spawn_blocking(move || {
        let _watch = Watch(name);
        give_way();
        work()
    })
}

/// Lowers the priority of this thread, which stays with those that block. Where that is not possible it is as high as before.
fn give_way() {
    thread_local! {
        static LOWERED: () = {
            // Elsewhere it would be that of the whole process.
            #[cfg(target_os = "linux")]
            rustix::process::setpriority_process(None, NICENESS).ok();
        };
    }
    LOWERED.with(|()| ());
}

async fn watched<F: Future>(name: &'static str, task: F) -> F::Output {
    let _watch = Watch(name);
    task.await
}

#[cfg(test)]
mod tests {
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_computes_gives_way_to_the_runtime() {
        let own = || rustix::process::getpriority_process(None).unwrap();
        let before = own();
        let computing = super::blocking("computes", own).await.unwrap();
        assert_eq!(computing, before.max(super::NICENESS));
        assert_eq!(own(), before);
    }
}
