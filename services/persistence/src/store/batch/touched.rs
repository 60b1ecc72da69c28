//! The rows of the locked conversations that a batch's commands touch; each only where a command needs it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use parlance_proto::v1::{self, ConversationKind};
use parlance_proto::{CommandId, ConversationId, MessageId, UserId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::model::state::{Change, Loaded, Member, Person};
use crate::model::work::{Action, JournalName, MessageName, Work};
use crate::store::changes::{ChangeRow, change_columns};
use crate::store::kept::KeptJournals;
use crate::store::participants::role_from;
use crate::store::users::conversation_count;
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

/// The batch's actors and those whom commands name; who leads, where a command may change that; and everybody of those
/// conversations where a command needs that.
pub(super) async fn members(
    connection: &mut PgConnection,
    works: &[&Work],
    loaded: &mut Loaded,
) -> Result<(), sqlx::Error> {
    let mut leads: BTreeMap<Uuid, i64> = BTreeMap::new();
    // Whether they act: those whose account was deleted do not any more.
    let mut asked: BTreeMap<(Uuid, &str), bool> = BTreeMap::new();
    for work in works {
        let id = work.conversation.uuid();
        asked.insert((id, work.actor.id.as_str()), true);
        if !loaded.conversations.contains_key(&work.conversation) {
            continue;
        }
        for user in work.named_members() {
            asked.entry((id, user.as_str())).or_insert(false);
        }
        let dethroned = i64::try_from(work.dethroned()).unwrap_or(i64::MAX);
        if work.needs_all_members() {
            leads.insert(id, i64::MAX);
        } else if dethroned > 0 {
            // One more than those who may lose it.
            let lead = leads.entry(id).or_insert(1);
            *lead = lead.saturating_add(dethroned);
        }
    }
    asked.retain(|(id, _), _| leads.get(id) != Some(&i64::MAX));
    let mut rows: Vec<MemberRow> = Vec::new();
    if !asked.is_empty() {
        let (names, acting): (Vec<(Uuid, &str)>, Vec<bool>) = asked.into_iter().unzip();
        let (conversations, users): (Vec<Uuid>, Vec<&str>) = names.into_iter().unzip();
        let some: Vec<MemberRow> = sqlx::query_as(concat!(
            "SELECT ",
            member_columns!(),
            " FROM unnest($1::uuid[], $2::text[], $3::bool[]) AS asked (conversation_id, user_id, acts)
              CROSS JOIN LATERAL (SELECT * FROM participants x WHERE x.conversation_id = asked.conversation_id
                                  AND x.user_id = asked.user_id LIMIT 1) AS p
              JOIN users u ON u.user_id = asked.user_id
              WHERE p.left_seq IS NULL AND NOT (asked.acts AND u.deleted_at IS NOT NULL)"
        ))
        .bind(conversations)
        .bind(users)
        .bind(acting)
        .fetch_all(&mut *connection)
        .await?;
        rows.extend(some);
    }
    if !leads.is_empty() {
        // As an heir is chosen: admins, then moderators, then who is there longest.
        let leading: Vec<MemberRow> = sqlx::query_as(concat!(
            "SELECT ",
            member_columns!(),
            " FROM unnest($1::uuid[], $2::int8[]) AS asked (conversation_id, most)
              CROSS JOIN LATERAL (SELECT * FROM participants x
                                  WHERE x.conversation_id = asked.conversation_id AND x.left_seq IS NULL
                                  ORDER BY x.role = 3 DESC, x.role = 2 DESC, x.joined_seq, x.user_id COLLATE \"C\"
                                  LIMIT asked.most) AS p
              JOIN users u ON u.user_id = p.user_id"
        ))
        .bind(leads.keys().copied().collect::<Vec<_>>())
        .bind(leads.values().copied().collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
        rows.extend(leading);
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
    let mut sent: BTreeSet<(ConversationId, MessageId)> = BTreeSet::new();
    for work in works {
        let Some(state) = loaded.conversations.get(&work.conversation) else {
            continue;
        };
        if let Some(processed) = loaded.processed.get(&(work.conversation, work.id))
            && processed.seq > 0
        {
            places.insert((work.conversation.uuid(), seq_to(processed.seq)));
        }
        if let Action::Send(send) = &work.action {
            sent.insert((work.conversation, send.message));
            if state.history_from > 0 {
                let later = send.message.in_life(state.history_from);
                sent.insert((work.conversation, later));
                ids.insert((work.conversation, later));
            }
        }
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
    // Of those that are sent once more: rarely any.
    let mut repeated: Vec<(ConversationId, MessageId)> = Vec::new();
    for message in messages {
        let (id, conversation) = ids_of(&message)?;
        if sent.contains(&(conversation, id)) {
            repeated.push((conversation, id));
        }
        if let Some(state) = loaded.conversations.get_mut(&conversation) {
            state.put_message(id, message);
        }
    }
    if !repeated.is_empty() {
        loaded.sent_by = store::messages::sent_by(connection, &repeated).await?;
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
    kept: &KeptJournals,
) -> Result<(), sqlx::Error> {
    let is_journal = |id: &ConversationId| {
        loaded
            .conversations
            .get(id)
            .is_some_and(|state| state.kind == ConversationKind::Journal)
    };
    let edits: Vec<(ConversationId, CommandId)> = works
        .iter()
        .filter(|work| is_journal(&work.conversation) && matches!(work.action, Action::EditJournal(_)))
        .map(|work| (work.conversation, work.id))
        .collect();
    if edits.is_empty() {
        return Ok(());
    }
    let ids: BTreeSet<Uuid> = edits.iter().map(|(id, _)| id.uuid()).collect();
    let ids: Vec<Uuid> = ids.into_iter().collect();
    let mut journals = HashMap::new();
    for (id, version) in store::journals::present(connection, &ids).await? {
        let state = kept.take(ConversationId::from_uuid(id), &loaded.epoch, version);
        journals.extend(state.map(|state| (id, state)));
    }
    let unknown: Vec<Uuid> = ids.into_iter().filter(|id| !journals.contains_key(id)).collect();
    if !unknown.is_empty() {
        journals.extend(store::journals::states(connection, &unknown).await?);
    }
    for (id, edited) in store::journals::made_by(connection, &edits).await? {
        if let Some(journal) = journals.get_mut(&id) {
            journal.done.insert(edited.version, edited);
        }
    }
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
    let mut pairs: HashSet<(&str, &str)> = HashSet::new();
    let mut fresh: BTreeSet<ConversationId> = BTreeSet::new();
    let mut numbers: BTreeSet<i64> = BTreeSet::new();
    for work in works {
        let existing = loaded.conversations.get(&work.conversation);
        match &work.action {
            Action::Create(create) if existing.is_none_or(|state| state.deleted) => {
                users.extend(create.others.iter().map(UserId::as_str));
                users.insert(work.actor.id.as_str());
                let actor = work.actor.id.as_str();
                pairs.extend(create.others.iter().map(|other| (other.as_str(), actor)));
                if create.kind == ConversationKind::Direct {
                    pairs.extend(create.others.iter().map(|other| (actor, other.as_str())));
                }
                if existing.is_none() {
                    fresh.insert(work.conversation);
                }
            }
            Action::AddMembers(add) => {
                users.extend(add.users.iter().map(UserId::as_str));
                let actor = work.actor.id.as_str();
                pairs.extend(add.users.iter().map(|user| (user.as_str(), actor)));
            }
            Action::Ban(user) => {
                users.insert(user.as_str());
            }
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
        loaded.blocks = store::blocks::among(connection, &pairs).await?;
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

/// Which of the users that commands add, ban or let in again are banned, and how many are where one more may be.
pub(super) async fn bans(
    connection: &mut PgConnection,
    works: &[&Work],
    loaded: &mut Loaded,
) -> Result<(), sqlx::Error> {
    let mut users: BTreeSet<(Uuid, &str)> = BTreeSet::new();
    let mut counted: BTreeSet<Uuid> = BTreeSet::new();
    for work in works {
        let id = work.conversation.uuid();
        match &work.action {
            Action::AddMembers(add) => users.extend(add.users.iter().map(|user| (id, user.as_str()))),
            Action::Ban(user) => {
                users.insert((id, user.as_str()));
                counted.insert(id);
            }
            Action::Unban(user) => {
                users.insert((id, user.as_str()));
            }
            _ => {}
        }
    }
    store::bans::load(connection, &users, &counted, loaded).await
}

/// How many reports of those who report something are not settled.
pub(super) async fn open_reports(
    connection: &mut PgConnection,
    works: &[&Work],
) -> Result<HashMap<UserId, u64>, sqlx::Error> {
    let reporting = works
        .iter()
        .filter(|work| matches!(work.action, Action::Report(_)));
    let users: BTreeSet<&str> = reporting.map(|work| work.actor.id.as_str()).collect();
    store::reports::open_of(connection, &users).await
}

async fn load_users(
    connection: &mut PgConnection,
    ids: BTreeSet<&str>,
    loaded: &mut Loaded,
) -> Result<(), sqlx::Error> {
    let rows: Vec<(String, String, i64, bool, i64)> = sqlx::query_as(concat!(
        "SELECT u.user_id, u.username, u.number, u.deleted_at IS NOT NULL, ",
        conversation_count!(),
        " FROM users u WHERE u.user_id = ANY($1)"
    ))
    .bind(ids.into_iter().collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    for (id, username, number, deleted, conversations) in rows {
        let id = UserId::parse(id).map_err(|_| corrupt("a user id"))?;
        if deleted {
            loaded.deleted_users.insert(id);
        } else {
            loaded.memberships.insert(id.clone(), seq_from(conversations)?);
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
