//! How many commands go into one transaction. Knows no database and no bus.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// Sizes of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most items.
    pub max: usize,
    /// A batch with this many bytes takes no further item.
    pub bytes: usize,
    /// How long a busy batch waits for more.
    pub linger: Duration,
}

/// Waits for an item and takes what else has queued up. Only when `busy` it waits a little for more: an
/// idle system answers at once, a loaded one fills its batches. Empty when the queue is closed.
pub async fn collect<T>(
    queue: &mut mpsc::Receiver<T>,
    limits: &Limits,
    busy: bool,
    size: impl Fn(&T) -> usize,
) -> Vec<T> {
    let mut batch = Vec::new();
    let Some(first) = queue.recv().await else {
        return batch;
    };
    let mut bytes = size(&first);
    batch.push(first);
    let deadline = Instant::now() + limits.linger;
    while batch.len() < limits.max && bytes < limits.bytes {
        let next = match queue.try_recv() {
            Ok(item) => Some(item),
            Err(_) if busy => timeout_at(deadline, queue.recv()).await.ok().flatten(),
            Err(_) => None,
        };
        let Some(item) = next else { break };
        bytes += size(&item);
        batch.push(item);
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        max: 4,
        bytes: 100,
        linger: Duration::from_millis(2),
    };

    fn queue(sizes: &[usize]) -> (mpsc::Sender<usize>, mpsc::Receiver<usize>) {
        let (tx, rx) = mpsc::channel(16);
        for &size in sizes {
            tx.try_send(size).unwrap();
        }
        (tx, rx)
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_batch_does_not_wait() {
        let (_tx, mut rx) = queue(&[1, 1]);
        let started = Instant::now();
        assert_eq!(collect(&mut rx, &LIMITS, false, |&s| s).await.len(), 2);
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_batch_waits_for_the_linger_and_no_longer() {
        let (_tx, mut rx) = queue(&[1, 1]);
        let started = Instant::now();
        assert_eq!(collect(&mut rx, &LIMITS, true, |&s| s).await.len(), 2);
        assert!(started.elapsed() >= LIMITS.linger && started.elapsed() < LIMITS.linger * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn count_and_bytes_bound_a_batch_and_order_is_kept() {
        let (_tx, mut rx) = queue(&[1, 2, 3, 4, 5, 60, 60, 8]);
        assert_eq!(collect(&mut rx, &LIMITS, true, |&s| s).await, [1, 2, 3, 4]);
        assert_eq!(collect(&mut rx, &LIMITS, true, |&s| s).await, [5, 60, 60]);
        assert_eq!(collect(&mut rx, &LIMITS, false, |&s| s).await, [8]);
    }

    #[tokio::test]
    async fn a_closed_queue_is_emptied_first() {
        let (tx, mut rx) = queue(&[1]);
        drop(tx);
        assert_eq!(collect(&mut rx, &LIMITS, true, |&s| s).await, [1]);
        assert!(collect(&mut rx, &LIMITS, true, |&s| s).await.is_empty());
    }
}
