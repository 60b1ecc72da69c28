//! Messages whose text streams in: more text, and the end. Text is named by its offset, so that what comes again, or overlaps
//! what is there, changes nothing.

use parlance_proto::MessageId;
use parlance_proto::v1::{self, ErrorCode, StreamState};

use super::CommandContext;
use super::message::{changed, delete, quiet};
use crate::model::refusals::{no_message, refuse};
use crate::model::state::{ChangeKind, Outcome};
use crate::model::work::{MessageName, StreamText};

/// More text. Of a message that has ended, nothing: it was appended before, or comes too late.
pub(super) fn append(context: &mut CommandContext<'_>, text: &StreamText) -> Result<Outcome, v1::Error> {
    let id = own(context, text)?;
    let message = context
        .conversation
        .messages
        .get_mut(&id)
        .ok_or_else(no_message)?;
    if message.stream() != StreamState::Open {
        return Ok(quiet(message.clone()));
    }
    let rest = continuation(message.content.len(), text)?;
    if rest.is_empty() {
        return Ok(quiet(message.clone()));
    }
    message.content.push_str(rest);
    let message = message.clone();
    context
        .effects
        .changed_messages
        .insert((context.work.conversation, id));
    Ok(Outcome::Message {
        message: Box::new(message),
        repeated: false,
        // Readers see it grow by chunks; the text is whole when it ends.
        event: None,
        hidden: false,
        then: Vec::new(),
    })
}

/// The last text, and how the message ended. Without any text it is deleted, unless it is finished.
pub(super) fn end(
    context: &mut CommandContext<'_>,
    text: &StreamText,
    state: StreamState,
) -> Result<Outcome, v1::Error> {
    let id = own(context, text)?;
    let message = context
        .conversation
        .messages
        .get_mut(&id)
        .ok_or_else(no_message)?;
    if message.stream() == state {
        // By another command.
        return Ok(quiet(message.clone()));
    }
    if message.stream() != StreamState::Open {
        return Err(v1::Error::with(
            ErrorCode::Conflict,
            "the message has ended otherwise",
        ));
    }
    let rest = continuation(message.content.len(), text)?;
    let is_empty = message.content.is_empty() && rest.is_empty();
    if is_empty && state == StreamState::Finished {
        return Err(refuse("content is empty"));
    }
    message.content.push_str(rest);
    message.set_stream(state);
    if is_empty {
        return delete(context, id);
    }
    let seq = message.seq;
    let message = message.clone();
    let change = context.log(ChangeKind::Finished, seq, Vec::new());
    Ok(changed(context, &change, id, message))
}

/// The message that the actor's text belongs to.
fn own(context: &CommandContext<'_>, text: &StreamText) -> Result<MessageId, v1::Error> {
    let message = context.conversation.message(MessageName::Id(text.message));
    let is_own = |message: &&v1::Message| {
        let sender = message.sender.as_ref();
        sender.is_some_and(|sender| sender.id == context.actor().as_str())
    };
    match message.filter(is_own) {
        Some(message) if message.stream() != StreamState::Unspecified => Ok(text.message),
        Some(_) => Err(v1::Error::with(ErrorCode::Conflict, "the message was sent whole")),
        None => Err(no_message()),
    }
}

/// What of the text comes behind the first `length` bytes of the message.
fn continuation(length: usize, text: &StreamText) -> Result<&str, v1::Error> {
    let offset = usize::try_from(text.offset).unwrap_or(usize::MAX);
    let Some(known) = length.checked_sub(offset) else {
        let message = format!("text before byte {offset} is missing from byte {length} on");
        return Err(v1::Error::with(ErrorCode::Conflict, message));
    };
    if known >= text.text.len() {
        return Ok("");
    }
    text.text
        .get(known..)
        .ok_or_else(|| refuse("the text begins inside a character"))
}
