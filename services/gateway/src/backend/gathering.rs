//! Questions of one kind travel together: what is asked while earlier ones are under way shares the next query. A
//! single question waits for nothing. The more share a query, the less each costs, so there is one at a time, and a
//! second one only where the first takes long.
//!
//! Where persistence has too much to do, a query is asked again after a pause, on behalf of all that share it: hundreds of
//! clients that were refused together would come back together, and cost more than their answers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use parlance_proto::v1::ErrorCode;
use parlance_runtime::backoff::Backoff;
use parlance_runtime::tasks;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::error::ClientError;

/// Questions in one query.
const MOST: usize = 500;
/// Queries of one kind under way at a time; the second begins where a question has waited for [`SLOW`].
const UNDER_WAY: usize = 2;
/// One query that takes longer than this does not hold up all others.
const SLOW: Duration = Duration::from_millis(50);
/// How often a question may be in a query that answers none at all.
const LEFT_OUT: u32 = 8;

/// Questions that wait; more are refused.
const MOST_WAITING: usize = 50_000;
/// How long one question may wait for its answer, behind others or under way.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it is asked once more because persistence has too much to do.
const REFUSED_AGAIN: Duration = Duration::from_secs(5);
/// The first and the longest pause before that.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// The answers to the questions of one query, in their order. `None` and what is missing at the end was left out.
pub(super) type Answers<A> = Result<Vec<Option<Result<A, ClientError>>>, ClientError>;

/// The questions of one kind. Cheap to clone.
pub(super) struct Gathering<Q, A>(Arc<Mutex<State<Q, A>>>);

struct State<Q, A> {
    waiting: VecDeque<Waiting<Q, A>>,
    under_way: usize,
}

struct Waiting<Q, A> {
    question: Q,
    since: Instant,
    left_out: u32,
    reply: oneshot::Sender<Result<A, ClientError>>,
}

/// Work that ends by a panic makes room for other work.
struct Working<'a, Q, A>(&'a Gathering<Q, A>);

impl<Q, A> Drop for Working<'_, Q, A> {
    fn drop(&mut self) {
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.under_way -= 1;
    }
}

impl<Q, A> Clone for Gathering<Q, A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<Q, A> Default for Gathering<Q, A> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            waiting: VecDeque::new(),
            under_way: 0,
        })))
    }
}

impl<Q, A> Gathering<Q, A>
where
    Q: Clone + Send + 'static,
    A: Send + 'static,
{
    /// The answer to one question. `send` asks many.
    ///
    /// # Errors
    /// As `send` answers.
    pub(super) async fn ask<F, Fut>(&self, question: Q, send: F) -> Result<A, ClientError>
    where
        F: Fn(Vec<Q>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Answers<A>> + Send + 'static,
    {
        let (reply, mut answer) = oneshot::channel();
        {
            let mut state = self.lock();
            if state.waiting.len() >= MOST_WAITING {
                return Err(ClientError::new(
                    ErrorCode::Unavailable,
                    "too many wait for persistence",
                ));
            }
            state.waiting.push_back(Waiting {
                question,
                since: Instant::now(),
                left_out: 0,
                reply,
            });
        }
        for (most, waited, patience) in [(1, Duration::ZERO, SLOW), (UNDER_WAY, SLOW, PATIENCE)] {
            if self.begins(most, waited) {
                tasks::spawn("gathered queries", self.clone().work(send.clone()));
            }
            match tokio::time::timeout(patience, &mut answer).await {
                Ok(Ok(answer)) => return answer,
                // The work on it panicked.
                Ok(Err(_)) => return Err(ClientError::internal()),
                Err(_) => {}
            }
        }
        Err(ClientError::new(
            ErrorCode::Unavailable,
            "persistence does not answer",
        ))
    }

    /// Whether one more query begins: a question has waited for so long, and fewer than `most` are under way. It counts
    /// from now on.
    fn begins(&self, most: usize, waited: Duration) -> bool {
        let mut state = self.lock();
        let has_waited = |first: &Waiting<Q, A>| first.since.elapsed() >= waited;
        let begins = state.under_way < most && state.waiting.front().is_some_and(has_waited);
        state.under_way += usize::from(begins);
        begins
    }

    /// Sends what waits, until nothing does.
    async fn work<F, Fut>(self, send: F)
    where
        F: Fn(Vec<Q>) -> Fut + Send + 'static,
        Fut: Future<Output = Answers<A>> + Send + 'static,
    {
        let working = Working(&self);
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        loop {
            let batch = self.take();
            if batch.is_empty() {
                // Counted when nothing was found to wait, under the same lock.
                std::mem::forget(working);
                return;
            }
            let questions = batch.iter().map(|one| one.question.clone()).collect();
            match send(questions).await {
                Err(refusal) if refusal.is_of_load() => {
                    self.put_back(batch, &refusal);
                    backoff.pause().await;
                }
                answers => {
                    self.answer(batch, answers);
                    backoff.reset();
                }
            }
        }
    }

    /// What is asked next; where that is nothing, this query ends.
    fn take(&self) -> Vec<Waiting<Q, A>> {
        let mut state = self.lock();
        // The asker may have gone.
        state.waiting.retain(|one| !one.reply.is_closed());
        let most = state.waiting.len().min(MOST);
        let batch: Vec<_> = state.waiting.drain(..most).collect();
        if batch.is_empty() {
            state.under_way -= 1;
        }
        batch
    }

    fn answer(&self, batch: Vec<Waiting<Q, A>>, answers: Answers<A>) {
        let (mut answers, answers_some) = match answers {
            Ok(answers) => {
                let answers_some = answers.iter().any(Option::is_some);
                (answers.into_iter(), answers_some)
            }
            Err(error) => {
                for one in batch {
                    // The asker may have gone.
                    drop(one.reply.send(Err(error.clone())));
                }
                return;
            }
        };
        let mut again = Vec::new();
        for mut one in batch {
            match answers.next().flatten() {
                Some(answer) => drop(one.reply.send(answer)),
                None if one.left_out < LEFT_OUT => {
                    one.left_out += u32::from(!answers_some);
                    again.push(one);
                }
                None => drop(one.reply.send(Err(ClientError::internal()))),
            }
        }
        self.first_again(again);
    }

    /// Lets those wait for the next query that are not too old.
    fn put_back(&self, batch: Vec<Waiting<Q, A>>, refusal: &ClientError) {
        let is_young = |one: &Waiting<Q, A>| one.since.elapsed() < REFUSED_AGAIN;
        let (again, old): (Vec<_>, Vec<_>) = batch.into_iter().partition(is_young);
        for one in old {
            // The asker may have gone.
            drop(one.reply.send(Err(refusal.clone())));
        }
        self.first_again(again);
    }

    fn first_again(&self, again: Vec<Waiting<Q, A>>) {
        let mut state = self.lock();
        for one in again.into_iter().rev() {
            state.waiting.push_front(one);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<Q, A>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures::future::join_all;
    use parlance_proto::v1::{Error, ErrorCode};

    use super::*;

    /// What persistence answers that has too much to do.
    fn busy() -> ClientError {
        Error {
            retry_after_ms: 500,
            ..Error::with(ErrorCode::Unavailable, "too many queries wait")
        }
        .into()
    }

    /// Asks for twice each number; how many were in each query.
    async fn ask(gathering: &Gathering<u32, u32>, numbers: std::ops::Range<u32>) -> Vec<usize> {
        let sizes = Arc::<Mutex<Vec<usize>>>::default();
        let asked = numbers.map(|number| {
            let sizes = Arc::clone(&sizes);
            let send = move |numbers: Vec<u32>| {
                let sizes = Arc::clone(&sizes);
                async move {
                    sizes.lock().unwrap().push(numbers.len());
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    let answer = |number: u32| (number != 7).then_some(Ok(number * 2));
                    Ok(numbers.into_iter().map(answer).collect())
                }
            };
            async move { (number, gathering.ask(number, send).await) }
        });
        for (number, answer) in join_all(asked).await {
            match number {
                7 => assert_eq!(answer, Err(ClientError::internal())),
                number => assert_eq!(answer, Ok(number * 2)),
            }
        }
        let sizes = sizes.lock().unwrap();
        sizes.clone()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_asked_while_a_query_is_under_way_shares_the_next_one() {
        let gathering = Gathering::default();
        assert_eq!(ask(&gathering, 10..11).await, [1]);
        // All of them were asked before the first query was sent.
        assert_eq!(ask(&gathering, 10..1_200).await, [500, 500, 190]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_query_that_takes_long_does_not_hold_up_what_is_asked_meanwhile() {
        let gathering = Gathering::<u32, u32>::default();
        let sleeps = |millis| {
            move |numbers: Vec<u32>| async move {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                Ok(numbers.into_iter().map(|number| Some(Ok(number))).collect())
            }
        };
        let slow = gathering.ask(1, sleeps(5_000));
        let begun = tokio::time::Instant::now();
        let quick = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(gathering.ask(2, sleeps(10)).await, Ok(2));
            begun.elapsed()
        };
        let (slow, took) = tokio::join!(slow, quick);
        assert_eq!(slow, Ok(1));
        assert!(took < Duration::from_millis(100), "{took:?}");
        // Afterwards a single question waits for nothing.
        let begun = tokio::time::Instant::now();
        assert_eq!(gathering.ask(3, sleeps(0)).await, Ok(3));
        assert!(
            begun.elapsed() < Duration::from_millis(10),
            "{:?}",
            begun.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_is_left_out_is_asked_again_but_not_for_ever() {
        let gathering = Gathering::default();
        let sizes = ask(&gathering, 6..9).await;
        assert_eq!((sizes.len(), sizes[0]), (2 + LEFT_OUT as usize, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn queries_that_panic_or_never_end_leave_room_for_others() {
        let gathering = Gathering::<u32, u32>::default();
        let panics = |numbers: Vec<u32>| async move {
            assert!(numbers.is_empty(), "on purpose");
            Ok(Vec::new())
        };
        for _ in 0..3 {
            assert_eq!(gathering.ask(1, panics).await, Err(ClientError::internal()));
        }
        let doubles = |numbers: Vec<u32>| async move {
            Ok(numbers.into_iter().map(|number| Some(Ok(number * 2))).collect())
        };
        assert_eq!(gathering.ask(2, doubles).await, Ok(4));
        let hangs = |_: Vec<u32>| std::future::pending();
        let hung = gathering.ask(3, hangs).await;
        assert_eq!(hung.unwrap_err().code, "unavailable");
        assert_eq!(gathering.ask(4, doubles).await, Ok(8));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_for_load_is_asked_again_in_its_order_but_not_for_ever() {
        let gathering = Gathering::<u32, u32>::default();
        let calls = Arc::<AtomicUsize>::default();
        let refuses = |times: usize| {
            let calls = Arc::clone(&calls);
            move |numbers: Vec<u32>| {
                let is_refused = calls.fetch_add(1, Ordering::Relaxed) < times;
                async move {
                    match is_refused {
                        true => Err(busy()),
                        false => Ok(numbers.into_iter().map(|number| Some(Ok(number))).collect()),
                    }
                }
            }
        };
        let all = join_all((0..700).map(|number| gathering.ask(number, refuses(3)))).await;
        assert!(all.iter().zip(0..).all(|(answer, number)| *answer == Ok(number)));
        assert_eq!(calls.swap(0, Ordering::Relaxed), 5);
        // Of the one before, a query may wait for its pause yet.
        let gathering = Gathering::<u32, u32>::default();
        let begun = Instant::now();
        assert_eq!(gathering.ask(1, refuses(1_000)).await, Err(busy()));
        assert!((REFUSED_AGAIN..PATIENCE).contains(&begun.elapsed()));
        assert!((6..=20).contains(&calls.load(Ordering::Relaxed)), "{calls:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_query_that_fails_fails_for_those_in_it_only() {
        let gathering = Gathering::<u32, u32>::default();
        let calls = Arc::<AtomicUsize>::default();
        let send = {
            let calls = Arc::clone(&calls);
            move |numbers: Vec<u32>| {
                let first = calls.fetch_add(1, Ordering::Relaxed) == 0;
                async move {
                    match first {
                        true => Err(ClientError::new(ErrorCode::Unavailable, "away")),
                        false => Ok(numbers.into_iter().map(|number| Some(Ok(number))).collect()),
                    }
                }
            }
        };
        assert!(gathering.ask(1, send.clone()).await.is_err());
        assert_eq!(gathering.ask(2, send).await, Ok(2));
    }
}
