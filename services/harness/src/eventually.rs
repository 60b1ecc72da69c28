//! Waiting for a condition with a deadline: the only place of the harness that may sleep.
//!
//! Must not be used to wait for a length of time; only for something that can be observed.

use std::fmt::{Debug, Display};
use std::time::{Duration, Instant};

use anyhow::bail;

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// What one look at a condition saw: met (`Ok`) or not yet, with a description for the failure message.
pub trait Observation {
    /// What the condition yields once it holds.
    type Value;
    /// `Err` describes what was seen instead.
    ///
    /// # Errors
    /// The condition does not hold yet.
    fn observed(self) -> Result<Self::Value, String>;
}

impl<T, E: Display> Observation for Result<T, E> {
    type Value = T;
    fn observed(self) -> Result<T, String> {
        self.map_err(|error| format!("{error:#}"))
    }
}

impl<T> Observation for Option<T> {
    type Value = T;
    fn observed(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing".to_owned())
    }
}

impl Observation for bool {
    type Value = ();
    fn observed(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("false".to_owned()) }
    }
}

/// `Ok(actual)` when it equals `expected`, else an observation that shows both.
///
/// # Errors
/// The two differ.
pub fn equal<T: PartialEq + Debug>(actual: T, expected: &T) -> Result<T, String> {
    if actual == *expected {
        Ok(actual)
    } else {
        Err(format!("{actual:?}, expected {expected:?}"))
    }
}

/// Polls `look` until it observes success or `within` has passed.
///
/// `look` yields a `Result`, an `Option` or a `bool`. One look may not outlast the deadline.
///
/// # Errors
/// The deadline passed; the message names `what` and the last thing seen.
pub async fn eventually<F, R>(
    within: Duration,
    what: impl Display,
    mut look: F,
) -> anyhow::Result<<R::Output as Observation>::Value>
where
    F: FnMut() -> R,
    R: Future,
    R::Output: Observation,
{
    let deadline = Instant::now() + within;
    let mut pause = FIRST_PAUSE;
    let mut last = "no answer yet".to_owned();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, look()).await {
            Ok(seen) => match seen.observed() {
                Ok(value) => return Ok(value),
                Err(seen) => last = seen,
            },
            Err(_) if last == "no answer yet" => {}
            Err(_) => last.push_str(" (and the last look did not return)"),
        }
        if Instant::now() + pause >= deadline {
            bail!("{what}: not within {within:?}; last seen: {last}");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// [`eventually`] for code without an async runtime, such as `Drop`: true once `look` is true in time.
#[must_use]
pub fn eventually_blocking(within: Duration, mut look: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + within;
    let mut pause = FIRST_PAUSE;
    loop {
        if look() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn yields_the_value_of_the_first_success() {
        let mut looks = 0;
        let value = eventually(Duration::from_secs(2), "third look", || {
            looks += 1;
            let seen = looks;
            async move { (seen == 3).then_some(seen) }
        })
        .await
        .unwrap();
        assert_eq!(value, 3);
    }

    #[tokio::test]
    async fn failure_names_what_and_the_last_value_seen() {
        let error = eventually(Duration::from_millis(30), "two rows", || async { equal(1, &2) }).await;
        let text = error.unwrap_err().to_string();
        assert!(text.starts_with("two rows: not within 30ms"), "{text}");
        assert!(text.ends_with("last seen: 1, expected 2"), "{text}");
    }

    #[tokio::test]
    async fn a_look_that_hangs_does_not_outlast_the_deadline() {
        let error = eventually(
            Duration::from_millis(30),
            "an answer",
            std::future::pending::<bool>,
        )
        .await;
        assert!(error.unwrap_err().to_string().contains("no answer yet"));
    }
}
