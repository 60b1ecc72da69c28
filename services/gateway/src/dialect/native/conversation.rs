//! What clients of REST say of conversations and their participants: checked against every limit before anything else
//! happens. Pure.

use parlance_proto::UserId;
use parlance_proto::v1::{
    Channel, ConversationKind, ConversationStatus, CreateConversation, Role, UpdateConversation,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa::openapi::Object;

use crate::dialect::{ConversationAction, ConversationRef, UserRef, schema};
use crate::error::ClientError;
use crate::limits::Limits;

/// Users named in the title of a group that was given none.
const NAMED: usize = 3;

#[derive(Deserialize, ToSchema)]
#[schema(as = DirectCreation)]
pub(crate) struct DirectBody {
    #[serde(alias = "userId")]
    user_id: UserRef,
    title: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = GroupCreation)]
pub(crate) struct GroupBody {
    #[schema(pattern = "\\S")]
    title: String,
    #[serde(alias = "participantIds", alias = "participants")]
    participant_ids: Vec<UserRef>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = ConversationCreation)]
pub(crate) struct CreateBody<'a> {
    /// May name nobody where the group is open.
    #[serde(default, alias = "participantIds", alias = "participants")]
    participant_ids: Option<Vec<UserRef>>,
    /// The kind, or the channel of a group.
    #[serde(alias = "type")]
    #[schema(schema_with = maybe_kind)]
    kind: Option<String>,
    title: Option<String>,
    #[schema(schema_with = maybe_channel)]
    channel: Option<String>,
    #[serde(borrow)]
    #[schema(value_type = Option<Object>)]
    metadata: Option<&'a RawValue>,
    /// Every participant may change title, status, channel and metadata, and add and remove members. The default
    /// of dialects without roles where `type` does not say `group`.
    open: Option<bool>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = ConversationUpdate)]
pub(crate) struct UpdateBody<'a> {
    #[schema(pattern = "\\S")]
    title: Option<String>,
    #[schema(schema_with = maybe_status)]
    status: Option<String>,
    #[schema(schema_with = maybe_channel)]
    channel: Option<String>,
    #[serde(borrow)]
    #[schema(value_type = Option<Object>)]
    metadata: Option<&'a RawValue>,
    /// Of a group with roles: only admins send and edit messages and begin threads.
    #[serde(alias = "readOnly")]
    read_only: Option<bool>,
    /// Of a group: all who belong to it from now on, besides the caller. Not with an `Idempotency-Key`: it says what shall
    /// be, so that it may be repeated as it is, but each time it adds and removes whoever differs then.
    #[serde(alias = "participant_ids", alias = "participantIds")]
    participants: Option<Vec<UserRef>>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = ParticipantAddition)]
pub(crate) struct AddBody {
    #[serde(alias = "userId")]
    user_id: Option<UserRef>,
    #[serde(alias = "userIds", alias = "participant_ids", alias = "participantIds")]
    user_ids: Option<Vec<UserRef>>,
    #[schema(schema_with = maybe_role)]
    role: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = ParticipantRole)]
pub(crate) struct RoleBody {
    #[schema(schema_with = roles)]
    role: String,
}

impl DirectBody {
    /// The conversation that `creator` makes.
    ///
    /// # Errors
    /// It is with themselves, or the title breaks a limit.
    pub fn check(self, creator: &UserId, limits: &Limits) -> Result<ConversationAction, ClientError> {
        let UserRef(other) = self.user_id;
        if other == *creator {
            return Err(ClientError::invalid("user_id is the caller"));
        }
        Ok(ConversationAction::Create(CreateConversation {
            kind: ConversationKind::Direct.into(),
            title: own_title(self.title, limits)?,
            participant_ids: vec![other.to_string()],
            ..CreateConversation::default()
        }))
    }
}

impl GroupBody {
    /// The group that `creator` makes.
    ///
    /// # Errors
    /// It names nobody else, or breaks a limit.
    pub fn check(self, creator: &UserId, limits: &Limits) -> Result<ConversationAction, ClientError> {
        limits.title(&self.title)?;
        let create = CreateConversation {
            kind: ConversationKind::Group.into(),
            title: self.title,
            participant_ids: others(creator, self.participant_ids, limits)?,
            ..CreateConversation::default()
        };
        if create.participant_ids.is_empty() {
            return Err(nobody());
        }
        Ok(ConversationAction::Create(create))
    }
}

impl CreateBody<'_> {
    /// The conversation that `creator` makes: a direct one only where the kind says so, because cases of a support desk
    /// share their users. Without roles it is open where nothing says otherwise.
    ///
    /// # Errors
    /// It contradicts itself, names nobody else, or breaks a limit.
    pub fn check(
        self,
        creator: &UserId,
        is_without_roles: bool,
        limits: &Limits,
    ) -> Result<ConversationAction, ClientError> {
        let participant_ids = others(creator, self.participant_ids.unwrap_or_default(), limits)?;
        let (kind, named_channel) = match self.kind.as_deref() {
            Some("direct") => (Some(ConversationKind::Direct), None),
            Some("group") => (Some(ConversationKind::Group), None),
            Some(name) => (None, Some(channel(name).map_err(|_| no_kind())?)),
            None => (None, None),
        };
        let own_channel = self.channel.as_deref().map(channel).transpose()?;
        if let (Some(named), Some(own)) = (named_channel, own_channel)
            && named != own
        {
            return Err(ClientError::invalid("type and channel name two channels"));
        }
        let open = self.open.unwrap_or(kind.is_none() && is_without_roles);
        let kind = kind.unwrap_or(ConversationKind::Group);
        if kind == ConversationKind::Direct && participant_ids.len() != 1 {
            let message = "a direct conversation has exactly one other participant";
            return Err(ClientError::invalid(message));
        }
        if participant_ids.is_empty() && !open {
            return Err(nobody());
        }
        let mut title = own_title(self.title, limits)?;
        if title.is_empty() && kind == ConversationKind::Group {
            title = participant_ids[..participant_ids.len().min(NAMED)].join(", ");
            title.truncate(title.floor_char_boundary(200));
        }
        Ok(ConversationAction::Create(CreateConversation {
            kind: kind.into(),
            title,
            participant_ids,
            channel: own_channel.or(named_channel).unwrap_or(Channel::Chat).into(),
            metadata_json: limits.metadata(self.metadata)?,
            open,
            ..CreateConversation::default()
        }))
    }
}

impl UpdateBody<'_> {
    /// The change of this conversation.
    ///
    /// # Errors
    /// A part is unknown or breaks a limit.
    pub fn check(
        self,
        conversation: ConversationRef,
        limits: &Limits,
    ) -> Result<ConversationAction, ClientError> {
        if let Some(title) = &self.title {
            limits.title(title)?;
        }
        let update = UpdateConversation {
            title: self.title,
            status: self.status.as_deref().map(status).transpose()?.map(Into::into),
            channel: self.channel.as_deref().map(channel).transpose()?.map(Into::into),
            metadata_json: self
                .metadata
                .map(|metadata| limits.metadata(Some(metadata)))
                .transpose()?,
            read_only: self.read_only,
        };
        let users = |named: Vec<UserRef>| named.into_iter().map(|UserRef(user)| user).collect();
        Ok(ConversationAction::Update {
            conversation,
            update,
            participants: self.participants.map(users),
        })
    }
}

impl AddBody {
    /// The addition to this conversation.
    ///
    /// # Errors
    /// It names nobody, too many, or an unknown role.
    pub fn check(
        self,
        conversation: ConversationRef,
        limits: &Limits,
    ) -> Result<ConversationAction, ClientError> {
        let mut users = self.user_ids.unwrap_or_default();
        users.extend(self.user_id);
        if users.is_empty() {
            return Err(ClientError::invalid("neither user_id nor user_ids names anybody"));
        }
        limits.participants(users.len())?;
        Ok(ConversationAction::AddMembers {
            conversation,
            users: users.into_iter().map(|UserRef(user)| user).collect(),
            role: self.role.as_deref().map(role).transpose()?,
        })
    }
}

impl RoleBody {
    /// The role of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn check(&self) -> Result<Role, ClientError> {
        role(&self.role)
    }
}

/// The channel of that name.
///
/// # Errors
/// There is none.
pub fn channel(name: &str) -> Result<Channel, ClientError> {
    match name {
        "chat" => Ok(Channel::Chat),
        "voice" => Ok(Channel::Voice),
        "email" => Ok(Channel::Email),
        _ => Err(ClientError::invalid("channel is none of chat, voice, email")),
    }
}

/// The status of that name.
///
/// # Errors
/// There is none.
pub fn status(name: &str) -> Result<ConversationStatus, ClientError> {
    match name {
        "active" => Ok(ConversationStatus::Active),
        "archived" => Ok(ConversationStatus::Archived),
        "completed" => Ok(ConversationStatus::Completed),
        _ => Err(ClientError::invalid(
            "status is none of active, archived, completed",
        )),
    }
}

fn role(name: &str) -> Result<Role, ClientError> {
    match name {
        "member" => Ok(Role::Member),
        "moderator" => Ok(Role::Moderator),
        "admin" => Ok(Role::Admin),
        _ => Err(ClientError::invalid("role is none of member, moderator, admin")),
    }
}

fn no_kind() -> ClientError {
    ClientError::invalid("type is none of direct, group, chat, voice, email")
}

fn nobody() -> ClientError {
    ClientError::invalid("participant_ids names nobody but the caller")
}

/// A title that may be missing or empty.
fn own_title(title: Option<String>, limits: &Limits) -> Result<String, ClientError> {
    let title = title.unwrap_or_default();
    if !title.is_empty() {
        limits.title(&title)?;
    }
    Ok(title)
}

/// Everyone named but the creator, once.
fn others(creator: &UserId, named: Vec<UserRef>, limits: &Limits) -> Result<Vec<String>, ClientError> {
    limits.participants(named.len())?;
    let mut others = Vec::new();
    for UserRef(id) in named {
        if id != *creator && !others.contains(&id.to_string()) {
            others.push(id.to_string());
        }
    }
    Ok(others)
}

fn maybe_kind() -> Object {
    schema::nullable(schema::one_of(["direct", "group", "chat", "voice", "email"]))
}

/// The channels that may be named.
pub fn maybe_channel() -> Object {
    schema::nullable(schema::channels(|name| channel(name).is_ok()))
}

/// The statuses that may be named.
pub fn maybe_status() -> Object {
    schema::nullable(schema::statuses(|name| status(name).is_ok()))
}

fn roles() -> Object {
    schema::roles(|name| role(name).is_ok())
}

fn maybe_role() -> Object {
    schema::nullable(roles())
}
