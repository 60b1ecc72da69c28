//! Who comes, goes and leads; what they and others hear of it.

use parlance_persistence::ingest::answer::Answer;
use parlance_proto::v1::{self, ErrorCode, Role, command, event, query, reply, user_notice};

use crate::database::with_database;
use crate::queries::{answered, ask, events, queries};
use crate::works::{add, code, command, conversation, creation, direct, read, sending, view, work};

fn remove(who: &str, id: parlance_proto::ConversationId, user: &str) -> v1::Command {
    command(
        who,
        id,
        command::Body::RemoveMember(v1::RemoveMember { user_id: user.into() }),
    )
}

fn change_role(who: &str, id: parlance_proto::ConversationId, user: &str, role: Role) -> v1::Command {
    command(
        who,
        id,
        command::Body::ChangeRole(v1::ChangeRole {
            user_id: user.into(),
            role: role.into(),
        }),
    )
}

fn roles(view: &v1::Conversation) -> Vec<(&str, Role)> {
    view.participants
        .iter()
        .map(|p| (p.user_id.as_str(), p.role()))
        .collect()
}

/// Whom the notices go to, and whether they gain the conversation.
fn notices(answer: &Answer) -> Vec<(&str, bool, u64)> {
    let gains =
        |notice: &v1::UserNotice| matches!(notice.body, Some(user_notice::Body::ConversationAdded(_)));
    let each = answer.notices.iter().flat_map(|notice| {
        let one = (!notice.user_id.is_empty()).then_some((&notice.user_id, notice.memberships_version));
        let several = notice
            .users
            .iter()
            .map(|user| (&user.user_id, user.memberships_version));
        one.into_iter()
            .chain(several)
            .map(move |(user, version)| (user.as_str(), gains(notice), version))
    });
    each.collect()
}

#[tokio::test]
async fn newcomers_see_the_history_and_owe_no_reading_of_it() {
    with_database(async |mut db| {
        let id = conversation();
        db.commit(&[
            work(&creation("alice", id, &["bob"])),
            work(&sending("alice", id, "m1", "one")),
            work(&sending("bob", id, "m2", "two")),
        ])
        .await;
        let adding = add("alice", id, &["carol", "bob"]);
        let answers = db
            .commit(&[work(&adding), work(&sending("alice", id, "m3", "three"))])
            .await;
        assert_eq!(notices(&answers[0]), [("carol", true, 1)]);
        let Some(event::Body::MembersAdded(added)) = &answers[0].events[0].body else {
            panic!("{answers:?}")
        };
        let carol = &added.members[0];
        assert_eq!(
            (
                answers[0].events[0].seq,
                added.members.len(),
                carol.user_id.as_str()
            ),
            (3, 1, "carol")
        );
        assert_eq!((carol.username.as_str(), carol.number), ("carol", 3));
        let queries = queries(&db).await;
        let get = query::Body::GetConversation(v1::GetConversation {
            conversation_id: id.to_string(),
            client: None,
        });
        let seen = answered!(ask(&queries, "carol", get).await, Conversation);
        assert_eq!((seen.unread, seen.head_seq, seen.participants.len()), (1, 4, 3));
        let log = answered!(
            ask(&queries, "carol", events(&id.to_string(), 0, 0)).await,
            Events
        );
        assert_eq!(log.events.iter().map(|e| e.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(log.events[2], answers[0].events[0]);
        // The same command and the same wish once more.
        let again = db
            .commit(&[
                work(&adding),
                work(&add("bob", id, &["dave"])),
                work(&add("alice", id, &["bob"])),
            ])
            .await;
        assert!(again[0].repeated && again[0].events == answers[0].events);
        assert_eq!(notices(&again[0]), [("carol", true, 1)]);
        assert_eq!(code(&again[1]), Some(ErrorCode::Forbidden));
        assert!(again[2].repeated && again[2].events.is_empty() && again[2].notices.is_empty());
        let ask_memberships = query::Body::ListMemberships(v1::ListMemberships {
            user_ids: vec!["carol".into()],
        });
        let memberships = answered!(ask(&queries, "", ask_memberships).await, Memberships).memberships;
        assert_eq!(
            (
                memberships[0].version,
                &memberships[0].unread,
                &memberships[0].head_seqs
            ),
            (1, &vec![1], &vec![4])
        );
    })
    .await;
}

#[tokio::test]
async fn who_is_removed_finds_nothing_any_more_and_may_come_back() {
    with_database(async |mut db| {
        let id = conversation();
        db.commit(&[
            work(&creation("alice", id, &["bob", "carol"])),
            work(&sending("bob", id, "m1", "one")),
        ])
        .await;
        let answers = db
            .commit(&[
                work(&remove("bob", id, "carol")),
                work(&remove("alice", id, "bob")),
            ])
            .await;
        assert_eq!(code(&answers[0]), Some(ErrorCode::Forbidden));
        assert_eq!(notices(&answers[1]), [("bob", false, 2)]);
        let queries = queries(&db).await;
        let late = db
            .commit(&[
                work(&sending("bob", id, "m2", "late")),
                work(&read("bob", id, 1, &[])),
                work(&remove("alice", id, "bob")),
                work(&sending("bob", id, "m1", "one")),
            ])
            .await;
        assert_eq!([code(&late[0]), code(&late[1])], [Some(ErrorCode::NotFound); 2]);
        assert_eq!(code(&late[2]), Some(ErrorCode::NotFound));
        // What they sent before is stored: that is no secret to them.
        assert!(late[3].repeated && late[3].events[0].seq == 1);
        assert_eq!(
            ask(&queries, "bob", events(&id.to_string(), 0, 0)).await,
            Err(ErrorCode::NotFound)
        );
        db.commit(&[work(&sending("alice", id, "m3", "behind their back"))])
            .await;
        db.commit(&[
            work(&add("alice", id, &["bob"])),
            work(&sending("alice", id, "m4", "welcome")),
        ])
        .await;
        let get = query::Body::GetConversation(v1::GetConversation {
            conversation_id: id.to_string(),
            client: None,
        });
        assert_eq!(answered!(ask(&queries, "bob", get).await, Conversation).unread, 1);
        assert_eq!(
            db.number("SELECT memberships_version FROM users WHERE user_id = 'bob'")
                .await,
            3
        );
    })
    .await;
}

#[tokio::test]
async fn a_group_is_never_without_an_admin() {
    with_database(async |mut db| {
        let id = conversation();
        let setup = [
            work(&creation("alice", id, &["bob", "carol"])),
            work(&add("alice", id, &["dave"])),
            work(&change_role("alice", id, "alice", Role::Member)),
            work(&change_role("alice", id, "dave", Role::Moderator)),
            work(&change_role("bob", id, "bob", Role::Admin)),
            work(&change_role("alice", id, "dave", Role::Viewer)),
        ];
        let answers = db.commit(&setup).await;
        assert_eq!(code(&answers[2]), Some(ErrorCode::Invalid));
        assert_eq!(roles(&view(&answers[3]))[3], ("dave", Role::Moderator));
        assert_eq!(
            [code(&answers[4]), code(&answers[5])],
            [Some(ErrorCode::Forbidden), Some(ErrorCode::Invalid)]
        );
        let leaving = remove("alice", id, "alice");
        let left = db.commit(&[work(&leaving)]).await;
        let bodies: Vec<(u64, &event::Body)> = left[0]
            .events
            .iter()
            .map(|e| (e.seq, e.body.as_ref().unwrap()))
            .collect();
        let [
            (3, event::Body::MemberRemoved(gone)),
            (4, event::Body::RoleChanged(heir)),
        ] = bodies.as_slice()
        else {
            panic!("{bodies:?}")
        };
        assert_eq!(
            (
                gone.member.as_ref().unwrap().username.as_str(),
                gone.actor_id.as_str()
            ),
            ("ALICE", "alice")
        );
        let heir = heir.member.as_ref().unwrap();
        assert_eq!((heir.user_id.as_str(), heir.role()), ("dave", Role::Admin));
        assert_eq!(view(&left[0]).id, id.to_string());
        let again = db.commit(&[work(&leaving)]).await;
        assert!(
            again[0].repeated && again[0].events == left[0].events && again[0].notices == left[0].notices
        );
        // Without moderators: who is there longest.
        db.commit(&[work(&remove("dave", id, "dave"))]).await;
        let queries = queries(&db).await;
        let room = query::Body::GetRoom(v1::GetRoom {
            conversation_id: id.to_string(),
            small: 0,
        });
        let room = answered!(ask(&queries, "", room).await, Room);
        let roles: Vec<_> = room
            .members
            .iter()
            .map(|p| (p.user_id.as_str(), p.role(), p.number > 0))
            .collect();
        assert_eq!(roles, [("bob", Role::Admin, true), ("carol", Role::Member, true)]);
        assert_eq!(
            (room.kind(), room.title.as_str(), room.head_seq),
            (v1::ConversationKind::Group, "Tea", 6)
        );
    })
    .await;
}

#[tokio::test]
async fn a_direct_conversation_has_its_two_people_and_begins_anew_after_its_end() {
    with_database(async |mut db| {
        let first = direct("alice", "bob");
        let id = first.conversation_id.parse().unwrap();
        db.commit(&[work(&first), work(&sending("alice", id, "m1", "old"))]).await;
        let refused = db.commit(&[work(&add("alice", id, &["carol"])), work(&remove("alice", id, "alice"))]).await;
        assert!(refused.iter().all(|answer| code(answer) == Some(ErrorCode::Invalid)), "{refused:?}");
        let end = command("bob", id, command::Body::DeleteConversation(v1::DeleteConversation {}));
        let ended = db.commit(&[work(&end)]).await;
        assert_eq!(notices(&ended[0]), [("alice", false, 2), ("bob", false, 2)]);
        assert!(matches!(&ended[0].events[0].body, Some(event::Body::ConversationDeleted(d)) if d.actor_id == "bob"));
        let queries = queries(&db).await;
        let room = || query::Body::GetRoom(v1::GetRoom { conversation_id: id.to_string(), small: 0 });
        assert_eq!(ask(&queries, "", room()).await, Err(ErrorCode::NotFound));
        let log = answered!(ask(&queries, "", events(&id.to_string(), 1, 0)).await, Events);
        assert_eq!(log.events, ended[0].events);
        // The first creation once more, a late message, the deletion once more, and then a new creation.
        let works = [work(&first), work(&sending("alice", id, "m2", "late")), work(&end), work(&direct("bob", "alice"))];
        let answers = db.commit(&works).await;
        // What was done stays done, and brings nothing back.
        assert!(answers[0].repeated && code(&answers[0]).is_none() && answers[0].notices.is_empty());
        assert_eq!(code(&answers[1]), Some(ErrorCode::NotFound));
        assert!(answers[2].repeated && !answers[3].repeated);
        assert_eq!(notices(&answers[3]), [("alice", true, 3), ("bob", true, 3)]);
        let anew = view(&answers[3]);
        assert_eq!((anew.head_seq, anew.unread, anew.last_message.clone()), (2, 0, None));
        db.commit(&[work(&sending("alice", id, "m3", "new"))]).await;
        let list = query::Body::ListMessages(v1::ListMessages { conversation_id: id.to_string(), ..Default::default() });
        let page = answered!(ask(&queries, "bob", list).await, Messages);
        assert_eq!(page.messages.iter().map(|m| (m.seq, m.content.as_str())).collect::<Vec<_>>(), [(3, "new")]);
        let log = answered!(ask(&queries, "bob", events(&id.to_string(), 0, 0)).await, Events);
        assert_eq!(log.events.iter().map(|e| e.seq).collect::<Vec<_>>(), [3]);
        assert!(answered!(ask(&queries, "bob", events(&id.to_string(), 1, 0)).await, Events).resync);
        let get = |name: &str| {
            let body = v1::GetMessage { conversation_id: id.to_string(), message_id: name.into() };
            query::Body::GetMessage(body)
        };
        assert_eq!(ask(&queries, "bob", get("#1")).await, Err(ErrorCode::NotFound));
        assert!(matches!(ask(&queries, "bob", get("#3")).await, Ok(reply::Body::Message(m)) if m.content == "new"));
    })
    .await;
}
