//! The contract of the native dialect.

use serde_json::json;

use super::block::{BlockChangedJson, BlockPageJson, BlocksPayload, UserPayload};
use super::journal::{AwarenessPayload, JournalEditPayload, JournalJoinPayload};
use super::mute::{MuteChangedJson, MutePayload};
use super::report::ReportPayload;
use super::{
    ConversationPayload, DeletePayload, EditPayload, Expiring, FailedEvent, JournalPayload, MemberPayload,
    ParticipantsPayload, PresencePayload, ReactPayload, ReceiptPayload, Refused, SendPayload, StatusPayload,
    StopPayload, SwitchPayload, SyncPayload, ThreadPayload, TypingPayload, UsersPayload, presence,
};
use crate::dialect::contract::{Contract, Shape};
use crate::dialect::key::KeyedPayload;
use crate::dialect::native::json;

fn refused() -> Shape {
    Shape::of::<Refused<'_>>().answering("ok", false, &["error"])
}

fn done() -> Shape {
    Shape::raw(json!({ "type": "object" }))
        .answering("ok", true, &[])
        .or(refused())
}

fn holding(field: &str) -> Shape {
    Shape::of::<json::Holding<'_>>()
        .answering("ok", true, &[field])
        .or(refused())
}

fn presences() -> Shape {
    Shape::of::<presence::ListJson<'_>>()
        .answering("ok", true, &["presence"])
        .or(refused())
}

fn joined() -> Shape {
    Shape::of::<json::Joined<'_>>()
        .answering("ok", true, &["conversation"])
        .or(refused())
}

fn participants() -> Shape {
    Shape::of::<json::ParticipantPageJson<'_>>()
        .answering("ok", true, &["participants", "next"])
        .or(refused())
}

fn blocks() -> Shape {
    Shape::of::<BlockPageJson<'_>>()
        .answering("ok", true, &["user_ids", "next"])
        .or(refused())
}

fn pages() -> Shape {
    Shape::of::<json::SyncJson<'_>>()
        .answering("ok", true, &["conversations"])
        .or(refused())
}

/// With its place in the conversation's sequence.
fn numbered(change: Shape) -> Shape {
    let place = json!({
        "type": "object",
        "required": ["event_seq"],
        "properties": { "event_seq": {
            "type": "integer", "minimum": 1,
            "description": "Place of this change in the conversation's sequence; `sync` goes on from it.",
        } },
    });
    change.and(Shape::raw(place))
}

/// A change that may be repeated by a key.
fn keyed(payload: Shape) -> Shape {
    payload.and(Shape::of::<KeyedPayload>())
}

/// Messages, or a seq with its conversation.
fn receipt() -> Shape {
    let several = json!({
        "required": ["message_ids"],
        "properties": { "message_ids": { "type": "array", "minItems": 1 } },
    });
    let up_to = Shape::with_any(&["up_to_seq"]).and(Shape::with_any(&["conversation_id"]));
    Shape::of::<ReceiptPayload>().and(Shape::raw(several).or(up_to))
}

/// Either the text or an update.
fn journal_edit() -> Shape {
    let either = json!({ "oneOf": [
        Shape::with_any(&["content"]).schema,
        Shape::with_any(&["update"]).schema,
    ] });
    Shape::of::<JournalEditPayload>().and(Shape::raw(either))
}

/// All events.
pub(super) fn contract() -> Contract {
    let contract = Contract::new("Everything Parlance can do, as objects with snake_case fields and UUIDs.");
    let talk = typing_and_threads(messages(conversations(contract)));
    emitted(presence_and_sync(users(journals(talk))))
}

/// About conversations.
fn conversations(contract: Contract) -> Contract {
    contract
        .accepts(
            "conversation:join",
            "Follow a conversation.",
            Shape::of::<ConversationPayload>(),
            joined(),
        )
        .accepts(
            "conversation:leave",
            "Follow it no more.",
            Shape::of::<ConversationPayload>(),
            done(),
        )
        .accepts(
            "conversation:participants",
            "Read a page of the participants of a conversation, by ascending id.",
            Shape::of::<ParticipantsPayload>(),
            participants(),
        )
        .accepts(
            "conversation:mute",
            "Mute a conversation for oneself: no pushes, nothing for the badge. Once more with another `until` moves the end.",
            keyed(Shape::of::<MutePayload>()),
            joined(),
        )
        .accepts(
            "conversation:unmute",
            "End that one muted a conversation.",
            keyed(Shape::of::<ConversationPayload>()),
            joined(),
        )
        .accepts(
            "member:ban",
            "Remove a user from a group for good: nobody adds them before the ban ends. Also of users who are not in it.",
            keyed(Shape::of::<MemberPayload>()),
            joined(),
        )
        .accepts(
            "member:unban",
            "End that; it does not add the user.",
            keyed(Shape::of::<MemberPayload>()),
            joined(),
        )
}

/// About messages.
fn messages(contract: Contract) -> Contract {
    let (message, receipts) = (|| holding("message"), || holding("receipt"));
    contract
        .accepts(
            "message:send",
            "Send a message; client_msg_id makes a repeat harmless.",
            keyed(Shape::of::<SendPayload<'_>>()),
            message(),
        )
        .accepts(
            "message:edit",
            "Change the content of a message.",
            keyed(Shape::of::<EditPayload>()),
            message(),
        )
        .accepts(
            "message:delete",
            "Delete a message for all, or hide it from oneself.",
            keyed(Shape::of::<DeletePayload>()),
            message(),
        )
        .accepts(
            "message:stop",
            "Ask the service of a message that streams to end it. Any participant may; whether and how it ends is up to the \
             service, and shows in message:finished.",
            Shape::of::<StopPayload>(),
            done(),
        )
        .accepts(
            "message:report",
            "Report a message of another to those who moderate. Nobody in the conversation learns of it.",
            keyed(Shape::of::<ReportPayload>()),
            message(),
        )
        .accepts(
            "message:react",
            "Put a mark on a message.",
            keyed(Shape::of::<ReactPayload>()),
            message(),
        )
        .accepts(
            "message:unreact",
            "Take a mark back.",
            keyed(Shape::of::<ReactPayload>()),
            message(),
        )
        .accepts(
            "receipt:read",
            "Mark messages as read.",
            keyed(receipt()),
            receipts(),
        )
        .accepts(
            "receipt:delivered",
            "Mark messages as delivered.",
            keyed(receipt()),
            receipts(),
        )
}

/// About typing and threads.
fn typing_and_threads(contract: Contract) -> Contract {
    let thread = || holding("thread");
    contract
        .accepts(
            "typing",
            "Notify the others that one types, or ends to.",
            Shape::of::<TypingPayload>(),
            done(),
        )
        .accepts(
            "thread:create",
            "Begin a thread.",
            keyed(Shape::of::<ThreadPayload>()),
            thread(),
        )
        .accepts(
            "thread:switch",
            "Look at a thread, or at the main line again; nobody else is notified.",
            Shape::of::<SwitchPayload>(),
            done(),
        )
}

/// About journals.
fn journals(contract: Contract) -> Contract {
    let journal = || holding("journal");
    contract
        .accepts(
            "journal:join",
            "Follow a journal. A client that keeps the Yjs document itself says what it knows of it: the answer holds what it \
             lacks, and what the server knows instead of the text, so that it can send with journal:edit what the server \
             lacks; journal:updated then brings it updates without texts.",
            Shape::of::<JournalJoinPayload>(),
            Shape::of::<json::Synced<'_>>()
                .answering("ok", true, &["journal"])
                .or(journal()),
        )
        .accepts(
            "journal:leave",
            "Follow it no more.",
            Shape::of::<JournalPayload>(),
            done(),
        )
        .accepts(
            "journal:edit",
            "Change a journal: its whole text, or a Yjs update in base64.",
            keyed(journal_edit()),
            journal(),
        )
        .accepts(
            "journal:awareness",
            "Show the others in a journal one's name and cursor: a y-protocols awareness update in base64, with the states \
             of this page. The journal must be joined; reading it is enough. user.id and user.name in a state become \
             those of the connection, all other fields stay. A state ends when it is removed, when the journal is left, \
             with the connection, and 12 s after its last update: renew it every 5 s (setLocalState with the same state; \
             y-protocols by itself does so only every 15 s). At most 5 client ids per connection and 1,000 per journal; \
             states of others are ignored, a change of one is refused.",
            Shape::of::<AwarenessPayload>(),
            done(),
        )
}

/// About other users.
fn users(contract: Contract) -> Contract {
    contract
        .accepts(
            "user:block",
            "Block a user: neither writes to the other in a direct conversation, the blocked one does not add the user to \
             conversations, and neither is shown presence or typing of the other. The blocked one is not notified.",
            Shape::of::<UserPayload>(),
            done(),
        )
        .accepts("user:unblock", "End that.", Shape::of::<UserPayload>(), done())
        .accepts(
            "user:blocks",
            "Read a page of the users one has blocked, by ascending id.",
            Shape::of::<BlocksPayload>(),
            blocks(),
        )
}

/// About presence and catching up.
fn presence_and_sync(contract: Contract) -> Contract {
    contract
        .accepts(
            "presence",
            "Be seen as online, or not.",
            Shape::of::<PresencePayload>(),
            done(),
        )
        .accepts(
            "presence:set",
            "Be seen as online, away or offline.",
            Shape::of::<StatusPayload>(),
            done(),
        )
        .accepts(
            "presence:subscribe",
            "Be told how these users are seen, also where one shares only large groups with them.",
            Shape::of::<UsersPayload>(),
            presences(),
        )
        .accepts(
            "presence:unsubscribe",
            "Receive that no longer.",
            Shape::of::<UsersPayload>(),
            done(),
        )
        .accepts(
            "sync",
            "What happened in conversations since these positions.",
            Shape::of::<SyncPayload>(),
            pages(),
        )
}

fn emitted(contract: Contract) -> Contract {
    let message = || Shape::of::<json::MessageJson<'_>>();
    contract
        .emits("message:new", "A message was sent.", message())
        .emits(
            "message:chunk",
            "Text of a message that streams, from byte `offset` of its text (UTF-8) on. What the client has of it already is \
             left out; a chunk that begins behind what it has is dropped: one that begins earlier comes within a second, and \
             after a longer absence the message is read anew. At most 10 a second for each message; one may be lost.",
            Shape::of::<json::ChunkJson<'_>>(),
        )
        .emits(
            "message:finished",
            "A message that streamed has all of its text; `stream` says how it ended.",
            numbered(message()),
        )
        .emits("message:edited", "A message was changed.", numbered(message()))
        .emits("message:deleted", "A message was deleted; its content is gone.", numbered(message()))
        .emits("message:hidden", "This user hid a message from themselves.", Shape::of::<json::HiddenJson<'_>>())
        .emits("message:reaction", "A mark was put on a message or taken back.", numbered(Shape::of::<json::ReactionChangedJson<'_>>()))
        .emits("receipt:updated", "How far a participant has read and got messages.", Shape::of::<json::ReceiptJson<'_>>())
        .emits("typing", "Somebody types, or ends to.", Shape::of::<json::TypingJson<'_>>())
        .emits("presence:changed", "A user is seen otherwise.", Shape::of::<presence::PresenceJson<'_>>())
        .emits("thread:created", "A thread was begun.", numbered(Shape::of::<json::ThreadJson<'_>>()))
        .emits("member:added", "Users were added.", numbered(Shape::of::<json::MembersJson<'_>>()))
        .emits("member:removed", "A user left or was removed.", numbered(Shape::of::<json::MemberJson<'_>>()))
        .emits("member:role", "A user has another role.", numbered(Shape::of::<json::MemberJson<'_>>()))
        .emits("conversation:new", "The user is in a further conversation.", Shape::of::<json::ConversationJson<'_>>())
        .emits(
            "conversation:updated",
            "A conversation itself changed; or, where the client does not follow it, it has a new latest message.",
            Shape::of::<json::ConversationChangedJson<'_>>().or(Shape::of::<json::ListUpdatedJson<'_>>()),
        )
        .emits(
            "conversation:muted",
            "This user muted a conversation, on whatever connection, or ended that. Nothing is emitted when it ends by itself.",
            Shape::of::<MuteChangedJson<'_>>(),
        )
        .emits(
            "user:blocked",
            "This user blocked another, on whatever connection, or ended that.",
            Shape::of::<BlockChangedJson<'_>>(),
        )
        .emits("conversation:removed", "The user is in the conversation no more.", Shape::of::<json::RemovedJson>())
        .emits("journal:updated", "A journal has another text.", Shape::of::<json::JournalJson<'_>>().or(Shape::of::<json::JournalUpdateJson<'_>>()))
        .emits(
            "journal:awareness",
            "Names and cursors in a joined journal: a y-protocols awareness update, merged, at most 10 a second. What is \
             shown already is sent when the journal is joined. An update that removes this page's own state means that it \
             was taken for gone: set it again.",
            Shape::of::<json::AwarenessJson>(),
        )
        .emits(
            "auth:expiring",
            "The token ends soon: `auth:refresh` puts that off.",
            Shape::of::<Expiring>(),
        )
        .emits("resync", "Seqs of this conversation are void: read it anew.", Shape::of::<json::ResyncJson<'_>>())
        .emits("error", "An event without an ack failed.", Shape::of::<FailedEvent<'_>>())
}
