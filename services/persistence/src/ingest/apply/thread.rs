//! Beginning threads.

use parlance_proto::v1::{self, ErrorCode};

use super::CommandContext;
use crate::model::events::EventParts;
use crate::model::permissions::Right;
use crate::model::refusals::no_message;
use crate::model::state::{ChangeKind, Outcome};
use crate::model::work::StartThread;

pub(super) fn start(context: &mut CommandContext<'_>, start: &StartThread) -> Result<Outcome, v1::Error> {
    context.check(Right::StartThread)?;
    if let Some((_, existing)) = context.conversation.threads.get(&start.thread) {
        if existing.created_by != context.actor().as_str()
            || context.conversation.thread(start.thread).is_none()
        {
            return Err(v1::Error::with(ErrorCode::Conflict, "the thread id is taken"));
        }
        // Under another command: that one was told.
        return Ok(Outcome::Thread {
            thread: existing.clone(),
            repeated: true,
            event: None,
        });
    }
    let root = match start.root {
        Some(name) => Some(context.conversation.message(name).ok_or_else(no_message)?),
        None => None,
    };
    let (root_id, root_seq) = (
        root.map(|message| message.id.clone()),
        root.map_or(0, |message| message.seq),
    );
    if start
        .parent
        .is_some_and(|parent| context.conversation.thread(parent).is_none())
    {
        return Err(v1::Error::with(ErrorCode::NotFound, "no such parent thread"));
    }
    let change = context.log(
        ChangeKind::ThreadCreated,
        root_seq,
        start.thread.as_bytes().to_vec(),
    );
    let thread = v1::Thread {
        id: start.thread.to_string(),
        conversation_id: context.id().to_string(),
        title: start.title.clone(),
        root_message_id: root_id,
        parent_thread_id: start.parent.map(|id| id.to_string()),
        created_by: context.actor().to_string(),
        created_at_ms: change.at_ms,
        reply_count: 0,
        last_reply_at_ms: None,
    };
    context
        .conversation
        .threads
        .insert(start.thread, (change.seq, thread.clone()));
    context.effects.new_threads.insert((context.id(), start.thread));
    let event = context.event(
        &change,
        EventParts {
            thread: Some(thread.clone()),
            ..EventParts::default()
        },
    );
    Ok(Outcome::Thread {
        thread,
        repeated: false,
        event,
    })
}
