//! By when a query is given up.
//!
//! A query has its own time, and all queries of one request together have theirs, however many it takes: beyond it
//! persistence is asked nothing for a client that has gone.

use std::time::Duration;

use tokio::time::Instant;

use super::asking::TIMEOUT;

/// How long the queries of one request or event may take together. Far more than one that succeeds needs, also when
/// its body comes slowly.
const WHOLE: Duration = Duration::from_secs(30);

tokio::task_local! {
    static UNTIL: Instant;
}

/// Carries out a request or an event; what it asks from now on shares one deadline.
pub async fn together<F: Future>(work: F) -> F::Output {
    UNTIL.scope(Instant::now() + WHOLE, work).await
}

/// The deadline of a query that is asked now.
pub(super) fn of_query() -> Instant {
    let own = Instant::now() + TIMEOUT;
    UNTIL.try_with(|whole| own.min(*whole)).unwrap_or(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn queries_of_one_request_share_its_deadline() {
        let begun = Instant::now();
        assert_eq!(of_query(), begun + TIMEOUT, "of nobody's request");
        together(async {
            assert_eq!(of_query(), begun + TIMEOUT, "the first");
            tokio::time::advance(WHOLE - Duration::from_secs(1)).await;
            assert_eq!(of_query(), begun + WHOLE, "a late one has what is left");
            tokio::time::advance(Duration::from_secs(2)).await;
            assert!(of_query() < Instant::now(), "nothing is left");
        })
        .await;
        assert_eq!(of_query(), Instant::now() + TIMEOUT);
    }
}
