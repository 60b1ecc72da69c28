//! Commands as a gateway would send them.

use parlance_harness::environment::random_hex;
use parlance_persistence::ingest::answer::Answer;
use parlance_persistence::model::work::Work;
use parlance_proto::v1::{self, Command, ConversationKind, ErrorCode, command, confirmation, event};
use parlance_proto::{ConversationId, MessageId, UserId};

/// A fresh UUID of version 4.
pub(crate) fn fresh() -> String {
    let hex = random_hex();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

pub(crate) fn conversation() -> ConversationId {
    fresh().parse().unwrap()
}

pub(crate) fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

pub(crate) fn command(who: &str, conversation: ConversationId, body: command::Body) -> Command {
    let actor = v1::Actor {
        user_id: who.into(),
        username: who.to_uppercase(),
        kind: v1::SenderKind::User.into(),
    };
    Command {
        id: fresh(),
        reply_to: "tester".into(),
        actor: Some(actor),
        conversation_id: conversation.to_string(),
        issued_at_ms: 0,
        service: None,
        body: Some(body),
    }
}

pub(crate) fn creation(who: &str, id: ConversationId, others: &[&str]) -> Command {
    let create = v1::CreateConversation {
        kind: ConversationKind::Group.into(),
        title: "Tea".into(),
        participant_ids: others.iter().map(|&id| id.to_owned()).collect(),
        provision_users: true,
        ..Default::default()
    };
    command(who, id, command::Body::CreateConversation(create))
}

pub(crate) fn add(who: &str, id: ConversationId, users: &[&str]) -> Command {
    let add = v1::AddMembers {
        user_ids: users.iter().map(|&user| user.to_owned()).collect(),
        provision_users: true,
        ..Default::default()
    };
    command(who, id, command::Body::AddMembers(add))
}

pub(crate) fn direct(who: &str, other: &str) -> Command {
    let create = v1::CreateConversation {
        kind: ConversationKind::Direct.into(),
        title: String::new(),
        participant_ids: vec![other.into()],
        provision_users: true,
        ..Default::default()
    };
    let id = ConversationId::direct(&user(who), &user(other));
    command(who, id, command::Body::CreateConversation(create))
}

pub(crate) fn sending(who: &str, id: ConversationId, client_id: &str, content: &str) -> Command {
    let send = v1::SendMessage {
        message_id: MessageId::derive(id, &user(who), client_id).to_string(),
        content: content.into(),
        client_msg_id: Some(client_id.into()),
        ..Default::default()
    };
    command(who, id, command::Body::SendMessage(send))
}

/// With metadata that is JSON, and that Postgres refuses all the same.
pub(crate) fn poison(who: &str, id: ConversationId, client_id: &str) -> Command {
    let mut command = sending(who, id, client_id, "poison");
    if let Some(command::Body::SendMessage(send)) = &mut command.body {
        send.metadata_json = r#"{"a":"\u0000"}"#.into();
    }
    command
}

pub(crate) fn edit(who: &str, id: ConversationId, message: &str, content: &str) -> Command {
    let edit = v1::EditMessage {
        message_id: message.into(),
        content: content.into(),
    };
    command(who, id, command::Body::EditMessage(edit))
}

pub(crate) fn delete(who: &str, id: ConversationId, message: &str) -> Command {
    command(
        who,
        id,
        command::Body::DeleteMessage(v1::DeleteMessage {
            message_id: message.into(),
        }),
    )
}

pub(crate) fn read(who: &str, id: ConversationId, up_to_seq: u64, message_ids: &[&str]) -> Command {
    mark(who, id, up_to_seq, message_ids, false)
}

pub(crate) fn delivered(who: &str, id: ConversationId, up_to_seq: u64) -> Command {
    mark(who, id, up_to_seq, &[], true)
}

fn mark(
    who: &str,
    id: ConversationId,
    up_to_seq: u64,
    message_ids: &[&str],
    delivered_only: bool,
) -> Command {
    let message_ids = message_ids.iter().map(|&id| id.to_owned()).collect();
    let body = command::Body::MarkRead(v1::MarkRead {
        up_to_seq,
        message_ids,
        delivered_only,
        through: false,
    });
    command(who, id, body)
}

pub(crate) fn work(command: &Command) -> Work {
    Work::parse(command.clone()).unwrap()
}

pub(crate) fn message(answer: &Answer) -> v1::Message {
    match &answer.result {
        confirmation::Result::Message(message) => message.clone(),
        other => panic!("no message: {other:?}"),
    }
}

pub(crate) fn view(answer: &Answer) -> v1::Conversation {
    match &answer.result {
        confirmation::Result::Conversation(conversation) => conversation.clone(),
        other => panic!("no conversation: {other:?}"),
    }
}

pub(crate) fn receipt(answer: &Answer) -> v1::ReceiptUpdated {
    match &answer.result {
        confirmation::Result::Receipt(receipt) => receipt.clone(),
        other => panic!("no receipt: {other:?}"),
    }
}

pub(crate) fn code(answer: &Answer) -> Option<ErrorCode> {
    match &answer.result {
        confirmation::Result::Error(error) => Some(error.code()),
        _ => None,
    }
}

/// The message an event tells about, and what happened to it.
pub(crate) fn told(event: &v1::Event) -> (u64, &'static str, String) {
    let (what, message) = match &event.body {
        Some(event::Body::MessageCreated(e)) => ("created", &e.message),
        Some(event::Body::MessageEdited(e)) => ("edited", &e.message),
        Some(event::Body::MessageDeleted(e)) => ("deleted", &e.message),
        other => panic!("no message event: {other:?}"),
    };
    (event.seq, what, message.as_ref().unwrap().content.clone())
}
