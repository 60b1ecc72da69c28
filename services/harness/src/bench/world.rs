//! Users, conversations and memberships: what a scenario starts from, written to the database in bulk.
//!
//! The tables differ between the systems, so this is the one place that knows them. Must not measure.

use anyhow::Context;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use uuid::Uuid;

/// Rows of one statement.
const CHUNK: usize = 50_000;
/// Makes ids that no server makes.
const FIRST_ID: u128 = 0x0190_0000_0000_7000_8000_0000_0000_0000;

/// Which system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Contender {
    /// This repository's services, Postgres and NATS.
    Parlance,
    /// The stock stack for Node.js: socket.io, Redis adapter, Express, pg.
    Node,
}

impl Contender {
    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Parlance => "parlance",
            Self::Node => "node",
        }
    }
}

/// One conversation.
#[derive(Clone, Debug)]
pub struct Room {
    /// Its id, as text.
    pub id: String,
    /// Indexes of its members; the first one sends.
    pub members: Vec<u32>,
}

/// Users and conversations of one run.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// How many users.
    pub users: u32,
    /// The conversations.
    pub rooms: Vec<Room>,
    /// Messages stored in each conversation from the start.
    pub history: u32,
}

impl World {
    /// So many groups of so many members each, no user in two.
    #[must_use]
    pub fn groups(count: u32, members: u32) -> Self {
        let rooms = (0..count).map(|group| (group * members..(group + 1) * members).collect());
        Self::of(count * members, rooms)
    }

    /// Each user in so many conversations of two, with the users next to it.
    #[must_use]
    pub fn pairs(users: u32, conversations: u32) -> Self {
        if conversations == 1 {
            return Self::groups(users / 2, 2);
        }
        let with =
            |user: u32| (1..=conversations / 2).map(move |distance| vec![user, (user + distance) % users]);
        Self::of(users, (0..users).flat_map(with))
    }

    fn of(users: u32, rooms: impl Iterator<Item = Vec<u32>>) -> Self {
        let rooms = (0..).zip(rooms).map(|(index, members)| Room {
            id: room_id(index),
            members,
        });
        Self {
            users,
            rooms: rooms.collect(),
            history: 0,
        }
    }

    /// So many conversations, all users in each of them.
    #[must_use]
    pub fn shared(users: u32, conversations: u32) -> Self {
        Self::of(users, (0..conversations).map(|_| (0..users).collect()))
    }

    /// So many messages in each conversation from the start.
    #[must_use]
    pub fn history(self, messages: u32) -> Self {
        Self {
            history: messages,
            ..self
        }
    }

    /// Both beside each other; the users and conversations of `other` come last.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        for room in &other.rooms {
            self.rooms.push(Room {
                id: room_id(self.rooms.len() as u128),
                members: room.members.iter().map(|member| member + self.users).collect(),
            });
        }
        self.users += other.users;
        self
    }

    /// The id of a user.
    #[must_use]
    pub fn user(index: u32) -> String {
        format!("user-{index}")
    }

    /// For each user the indexes of its conversations.
    #[must_use]
    pub fn rooms_of_users(&self) -> Vec<Vec<u32>> {
        let mut found = vec![vec![]; self.users as usize];
        for (index, room) in (0..).zip(&self.rooms) {
            for member in &room.members {
                found[*member as usize].push(index);
            }
        }
        found
    }

    /// Writes it to an empty database and lets Postgres look at it.
    ///
    /// # Errors
    /// A statement fails.
    pub async fn store(&self, contender: Contender, database: &PgPool) -> anyhow::Result<()> {
        let tables = Tables::of(contender);
        let users: Vec<_> = (0..self.users).map(Self::user).collect();
        for chunk in users.chunks(CHUNK) {
            run(database, tables.users, |query| query.bind(chunk)).await?;
        }
        let ids: Vec<_> = self.rooms.iter().map(|room| room.id.as_str()).collect();
        for chunk in ids.chunks(CHUNK) {
            for statement in tables.rooms {
                run(database, statement, |query| query.bind(chunk)).await?;
            }
        }
        let members = |room: &Room| {
            let id = room.id.clone();
            let members = room.members.clone();
            members
                .into_iter()
                .map(move |member| (id.clone(), Self::user(member)))
        };
        let members: Vec<_> = self.rooms.iter().flat_map(members).collect();
        for chunk in members.chunks(CHUNK) {
            let (rooms, users): (Vec<_>, Vec<_>) = chunk.iter().cloned().unzip();
            run(database, tables.members, |query| query.bind(rooms).bind(users)).await?;
        }
        if self.history > 0 {
            for statement in tables.history {
                run(database, statement, |query| query.bind(i64::from(self.history))).await?;
            }
        }
        for statement in ["VACUUM ANALYZE", "CHECKPOINT"] {
            sqlx::query(statement).execute(database).await?;
        }
        Ok(())
    }
}

fn room_id(index: u128) -> String {
    Uuid::from_u128(FIRST_ID + index).to_string()
}

type Query = sqlx::query::Query<'static, sqlx::Postgres, sqlx::postgres::PgArguments>;

async fn run(
    database: &PgPool,
    statement: &'static str,
    bind: impl FnOnce(Query) -> Query,
) -> anyhow::Result<()> {
    bind(sqlx::query(statement))
        .execute(database)
        .await
        .context("cannot store users and conversations")?;
    Ok(())
}

/// Statements that fill the tables of one system. The first member of a conversation made it.
struct Tables {
    /// $1: ids of users.
    users: &'static str,
    /// $1: ids of conversations.
    rooms: &'static [&'static str],
    /// $1: ids of conversations, $2: of the members in the same places.
    members: &'static str,
    /// $1: messages of each conversation.
    history: &'static [&'static str],
}

impl Tables {
    fn of(contender: Contender) -> Self {
        match contender {
            Contender::Parlance => PARLANCE,
            Contender::Node => NODE,
        }
    }
}

const PARLANCE: Tables = Tables {
    users: "INSERT INTO users (user_id, username, token_name) SELECT id, id, id FROM unnest($1::text[]) AS id",
    rooms: &[
        "INSERT INTO conversations (conversation_id, number, kind, title, created_by, created_by_command, created_at,
                                    updated_at)
         SELECT id::uuid, nextval('conversation_number'), 2, 'Group', 'user-0', gen_random_uuid(), now(), now()
         FROM unnest($1::text[]) AS id",
        "INSERT INTO conversation_numbers (number, conversation_id)
         SELECT number, conversation_id FROM conversations WHERE conversation_id = ANY ($1::text[]::uuid[])",
    ],
    members: "INSERT INTO participants (conversation_id, user_id, role)
              SELECT room::uuid, member, 1 FROM unnest($1::text[], $2::text[]) AS new (room, member)",
    history: &[
        "INSERT INTO messages (conversation_id, seq, message_id, sender_id, sender_kind, type, content, created_at)
         SELECT c.conversation_id, seq, gen_random_uuid(),
                (SELECT min(user_id) FROM participants p WHERE p.conversation_id = c.conversation_id), 1, 1,
                'a message of the past', now()
         FROM conversations c CROSS JOIN generate_series(1, $1::bigint) AS seq",
        "UPDATE conversations SET head_seq = $1, last_message_seq = $1",
        "UPDATE participants SET delivered_seq = $1",
    ],
};

const NODE: Tables = Tables {
    users: "INSERT INTO users (id, username) SELECT id, id FROM unnest($1::text[]) AS id",
    rooms: &["INSERT INTO chats (id, title) SELECT id::uuid, 'Group' FROM unnest($1::text[]) AS id"],
    members: "INSERT INTO chat_participants (chat_id, user_id)
              SELECT room::uuid, member FROM unnest($1::text[], $2::text[]) AS new (room, member)",
    history: &["INSERT INTO messages (id, chat_id, sender_id, content, created_at)
         SELECT gen_random_uuid(), c.id, (SELECT min(user_id) FROM chat_participants p WHERE p.chat_id = c.id),
                'a message of the past', now() + seq * interval '1 microsecond'
         FROM chats c CROSS JOIN generate_series(1, $1::bigint) AS seq"],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worlds_beside_each_other_share_neither_users_nor_conversations() {
        let world = World::groups(2, 3).and(&World::groups(1, 2));
        assert_eq!(world.users, 8);
        assert_eq!(world.rooms[2].members, [6, 7]);
        assert_ne!(world.rooms[2].id, world.rooms[0].id);
        assert!(world.rooms_of_users().iter().all(|rooms| rooms.len() == 1));
    }

    #[test]
    fn users_have_as_many_conversations_as_asked_for_and_no_pair_has_two() {
        for conversations in [1, 2, 20, 200] {
            let world = World::pairs(1_000, conversations);
            assert_eq!(world.rooms.len() as u32, 1_000 * conversations / 2);
            let rooms = world.rooms_of_users();
            assert!(rooms.iter().all(|rooms| rooms.len() as u32 == conversations));
            let mut pairs: Vec<_> = world.rooms.iter().map(|room| room.members.clone()).collect();
            pairs.iter_mut().for_each(|pair| pair.sort_unstable());
            pairs.sort_unstable();
            pairs.dedup();
            assert_eq!(pairs.len(), world.rooms.len());
        }
    }
}
