//! Conversations and their participants: made, changed, ended.

use parlance_proto::v1::{
    AddMembers, BanMember, ChangeRole, ConversationKind, CreateConversation, DeleteConversation,
    RemoveMember, Role, UnbanMember, command,
};
use parlance_proto::{ConversationId, UserId};

use super::{Performing, Planned};
use crate::dialect::ConversationAction;
use crate::error::ClientError;

impl Performing<'_> {
    pub(super) async fn change_conversation(
        &self,
        action: ConversationAction,
    ) -> Result<Planned, ClientError> {
        let (id, body) = match action {
            ConversationAction::Create(create) => self.create_conversation(create)?,
            ConversationAction::Update {
                conversation,
                update,
                participants,
            } => {
                let id = self.core.conversation(conversation).await?;
                if let Some(users) = participants {
                    self.set_members(id, users).await?;
                }
                (id, command::Body::UpdateConversation(update))
            }
            ConversationAction::Delete(conversation) => {
                let id = self.core.conversation(conversation).await?;
                (id, command::Body::DeleteConversation(DeleteConversation {}))
            }
            ConversationAction::AddMembers {
                conversation,
                users,
                role,
            } => {
                let id = self.core.conversation(conversation).await?;
                (id, self.add_members(&users, role))
            }
            ConversationAction::ChangeRole {
                conversation,
                user,
                role,
            } => (
                self.core.conversation(conversation).await?,
                change_role(&user, role),
            ),
            ConversationAction::RemoveMember { conversation, user } => {
                (self.core.conversation(conversation).await?, remove_member(&user))
            }
            ConversationAction::Ban {
                conversation,
                user,
                banned,
            } => (self.core.conversation(conversation).await?, ban(&user, banned)),
        };
        Ok(Planned::command(id, body))
    }

    /// Two users have one direct conversation, whichever of them makes it.
    fn create_conversation(
        &self,
        mut create: CreateConversation,
    ) -> Result<(ConversationId, command::Body), ClientError> {
        create.provision_users = self.core.provision;
        let id = match &create.participant_ids[..] {
            [other] if create.kind() == ConversationKind::Direct => {
                ConversationId::direct(&self.user.id, &UserId::parse(other.as_str())?)
            }
            _ => self.new_conversation(),
        };
        Ok((id, command::Body::CreateConversation(create)))
    }

    /// The id of the conversation or journal that is made.
    pub(super) fn new_conversation(&self) -> ConversationId {
        ConversationId::from_uuid(self.change.id_of("conversation"))
    }

    pub(super) fn add_members(&self, users: &[UserId], role: Option<Role>) -> command::Body {
        command::Body::AddMembers(AddMembers {
            user_ids: users.iter().map(ToString::to_string).collect(),
            role: role.unwrap_or_default().into(),
            provision_users: self.core.provision,
            change_present: role.is_some(),
            leave_out_blocking: false,
        })
    }

    /// Makes these users, and oneself, all that belong to a group: adds the missing and removes the others, one command after
    /// the other. Each is authorized by itself; a repeat goes on where a failed one ended. What they are depends on the present
    /// participants, so that they cannot be carried out once for a key.
    async fn set_members(&self, id: ConversationId, users: Vec<UserId>) -> Result<(), ClientError> {
        if self.change.is_keyed() {
            let message = "participants takes no Idempotency-Key, because who is added and removed depends on who is there; \
                           repeat it without one, or change each participant by a request of its own";
            return Err(ClientError::invalid(message));
        }
        let (backend, limits) = (&self.core.backend, &self.core.limits);
        limits.participants(users.len())?;
        let mut wanted = vec![self.user.id.clone()];
        for user in users {
            if !wanted.contains(&user) {
                wanted.push(user);
            }
        }
        let conversation = backend.conversation(Some(self.user.actor()), id).await?;
        let kind = conversation.kind();
        let participants = if conversation.participants_complete {
            conversation.participants
        } else {
            let most = limits.most_participants();
            backend.all_participants(self.user.actor(), id, most).await?
        };
        let mut present = Vec::with_capacity(participants.len());
        for participant in participants {
            present.push(UserId::parse(participant.user_id)?);
        }
        let surplus: Vec<&UserId> = present.iter().filter(|user| !wanted.contains(user)).collect();
        let mut missing = wanted.clone();
        missing.retain(|user| !present.contains(user));
        if missing.is_empty() && surplus.is_empty() {
            return Ok(());
        }
        if kind != ConversationKind::Group {
            let message = "the participants of a direct conversation cannot be changed";
            return Err(ClientError::invalid(message));
        }
        // More than a page of members cannot be compared.
        limits.participants(present.len())?;
        if !missing.is_empty() {
            self.execute(id, self.add_members(&missing, None)).await?;
        }
        for user in surplus {
            self.execute(id, remove_member(user)).await?;
        }
        Ok(())
    }
}

pub(super) fn change_role(user: &UserId, role: Role) -> command::Body {
    command::Body::ChangeRole(ChangeRole {
        user_id: user.to_string(),
        role: role.into(),
    })
}

fn ban(user: &UserId, banned: bool) -> command::Body {
    let user_id = user.to_string();
    match banned {
        true => command::Body::BanMember(BanMember { user_id }),
        false => command::Body::UnbanMember(UnbanMember { user_id }),
    }
}

pub(super) fn remove_member(user: &UserId) -> command::Body {
    command::Body::RemoveMember(RemoveMember {
        user_id: user.to_string(),
    })
}
