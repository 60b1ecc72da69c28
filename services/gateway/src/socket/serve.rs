//! The life of a session: takes its events one after the other and carries them out.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use parlance_proto::v1::{
    DeleteMessage, EditMessage, Ephemeral, MarkRead, Position, SendMessage, Typing, command, ephemeral,
};
use parlance_proto::{ConversationId, MessageId};
use socketioxide::extract::SocketRef;
use tracing::Instrument as _;

use super::connect::Prepared;
use super::inbound::{Inbound, Queue};
use super::session::{Ack, Session};
use crate::app::Shared;
use crate::commands::{Waiter, actor, new_id, now};
use crate::dialect::{Action, Answer, SendAction};
use crate::error::ClientError;

/// Events answered by one sync.
const SYNC_EVENTS: u32 = 1_000;
/// How long a client may take to leave by itself after it was told to go.
const FAREWELL: Duration = Duration::from_secs(2);

/// Serves a session that its client knows of now.
pub(super) async fn begin(socket: SocketRef) {
    let Some(Prepared {
        session,
        queue,
        shared,
        expected,
    }) = socket.extensions.remove::<Prepared>()
    else {
        return;
    };
    // Taken once: this handler runs once per connect.
    let Some(queue) = queue.lock().unwrap_or_else(PoisonError::into_inner).take() else {
        return;
    };
    drop(socket);
    tracing::debug!(user = %session.user, session = ?session.id, "connected");
    shared.sessions.insert(Arc::clone(&session));
    shared.users.arrived(Arc::clone(&session));
    drop(expected);
    serve(&shared, &session, queue).await;
    shared.sessions.remove(&session);
    shared.users.gone(&session);
    for conversation in session.conversations() {
        shared.rooms.detach(conversation, session.id);
    }
    tracing::debug!(user = %session.user, session = ?session.id, "disconnected");
}

async fn serve(shared: &Shared, session: &Arc<Session>, mut queue: Queue) {
    let left = u64::try_from(session.expires_at - now().timestamp()).unwrap_or_default();
    let expiry = tokio::time::sleep(Duration::from_secs(left));
    tokio::pin!(expiry);
    loop {
        let inbound = tokio::select! {
            biased;
            () = session.closed.cancelled() => return,
            () = &mut expiry => {
                tracing::info!(user = %session.user, "the token of a connection expired");
                session.expel();
                tokio::time::sleep(FAREWELL).await;
                session.close_transport();
                return;
            }
            inbound = queue.next() => match inbound {
                Some(inbound) => inbound,
                None => return,
            },
        };
        if queue.done(&inbound)
            && let Some(wire) = session.wire()
        {
            wire.resume();
        }
        handle(shared, session, inbound).await;
    }
}

async fn handle(shared: &Shared, session: &Arc<Session>, inbound: Inbound) {
    let decoded = inbound.event().and_then(|event| {
        let known = session.dialect.inbound_events();
        let name = known
            .iter()
            .copied()
            .find(|known| *known == event.name)
            .unwrap_or("other");
        metrics::counter!("chat_gateway_events_total", "direction" => "in", "event" => name).increment(1);
        shared.limits.admit(&session.user)?;
        let action = session
            .dialect
            .decode(event.name, event.payload, &shared.limits)?;
        Ok((name, action))
    });
    match decoded {
        Ok((name, action)) => {
            let span = tracing::info_span!("receive", event = name);
            perform(shared, session, name, action, inbound)
                .instrument(span)
                .await;
        }
        Err(error) => {
            let name = inbound
                .event()
                .map_or_else(|_| String::new(), |event| event.name.to_owned());
            session.answer(inbound.ack, &name, Err(&error));
        }
    }
}

async fn perform(
    shared: &Shared,
    session: &Arc<Session>,
    event: &'static str,
    action: Action,
    inbound: Inbound,
) {
    let (conversation, body) = match action {
        Action::Send(send) => (send.conversation, sending(session, send)),
        Action::Edit {
            conversation,
            message,
            content,
        } => {
            let message_id = message.to_string();
            let edit = EditMessage { message_id, content };
            (conversation, command::Body::EditMessage(edit))
        }
        Action::Delete {
            conversation,
            message,
        } => {
            let message_id = message.to_string();
            (
                conversation,
                command::Body::DeleteMessage(DeleteMessage { message_id }),
            )
        }
        Action::Read {
            conversation,
            up_to_seq,
            messages,
        } => (conversation, reading(up_to_seq, &messages)),
        Action::Join(conversation) => {
            let outcome = join(shared, session, conversation).await;
            return session.answer(inbound.ack, event, outcome.as_ref());
        }
        Action::Leave(conversation) => {
            shared.rooms.leave(conversation, session.id);
            return session.answer(inbound.ack, event, Ok(&Answer::Done));
        }
        Action::Typing {
            conversation,
            is_typing,
        } => {
            let outcome = typing(shared, session, conversation, is_typing).await;
            return session.answer(inbound.ack, event, outcome.as_ref());
        }
        Action::Sync(positions) => {
            return sync(shared, session, positions, event, inbound.ack).await;
        }
    };
    let waiter = Waiter::Socket {
        session: Arc::clone(session),
        ack: inbound.ack,
        event,
    };
    let me = actor(&session.user, &session.username);
    shared
        .commands
        .submit(me, conversation, body, inbound.at, waiter)
        .await;
}

fn sending(session: &Session, send: SendAction) -> command::Body {
    command::Body::SendMessage(send_message(&session.user, send))
}

/// The command for a message; a client's own id makes its id, so that a repeat is the same message.
pub fn send_message(user: &parlance_proto::UserId, send: SendAction) -> SendMessage {
    let id = match &send.client_msg_id {
        Some(own) => MessageId::derive(send.conversation, user, own),
        None => MessageId::from_uuid(new_id()),
    };
    SendMessage {
        message_id: id.to_string(),
        r#type: send.kind.into(),
        content: send.content,
        metadata_json: send.metadata,
        client_msg_id: send.client_msg_id,
        reply_to: send.reply_to.map(|id| id.to_string()),
    }
}

fn reading(up_to_seq: Option<u64>, messages: &[MessageId]) -> command::Body {
    command::Body::MarkRead(MarkRead {
        up_to_seq: up_to_seq.unwrap_or_default(),
        message_ids: messages.iter().map(ToString::to_string).collect(),
    })
}

async fn join(
    shared: &Shared,
    session: &Arc<Session>,
    conversation: ConversationId,
) -> Result<Answer, ClientError> {
    let me = actor(&session.user, &session.username);
    let mut joined = shared.backend.conversation(Some(me), conversation).await?;
    let attached = shared
        .rooms
        .attach(conversation, Arc::clone(session), true)
        .await?;
    // What follows live begins after this seq, whatever the database has reached meanwhile.
    joined.head_seq = attached.head_seq;
    joined.epoch = attached.epoch;
    Ok(Answer::Conversation(joined))
}

async fn typing(
    shared: &Shared,
    session: &Session,
    conversation: ConversationId,
    is_typing: bool,
) -> Result<Answer, ClientError> {
    if !session.is_attached(conversation) {
        return Err(ClientError::no_conversation());
    }
    let typing = Ephemeral {
        conversation_id: conversation.to_string(),
        body: Some(ephemeral::Body::Typing(Typing {
            user_id: session.user.to_string(),
            username: session.username.clone(),
            is_typing,
        })),
    };
    if shared.bus.link().borrow().connected
        && let Err(error) = shared.bus.publish_ephemeral(conversation, &typing).await
    {
        tracing::debug!(%error, "a typing event was lost");
    }
    Ok(Answer::Done)
}

async fn sync(shared: &Shared, session: &Session, positions: Vec<Position>, event: &'static str, ack: Ack) {
    let me = actor(&session.user, &session.username);
    let pages = shared.backend.sync(Some(me), positions, SYNC_EVENTS).await;
    let outcome = pages.map(Answer::Pages);
    session.answer(ack, event, outcome.as_ref());
}
