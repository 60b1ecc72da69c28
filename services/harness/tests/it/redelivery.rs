//! Redelivery of any processed command changes nothing and is answered as before: what was done, what changed nothing,
//! and what was refused.

use anyhow::ensure;
use parlance_harness::Stack;
use parlance_proto::v1::command::Body;
use parlance_proto::v1::{self, Command, ConversationKind, Role, confirmation};
use parlance_proto::{ConversationId, MessageId};
use sqlx::AssertSqlSafe;

use crate::hostile::{Answer, Gateway, add, as_, conversation, group, of_all_partitions, send, user};

/// All that a command may change.
const TABLES: [&str; 15] = [
    "users",
    "message_reports",
    "bans",
    "conversations",
    "conversation_numbers",
    "participants",
    "messages",
    "changes",
    "reactions",
    "threads",
    "hidden_messages",
    "message_edits",
    "journals",
    "journal_versions",
    "dead_letters",
];

async fn contents(stack: &Stack) -> anyhow::Result<Vec<String>> {
    let rows = stack.database().await?;
    let mut contents = Vec::new();
    for table in TABLES {
        let query = format!("SELECT string_agg(t::text, chr(10) ORDER BY t::text) FROM {table} t");
        let text: Option<String> = sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&rows).await?;
        contents.push(format!("{table}:\n{}", text.unwrap_or_default()));
    }
    Ok(contents)
}

/// By what the emitter distinguishes one outcome from another.
fn shape(answer: &Answer) -> String {
    match answer {
        Err(code) => format!("refused: {code:?}"),
        Ok(confirmation::Result::Message(message)) => format!("message {} {}", message.id, message.seq),
        Ok(confirmation::Result::Conversation(conversation)) => format!("conversation {}", conversation.id),
        Ok(confirmation::Result::Receipt(receipt)) => format!("receipt of {}", receipt.user_id),
        Ok(confirmation::Result::Thread(thread)) => format!("thread {}", thread.id),
        Ok(confirmation::Result::Journal(journal)) => format!("journal {}", journal.journal_id),
        Ok(confirmation::Result::Error(error)) => format!("error {error:?}"),
    }
}

/// Every kind of command: done, without effect, refused; each followed by what would let it work otherwise.
fn everything() -> Vec<Command> {
    let mut all = in_a_group(conversation());
    all.extend(in_two_lives(ConversationId::direct(&user("alice"), &user("bob"))));
    all.extend(in_a_journal(conversation()));
    let gone = conversation();
    all.extend([
        group("alice", gone, vec!["bob".into()]),
        as_("bob", gone, deletion()),
        as_("alice", gone, deletion()),
        as_("alice", gone, deletion()),
    ]);
    all
}

fn in_a_group(tea: ConversationId) -> Vec<Command> {
    let m1 = || MessageId::derive(tea, &user("alice"), "m1").to_string();
    let in_tea = |who: &str, body: Body| as_(who, tea, body);
    let edit = Body::EditMessage(v1::EditMessage {
        message_id: m1(),
        content: "edited".into(),
    });
    let delete = || Body::DeleteMessage(v1::DeleteMessage { message_id: m1() });
    let hide = Body::HideMessage(v1::HideMessage { message_id: m1() });
    let mute = |until_ms| {
        Body::MuteConversation(v1::MuteConversation {
            mute: Some(v1::Mute { until_ms }),
        })
    };
    let unmute = Body::MuteConversation(v1::MuteConversation { mute: None });
    let read = Body::MarkRead(v1::MarkRead {
        up_to_seq: 1_000_000,
        ..Default::default()
    });
    vec![
        group("alice", tea, vec!["bob".into()]),
        send("alice", tea, "m1"),
        send("alice", tea, "m1"),
        send("mallory", tea, "let me in"),
        in_tea("mallory", title("mine")),
        in_tea("alice", edit),
        in_tea("bob", reaction(m1(), false)),
        in_tea("bob", reaction(m1(), false)),
        in_tea("bob", reaction(m1(), true)),
        in_tea("bob", reaction(m1(), true)),
        in_tea("alice", reaction(m1(), false)),
        add("alice", tea, vec!["carol".into()]),
        add("alice", tea, vec!["carol".into()]),
        in_tea("alice", removal("carol")),
        in_tea("alice", title("A")),
        in_tea("alice", title("A")),
        in_tea("alice", title("B")),
        in_tea("alice", role_of_bob(Role::Moderator)),
        in_tea("alice", role_of_bob(Role::Moderator)),
        in_tea("alice", role_of_bob(Role::Member)),
        in_tea("bob", title("not an admin's")),
        in_tea("bob", read_only(true)),
        in_tea("alice", read_only(true)),
        send("bob", tea, "not while it is read-only"),
        in_tea("alice", read_only(false)),
        in_tea("bob", read),
        in_tea("bob", hide),
        in_tea("bob", report(m1())),
        in_tea("bob", report(m1())),
        in_tea("alice", report(m1())),
        in_tea("bob", mute(None)),
        in_tea("mallory", mute(None)),
        in_tea("bob", mute(Some(1))),
        in_tea("bob", unmute),
        in_tea("alice", thread()),
        in_tea("alice", thread()),
        in_tea("alice", delete()),
        in_tea("alice", delete()),
        in_tea("bob", reaction(m1(), false)),
        send("alice", tea, "m2"),
        send("carol", tea, "not any more"),
        in_tea("alice", role_of_bob(Role::Moderator)),
        add("alice", tea, vec!["mallory".into(), "carol".into()]),
        in_tea("carol", removal("carol")),
        in_tea("alice", ban("mallory")),
        in_tea("alice", ban("mallory")),
        in_tea("bob", ban("alice")),
        add("alice", tea, vec!["mallory".into()]),
        in_tea("alice", unban("mallory")),
        in_tea("alice", unban("mallory")),
        in_tea("alice", ban("carol")),
        in_tea("alice", unban("carol")),
    ]
}

fn in_two_lives(pair: ConversationId) -> Vec<Command> {
    let create = |who: &str, other: &str| {
        let create = v1::CreateConversation {
            kind: ConversationKind::Direct.into(),
            participant_ids: vec![other.into()],
            provision_users: true,
            ..Default::default()
        };
        as_(who, pair, Body::CreateConversation(create))
    };
    vec![
        create("alice", "bob"),
        send("alice", pair, "once"),
        send("alice", pair, "once"),
        as_("bob", pair, deletion()),
        send("alice", pair, "into the void"),
        create("bob", "alice"),
        send("alice", pair, "once"),
        send("alice", pair, "once"),
    ]
}

fn in_a_journal(diary: ConversationId) -> Vec<Command> {
    let create = v1::CreateConversation {
        kind: ConversationKind::Journal.into(),
        title: "diary".into(),
        provision_users: true,
        ..Default::default()
    };
    // The update that changes nothing.
    let edit = || Body::EditJournal(v1::EditJournal { update: vec![0, 0] });
    vec![
        as_("alice", diary, Body::CreateConversation(create)),
        as_("alice", diary, edit()),
        as_("bob", diary, edit()),
    ]
}

fn deletion() -> Body {
    Body::DeleteConversation(v1::DeleteConversation {})
}

fn removal(who: &str) -> Body {
    Body::RemoveMember(v1::RemoveMember { user_id: who.into() })
}

fn report(message_id: String) -> Body {
    Body::ReportMessage(v1::ReportMessage {
        message_id,
        reason: v1::ReportReason::Spam.into(),
        comment: String::new(),
    })
}

fn ban(who: &str) -> Body {
    Body::BanMember(v1::BanMember { user_id: who.into() })
}

fn unban(who: &str) -> Body {
    Body::UnbanMember(v1::UnbanMember { user_id: who.into() })
}

fn reaction(message_id: String, remove: bool) -> Body {
    Body::React(v1::React {
        message_id,
        emoji: "👍".into(),
        remove,
    })
}

fn title(title: &str) -> Body {
    Body::UpdateConversation(v1::UpdateConversation {
        title: Some(title.into()),
        ..Default::default()
    })
}

fn read_only(read_only: bool) -> Body {
    Body::UpdateConversation(v1::UpdateConversation {
        read_only: Some(read_only),
        ..Default::default()
    })
}

fn role_of_bob(role: Role) -> Body {
    Body::ChangeRole(v1::ChangeRole {
        user_id: "bob".into(),
        role: role.into(),
    })
}

fn thread() -> Body {
    Body::CreateThread(v1::CreateThread {
        thread_id: "00000000-0000-4000-8000-0000000000aa".into(),
        title: "aside".into(),
        ..Default::default()
    })
}

/// Whether nothing changes and all answers are the same when everything comes again, in this order and backwards.
pub(crate) async fn changes_nothing(points: &str) -> anyhow::Result<()> {
    let mut builder = Stack::builder().gateways(0).persistence(2);
    if !points.is_empty() {
        builder = builder.failpoints(points);
    }
    let stack = builder.start().await?;
    of_all_partitions(&stack, 2).await;
    let gateway = Gateway::connect(&stack).await;
    let commands = everything();
    let mut first = Vec::new();
    for command in &commands {
        first.push(shape(&gateway.ask(command).await));
    }
    let refused = first.iter().filter(|shape| shape.starts_with("refused")).count();
    ensure!(refused > 5 && refused < first.len() / 2, "{first:#?}");
    // A used client id in a later life of a conversation is another message.
    let once: Vec<&String> = commands
        .iter()
        .zip(&first)
        .filter(
            |(command, _)| matches!(&command.body, Some(Body::SendMessage(send)) if send.content == "once"),
        )
        .map(|(_, shape)| shape)
        .collect();
    ensure!(
        once[0] == once[1] && once[1] != once[2] && once[2] == once[3],
        "lives of a conversation: {once:?}"
    );
    let before = contents(&stack).await?;
    let backwards = (0..commands.len()).rev();
    for place in (0..commands.len()).chain(backwards) {
        let again = shape(&gateway.ask_again(&commands[place]).await);
        ensure!(
            again == first[place],
            "redelivery is answered otherwise: {:?}: {} and then {again}",
            commands[place],
            first[place]
        );
        let now = contents(&stack).await?;
        for (before, now) in before.iter().zip(&now) {
            ensure!(
                before == now,
                "redelivery changed something: {:?}\nbefore {before}\nnow {now}",
                commands[place]
            );
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn redelivery_of_any_processed_command_changes_nothing_and_is_answered_as_before() {
    changes_nothing("").await.unwrap();
}
