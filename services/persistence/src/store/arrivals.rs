//! What a gateway must know of users who connect: who they are, and where they stand in their conversations. One
//! statement answers for all who arrive together.

use parlance_proto::v1;
use sqlx::PgConnection;
use uuid::Uuid;

use super::receipts::{LongCount, fill_long, unread_messages};
use super::seq_from;
use super::users::{Known, UserRow};

/// A user who arrives.
#[derive(Debug, Clone)]
pub struct Arriving {
    /// Who.
    pub user_id: String,
    /// The page that returns; empty where none does.
    pub page: String,
    /// Whether the memberships are wanted.
    pub memberships: bool,
    /// Only those in conversations with greater ids.
    pub after: Uuid,
}

/// A user who arrived.
pub struct Arrived {
    /// Its place among those who were asked for.
    pub place: usize,
    /// Who.
    pub known: Known,
    /// Where it was wanted.
    pub membership: Option<v1::Membership>,
}

#[derive(sqlx::FromRow)]
struct ArrivedRow {
    place: i64,
    #[sqlx(flatten)]
    user: UserRow,
    #[sqlx(flatten)]
    membership: MembershipRow,
}

#[derive(sqlx::FromRow)]
struct MembershipRow {
    conversations: Option<Vec<Uuid>>,
    unread: Vec<i64>,
    heads: Vec<i64>,
    delivered: Vec<i64>,
    served: Vec<i64>,
    listed: Vec<i64>,
    emitted_before: Vec<i64>,
}

#[derive(sqlx::FromRow)]
struct PartRow {
    user_id: String,
    memberships_version: i64,
    #[sqlx(flatten)]
    membership: MembershipRow,
}

/// The conversations that the user `u` belongs to now, journals left out, as `m`: of those after `$after`, at most
/// `$limit`, with what was emitted to `$page`; nothing unless `$wanted`. What was served is looked up for each: a plan made
/// while that table was small would else compare each of the user's conversations with all that the user was served.
macro_rules! memberships {
    ($wanted:literal, $page:literal, $after:literal, $limit:literal) => {
        concat!(
            "LATERAL
             (SELECT array_agg(x.conversation_id) AS conversations,
                     coalesce(array_agg(x.unread), '{}') AS unread, coalesce(array_agg(x.head_seq), '{}') AS heads,
                     coalesce(array_agg(x.delivered_seq), '{}') AS delivered,
                     coalesce(array_agg(x.served), '{}') AS served, coalesce(array_agg(x.listed), '{}') AS listed,
                     coalesce(array_agg(x.emitted_before), '{}') AS emitted_before
              FROM (SELECT p.conversation_id, n.unread, c.head_seq, p.delivered_seq, coalesce(s.seq, 0) AS served,
                           coalesce(s.listed_seq, 0) AS listed,
                           coalesce((s.pages -> ", $page, " ->> 0)::int8 + 1, 0) AS emitted_before
                    FROM participants p JOIN conversations c ON c.conversation_id = p.conversation_id
                    LEFT JOIN LATERAL (SELECT * FROM served x WHERE x.conversation_id = p.conversation_id
                                       AND x.user_id = p.user_id LIMIT 1) AS s ON true
                    CROSS JOIN ",
            unread_messages!("c.head_seq", "c.last_message_seq"),
            "       WHERE ", $wanted, " AND p.user_id = u.user_id AND p.left_seq IS NULL AND c.kind <> 3
                      AND p.conversation_id > ", $after, "
                    ORDER BY p.conversation_id LIMIT ", $limit, ") AS x) AS m"
        )
    };
}

/// Those of the users who live, with up to when an earlier session of each was surely told what was committed: while
/// it is open, a minute before the latest report of its gateway: in that time any dead connection is noticed.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn arrive(
    connection: &mut PgConnection,
    users: &[Arriving],
    limit: i64,
) -> Result<Vec<Arrived>, sqlx::Error> {
    // One statement, one snapshot: the set is exactly the version's.
    let mut rows: Vec<ArrivedRow> = sqlx::query_as(concat!(
        "SELECT a.place, u.user_id, u.number, u.username, u.memberships_version, u.agent,
                coalesce(u.token_name, u.username) AS token_name,
                EXISTS (SELECT FROM blocks b WHERE b.user_id = u.user_id)
                  OR EXISTS (SELECT FROM blocks b WHERE b.blocked_id = u.user_id) AS has_blocks,
                greatest(p.alive_at, (SELECT max((SELECT g.renewed_at FROM gateways g WHERE g.instance = s.gateway))
                                             - interval '60 seconds'
                                      FROM sessions s WHERE s.user_id = u.user_id)) AS seen_at,
                m.*
         FROM unnest($1::text[], $2::text[], $3::bool[], $4::uuid[]) WITH ORDINALITY
              AS a (user_id, page, wanted, after, place)
         JOIN users u ON u.user_id = a.user_id AND u.deleted_at IS NULL
         LEFT JOIN presence p ON p.user_id = u.user_id
         CROSS JOIN ",
        memberships!("a.wanted", "a.page", "a.after", "$5")
    ))
    .bind(users.iter().map(|user| user.user_id.as_str()).collect::<Vec<_>>())
    .bind(users.iter().map(|user| user.page.as_str()).collect::<Vec<_>>())
    .bind(users.iter().map(|user| user.memberships).collect::<Vec<_>>())
    .bind(users.iter().map(|user| user.after).collect::<Vec<_>>())
    .bind(limit + 1)
    .fetch_all(&mut *connection)
    .await?;
    let unread = rows
        .iter_mut()
        .flat_map(|row| counts(row.user.user_id(), &mut row.membership));
    fill_long(connection, unread).await?;
    let arrived = |ArrivedRow {
                       place,
                       user,
                       membership,
                   }: ArrivedRow| {
        let known = Known::try_from(user)?;
        // Counted from 1.
        let place = usize::try_from(place - 1).unwrap_or(usize::MAX);
        let wanted = users.get(place).is_some_and(|user| user.memberships);
        let (id, version) = (known.user.user_id.clone(), known.user.memberships_version);
        let membership = wanted.then(|| membership.into_wire(id, version, Some(limit)));
        Ok(Arrived {
            place,
            known,
            membership: membership.transpose()?,
        })
    };
    rows.into_iter().map(arrived).collect()
}

/// The conversations each living user belongs to now, journals left out, with what is unread in them.
///
/// # Errors
/// [`sqlx::Error`] if the query fails.
pub async fn memberships(
    connection: &mut PgConnection,
    ids: &[String],
) -> Result<Vec<v1::Membership>, sqlx::Error> {
    let mut rows: Vec<PartRow> = sqlx::query_as(concat!(
        "SELECT u.user_id, u.memberships_version, m.* FROM users u CROSS JOIN ",
        memberships!("true", "''", "'00000000-0000-0000-0000-000000000000'", "NULL"),
        " WHERE u.user_id = ANY($1) AND u.deleted_at IS NULL"
    ))
    .bind(ids)
    .fetch_all(&mut *connection)
    .await?;
    let unread = rows
        .iter_mut()
        .flat_map(|row| counts(&row.user_id, &mut row.membership));
    fill_long(connection, unread).await?;
    let membership =
        |PartRow {
             user_id,
             memberships_version,
             membership,
         }: PartRow| { membership.into_wire(user_id, seq_from(memberships_version)?, None) };
    rows.into_iter().map(membership).collect()
}

/// Creates these users where need be, and gives those who live the names that tokens say, if any. In the order of their
/// ids, so that writers do not block each other.
///
/// # Errors
/// [`sqlx::Error`] if the statement fails.
pub async fn provision(connection: &mut PgConnection, users: &[(&str, &str)]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO users AS u (user_id, username, token_name)
         SELECT DISTINCT ON (user_id) user_id, coalesce(nullif(said, ''), user_id), nullif(said, '')
         FROM unnest($1::text[], $2::text[]) AS new (user_id, said) ORDER BY user_id
         ON CONFLICT (user_id) DO UPDATE SET username = coalesce(excluded.token_name, u.username),
             token_name = coalesce(excluded.token_name, u.token_name), updated_at = now()
         WHERE u.deleted_at IS NULL",
    )
    .bind(users.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    .bind(users.iter().map(|(_, said)| *said).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// What is unread in each conversation, with where it is counted.
fn counts<'a>(
    user: &'a str,
    membership: &'a mut MembershipRow,
) -> impl Iterator<Item = (LongCount<'a>, &'a mut i64)> {
    let conversations = membership.conversations.iter().flatten();
    let each = conversations.zip(&membership.heads).zip(&mut membership.unread);
    each.map(move |((conversation, head_seq), unread)| {
        let count = LongCount {
            conversation: *conversation,
            user,
            head_seq: *head_seq,
            read: None,
        };
        (count, unread)
    })
}

impl MembershipRow {
    /// One more than the limit was asked for, to know whether there are more.
    fn into_wire(
        self,
        user_id: String,
        version: u64,
        limit: Option<i64>,
    ) -> Result<v1::Membership, sqlx::Error> {
        let Self {
            conversations,
            unread,
            heads,
            delivered,
            served,
            listed,
            emitted_before,
        } = self;
        let conversations = conversations.unwrap_or_default();
        let most = limit.and_then(|limit| usize::try_from(limit).ok());
        let most = most.unwrap_or(usize::MAX);
        let seqs = |seqs: Vec<i64>| {
            seqs.into_iter()
                .take(most)
                .map(seq_from)
                .collect::<Result<Vec<_>, _>>()
        };
        let last = most.checked_sub(1).filter(|_| conversations.len() > most);
        let next = last.and_then(|last| conversations.get(last));
        Ok(v1::Membership {
            user_id,
            version,
            next: next.map(Uuid::to_string).unwrap_or_default(),
            conversation_ids: conversations.iter().take(most).map(Uuid::to_string).collect(),
            unread: seqs(unread)?,
            head_seqs: seqs(heads)?,
            delivered_seqs: seqs(delivered)?,
            served_seqs: seqs(served)?,
            listed_seqs: seqs(listed)?,
            emitted_before: seqs(emitted_before)?,
        })
    }
}
