//! What the ids of clients stand for.

use parlance_proto::v1;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::QueryError;
use crate::model::refusals::refuse;
use crate::store::resolve as store;

/// Ids in one question.
const MAX_IDS: usize = 1_000;

pub(super) async fn resolve(
    connection: &mut PgConnection,
    query: &v1::Resolve,
) -> Result<v1::Resolved, QueryError> {
    let v1::Resolve {
        conversation_numbers,
        message_ids,
    } = query;
    if conversation_numbers.len() > MAX_IDS || message_ids.len() > MAX_IDS {
        return Err(refuse(format!("more than {MAX_IDS} ids")).into());
    }
    let ids: Vec<Uuid> = message_ids
        .iter()
        .filter_map(|id| Uuid::try_parse(id).ok())
        .collect();
    let mut resolved = v1::Resolved::default();
    if !conversation_numbers.is_empty() {
        resolved.conversations = store::conversations(connection, conversation_numbers).await?;
    }
    if !ids.is_empty() {
        resolved.messages = store::messages(connection, &ids).await?;
    }
    Ok(resolved)
}
