//! One query on its way: to which replica it goes, when it goes to a second one, and when it is given up.
//!
//! It is asked once, with its deadline. Once more it is asked, of another replica, where it only reads and has no answer
//! after what nearly all take; or where its replica turns out not to answer anything, or refuses it, and doing it twice
//! does no harm. Each of these draws from one budget. A query that nobody got has not been done: then the next replica is
//! asked at once.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use parlance_bus::request::{Answered, query_name};
use parlance_bus::{Error, ErrorKind};
use parlance_proto::v1::{ErrorCode, Ping, Query, Reply, query, reply};
use parlance_runtime::tasks;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::replicas::{Choice, Heard, Replicas};
use super::{Backend, deadline};

/// How long an answer may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a replica may take to say that it is there.
const PROBE: Duration = Duration::from_millis(500);
/// Pings in a row that a replica must leave unanswered to count as silent.
const PINGS: u32 = 2;
/// How often a query may find its replica gone.
const MOST_GONE: u32 = 5;

type Attempt<'a> = BoxFuture<'a, (Choice, Result<Answered, Error>)>;

/// What became of an attempt.
enum Outcome {
    /// It was answered.
    Answered(Reply),
    /// The replica has too much to do, or no database.
    Refused(Reply),
    /// Nobody is there.
    Gone(Error),
    /// No answer came.
    Failed(Error),
}

/// A query on its way.
struct Asking<'a> {
    backend: &'a Backend,
    query: &'a Query,
    kind: &'static str,
    deadline: Instant,
    attempts: FuturesUnordered<Attempt<'a>>,
    /// Where it went first, and whether that turned out to answer nothing.
    name: Option<Arc<str>>,
    lost: CancellationToken,
    /// Whether it was asked once more.
    is_repeated: bool,
    gone: u32,
}

impl Backend {
    /// The first answer of a replica.
    pub(super) async fn answer(&self, query: &Query) -> Result<Reply, Error> {
        let begun = Instant::now();
        let kind = query.body.as_ref().map_or("none", query_name);
        let hedge_at = begun + self.hedging.asked(kind);
        let mut asking = Asking {
            backend: self,
            query,
            kind,
            deadline: deadline::of_query(),
            attempts: FuturesUnordered::new(),
            name: None,
            lost: CancellationToken::new(),
            is_repeated: false,
            gone: 0,
        };
        let answer = asking.run(hedge_at).await;
        let failure = match &answer {
            Ok(reply) if !is_refusal(reply) => {
                self.hedging.took(kind, begun.elapsed());
                return answer;
            }
            Ok(_) => "refused",
            Err(error) if error.kind() == ErrorKind::TimedOut => "expired",
            Err(_) => "unreachable",
        };
        metrics::counter!("chat_gateway_queries_failed_total", "cause" => failure).increment(1);
        answer
    }

    /// Whether a replica reaches its database. Asked once: the watch asks again by itself.
    pub(super) async fn ping_one(&self, timeout: Duration) -> Result<Reply, Error> {
        let choice = self.replicas.choose();
        let answered = self.bus.query(&ping(), choice.name.as_deref(), timeout).await;
        if answered.is_err() {
            self.doubt(choice.name.as_ref());
        }
        self.judge(&choice, answered).into_result()
    }

    /// Finds out whether those that do not answer do by now, and whether there are others.
    pub(super) fn look_for_replicas(&self) {
        for name in self.replicas.to_probe() {
            self.probe(&name);
        }
        let backend = self.clone();
        tasks::spawn("find replicas", async move {
            let any = Replicas::any();
            let answered = backend.bus.query(&ping(), None, PROBE).await;
            backend.judge(&any, answered);
        });
    }

    /// Finds out whether a replica answers at all.
    fn doubt(&self, name: Option<&Arc<str>>) {
        if let Some(name) = name {
            self.probe(name);
        }
    }

    fn probe(&self, name: &str) {
        if !self.replicas.probe(name) {
            return;
        }
        let (backend, name) = (self.clone(), name.to_owned());
        tasks::spawn("probe a replica", async move {
            backend.ping_named(&name).await;
            backend.replicas.is_probed(&name);
        });
    }

    /// Pings a replica until it answers, or has left too many pings in a row unanswered.
    async fn ping_named(&self, name: &str) {
        for _ in 0..PINGS {
            match self.bus.query(&ping(), Some(name), PROBE).await {
                Ok(_) => return self.replicas.answered(name),
                Err(error) if error.kind() == ErrorKind::NoResponders => return self.vanished(name),
                // Without NATS nothing is known of it.
                Err(_) if !self.bus.link().borrow().connected => return,
                Err(_) => {}
            }
        }
        self.replicas.is_silent(name);
    }

    /// A replica takes no more queries. Those it has are lost once it answers nothing any more.
    fn vanished(&self, name: &str) {
        if let Some(gone) = self.replicas.vanished(name) {
            tasks::spawn("last words of a replica", gone.ended());
        }
    }

    /// What an attempt means, also for where later queries go.
    fn judge(&self, choice: &Choice, answered: Result<Answered, Error>) -> Outcome {
        let replicas = &self.replicas;
        match answered {
            Ok(Answered { reply, replica }) => {
                let name = choice.name.as_deref().or(replica.as_deref());
                choice.answered();
                match (&choice.name, &replica) {
                    (Some(name), _) => replicas.answered(name),
                    (None, Some(name)) if replicas.learned(name) == Heard::New => self.probe(name),
                    (None, Some(_)) => {}
                    (None, None) => replicas.unnamed(),
                }
                if !is_refusal(&reply) {
                    return Outcome::Answered(reply);
                }
                if let Some(name) = name {
                    replicas.refused(name);
                }
                Outcome::Refused(reply)
            }
            Err(error) if error.kind() == ErrorKind::NoResponders => {
                if let Some(name) = &choice.name {
                    self.vanished(name);
                }
                Outcome::Gone(error)
            }
            Err(error) => Outcome::Failed(error),
        }
    }
}

impl Outcome {
    fn into_result(self) -> Result<Reply, Error> {
        match self {
            Self::Answered(reply) | Self::Refused(reply) => Ok(reply),
            Self::Gone(error) | Self::Failed(error) => Err(error),
        }
    }
}

impl Asking<'_> {
    async fn run(&mut self, hedge_at: Instant) -> Result<Reply, Error> {
        self.begin();
        let mut hedge_at = Some(hedge_at);
        let mut is_lost = false;
        loop {
            let hedge = async {
                match hedge_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some((choice, answered)) = self.attempts.next() => {
                    let outcome = self.backend.judge(&choice, answered);
                    // Where another attempt is under way, that one may be answered yet.
                    let is_last = self.attempts.is_empty();
                    match outcome {
                        Outcome::Answered(reply) => return Ok(reply),
                        Outcome::Gone(_) if is_last && self.goes_on(choice.name.is_some()) => is_lost = false,
                        Outcome::Refused(_) if is_last && self.repeat("refused") => {}
                        last if is_last => return last.into_result(),
                        _ => {}
                    }
                }
                () = hedge => {
                    hedge_at = None;
                    self.backend.doubt(self.name.as_ref());
                    self.repeat("hedge");
                }
                () = self.lost.cancelled(), if !is_lost => {
                    is_lost = true;
                    self.repeat("lost");
                }
            }
        }
    }

    fn begin(&mut self) {
        let choice = self.backend.replicas.choose();
        self.name.clone_from(&choice.name);
        self.lost = choice.lost.clone();
        self.ask(choice);
    }

    fn ask(&self, choice: Choice) {
        let (bus, query) = (&self.backend.bus, self.query);
        let left = self.deadline.saturating_duration_since(Instant::now());
        self.attempts.push(Box::pin(async move {
            let answered = bus.query(query, choice.name.as_deref(), left).await;
            (choice, answered)
        }));
    }

    /// Asks the next one, as nobody has got the query; false where that has happened too often, or there is nobody at all.
    fn goes_on(&mut self, was_named: bool) -> bool {
        self.gone += 1;
        if !was_named || self.gone > MOST_GONE {
            return false;
        }
        count("gone");
        self.begin();
        true
    }

    /// Asks another replica as well, once and as far as the budget allows.
    fn repeat(&mut self, cause: &'static str) -> bool {
        let is_lost = cause == "lost";
        let harmless = match cause {
            "hedge" => only_reads,
            _ => may_be_repeated,
        };
        if self.is_repeated || !self.query.body.as_ref().is_some_and(harmless) {
            return false;
        }
        let replicas = &self.backend.replicas;
        let Some(other) = replicas.choose_other(self.name.as_deref(), is_lost) else {
            return false;
        };
        let hedging = &self.backend.hedging;
        let may = match is_lost {
            true => hedging.may_replace(),
            false => hedging.may_hedge(self.kind),
        };
        if may {
            self.is_repeated = true;
            count(cause);
            self.ask(other);
        }
        may
    }
}

fn count(cause: &'static str) {
    metrics::counter!("chat_gateway_queries_repeated_total", "cause" => cause).increment(1);
}

fn ping() -> Query {
    Query {
        body: Some(query::Body::Ping(Ping {})),
        ..Query::default()
    }
}

/// Whether to carry it out twice changes nothing, and nothing that others see.
fn only_reads(body: &query::Body) -> bool {
    !matches!(
        body,
        query::Body::ProvisionUser(_)
            | query::Body::SetName(_)
            | query::Body::SetAgent(_)
            | query::Body::SetBlock(_)
            | query::Body::ResolveReport(_)
            | query::Body::Arrive(_)
            | query::Body::ReportServed(_)
            | query::Body::ReportPresence(_)
            | query::Body::ClaimChange(_)
            | query::Body::SettleChange(_)
            | query::Body::StopStream(_)
    )
}

/// Whether to carry it out once more does no harm, also where that comes late: others may have written meanwhile what the
/// rest would write over.
fn may_be_repeated(body: &query::Body) -> bool {
    only_reads(body)
        || matches!(
            body,
            query::Body::ProvisionUser(_)
                | query::Body::Arrive(_)
                | query::Body::ReportPresence(_)
                | query::Body::ResolveReport(_)
                | query::Body::StopStream(_)
        )
}

fn is_refusal(reply: &Reply) -> bool {
    matches!(&reply.body, Some(reply::Body::Error(error)) if error.code() == ErrorCode::Unavailable)
}

#[cfg(test)]
mod tests {
    use parlance_proto::v1;

    use super::*;

    #[test]
    fn only_reads_are_hedged_and_nothing_is_repeated_that_writes_over_what_others_wrote() {
        let cases = [
            (query::Body::ListMessages(v1::ListMessages::default()), true, true),
            (query::Body::Arrive(v1::Arrive::default()), false, true),
            (
                query::Body::ReportPresence(v1::ReportPresence::default()),
                false,
                true,
            ),
            (query::Body::SetName(v1::SetName::default()), false, false),
            (query::Body::SetAgent(v1::SetAgent::default()), false, false),
            (query::Body::SetBlock(v1::SetBlock::default()), false, false),
            (
                query::Body::ReportServed(v1::ReportServed::default()),
                false,
                false,
            ),
        ];
        for (body, hedged, repeated) in cases {
            assert_eq!(
                (only_reads(&body), may_be_repeated(&body)),
                (hedged, repeated),
                "{body:?}"
            );
        }
    }
}
