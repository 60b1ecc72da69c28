use super::*;
use crate::session::SessionId;

const ALICE: (SessionId, &str) = (SessionId::of_test(1), "alice");
const BOB: (SessionId, &str) = (SessionId::of_test(2), "bob");

fn state(client: u64, clock: u32, state: Option<&str>) -> ClientState {
    ClientState {
        client,
        clock,
        state: state.map(str::to_owned),
    }
}

fn after(start: Instant, millis: u64) -> Instant {
    start + Duration::from_millis(millis)
}

#[test]
fn a_hundred_moves_in_a_second_leave_in_ten_flushes_and_the_last_one_is_among_them() {
    let (mut awareness, start) = (Awareness::default(), Instant::now());
    let (mut flushes, mut latest) = (Vec::new(), None);
    for move_number in 0..=109_u32 {
        let now = after(start, u64::from(move_number) * 10);
        if move_number < 100 {
            let moved = state(1, move_number + 1, Some(&format!("{move_number}")));
            awareness.share(ALICE, moved, false, now).unwrap();
        }
        let clients = awareness.to_bus.take(&awareness.states, now);
        if !clients.is_empty() {
            latest = awareness.published(&clients).states.pop();
            flushes.push(now);
        }
    }
    assert!(flushes.len() <= 11, "{}", flushes.len());
    assert!(flushes.windows(2).all(|pair| pair[1] - pair[0] >= INTERVAL));
    let latest = latest.unwrap();
    assert_eq!(
        (latest.state_json.as_str(), latest.user_id.as_str()),
        ("99", "alice")
    );
    assert_eq!(awareness.to_bus.due_at(), None);
}

#[test]
fn a_flush_is_bounded_and_the_rest_follows_in_order() {
    let (mut awareness, now) = (Awareness::default(), Instant::now());
    let large = "x".repeat(2_000);
    for client in 0..100 {
        let published = AwarenessState {
            user_id: "alice".into(),
            client_id: client,
            clock: 1,
            state_json: large.clone(),
        };
        awareness.merge(&published, now);
    }
    let mut all = Vec::new();
    for flush in 0..4 {
        let clients = awareness
            .to_sessions
            .take(&awareness.states, after(now, flush * 100));
        assert!(clients.len() <= FLUSH_BYTES / 2_000 + 1);
        all.extend(clients);
    }
    assert_eq!(all, (0..100).collect::<Vec<_>>());
    assert_eq!(awareness.next(), Some(after(now, 12_000)));
}

#[test]
fn a_session_has_five_client_ids_and_those_of_others_are_not_its_own() {
    let (mut awareness, now) = (Awareness::default(), Instant::now());
    for client in 0..5 {
        awareness
            .share(ALICE, state(client, 1, Some("{}")), false, now)
            .unwrap();
    }
    let code = |shared: Result<bool, ClientError>| shared.unwrap_err().code;
    assert_eq!(
        code(awareness.share(ALICE, state(5, 1, Some("{}")), false, now)),
        "too_large"
    );
    // One less, one more.
    awareness.share(ALICE, state(0, 2, None), false, now).unwrap();
    awareness
        .share(ALICE, state(5, 1, Some("{}")), false, now)
        .unwrap();
    // What she was sent of Bob she may send back, but not change.
    awareness.share(BOB, state(7, 3, Some("{}")), false, now).unwrap();
    assert_eq!(
        awareness.share(ALICE, state(7, 3, Some("{}")), false, now),
        Ok(false)
    );
    assert_eq!(
        code(awareness.share(ALICE, state(7, 4, Some("{}")), false, now)),
        "conflict"
    );
    assert_eq!(
        code(awareness.share(ALICE, state(7, 4, None), false, now)),
        "conflict"
    );
    // Nor does she take over one whose owner this gateway does not know yet.
    assert_eq!(
        awareness.share(ALICE, state(9, 4, Some("{}")), true, now),
        Ok(false)
    );
    assert_eq!(awareness.states.owner(9), None);
}

#[test]
fn a_state_that_was_taken_for_gone_is_answered_with_the_clock_to_go_on_from() {
    let (mut awareness, now) = (Awareness::default(), Instant::now());
    awareness
        .share(ALICE, state(1, 1, Some("{}")), false, now)
        .unwrap();
    awareness.expire(after(now, 12_000));
    assert_eq!(awareness.to_bus.queue, [1], "others expire it by themselves");
    let repeated = awareness.share(ALICE, state(1, 1, Some("{}")), false, after(now, 12_001));
    assert_eq!(repeated, Ok(true));
    assert_eq!(awareness.encode(&[1]), b"\x01\x01\x01\x04null");
    let renewed = awareness.share(ALICE, state(1, 2, Some("{}")), false, after(now, 12_002));
    assert_eq!(renewed, Ok(false));
    assert_eq!(awareness.states.owner(1), Some("alice"));
}

#[test]
fn a_session_that_is_gone_ends_its_states_unless_their_page_is_connected_elsewhere() {
    let (mut awareness, now) = (Awareness::default(), Instant::now());
    awareness
        .share(ALICE, state(1, 1, Some("{}")), false, now)
        .unwrap();
    awareness.share(BOB, state(2, 1, Some("{}")), false, now).unwrap();
    let own = awareness.published(&[1, 2]);
    for copy in &own.states {
        awareness.merge(copy, now);
    }
    assert_eq!(awareness.only_source(&[1]), Some(ALICE.0));
    assert_eq!(awareness.only_source(&[1, 2]), None);
    // Bob's page reconnected to another gateway, which published its next state.
    awareness.merge(
        &AwarenessState {
            clock: 2,
            ..own.states[1].clone()
        },
        now,
    );
    awareness.end(|_| false, now);
    assert_eq!(awareness.states.get(1), Some((1, None)));
    assert_eq!(awareness.states.get(2), Some((2, Some("{}"))));
    assert!(awareness.sources.is_empty());
    assert_eq!(awareness.published(&[1]).states[0].state_json, "");
}
