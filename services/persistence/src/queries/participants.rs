//! Who is in a conversation: pages for those who are, and whether users are for gateways.

use parlance_proto::v1;
use parlance_proto::{ConversationId, UserId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::page::{check_user_cursor, cut_page_by_user, limit};
use super::{head, presence};
use crate::error::QueryError;
use crate::model::refusals::refuse;
use crate::store::participants as store;

/// Names in one question.
const MAX_NAMES: usize = 500;

/// By ascending user id, from a cursor on, each with how they are seen.
pub(super) async fn list(
    connection: &mut PgConnection,
    viewer: &str,
    query: &v1::ListParticipants,
) -> Result<v1::ParticipantPage, QueryError> {
    let head = head(connection, Some(viewer), &query.conversation_id).await?;
    check_user_cursor(&query.after)?;
    let limit = limit(query.limit);
    let mut participants =
        store::page(connection, head.id.uuid(), &query.after, i64::from(limit) + 1).await?;
    let next = cut_page_by_user(&mut participants, limit, |one| &one.user_id);
    presence::fill_participants(connection, viewer, &mut participants).await?;
    Ok(v1::ParticipantPage { participants, next })
}

/// Which of the users are in the conversations beside them.
pub(super) async fn find(
    connection: &mut PgConnection,
    query: &v1::FindMembers,
) -> Result<v1::FoundMembers, QueryError> {
    if query.names.len() > MAX_NAMES {
        return Err(refuse(format!("more than {MAX_NAMES} names")).into());
    }
    let names: Vec<Option<(Uuid, &str)>> = query
        .names
        .iter()
        .map(|name| {
            let id: ConversationId = name.conversation_id.parse().ok()?;
            UserId::parse(name.user_id.as_str()).ok()?;
            Some((id.uuid(), name.user_id.as_str()))
        })
        .collect();
    let known: Vec<(Uuid, &str)> = names.iter().copied().flatten().collect();
    let found = store::among(connection, &known).await?;
    let member = |name: Option<(Uuid, &str)>| v1::FoundMember {
        participant: name.and_then(|(id, user)| found.get(&(id, user.to_owned())).cloned()),
    };
    Ok(v1::FoundMembers {
        members: names.into_iter().map(member).collect(),
    })
}
