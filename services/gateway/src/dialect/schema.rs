//! What payload types cannot say of themselves in a schema: ids in every form, and which names there are. The
//! names come from the functions that write and read them. Pure.

use std::borrow::Cow;

use parlance_proto::ids::USER_ID_MAX_CHARS;
use parlance_proto::v1::{
    Channel, ConversationKind, ConversationStatus, MessageType, PresenceStatus, Role, SenderKind,
};
use serde_json::{Value, json};
use utoipa::openapi::schema::{AnyOf, AnyOfBuilder, Object, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{KnownFormat, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::place::SAFE_INTEGER;
use super::{ConversationRef, MessageRef, UserRef, input, shape};

/// A text that is one of these.
pub fn one_of<'a>(names: impl IntoIterator<Item = &'a str>) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(names))
        .build()
}

/// The names of all values of a protobuf enum, each once.
fn names<E: TryFrom<i32>>(name: impl Fn(E) -> &'static str) -> Vec<&'static str> {
    let mut names = Vec::new();
    for value in (0..).map_while(|number| E::try_from(number).ok()) {
        let name = name(value);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The names of all message types.
pub fn message_type() -> Object {
    one_of(names::<MessageType>(shape::type_name))
}

/// The message types a client may send.
pub fn sendable_type() -> Object {
    let sendable = |name: &&str| input::message_type(Some(name)).is_ok();
    nullable(one_of(
        names::<MessageType>(shape::type_name)
            .into_iter()
            .filter(sendable),
    ))
}

/// The names of kinds of senders.
pub fn sender_kind() -> Object {
    one_of(names::<SenderKind>(shape::sender_name))
}

/// The names of kinds of conversations.
pub fn conversation_kind() -> Object {
    one_of(names::<ConversationKind>(shape::kind_name))
}

/// The names of channels.
pub fn channel() -> Object {
    one_of(names::<Channel>(shape::channel_name))
}

/// The names of statuses of conversations.
pub fn status() -> Object {
    one_of(names::<ConversationStatus>(shape::status_name))
}

/// The names of roles.
pub fn role() -> Object {
    one_of(names::<Role>(shape::role_name))
}

/// The names of channels that pass.
pub fn channels(passes: impl Fn(&str) -> bool) -> Object {
    one_of(
        names::<Channel>(shape::channel_name)
            .into_iter()
            .filter(|name| passes(name)),
    )
}

/// The names of statuses that pass.
pub fn statuses(passes: impl Fn(&str) -> bool) -> Object {
    one_of(
        names::<ConversationStatus>(shape::status_name)
            .into_iter()
            .filter(|name| passes(name)),
    )
}

/// The names of roles that pass.
pub fn roles(passes: impl Fn(&str) -> bool) -> Object {
    one_of(
        names::<Role>(shape::role_name)
            .into_iter()
            .filter(|name| passes(name)),
    )
}

/// How far a message has come.
pub fn delivery() -> Object {
    one_of(["sent", "delivered", "read"])
}

/// How far a message is whose text streams.
pub fn stream() -> Object {
    one_of(["open", "finished", "cancelled", "interrupted"])
}

/// How a user is seen.
pub fn presence() -> Object {
    one_of(names::<PresenceStatus>(shape::presence_name))
}

/// For whom a message is deleted.
pub fn scope() -> Object {
    one_of(["all", "me"])
}

/// A client's own name for a request.
pub fn tag() -> Schema {
    AnyOfBuilder::new()
        .item(ObjectBuilder::new().schema_type(Type::String))
        .item(ObjectBuilder::new().schema_type(Type::Number))
        .description(Some("As the client sent it."))
        .into()
}

/// The same, or null.
pub fn nullable(object: Object) -> Object {
    let mut names = object.enum_values.unwrap_or_default();
    names.push(Value::Null);
    ObjectBuilder::new()
        .schema_type(utoipa::openapi::schema::SchemaType::from_iter([
            Type::String,
            Type::Null,
        ]))
        .enum_values(Some(names))
        .build()
}

/// A UUID in its one spelling.
pub fn uuid() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)))
        .pattern(Some("^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"))
        .build()
}

/// An id as UUID, number or numeric text.
fn any_id(description: &str) -> AnyOf {
    AnyOfBuilder::new()
        .item(uuid())
        .item(
            ObjectBuilder::new()
                .schema_type(Type::Integer)
                .minimum(Some(1))
                .maximum(Some(SAFE_INTEGER)),
        )
        .item(
            ObjectBuilder::new()
                .schema_type(Type::String)
                .pattern(Some("^[1-9][0-9]{0,15}$")),
        )
        .description(Some(description))
        .examples([json!("0190a6e0-0000-7000-8000-000000000007"), json!(7)])
        .build()
}

impl PartialSchema for ConversationRef {
    fn schema() -> RefOr<Schema> {
        Schema::from(any_id("A conversation or journal, by any form of its id.")).into()
    }
}

impl ToSchema for ConversationRef {
    fn name() -> Cow<'static, str> {
        "ConversationId".into()
    }
}

impl PartialSchema for UserRef {
    fn schema() -> RefOr<Schema> {
        let id = AnyOfBuilder::new()
            .item(
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .min_length(Some(1))
                    .max_length(Some(USER_ID_MAX_CHARS)),
            )
            .item(
                ObjectBuilder::new()
                    .schema_type(Type::Integer)
                    .minimum(Some(0))
                    .maximum(Some(SAFE_INTEGER)),
            )
            .description(Some(
                "A user, by the subject of their tokens; where that is a number, as text or number.",
            ))
            .examples([json!("alice"), json!(7)])
            .build();
        Schema::from(id).into()
    }
}

impl ToSchema for UserRef {
    fn name() -> Cow<'static, str> {
        "UserId".into()
    }
}

impl PartialSchema for MessageRef {
    fn schema() -> RefOr<Schema> {
        Schema::from(any_id("A message, by any form of its id.")).into()
    }
}

impl ToSchema for MessageRef {
    fn name() -> Cow<'static, str> {
        "MessageId".into()
    }
}
