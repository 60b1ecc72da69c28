//! Pauses between attempts: each about twice as long as the one before, up to a limit, and none exactly as long as that of
//! a neighbour, so that replicas and tasks that failed together do not come back together.
//!
//! Must not decide what is tried again, or for how long.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// The pauses of one task.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// From `first` on, never longer than `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            next: first,
        }
    }

    /// The next pause: half to one and a half of its length.
    #[must_use]
    pub fn next_pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause.mul_f64(0.5 + fastrand::f64())
    }

    /// Waits for the next pause.
    pub async fn pause(&mut self) {
        tokio::time::sleep(self.next_pause()).await;
    }

    /// Waits for the next pause; false, at once, where there shall be no further attempt.
    pub async fn pause_unless(&mut self, stop: &CancellationToken) -> bool {
        let pause = tokio::time::sleep(self.next_pause());
        stop.run_until_cancelled(pause).await.is_some()
    }

    /// An attempt succeeded: the next pause is the first again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_differ() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, longest);
        for length in [100, 200, 400, 800, 1_000, 1_000] {
            let length = Duration::from_millis(length);
            let pause = backoff.next_pause();
            assert!(
                pause >= length / 2 && pause <= length * 3 / 2,
                "{pause:?} of {length:?}"
            );
        }
        backoff.reset();
        assert!(backoff.next_pause() <= first * 3 / 2);
        let pauses: Vec<_> = (0..20)
            .map(|_| Backoff::new(first, longest).next_pause())
            .collect();
        assert!(pauses.windows(2).any(|pair| pair[0] != pair[1]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_a_pause() {
        let first = Duration::from_secs(60);
        let mut backoff = Backoff::new(first, first);
        let stop = CancellationToken::new();
        let begun = tokio::time::Instant::now();
        assert!(backoff.pause_unless(&stop).await);
        assert!(begun.elapsed() >= first / 2);
        let begun = tokio::time::Instant::now();
        let stopping = async {
            tokio::time::advance(Duration::from_secs(1)).await;
            stop.cancel();
        };
        let (goes_on, ()) = tokio::join!(backoff.pause_unless(&stop), stopping);
        assert!(!goes_on && begun.elapsed() < first / 2);
        assert!(!backoff.pause_unless(&stop).await);
    }
}
