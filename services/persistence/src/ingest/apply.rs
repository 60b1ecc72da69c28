//! Carries commands out, in order, on what was loaded: gives seqs, finds repeats, checks rights.
//!
//! Pure: no database, no clock, no bus. Every rule of a conversation stands here or in `model`;
//! nothing that a client can observe is decided anywhere else. Later commands see the effects of earlier ones.

mod again;
mod create;
mod details;
mod journal;
mod members;
mod message;
mod mute;
mod reaction;
mod receipt;
mod repeat;
mod report;
mod stream;
#[cfg(test)]
mod tests;
mod thread;

use std::collections::{HashMap, HashSet};

use parlance_proto::v1::{self, ConversationKind, ErrorCode, Role};
use parlance_proto::{CommandId, ConversationId, MessageId, UserId};

use crate::model::events::{self, EventParts};
use crate::model::permissions::{Form, Right, Verdict, verdict};
use crate::model::processed::Processed;
use crate::model::refusals::{blocked, granted, no_conversation, read_only};
use crate::model::state::{
    Bounds, Change, ChangeKind, ConversationState, Effects, Loaded, Member, Outcome, Person,
};
use crate::model::work::{Action, Work};

/// One command at its conversation.
struct CommandContext<'a> {
    work: &'a Work,
    conversation: &'a mut ConversationState,
    effects: &'a mut Effects,
    users: &'a mut HashMap<UserId, Person>,
    deleted_users: &'a HashSet<UserId>,
    journals_by_number: &'a HashMap<i64, ConversationId>,
    sent_by: &'a mut HashMap<(ConversationId, MessageId), CommandId>,
    epoch: &'a str,
    now_ms: i64,
    memberships: &'a HashMap<UserId, u64>,
    blocks: &'a HashSet<(UserId, UserId)>,
    open_reports: &'a mut HashMap<UserId, u64>,
    bounds: &'a Bounds,
    /// Changes the command has made so far.
    changes_made: usize,
}

/// Applies all commands of a batch and tells what to write and to answer. A command that was processed before changes
/// nothing, whatever happened since.
pub fn apply<'a>(loaded: &mut Loaded, works: impl IntoIterator<Item = &'a Work>) -> Effects {
    let mut effects = Effects::default();
    for work in works {
        let key = (work.conversation, work.id);
        let outcome = match loaded.processed.get(&key).cloned() {
            Some(Processed {
                refusal: Some(refusal),
                ..
            }) => Outcome::Rejected(refusal),
            Some(Processed { seq, .. }) => again::again(loaded, &mut effects, work, seq),
            None => {
                let outcome = one(loaded, &mut effects, work).unwrap_or_else(Outcome::Rejected);
                if !leaves_trace(loaded, work, &outcome) {
                    let processed = processed(&outcome);
                    loaded.processed.insert(key, processed.clone());
                    effects.processed.push((key, processed));
                }
                outcome
            }
        };
        effects.outcomes.push(outcome);
    }
    journal::settle(loaded, &mut effects);
    effects
}

/// What is remembered of an outcome.
fn processed(outcome: &Outcome) -> Processed {
    match outcome {
        Outcome::Rejected(error) => Processed {
            refusal: Some(error.clone()),
            seq: 0,
        },
        Outcome::Message { message, .. } => Processed {
            refusal: None,
            seq: message.seq,
        },
        _ => Processed::default(),
    }
}

/// Whether the rows of the conversation tell for ever that the command was processed, and how; or nothing should.
fn leaves_trace(loaded: &Loaded, work: &Work, outcome: &Outcome) -> bool {
    if let Outcome::Rejected(error) = outcome
        && error.code() == ErrorCode::Internal
    {
        // A defect of ours: the next attempt may be better.
        return true;
    }
    match &work.action {
        // It asks about a command that may still come.
        Action::EditJournal(update) if update.is_empty() => true,
        // What the message has of the text is left out.
        Action::Append(_) => true,
        // A later creation of the same conversation takes its place.
        Action::Create(_) => false,
        Action::Send(send) => {
            let later = loaded.conversations.get(&work.conversation);
            let later = later.map(|state| send.message.in_life(state.history_from));
            [Some(send.message), later]
                .into_iter()
                .flatten()
                .any(|id| loaded.sent_by.get(&(work.conversation, id)) == Some(&work.id))
        }
        _ => loaded
            .conversations
            .get(&work.conversation)
            .is_some_and(|state| state.changes.contains_key(&work.id)),
    }
}

fn one(loaded: &mut Loaded, effects: &mut Effects, work: &Work) -> Result<Outcome, v1::Error> {
    if let Action::Create(create) = &work.action {
        return create::create(loaded, effects, work, create);
    }
    let mut context = CommandContext::of(loaded, effects, work).ok_or_else(no_conversation)?;
    if let Some(done) = context.conversation.changes.get(&work.id).cloned() {
        return repeat::repeat(&context, &done);
    }
    if context.conversation.deleted {
        return Err(no_conversation());
    }
    let context = &mut context;
    match &work.action {
        Action::Create(_) => Err(no_conversation()),
        Action::Send(send) => message::send(context, send),
        Action::Edit { message, content } => message::change(context, *message, Some(content)),
        Action::Delete(message) => message::change(context, *message, None),
        Action::Hide(message) => message::hide(context, *message),
        Action::Mute(mute) => mute::mute(context, *mute),
        Action::Report(report) => report::report(context, report),
        Action::Receive(receive) => receipt::receive(context, receive),
        Action::React(react) => reaction::react(context, react),
        Action::StartThread(start) => thread::start(context, start),
        Action::Update(update) => details::update(context, update),
        Action::AddMembers(add) => members::add(context, add),
        Action::RemoveMember(user) => members::remove(context, user),
        Action::Ban(user) => members::ban(context, user),
        Action::Unban(user) => members::unban(context, user),
        Action::ChangeRole(user, role) => members::change_role(context, user, *role),
        Action::DeleteConversation => details::delete(context),
        Action::EditJournal(edit) => journal::edit(context, edit),
        Action::Append(text) => stream::append(context, text),
        Action::EndStream(text, state) => stream::end(context, text, *state),
    }
}

impl<'a> CommandContext<'a> {
    /// The command at its conversation, if there is one.
    fn of(loaded: &'a mut Loaded, effects: &'a mut Effects, work: &'a Work) -> Option<Self> {
        let Loaded {
            now_ms,
            epoch,
            conversations,
            users,
            deleted_users,
            numbers: _,
            journals_by_number,
            memberships,
            blocks,
            open_reports,
            bounds,
            processed: _,
            sent_by,
            feed_behind: _,
        } = loaded;
        Some(Self {
            work,
            conversation: conversations.get_mut(&work.conversation)?,
            effects,
            users,
            deleted_users,
            journals_by_number,
            sent_by,
            epoch: epoch.as_str(),
            now_ms: *now_ms,
            memberships,
            blocks,
            open_reports,
            bounds,
            changes_made: 0,
        })
    }
}

impl CommandContext<'_> {
    fn id(&self) -> ConversationId {
        self.work.conversation
    }

    fn actor(&self) -> &UserId {
        &self.work.actor.id
    }

    /// The actor as participant; to everyone else there is no such conversation.
    fn member(&self) -> Result<&Member, v1::Error> {
        self.conversation
            .members
            .get(self.actor())
            .ok_or_else(no_conversation)
    }

    /// Refuses what the actor may not do.
    fn check(&self, right: Right) -> Result<(), v1::Error> {
        let role = self.member()?.role;
        match verdict(self.conversation.form(), role, right) {
            Verdict::Granted if self.conversation.read_only && role != Role::Admin && right.writes() => {
                Err(read_only())
            }
            Verdict::Granted if self.conversation.blocked && right.reaches_others() => Err(blocked()),
            other => granted(other),
        }
    }

    /// Takes the next place in the sequence for a change by the actor.
    fn log(&mut self, kind: ChangeKind, target_seq: u64, payload: Vec<u8>) -> Change {
        let id = self.work.change_id(self.changes_made);
        self.changes_made += 1;
        let change = Change {
            seq: self.conversation.next_seq(),
            kind,
            target_seq,
            actor: self.actor().to_string(),
            payload,
            at_ms: self.conversation.time(self.now_ms),
        };
        self.conversation.changes.insert(id, change.clone());
        self.effects.new_changes.push((self.id(), id, change.clone()));
        self.effects.moved.insert(self.id());
        change
    }

    /// These users came, or went.
    fn count_members<'u>(&mut self, users: impl Iterator<Item = &'u UserId>, each: i64) {
        for user in users {
            let count = &mut self.conversation.member_count;
            *count = count.saturating_add_signed(each);
            if self.conversation.kind != ConversationKind::Journal {
                *self.effects.memberships.entry(user.clone()).or_default() += each;
            }
        }
    }

    fn event(&self, change: &Change, parts: EventParts) -> Option<v1::Event> {
        events::changed(self.id(), self.epoch, change, parts)
    }

    fn bare(&self) -> v1::Conversation {
        events::bare(self.id(), self.conversation, self.epoch)
    }
}

impl ConversationState {
    /// What rights depend on besides the role.
    fn form(&self) -> Form {
        Form::of(self.kind, self.open)
    }

    /// The next place in the sequence.
    fn next_seq(&mut self) -> u64 {
        self.head_seq += 1;
        self.head_seq
    }

    /// Time never runs backwards within a conversation, whichever machine the database runs on.
    fn time(&self, now_ms: i64) -> i64 {
        now_ms.max(self.updated_at_ms)
    }
}
