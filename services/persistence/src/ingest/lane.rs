//! Three lanes of transactions, so that no command holds up other conversations. Changes of journals, which compute, have
//! a lane and a thread of their own. What is costly, and what one of the two could not commit, is carried out apart: on a
//! thread of its own, in small parts, counted before each attempt. All else is quick.
//!
//! The commands of one conversation stay in order: while one is in another lane, those behind it go there too. A command
//! that fails apart [`MOST_ATTEMPTS`] times, while the database is well, is quarantined: parked, and refused as too costly.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use parlance_bus::faults;
use parlance_proto::ConversationId;
use parlance_proto::v1::{self, ErrorCode};
use parlance_runtime::backoff::Backoff;
use parlance_runtime::tasks;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use uuid::Uuid;

use super::announce::Announcer;
use super::answer::Answer;
use super::commit::{self, Batch, Committed};
use super::entry::{self, Entry};
use super::finish::Finisher;
use super::trace;
use crate::database::{Database, Held};
use crate::dead_letters;
use crate::error::{BatchError, Disposition, disposition, without_content};
use crate::model::state::Bounds;
use crate::model::work::Work;
use crate::ownership::Owned;
use crate::store::attempts;
use crate::store::dead_letters::DeadLetter;
use crate::store::kept::KeptJournals;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// What a batch may take before its commands are carried out apart. Long, because a busy database is no reason for it: who
/// computes for too long is cut off by the database earlier.
const QUICK: Duration = Duration::from_secs(5);
/// What a database that is well takes to say so.
const WELL: Duration = Duration::from_secs(1);
/// Commands carried out together apart, when they are tried first.
const TOGETHER: usize = 32;
/// The same, after a batch of them failed.
const DOUBTFUL_TOGETHER: usize = 8;
/// Their weight together; see [`Work::weight`].
const WEIGHT_TOGETHER: usize = 2_000;
/// After the first attempt a command is alone. So many attempts in all, and it is quarantined.
pub const MOST_ATTEMPTS: u16 = 3;

/// What both lanes share.
pub struct Core {
    /// This replica, as leases name it.
    pub owner: String,
    /// How large what users make may become.
    pub bounds: Bounds,
    /// Journals that were just written.
    pub kept_journals: KeptJournals,
    /// Patience for one transaction.
    pub write_timeout: Duration,
    /// For confirmations and events.
    pub announcer: Announcer,
    /// For batches and dead letters.
    pub database: Database,
    /// Which leases hold, as far as this process knows.
    pub owned: Owned,
    /// Takes over what is committed and announced.
    pub finisher: Finisher,
    /// Of the service: the other lanes have one each, and connections of the pool belong to this one.
    pub runtime: Handle,
}

/// Conversations with commands in a lane. Clones share one table.
#[derive(Debug, Clone, Default)]
struct Present(Arc<Mutex<HashMap<ConversationId, HashSet<Message>>>>);

/// A message of the command stream: its partition, the epoch that it was taken under, and its place. What was taken under
/// an earlier one is dropped, and must not keep its copy from being carried out.
type Message = (u16, u64, u64);

/// Keeps a conversation's commands in a lane while it lives.
#[derive(Debug)]
pub struct Hold {
    present: Present,
    conversation: ConversationId,
    message: Message,
}

impl Present {
    /// Whether commands of the conversation are there.
    fn has(&self, conversation: ConversationId) -> bool {
        self.table().contains_key(&conversation)
    }

    /// One more; `None` if this one is there: what waits for long is delivered again.
    fn hold(&self, conversation: ConversationId, message: Message) -> Option<Hold> {
        let is_new = self.table().entry(conversation).or_default().insert(message);
        is_new.then(|| Hold {
            present: self.clone(),
            conversation,
            message,
        })
    }

    fn table(&self) -> MutexGuard<'_, HashMap<ConversationId, HashSet<Message>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut table = self.present.table();
        if let Some(messages) = table.get_mut(&self.conversation) {
            messages.remove(&self.message);
            if messages.is_empty() {
                table.remove(&self.conversation);
            }
        }
    }
}

/// The way to a lane.
#[derive(Clone)]
pub(super) struct Way {
    present: Present,
    queue: mpsc::UnboundedSender<Entry>,
}

impl Way {
    /// The way, and its end. Unbounded, because what is on it is bounded by what the stream hands out unacknowledged,
    /// each message once.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Entry>) {
        let (queue, end) = mpsc::unbounded_channel();
        let present = Present::default();
        (Self { present, queue }, end)
    }

    /// Sends those on that come behind others there in their conversation; returns the rest.
    fn follow(&self, part: Vec<Entry>) -> Vec<Entry> {
        let goes = |entry: &Entry| {
            let work = entry.work.as_ref();
            work.is_ok_and(|work| self.present.has(work.conversation))
        };
        let (behind, rest): (Vec<_>, Vec<_>) = part.into_iter().partition(goes);
        for entry in behind {
            self.send(entry);
        }
        rest
    }

    fn send(&self, mut entry: Entry) {
        if let Ok(work) = &entry.work {
            let job = &entry.job;
            let message = (job.partition, job.epoch, job.delivery.place);
            let Some(hold) = self.present.hold(work.conversation, message) else {
                // It waits there already, and is acknowledged when it is done.
                return;
            };
            entry.hold = Some(hold);
        }
        // A lane that is gone means the process ends: what is not acknowledged comes again.
        let _ = self.queue.send(entry);
    }
}

/// The ways out of a lane, to those that come after it.
#[derive(Clone)]
pub(super) struct Ways {
    /// To that of journals; `None` from there.
    pub(super) journals: Option<Way>,
    /// To the one apart.
    pub(super) apart: Way,
}

impl Ways {
    /// Sends those on that belong into another lane; returns the others, and those that leave once these are done, because
    /// they come behind one of them in their conversation.
    fn sort_out(&self, entries: Vec<Entry>) -> (Vec<Entry>, Vec<Entry>) {
        let (mut stays, mut later) = (Vec::with_capacity(entries.len()), Vec::new());
        let (mut is_here, mut leaves_later) = (HashSet::new(), HashSet::new());
        for entry in entries {
            let Ok(work) = &entry.work else {
                stays.push(entry);
                continue;
            };
            let id = work.conversation;
            let way = self.way(&entry, work);
            if leaves_later.contains(&id) || (way.is_some() && is_here.contains(&id)) {
                leaves_later.insert(id);
                later.push(entry);
            } else if let Some(way) = way {
                way.send(entry);
            } else {
                is_here.insert(id);
                stays.push(entry);
            }
        }
        (stays, later)
    }

    /// Sends on what waited for others of its conversation. Where those that it came behind are done with by now, it may
    /// be carried out anywhere.
    fn send(&self, entry: Entry) {
        let way = entry.work.as_ref().ok().and_then(|work| self.way(&entry, work));
        let anywhere = || self.journals.as_ref().unwrap_or(&self.apart);
        way.unwrap_or_else(anywhere).send(entry);
    }

    /// Where a command belongs; `None` if it stays.
    fn way(&self, entry: &Entry, work: &Work) -> Option<&Way> {
        let id = work.conversation;
        // What comes behind others of its conversation that are still on their way goes after them, wherever that leads.
        if let Some(journals) = &self.journals
            && (journals.present.has(id) || (work.changes_journal() && !self.goes_apart(entry, work)))
        {
            return Some(journals);
        }
        self.goes_apart(entry, work).then_some(&self.apart)
    }

    fn goes_apart(&self, entry: &Entry, work: &Work) -> bool {
        entry.job.suspect || work.weight() > Work::LIGHT || self.apart.present.has(work.conversation)
    }
}

/// One lane: a connection, and where its doubtful commands go.
pub(super) struct Lane {
    core: Arc<Core>,
    connection: Held,
    /// `None` for the lane apart.
    apart: Option<Way>,
}

impl Lane {
    pub(super) fn new(core: Arc<Core>, apart: Option<Way>) -> Self {
        let connection = core.database.held();
        Self {
            core,
            connection,
            apart,
        }
    }

    /// Works on journals until the way there is closed and empty, or `hard` is cancelled.
    pub(super) async fn work_on_journals(
        core: Arc<Core>,
        mut queue: mpsc::UnboundedReceiver<Entry>,
        apart: Way,
        hard: CancellationToken,
    ) {
        let mut lane = Self::new(core, Some(apart.clone()));
        let ways = Ways {
            journals: None,
            apart,
        };
        loop {
            let entries = tokio::select! {
                entries = together(&mut queue) => entries,
                () = hard.cancelled() => return,
            };
            if entries.is_empty() {
                return;
            }
            if !lane.sort_and_process(&ways, entries, &hard).await {
                return;
            }
        }
    }

    /// Carries out what belongs into this lane, and sends the rest on; false where `hard` was cancelled meanwhile.
    pub(super) async fn sort_and_process(
        &mut self,
        ways: &Ways,
        entries: Vec<Entry>,
        hard: &CancellationToken,
    ) -> bool {
        let (entries, later) = ways.sort_out(entries);
        let span = trace::commit(&entries);
        tokio::select! {
            () = self.process(entries).instrument(span) => {}
            () = hard.cancelled() => return false,
        }
        for entry in later {
            ways.send(entry);
        }
        true
    }

    /// Works apart until the way there is closed and empty, or `hard` is cancelled.
    pub(super) async fn work_apart(
        core: Arc<Core>,
        mut queue: mpsc::UnboundedReceiver<Entry>,
        hard: CancellationToken,
    ) {
        let mut lane = Self::new(core, None);
        loop {
            let work = async {
                let entries = together(&mut queue).await;
                let is_end = entries.is_empty();
                let span = trace::commit(&entries);
                lane.process_apart(entries).instrument(span).await;
                !is_end
            };
            tokio::select! {
                more = work => if !more { return },
                () = hard.cancelled() => return,
            }
        }
    }

    /// Carries out one batch, whole or in parts, and hands what is answered to the finisher.
    async fn process(&mut self, entries: Vec<Entry>) {
        // Parts in reverse order: what came first is worked first.
        let mut parts: Vec<Vec<Entry>> = vec![entries];
        while let Some(part) = parts.pop() {
            self.part(part, &mut parts).await;
        }
    }

    /// The same apart: what was tried before is tried alone.
    async fn process_apart(&mut self, mut entries: Vec<Entry>) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            self.core.keep_owned(&mut entries);
            if entries.is_empty() {
                return;
            }
            if self.count(&mut entries).await {
                break;
            }
            backoff.pause().await;
        }
        let mut parts = by_attempts(entries);
        while let Some(part) = parts.pop() {
            self.part(part, &mut parts).await;
        }
    }

    /// Commits a part of a batch, or splits it around a culprit.
    async fn part(&mut self, mut part: Vec<Entry>, parts: &mut Vec<Vec<Entry>>) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut patience = match self.apart {
            Some(_) => QUICK.min(self.core.write_timeout),
            None => self.core.write_timeout,
        };
        loop {
            self.core.keep_owned(&mut part);
            if let Some(apart) = &self.apart {
                part = apart.follow(part);
            }
            if part.is_empty() {
                return;
            }
            if let [entry] = part.as_slice()
                && entry.attempts > MOST_ATTEMPTS
            {
                let refusal = self.core.quarantine(entry).await;
                self.core.answer(part, commit::rejected(refusal)).await;
                return;
            }
            if self.apart.is_none() && !self.note(&part).await {
                backoff.pause().await;
                continue;
            }
            let error = match self.commit(&part, patience).await {
                Ok(committed) => {
                    self.core.answer(part, committed).await;
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
                        let refusal = self.core.park(culprit, &without_content(&error)).await;
                        self.core.answer(part, commit::rejected(refusal)).await;
                        return;
                    }
                    let right = part.split_off(part.len() / 2);
                    parts.push(right);
                    parts.push(part);
                    return;
                }
                error => {
                    self.connection.discard();
                    metrics::counter!("chat_persistence_batch_retries_total").increment(1);
                    tracing::warn!(%error, commands = part.len(), "batch not committed; trying again");
                    if self.is_database_well(&part).await {
                        if let Some(apart) = &self.apart {
                            for mut entry in part {
                                entry.doubtful = true;
                                apart.send(entry);
                            }
                            return;
                        }
                        if self.count(&mut part).await {
                            put_back(parts, part);
                            return;
                        }
                    }
                    // An outage: nothing is wrong with the commands, and nothing is counted.
                    backoff.pause().await;
                    patience = (patience * 2).min(self.core.write_timeout);
                }
            }
        }
    }

    /// One transaction for everything in the part that the database must see.
    async fn commit(&mut self, part: &[Entry], patience: Duration) -> Result<Committed, BatchError> {
        let works: Vec<&Work> = part.iter().filter_map(|entry| entry.work.as_ref().ok()).collect();
        let mut committed = Committed::default();
        if !works.is_empty() {
            let leases = entry::leases(part);
            let started = Instant::now();
            let batch = Batch {
                owner: &self.core.owner,
                leases: &leases,
                works: &works,
                bounds: self.core.bounds,
                kept_journals: &self.core.kept_journals,
                is_apart: self.apart.is_none(),
            };
            committed = commit::commit(&mut self.connection, &batch, patience).await?;
            metrics::histogram!("chat_persistence_commit_seconds").record(started.elapsed().as_secs_f64());
            tracing::debug!(commands = works.len(), "committed");
        }
        // What could not be read was never in the transaction; the answers go back to their places.
        let mut answers = std::mem::take(&mut committed.answers).into_iter();
        let mut all = Vec::with_capacity(part.len());
        for entry in part {
            all.push(match &entry.work {
                Ok(_) => answers.next().unwrap_or_else(|| Answer::rejected(internal())),
                Err(refusal) if refusal.code() == ErrorCode::Unprocessable => {
                    Answer::rejected(self.core.park(entry, &refusal.message).await)
                }
                Err(refusal) => Answer::rejected(refusal.clone()),
            });
        }
        Ok(Committed {
            answers: all,
            ..committed
        })
    }

    /// Whether other commands of these conversations could be committed now.
    async fn is_database_well(&mut self, part: &[Entry]) -> bool {
        let works = part.iter().filter_map(|entry| entry.work.as_ref().ok());
        let conversations: HashSet<Uuid> = works.map(|work| work.conversation.uuid()).collect();
        let conversations: Vec<Uuid> = conversations.into_iter().collect();
        let probe = timeout(WELL, async {
            attempts::probe(self.connection.get().await?, &conversations).await
        });
        let is_well = matches!(probe.await, Ok(Ok(())));
        if !is_well {
            self.connection.discard();
        }
        is_well
    }

    /// Reads which attempt the next one of each is. False where the database does not answer.
    async fn count(&mut self, part: &mut [Entry]) -> bool {
        let works = part.iter().filter_map(|entry| entry.work.as_ref().ok());
        let ids: Vec<Uuid> = works.map(|work| work.id.uuid()).collect();
        let counted = timeout(WELL, async {
            attempts::of(self.connection.get().await?, &ids).await
        });
        let Ok(Ok(before)) = counted.await else {
            self.connection.discard();
            return false;
        };
        for entry in part {
            if let Ok(work) = &entry.work {
                entry.attempts = before
                    .get(&work.id)
                    .map_or(1, |attempts| attempts.saturating_add(1));
            }
        }
        true
    }

    /// Notes the attempt that is about to be made, where a takeover sees it; of these only, because others may never get
    /// their turn. False where the database does not take it.
    async fn note(&mut self, part: &[Entry]) -> bool {
        let attempts: Vec<(Uuid, u16)> = part
            .iter()
            .filter_map(|entry| Some((entry.work.as_ref().ok()?.id.uuid(), entry.attempts)))
            .collect();
        let noted = timeout(WELL, async {
            attempts::note(self.connection.get().await?, &attempts).await
        });
        let is_noted = matches!(noted.await, Ok(Ok(())));
        if !is_noted {
            self.connection.discard();
        }
        is_noted
    }
}

impl Core {
    fn keep_owned(&self, part: &mut Vec<Entry>) {
        part.retain(|entry| self.owned.holds(entry.job.partition, entry.job.epoch));
    }

    async fn answer(&self, mut part: Vec<Entry>, committed: Committed) {
        let announced = self.announcer.announce(&part, committed).await;
        faults::crash_at("before_ack");
        for entry in &mut part {
            // What comes behind it may overtake nothing any more.
            entry.hold = None;
        }
        self.finisher.finish(part, announced);
    }

    /// Parks a command that can never be carried out, once however often it comes. The answer for its emitter.
    async fn park(&self, entry: &Entry, cause: &str) -> v1::Error {
        let letter = letter(entry, ErrorCode::Unprocessable, cause.to_owned());
        self.store(letter).await;
        v1::Error::with(
            ErrorCode::Unprocessable,
            "the command holds data that cannot be stored",
        )
    }

    async fn store(&self, letter: DeadLetter) {
        let database = self.database.clone();
        let parking = async move { dead_letters::park(&database, &letter).await };
        let stored = tasks::spawn_at(&self.runtime, "park a letter", parking);
        if let Err(error) = stored.await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }

    /// Parks a command that failed too often, once however often it comes. The answer for its emitter.
    async fn quarantine(&self, entry: &Entry) -> v1::Error {
        let cause = format!("not done within the limits, or ended the service, {MOST_ATTEMPTS} times");
        self.store(letter(entry, ErrorCode::TooCostly, cause)).await;
        metrics::counter!("chat_persistence_quarantined_total").increment(1);
        v1::Error::with(
            ErrorCode::TooCostly,
            "the command takes more work than is allowed; nothing was stored",
        )
    }
}

/// The letter of a command: the same for every redelivery.
fn letter(entry: &Entry, code: ErrorCode, error: String) -> DeadLetter {
    // What a service sent is parked as the service knows it.
    let refusal = v1::Error::with(code, error.as_str());
    if let Some(letter) = entry.refused(refusal).and_then(|report| report.letter()) {
        return letter;
    }
    let delivery = &entry.job.delivery;
    let mut name = delivery.subject.clone().into_bytes();
    for part in [
        delivery.message_id.as_deref().unwrap_or_default().as_bytes(),
        &delivery.payload,
    ] {
        name.push(0);
        name.extend_from_slice(part);
    }
    DeadLetter {
        id: Uuid::new_v5(&Uuid::NAMESPACE_OID, &name),
        partition: Some(entry.job.partition),
        subject: delivery.subject.clone(),
        command_id: (!entry.command_id.is_empty()).then(|| entry.command_id.clone()),
        payload: delivery.payload.to_vec(),
        code,
        error,
    }
}

/// Waits for a command, and takes what else is there, as much as is carried out together. Empty when the way is closed.
async fn together(queue: &mut mpsc::UnboundedReceiver<Entry>) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut weight = 0;
    let mut next = queue.recv().await;
    while let Some(entry) = next {
        weight += entry.work.as_ref().map_or(1, Work::weight);
        entries.push(entry);
        let is_full = entries.len() >= TOGETHER || weight >= WEIGHT_TOGETHER;
        next = if is_full { None } else { queue.try_recv().ok() };
    }
    entries
}

/// Parts in reverse order: what is tried first together, anything else alone.
fn by_attempts(entries: Vec<Entry>) -> Vec<Vec<Entry>> {
    let mut parts: Vec<Vec<Entry>> = Vec::new();
    for entry in entries {
        let is_first = |entry: &Entry| entry.attempts <= 1;
        let most = if entry.doubtful {
            DOUBTFUL_TOGETHER
        } else {
            TOGETHER
        };
        match parts.last_mut() {
            Some(part) if part.len() < most && is_first(&entry) && part.iter().all(is_first) => {
                part.push(entry)
            }
            _ => parts.push(vec![entry]),
        }
    }
    parts.reverse();
    parts
}

/// Lets a part that failed wait for all others, and what comes behind it in its conversations with it.
fn put_back(parts: &mut Vec<Vec<Entry>>, mut failed: Vec<Entry>) {
    let conversation = |entry: &Entry| entry.work.as_ref().ok().map(|work| work.conversation);
    let held: HashSet<ConversationId> = failed.iter().filter_map(conversation).collect();
    for part in parts.iter_mut().rev() {
        let (behind, others): (Vec<Entry>, Vec<Entry>) = std::mem::take(part)
            .into_iter()
            .partition(|entry| conversation(entry).is_some_and(|id| held.contains(&id)));
        failed.extend(behind);
        *part = others;
    }
    let mut all = by_attempts(failed);
    all.extend(std::mem::take(parts).into_iter().filter(|part| !part.is_empty()));
    *parts = all;
}

fn internal() -> v1::Error {
    v1::Error::with(ErrorCode::Internal, "the command was lost inside")
}
