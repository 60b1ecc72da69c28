//! The rows of the locked conversations that a batch's commands touch; each only where a command needs it.

use std::collections::{BTreeMap, BTreeSet};

use parlance_proto::v1::{self, ConversationKind};
use parlance_proto::{CommandId, ConversationId, MessageId, UserId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::ingest::state::{Change, JournalState, Loaded, Member, Person};
use crate::ingest::work::{Action, EditJournal, JournalName, MessageName, Work};
use crate::store::changes::{ChangeRow, change_columns};
use crate::store::participants::role_from;
use crate::store::{self, corrupt, seq_from, seq_to};

#[derive(sqlx::FromRow)]
struct MemberRow {
    conversation_id: Uuid,
    user_id: String,
    role: i16,
    joined_seq: i64,
    username: String,
    number: i64,
    read_seqs: String,
    delivered_seq: i64,
    receipts_version: i64,
}

#[derive(sqlx::FromRow)]
struct MadeRow {
    conversation_id: Uuid,
    command_id: Uuid,
    #[sqlx(flatten)]
    change: ChangeRow,
}

macro_rules! member_columns {
    () => {
        "p.conversation_id, p.user_id, p.role, p.joined_seq, u.username, u.number, p.read_seqs::text AS read_seqs,
         p.delivered_seq, p.receipts_version"
    };
}

/// The batch's actors, and everybody of those conversations where a command needs that.
pub(super) async fn members(
    connection: &mut PgConnection,
    works: &[&Work],
    loaded: &mut Loaded,
) -> Result<(), sqlx::Error> {
    let whole: BTreeSet<Uuid> = works
        .iter()
        .filter(|work| work.needs_all_members())
        .map(|work| work.conversation.uuid())
        .collect();
    let asked: BTreeSet<(Uuid, &str)> = works
        .iter()
        .map(|work| (work.conversation.uuid(), work.actor.id.as_str()))
        .filter(|(id, _)| !whole.contains(id))
        .collect();
    let mut rows: Vec<MemberRow> = Vec::new();
    if !asked.is_empty() {
        let (conversations, users): (Vec<Uuid>, Vec<&str>) = asked.into_iter().unzip();
        let some: Vec<MemberRow> = sqlx::query_as(concat!(
            "SELECT ",
            member_columns!(),
            " FROM unnest($1::uuid[], $2::text[]) AS asked (conversation_id, user_id)
              CROSS JOIN LATERAL (SELECT * FROM participants x WHERE x.conversation_id = asked.conversation_id
                                  AND x.user_id = asked.user_id LIMIT 1) AS p
              JOIN users u ON u.user_id = asked.user_id
              WHERE p.left_seq IS NULL AND u.deleted_at IS NULL"
        ))
        .bind(conversations)
        .bind(users)
        .fetch_all(&mut *connection)
        .await?;
        rows.extend(some);
    }
    if !whole.is_empty() {
        let all: Vec<MemberRow> = sqlx::query_as(concat!(
            "SELECT ",
            member_columns!(),
            " FROM participants p JOIN users u USING (user_id)
              WHERE p.conversation_id = ANY($1) AND p.left_seq IS NULL"
        ))
        .bind(whole.into_iter().collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
        rows.extend(all);
    }
    for row in rows {
        let conversation = ConversationId::from_uuid(row.conversation_id);
        let (user, member) = row.try_into()?;
        if let Some(state) = loaded.conversations.get_mut(&conversation) {
            state.members.insert(user, member);
        }
    }
    Ok(())
}

impl TryFrom<MemberRow> for (UserId, Member) {
    type Error = sqlx::Error;

    fn try_from(row: MemberRow) -> Result<Self, sqlx::Error> {
        let MemberRow {
            conversation_id: _,
            user_id,
            role,
            joined_seq,
            username,
            number,
            read_seqs,
            delivered_seq,
            receipts_version,
        } = row;
        let member = Member {
            role: role_from(role)?,
            person: Person { username, number },
            joined_seq: seq_from(joined_seq)?,
            read: read_seqs.parse().map_err(|_| corrupt("read_seqs"))?,
            delivered_seq: seq_from(delivered_seq)?,
            receipts_version: seq_from(receipts_version)?,
        };
        let user = UserId::parse(user_id).map_err(|_| corrupt("a participant's user id"))?;
        Ok((user, member))
    }
}

/// The messages and threads that commands name.
pub(super) async fn messages_and_threads(
    connection: &mut PgConnection,
    works: &[&Work],
    loaded: &mut Loaded,
) -> Result<(), sqlx::Error> {
    let mut ids: BTreeSet<(ConversationId, MessageId)> = BTreeSet::new();
    let mut places: BTreeSet<(Uuid, i64)> = BTreeSet::new();
    let mut threads: BTreeSet<(Uuid, Uuid)> = BTreeSet::new();
    for work in works
        .iter()
        .filter(|work| loaded.conversations.contains_key(&work.conversation))
    {
        for name in work.named_messages() {
            match name {
                MessageName::Id(id) => drop(ids.insert((work.conversation, id))),
                MessageName::Seq(seq) => drop(places.insert((work.conversation.uuid(), seq_to(seq)))),
            }
        }
        threads.extend(
            work.named_threads()
                .into_iter()
                .map(|thread| (work.conversation.uuid(), thread)),
        );
    }
    let mut messages = Vec::new();
    if !ids.is_empty() {
        messages.extend(store::messages::by_id(connection, &ids.into_iter().collect::<Vec<_>>()).await?);
    }
    if !places.is_empty() {
        messages.extend(store::messages::by_seq(connection, &places.into_iter().collect::<Vec<_>>()).await?);
    }
    for message in messages {
        let (id, conversation) = ids_of(&message)?;
        if let Some(state) = loaded.conversations.get_mut(&conversation) {
            state.put_message(id, message);
        }
    }
    if !threads.is_empty() {
        for (seq, thread) in
            store::threads::by_id(connection, &threads.into_iter().collect::<Vec<_>>()).await?
        {
            let conversation = thread
                .conversation_id
                .parse()
                .map_err(|_| corrupt("a conversation id"))?;
            let id = Uuid::try_parse(&thread.id).map_err(|_| corrupt("a thread id"))?;
            if let Some(state) = loaded.conversations.get_mut(&conversation) {
                state.threads.insert(id, (seq, thread));
            }
        }
    }
    Ok(())
}

/// The changes that commands of the batch made before.
pub(super) async fn changes(
    connection: &mut PgConnection,
    works: &[&Work],
    loaded: &mut Loaded,
) -> Result<(), sqlx::Error> {
    let mut asked: Vec<(Uuid, Uuid)> = Vec::new();
    for work in works {
        let ids = (0..work.max_changes()).map(|index| work.change_id(index).uuid());
        asked.extend(ids.map(|id| (work.conversation.uuid(), id)));
    }
    if asked.is_empty() {
        return Ok(());
    }
    let (conversations, commands): (Vec<Uuid>, Vec<Uuid>) = asked.into_iter().unzip();
    let rows: Vec<MadeRow> = sqlx::query_as(concat!(
        "SELECT x.conversation_id, x.command_id, ",
        change_columns!(),
        " FROM unnest($1::uuid[], $2::uuid[]) AS asked (conversation_id, command_id)
          CROSS JOIN LATERAL (SELECT * FROM changes c WHERE c.conversation_id = asked.conversation_id
                              AND c.command_id = asked.command_id LIMIT 1) AS x"
    ))
    .bind(conversations)
    .bind(commands)
    .fetch_all(connection)
    .await?;
    for MadeRow {
        conversation_id,
        command_id,
        change,
    } in rows
    {
        let change: Change = change.try_into()?;
        if let Some(state) = loaded
            .conversations
            .get_mut(&ConversationId::from_uuid(conversation_id))
        {
            state.changes.insert(CommandId::from_uuid(command_id), change);
        }
    }
    Ok(())
}

/// The documents that commands edit, with the versions their editors saw.
pub(super) async fn journals(
    connection: &mut PgConnection,
    works: &[&Work],
    loaded: &mut Loaded,
) -> Result<(), sqlx::Error> {
    let is_journal = |id: &ConversationId| {
        loaded
            .conversations
            .get(id)
            .is_some_and(|state| state.kind == ConversationKind::Journal)
    };
    let edits: Vec<(&&Work, &EditJournal)> = works
        .iter()
        .filter(|work| is_journal(&work.conversation))
        .filter_map(|work| match &work.action {
            Action::EditJournal(edit) => Some((work, edit)),
            _ => None,
        })
        .collect();
    if edits.is_empty() {
        return Ok(());
    }
    let ids: BTreeSet<Uuid> = edits.iter().map(|(work, _)| work.conversation.uuid()).collect();
    let mut journals = store::journals::states(connection, &ids.into_iter().collect::<Vec<_>>()).await?;
    let mut earlier: BTreeSet<(Uuid, u64)> = BTreeSet::new();
    for (work, edit) in &edits {
        let EditJournal::Content {
            base_version: base @ 1..,
            ..
        } = edit
        else {
            continue;
        };
        let id = work.conversation.uuid();
        match journals.get_mut(&id) {
            // An edit earlier in the batch may make the present document an earlier one.
            Some(journal) if *base >= journal.version => {
                journal.bases.insert(*base, vec![journal.state.clone()]);
            }
            _ => drop(earlier.insert((id, *base))),
        }
    }
    let earlier: Vec<_> = earlier.into_iter().collect();
    for ((id, base), updates) in store::journals::bases(connection, &earlier).await? {
        if let Some(journal) = journals.get_mut(&id) {
            journal.bases.insert(base, updates);
        }
    }
    let commands: Vec<_> = edits
        .iter()
        .map(|(work, _)| (work.conversation, work.id))
        .collect();
    for (id, edited) in store::journals::made_by(connection, &commands).await? {
        if let Some(journal) = journals.get_mut(&id) {
            journal.done.insert(edited.version, edited);
        }
    }
    let journals: BTreeMap<Uuid, JournalState> = journals.into_iter().collect();
    for (id, journal) in journals {
        if let Some(state) = loaded.conversations.get_mut(&ConversationId::from_uuid(id)) {
            state.journal = Some(journal);
        }
    }
    Ok(())
}

/// The users that creations and additions name, numbers for new conversations, journals named by number.
pub(super) async fn people_and_numbers(
    connection: &mut PgConnection,
    works: &[&Work],
    loaded: &mut Loaded,
) -> Result<(), sqlx::Error> {
    let mut users: BTreeSet<&str> = BTreeSet::new();
    let mut fresh: BTreeSet<ConversationId> = BTreeSet::new();
    let mut numbers: BTreeSet<i64> = BTreeSet::new();
    for work in works {
        let existing = loaded.conversations.get(&work.conversation);
        match &work.action {
            Action::Create(create) if existing.is_none_or(|state| state.deleted) => {
                users.extend(create.others.iter().map(UserId::as_str));
                users.insert(work.actor.id.as_str());
                if existing.is_none() {
                    fresh.insert(work.conversation);
                }
            }
            Action::AddMembers(add) => users.extend(add.users.iter().map(UserId::as_str)),
            Action::Send(send) => {
                if let Some(JournalName::Number(number)) = send.journal {
                    numbers.insert(number);
                }
            }
            _ => {}
        }
    }
    if !users.is_empty() {
        load_users(connection, users, loaded).await?;
    }
    if !fresh.is_empty() {
        loaded.numbers =
            sqlx::query_scalar("SELECT nextval('conversation_number') FROM generate_series(1, $1::int8)")
                .bind(i64::try_from(fresh.len()).unwrap_or(i64::MAX))
                .fetch_all(&mut *connection)
                .await?;
    }
    if !numbers.is_empty() {
        let numbers: Vec<i64> = numbers.into_iter().collect();
        for v1::ResolvedConversation {
            number,
            conversation_id,
        } in store::resolve::conversations(connection, &numbers).await?
        {
            let id = conversation_id
                .parse()
                .map_err(|_| corrupt("a conversation id"))?;
            loaded.journals_by_number.insert(number, id);
        }
    }
    Ok(())
}

async fn load_users(
    connection: &mut PgConnection,
    ids: BTreeSet<&str>,
    loaded: &mut Loaded,
) -> Result<(), sqlx::Error> {
    let rows: Vec<(String, String, i64, bool)> = sqlx::query_as(
        "SELECT user_id, username, number, deleted_at IS NOT NULL FROM users WHERE user_id = ANY($1)",
    )
    .bind(ids.into_iter().collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    for (id, username, number, deleted) in rows {
        let id = UserId::parse(id).map_err(|_| corrupt("a user id"))?;
        if deleted {
            loaded.deleted_users.insert(id);
        } else {
            loaded.users.insert(id, Person { username, number });
        }
    }
    Ok(())
}

fn ids_of(message: &v1::Message) -> Result<(MessageId, ConversationId), sqlx::Error> {
    let id = message.id.parse().map_err(|_| corrupt("a message id"))?;
    let conversation = message
        .conversation_id
        .parse()
        .map_err(|_| corrupt("a conversation id"))?;
    Ok((id, conversation))
}
