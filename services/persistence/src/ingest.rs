//! Commands in, committed changes out: the loop every durable change of a conversation passes through.
//!
//! All partitions of this replica are merged into one stream of batches, because the cost of a commit is per
//! transaction. While the lease of a partition holds, none of its deliveries is ever skipped; when it is lost,
//! all of them are dropped unacknowledged and the next owner gets them in their first order.

pub mod announce;
pub mod answer;
pub mod apply;
pub mod batch;
pub mod commit;
pub mod entry;
pub mod finish;
pub mod pull;
pub mod state;
pub mod tell;
pub mod trace;
pub mod work;

use std::time::{Duration, Instant};

use parlance_bus::{Bus, faults};
use parlance_proto::v1::{self, ErrorCode};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::database::{Database, Held};
use crate::error::{BatchError, Disposition, disposition, without_content};
use crate::identity;
use crate::leases::Owned;
use crate::store::dead_letters::{self, DeadLetter};
use answer::Answer;
use batch::Limits;
use entry::{Entry, Job};
use finish::Finisher;
use work::Work;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What the loop needs.
pub struct Ingest {
    /// This replica, as leases name it.
    pub owner: String,
    /// Partitions of the command stream.
    pub partitions: u16,
    /// Sizes of a batch.
    pub limits: Limits,
    /// Patience for one transaction.
    pub write_timeout: Duration,
    /// For confirmations and events.
    pub bus: Bus,
    /// For batches and dead letters.
    pub database: Database,
    /// Which leases hold, as far as this process knows.
    pub owned: Owned,
    /// Takes over what is committed and announced.
    pub finisher: Finisher,
}

impl Ingest {
    /// Works until the queue is closed and empty, or `hard` is cancelled.
    pub async fn run(self, mut queue: mpsc::Receiver<Job>, hard: CancellationToken) {
        let mut connection = self.database.held();
        let mut busy = false;
        let size = |job: &Job| job.delivery.payload.len();
        loop {
            let jobs = tokio::select! {
                jobs = batch::collect(&mut queue, &self.limits, busy, size) => jobs,
                () = hard.cancelled() => return,
            };
            if jobs.is_empty() {
                return;
            }
            busy = jobs.len() * 4 >= self.limits.max;
            metrics::histogram!("chat_persistence_batch_size").record(as_f64(jobs.len()));
            let entries: Vec<Entry> = jobs
                .into_iter()
                .map(|job| Entry::read(job, self.partitions))
                .collect();
            let span = trace::commit(&entries);
            let work = self.process(&mut connection, entries).instrument(span);
            tokio::select! {
                () = work => {}
                () = hard.cancelled() => return,
            }
        }
    }

    /// Carries out one batch, whole or in parts, and hands what is answered to the finisher.
    async fn process(&self, connection: &mut Held, entries: Vec<Entry>) {
        // Parts in reverse order: what came first is worked first.
        let mut parts: Vec<Vec<Entry>> = vec![entries];
        while let Some(part) = parts.pop() {
            self.part(connection, part, &mut parts).await;
        }
    }

    /// Commits a part of a batch, or splits it around a culprit.
    async fn part(&self, connection: &mut Held, mut part: Vec<Entry>, parts: &mut Vec<Vec<Entry>>) {
        let mut pause = FIRST_PAUSE;
        loop {
            part.retain(|entry| self.owned.holds(entry.job.partition, entry.job.epoch));
            if part.is_empty() {
                return;
            }
            let error = match self.commit(connection, &part).await {
                Ok(answers) => {
                    self.answer(part, answers).await;
                    return;
                }
                Err(error) => error,
            };
            match error {
                BatchError::LeaseLost(partitions) => {
                    tracing::warn!(?partitions, "dropped commands of partitions that others own now");
                    part.retain(|entry| !partitions.contains(&entry.job.partition));
                }
                BatchError::Database(error) if disposition(&error) == Disposition::Culprit => {
                    if let [culprit] = part.as_slice() {
                        let rejection = self.park(culprit, &without_content(&error)).await;
                        self.answer(part, vec![Answer::rejected(rejection)]).await;
                        return;
                    }
                    let right = part.split_off(part.len() / 2);
                    parts.push(right);
                    parts.push(part);
                    return;
                }
                error => {
                    connection.discard();
                    tracing::warn!(%error, commands = part.len(), "batch not committed; trying again");
                    metrics::counter!("chat_persistence_batch_retries_total").increment(1);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// One transaction for everything in the part that the database must see.
    async fn commit(&self, connection: &mut Held, part: &[Entry]) -> Result<Vec<Answer>, BatchError> {
        let works: Vec<&Work> = part.iter().filter_map(|entry| entry.work.as_ref().ok()).collect();
        let mut answers = Vec::new();
        if !works.is_empty() {
            let leases = entry::leases(part);
            let started = Instant::now();
            answers = commit::commit(connection, &self.owner, &leases, &works, self.write_timeout).await?;
            metrics::histogram!("chat_persistence_commit_seconds").record(started.elapsed().as_secs_f64());
            tracing::debug!(commands = works.len(), "committed");
        }
        // What could not be read was never in the transaction; the answers go back to their places.
        let mut answers = answers.into_iter();
        let mut all = Vec::with_capacity(part.len());
        for entry in part {
            all.push(match &entry.work {
                Ok(_) => answers.next().unwrap_or_else(|| Answer::rejected(internal())),
                Err(refusal) if refusal.code() == ErrorCode::Unprocessable => {
                    Answer::rejected(self.park(entry, &refusal.message).await)
                }
                Err(refusal) => Answer::rejected(refusal.clone()),
            });
        }
        Ok(all)
    }

    async fn answer(&self, part: Vec<Entry>, answers: Vec<Answer>) {
        let announced = announce::announce(&self.bus, &part, answers).await;
        faults::crash_at("before_ack");
        self.finisher.finish(part, announced).await;
    }

    /// Parks a command that can never be carried out; keeps trying, because only a parked one may be
    /// acknowledged. The answer for its emitter.
    async fn park(&self, entry: &Entry, cause: &str) -> v1::Error {
        let delivery = &entry.job.delivery;
        let letter = DeadLetter {
            id: identity::random(),
            partition: Some(entry.job.partition),
            subject: delivery.subject.clone(),
            command_id: (!entry.command_id.is_empty()).then(|| entry.command_id.clone()),
            payload: delivery.payload.to_vec(),
            code: ErrorCode::Unprocessable,
            error: cause.to_owned(),
        };
        if !faults::happens("no_parking") {
            park_letter(&self.database, &letter).await;
        }
        v1::Error::with(
            ErrorCode::Unprocessable,
            "the command holds data that cannot be stored",
        )
    }
}

/// Parks a letter, for as long as it takes.
pub async fn park_letter(database: &Database, letter: &DeadLetter) {
    let mut pause = FIRST_PAUSE;
    loop {
        let inserted = async {
            let mut connection = database.writes.acquire().await?;
            dead_letters::insert(&mut connection, letter).await
        };
        match inserted.await {
            Ok(()) => break,
            Err(error) => {
                let error = without_content(&error);
                tracing::warn!(error, "a dead letter is not stored; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
    metrics::counter!("chat_persistence_dead_letters_total").increment(1);
    tracing::error!(
        dead_letter = %letter.id,
        command = letter.command_id.as_deref().unwrap_or_default(),
        subject = letter.subject,
        cause = letter.error,
        "parked what can never be carried out; see the table dead_letters"
    );
}

fn internal() -> v1::Error {
    v1::Error::with(ErrorCode::Internal, "the command was lost inside")
}

fn as_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
