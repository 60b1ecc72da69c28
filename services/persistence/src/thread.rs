//! Threads of their own for what others must not starve, or what would starve others.

use std::thread::Builder;

use tokio::runtime;
use tokio::sync::oneshot;

/// Runs what `make` makes on a thread and a runtime of its own, until it ends.
///
/// # Panics
/// If it panics, or no thread can be had.
pub async fn apart<F>(name: &'static str, make: impl FnOnce() -> F + Send + 'static)
where
    F: Future<Output = ()>,
{
    let (done, ended) = oneshot::channel();
    let run = move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        if let Ok(runtime) = runtime {
            runtime.block_on(make());
            // Not sent by a thread that panics.
            let _ = done.send(());
        }
    };
    let spawned = Builder::new().name(name.to_owned()).spawn(run);
    assert!(
        spawned.is_ok() && ended.await.is_ok(),
        "the thread {name} ended before its time"
    );
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_goes_on_while_this_runtime_is_busy() {
        let (tx, mut ticks) = tokio::sync::mpsc::unbounded_channel();
        let other = tokio::spawn(apart("ticks", move || async move {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_millis(5)).await;
                let _ = tx.send(());
            }
        }));
        tokio::task::yield_now().await;
        std::thread::sleep(Duration::from_secs(1));
        let mut seen = 0;
        while ticks.try_recv().is_ok() {
            seen += 1;
        }
        assert_eq!(seen, 5);
        other.await.unwrap();
    }

    #[tokio::test]
    async fn its_panic_is_a_panic_of_who_waits_for_it() {
        let failed = tokio::spawn(apart("panics", || async { panic!("as asked") })).await;
        assert!(failed.unwrap_err().is_panic());
    }
}
