//! What was parked: shown, handed in once more, or forgotten.
//!
//! A replay takes the way of the original: the same ids make it a repeat where it was carried out meanwhile, and
//! whoever sent it must still be allowed to.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use parlance_bus::subject;
use parlance_proto::ConversationId;
use parlance_proto::v1::{
    Command, DeadLetter, DeadLetters, Discarded, ErrorCode, GetDeadLetter, ListDeadLetters, Push, Replayed,
    command,
};
use prost::Message as _;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Failure, Operations};
use crate::intake;
use crate::store::attempts;
use crate::store::dead_letters::{self, Parked, Place, kind};

/// Letters of a page where no number is asked.
const PAGE: u32 = 100;
/// The most letters of a page.
const MOST: u32 = 500;
/// Patience for a stream to take what is replayed.
const HAND_IN: Duration = Duration::from_secs(10);

impl Operations {
    pub(super) async fn list(&self, asked: &ListDeadLetters) -> Result<DeadLetters, Failure> {
        let limit = match asked.limit {
            0 => PAGE,
            limit => limit.min(MOST),
        };
        let after = match asked.cursor.as_str() {
            "" => None,
            cursor => {
                let bad = || Failure::refused(ErrorCode::Invalid, "the cursor is none of ours");
                Some(place(cursor).ok_or_else(bad)?)
            }
        };
        let mut connection = self.database.reads.acquire().await?;
        // One more tells whether there is another page.
        let mut parked = dead_letters::list(&mut connection, after, i64::from(limit) + 1).await?;
        let is_last = parked.len() <= limit as usize;
        parked.truncate(limit as usize);
        let cursor = match parked.last() {
            Some(last) if !is_last => cursor(last),
            _ => String::new(),
        };
        Ok(DeadLetters {
            letters: parked.into_iter().map(shown).collect(),
            cursor,
        })
    }

    pub(super) async fn show(&self, asked: &GetDeadLetter) -> Result<DeadLetter, Failure> {
        let (parked, payload) = self.letter(&asked.id).await?;
        let mut letter = shown(parked);
        if letter.kind == "command"
            && let Ok(command) = Command::decode(payload.as_slice())
        {
            letter.actor = command.actor.map(|actor| actor.user_id).unwrap_or_default();
            letter.action = command.body.as_ref().map_or("none", action).to_owned();
            letter.conversation_id = command.conversation_id;
        }
        if asked.with_payload {
            letter.payload = payload;
        }
        Ok(letter)
    }

    pub(super) async fn replay(&self, id: &str) -> Result<Replayed, Failure> {
        let (parked, payload) = self.letter(id).await?;
        let payload = Bytes::from(payload);
        // The stream takes what was replayed a moment ago for a repeat.
        let dedup_id = format!("replay-{}", parked.id);
        let subjects = match kind(&parked.subject) {
            "push" => vec![self.push_again(&parked, payload, &dedup_id).await?],
            "system" => {
                let commands = intake::replayed(
                    &parked.subject,
                    parked.command_id.as_deref(),
                    &payload,
                    parked.id,
                    &self.intake_limits,
                );
                let commands =
                    commands.map_err(|reason| Failure::refused(ErrorCode::Unprocessable, reason))?;
                self.hand_in(&commands, &dedup_id).await?
            }
            _ => {
                let command = Command::decode(payload).map_err(|_| {
                    Failure::refused(
                        ErrorCode::Unprocessable,
                        "it is not a readable command: it can only be discarded",
                    )
                })?;
                // Whoever waited for it has long been told.
                let command = Command {
                    reply_to: String::new(),
                    ..command
                };
                self.hand_in(&[command], &dedup_id).await?
            }
        };
        let mut connection = self.database.writes.acquire().await?;
        dead_letters::delete(&mut connection, parked.id).await?;
        tracing::info!(dead_letter = %parked.id, "an operator replayed a dead letter");
        Ok(Replayed { subjects })
    }

    pub(super) async fn discard(&self, id: &str) -> Result<Discarded, Failure> {
        let id = letter_id(id)?;
        let mut connection = self.database.writes.acquire().await?;
        if !dead_letters::delete(&mut connection, id).await? {
            return Err(no_letter());
        }
        tracing::info!(dead_letter = %id, "an operator discarded a dead letter");
        Ok(Discarded {})
    }

    async fn hand_in(&self, commands: &[Command], dedup_id: &str) -> Result<Vec<String>, Failure> {
        let deadline = Instant::now() + HAND_IN;
        // An operator means it: attempts that failed before do not count.
        let ids: Vec<Uuid> = commands
            .iter()
            .filter_map(|command| command.id.parse().ok())
            .collect();
        let mut connection = self.database.writes.acquire().await?;
        attempts::forget(&mut connection, &ids).await?;
        drop(connection);
        let mut subjects = Vec::new();
        for (place, command) in commands.iter().enumerate() {
            let dedup_id = format!("{dedup_id}-{place}");
            self.bus
                .send_command(command, self.partitions, &dedup_id, deadline)
                .await?;
            let conversation: Option<ConversationId> = command.conversation_id.parse().ok();
            subjects.extend(conversation.map(|id| subject::command(id, self.partitions)));
        }
        Ok(subjects)
    }

    async fn push_again(&self, parked: &Parked, payload: Bytes, dedup_id: &str) -> Result<String, Failure> {
        let unreadable = || Failure::refused(ErrorCode::Unprocessable, "it is not a readable push");
        let push = Push::decode(payload).map_err(|_| unreadable())?;
        let conversation = parked.subject.strip_prefix("chat.push.");
        let conversation: ConversationId = conversation
            .and_then(|id| id.parse().ok())
            .ok_or_else(unreadable)?;
        self.bus.publish_push(conversation, &push, dedup_id).await?;
        Ok(parked.subject.clone())
    }

    async fn letter(&self, id: &str) -> Result<(Parked, Vec<u8>), Failure> {
        let id = letter_id(id)?;
        let mut connection = self.database.reads.acquire().await?;
        dead_letters::get(&mut connection, id)
            .await?
            .ok_or_else(no_letter)
    }
}

fn letter_id(id: &str) -> Result<Uuid, Failure> {
    id.parse()
        .map_err(|_| Failure::refused(ErrorCode::Invalid, "the id of a dead letter is a UUID"))
}

fn no_letter() -> Failure {
    Failure::refused(ErrorCode::NotFound, "there is no such dead letter")
}

fn shown(parked: Parked) -> DeadLetter {
    let kind = kind(&parked.subject).to_owned();
    DeadLetter {
        id: parked.id.to_string(),
        subject: parked.subject,
        command_id: parked.command_id.unwrap_or_default(),
        error_code: parked.error_code,
        error: parked.error,
        created_at_ms: parked.created_at.timestamp_millis(),
        bytes: u64::try_from(parked.bytes).unwrap_or_default(),
        kind,
        ..DeadLetter::default()
    }
}

fn action(body: &command::Body) -> &'static str {
    match body {
        command::Body::CreateConversation(_) => "create_conversation",
        command::Body::SendMessage(_) => "send_message",
        command::Body::EditMessage(_) => "edit_message",
        command::Body::DeleteMessage(_) => "delete_message",
        command::Body::MarkRead(_) => "mark_read",
        command::Body::React(_) => "react",
        command::Body::CreateThread(_) => "create_thread",
        command::Body::UpdateConversation(_) => "update_conversation",
        command::Body::AddMembers(_) => "add_members",
        command::Body::RemoveMember(_) => "remove_member",
        command::Body::BanMember(_) => "ban_member",
        command::Body::UnbanMember(_) => "unban_member",
        command::Body::ChangeRole(_) => "change_role",
        command::Body::DeleteConversation(_) => "delete_conversation",
        command::Body::HideMessage(_) => "hide_message",
        command::Body::MuteConversation(_) => "mute_conversation",
        command::Body::ReportMessage(_) => "report_message",
        command::Body::EditJournal(_) => "edit_journal",
        command::Body::AppendText(_) => "append_text",
        command::Body::EndStream(_) => "end_stream",
    }
}

fn cursor(parked: &Parked) -> String {
    format!("{}.{}", parked.created_at.timestamp_micros(), parked.id)
}

fn place(cursor: &str) -> Option<Place> {
    let (micros, id) = cursor.split_once('.')?;
    let at = DateTime::<Utc>::from_timestamp_micros(micros.parse().ok()?)?;
    Some((at, id.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_names_the_place_it_was_made_from() {
        let parked = Parked {
            id: Uuid::from_u128(7),
            subject: "chat.system.x".to_owned(),
            command_id: None,
            error_code: "invalid".to_owned(),
            error: String::new(),
            created_at: DateTime::from_timestamp_micros(1_700_000_000_123_456).unwrap(),
            bytes: 3,
        };
        assert_eq!(place(&cursor(&parked)), Some((parked.created_at, parked.id)));
        for bad in ["", "1", "x.y", "1.2"] {
            assert_eq!(place(bad), None, "{bad}");
        }
        assert_eq!(shown(parked).kind, "system");
    }
}
