use proptest::prelude::*;

use super::*;

fn state(client: u64, clock: u32, state: Option<&str>) -> ClientState {
    ClientState {
        client,
        clock,
        state: state.map(str::to_owned),
    }
}

fn encode(states: &[ClientState]) -> Vec<u8> {
    let parts = states.iter();
    encode_awareness(parts.map(|one| (one.client, one.clock, one.state.as_deref())))
}

/// As y-protocols 1.0.7 encodes it.
#[test]
fn the_wire_format_is_that_of_y_protocols() {
    let bytes = b"\x02\x01\x02\x0a{\"a\":\"\xc3\xbc\"}\xac\x02\x00\x04null";
    let states = [state(1, 2, Some("{\"a\":\"ü\"}")), state(300, 0, None)];
    assert_eq!(decode_awareness(bytes), Ok(states.to_vec()));
    assert_eq!(encode(&states), bytes);
}

#[test]
fn what_the_bytes_cannot_back_is_refused_before_memory_is_reserved() {
    let refused = |bytes: &[u8]| decode_awareness(bytes).unwrap_err();
    let claims_many = [0xff, 0xff, 0xff, 0xff, 0x0f];
    assert_eq!(refused(&claims_many), InvalidAwareness::TooMany);
    assert_eq!(refused(&[]), InvalidAwareness::Malformed);
    assert_eq!(refused(&[1]), InvalidAwareness::Malformed);
    assert_eq!(refused(&[0, 0]), InvalidAwareness::Malformed);
    // A string longer than the rest, and one that is not UTF-8.
    assert_eq!(refused(&[1, 1, 1, 9, b'{']), InvalidAwareness::Malformed);
    assert_eq!(refused(&[1, 1, 1, 1, 0xff]), InvalidAwareness::Malformed);
    assert_eq!(
        refused(&encode(&[state(1 << 53, 0, None)])),
        InvalidAwareness::Malformed
    );
    let mut clock = vec![1, 1];
    clock.write_var(u64::from(u32::MAX) + 1);
    clock.write_string("null");
    assert_eq!(refused(&clock), InvalidAwareness::Malformed);
    let large = "x".repeat(MAX_STATE + 1);
    assert_eq!(
        refused(&encode(&[state(1, 0, Some(&large))])),
        InvalidAwareness::StateTooLarge
    );
    assert_eq!(
        refused(&vec![0; MAX_AWARENESS_UPDATE + 1]),
        InvalidAwareness::TooLarge
    );
}

#[test]
fn the_higher_clock_wins_and_at_equal_clocks_only_a_removal() {
    let (mut states, now) = (AwarenessStates::default(), Instant::now());
    let mut apply = |clock, given| states.apply("alice", state(1, clock, given), now);
    assert_eq!(apply(3, None), Applied::Known);
    assert_eq!(apply(3, Some("a")), Applied::Changed);
    assert_eq!(apply(3, Some("b")), Applied::Known);
    assert_eq!(apply(2, None), Applied::Known);
    assert_eq!(apply(4, Some("c")), Applied::Changed);
    assert_eq!(apply(4, None), Applied::Changed);
    assert_eq!(apply(4, None), Applied::Known);
    assert_eq!(apply(4, Some("d")), Applied::Outdated);
    assert_eq!(apply(5, Some("e")), Applied::Changed);
    assert_eq!(states.get(1), Some((5, Some("e"))));
    assert!(states.remove(1, now));
    assert!(!states.remove(1, now));
    assert_eq!(states.get(1), Some((5, None)));
}

/// Gateways do not end a state at the same moment, and its page shows the next one between the two.
#[test]
fn what_a_page_shows_next_wins_where_its_state_has_ended_and_where_it_ends_later() {
    let (mut early, mut late, start) = (
        AwarenessStates::default(),
        AwarenessStates::default(),
        Instant::now(),
    );
    for states in [&mut early, &mut late] {
        states.apply("alice", state(1, 7, Some("a")), start);
    }
    let ends_at = start + STATE_LIVES;
    assert_eq!(early.expire(ends_at), [1]);
    for states in [&mut late, &mut early] {
        assert_eq!(
            states.apply("alice", state(1, 8, Some("b")), ends_at),
            Applied::Changed
        );
    }
    // A page that has come back to another gateway outlives what the one that it left says at last.
    assert_eq!(early.apply("alice", state(1, 7, None), ends_at), Applied::Known);
    assert!(late.expire(ends_at).is_empty());
}

#[test]
fn no_other_user_changes_a_state_until_it_is_forgotten() {
    let (mut states, now) = (AwarenessStates::default(), Instant::now());
    states.apply("alice", state(1, 3, Some("a")), now);
    assert_eq!(states.apply("bob", state(1, 4, Some("b")), now), Applied::Foreign);
    assert_eq!(states.apply("bob", state(1, 4, None), now), Applied::Foreign);
    // What he was sent, or lost by his own clock.
    assert_eq!(states.apply("bob", state(1, 3, Some("a")), now), Applied::Known);
    assert_eq!(states.apply("bob", state(1, 3, None), now), Applied::Known);
    assert_eq!(states.owner(1), Some("alice"));
    states.remove(1, now);
    assert_eq!(states.owner(1), None);
    assert_eq!(states.apply("bob", state(1, 5, Some("b")), now), Applied::Foreign);
    assert_eq!(states.apply("bob", state(1, 5, None), now), Applied::Known);
    let later = now + Duration::from_secs(600);
    states.expire(later);
    assert_eq!(
        states.apply("bob", state(1, 5, Some("b")), later),
        Applied::Changed
    );
    assert_eq!(states.owner(1), Some("bob"));
}

#[test]
fn a_state_that_is_not_renewed_ends_and_its_clock_is_forgotten_later() {
    let (mut states, start) = (AwarenessStates::default(), Instant::now());
    let after = |seconds| start + Duration::from_secs(seconds);
    states.apply("alice", state(1, 0, Some("a")), start);
    states.apply("bob", state(2, 0, Some("b")), start);
    states.apply("bob", state(2, 1, Some("b")), after(5));
    assert_eq!(states.next_check(), Some(after(12)));
    assert!(states.expire(after(11)).is_empty());
    assert_eq!(states.expire(after(12)), [1]);
    assert_eq!(states.get(1), Some((0, None)));
    assert_eq!(states.next_check(), Some(after(17)));
    assert_eq!(states.expire(after(17)), [2]);
    assert_eq!(states.clients().count(), 0);
    assert!(states.expire(after(72)).is_empty());
    assert_eq!((states.get(1), states.get(2)), (None, Some((1, None))));
    states.expire(after(77));
    assert_eq!((states.get(2), states.next_check()), (None, None));
}

#[test]
fn a_journal_holds_so_many_states_and_no_more_clocks_than_twice_that() {
    let (mut states, now) = (AwarenessStates::default(), Instant::now());
    for client in 0..MAX_STATES as u64 {
        assert_eq!(
            states.apply("alice", state(client, 1, Some("{}")), now),
            Applied::Changed
        );
    }
    let one_more = |states: &mut AwarenessStates| states.apply("bob", state(1 << 40, 1, Some("{}")), now);
    assert_eq!(one_more(&mut states), Applied::Full);
    states.remove(0, now);
    assert_eq!(one_more(&mut states), Applied::Changed);
    for client in 1 << 41..(1 << 41) + 10 * MAX_STATES as u64 {
        states.remove(1 << 40, now);
        states.apply("bob", state(client, 1, Some("{}")), now);
        states.remove(client, now);
        assert!(states.kept.len() <= MAX_KEPT && states.removed.len() <= MAX_KEPT);
    }
    assert_eq!(states.clients().count(), MAX_STATES - 1);
}

proptest! {
    #[test]
    fn no_bytes_panic_and_what_is_decoded_is_encoded_the_same(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        states in proptest::collection::vec((0..MAX_CLIENT, any::<u32>(), proptest::option::of("\\{[a-zü]{0,9}\\}")), 0..9),
    ) {
        drop(decode_awareness(&bytes));
        let states: Vec<_> = states
            .into_iter()
            .map(|(client, clock, state)| ClientState { client, clock, state })
            .collect();
        prop_assert_eq!(decode_awareness(&encode(&states)), Ok(states));
    }

    /// One user's states come to two gateways in different orders, some of them twice.
    #[test]
    fn gateways_agree_whatever_order_states_come_in(
        sent in proptest::collection::vec((0..3u64, any::<bool>()), 1..40),
        order in any::<u64>(),
    ) {
        let mut clocks = [0; 3];
        let sent: Vec<_> = sent
            .into_iter()
            .map(|(client, lives)| {
                clocks[client as usize] += 1;
                let clock = clocks[client as usize];
                state(client, clock, lives.then(|| format!("{client} {clock}")).as_deref())
            })
            .collect();
        let mut shuffled = sent.clone();
        shuffled.extend(sent.iter().step_by(2).cloned());
        fastrand::Rng::with_seed(order).shuffle(&mut shuffled);
        let now = Instant::now();
        let living = |sent: Vec<ClientState>| {
            let mut states = AwarenessStates::default();
            for one in sent {
                states.apply("alice", one, now);
            }
            let mut living: Vec<_> = states
                .clients()
                .map(|client| (client, states.get(client).unwrap().1.unwrap().to_owned()))
                .collect();
            living.sort();
            living
        };
        // A removal of what never came is not remembered: then an older state may come back, and ends by itself.
        let mut removals_come_last = shuffled;
        removals_come_last.sort_by_key(|one| one.state.is_none());
        let mut in_order = sent;
        in_order.sort_by_key(|one| one.clock);
        prop_assert_eq!(living(removals_come_last), living(in_order));
    }
}
