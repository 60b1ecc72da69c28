//! Dead letters: parked together, and bounded by number and age.

use parlance_persistence::store::dead_letters::{DeadLetter, Kept, forget, insert, list};
use parlance_proto::v1::ErrorCode;
use uuid::Uuid;

use crate::database::with_database;

fn letter(number: u128, partition: Option<u16>) -> DeadLetter {
    DeadLetter {
        id: Uuid::from_u128(number),
        partition,
        subject: "chat.system.user.bob".into(),
        command_id: number.is_multiple_of(2).then(|| format!("order\0{number}")),
        payload: vec![7; 3],
        code: ErrorCode::Invalid,
        error: "content is empty".into(),
    }
}

#[tokio::test]
async fn letters_are_parked_together_and_once() {
    with_database(async |db| {
        let mut connection = db.database.writes.acquire().await.unwrap();
        let first = [letter(1, None), letter(2, Some(3)), letter(2, Some(3))];
        let new = insert(&mut connection, &first).await.unwrap();
        assert_eq!(new, [1, 2].map(Uuid::from_u128).into());
        let again = [letter(2, Some(3)), letter(3, None)];
        let new = insert(&mut connection, &again).await.unwrap();
        assert_eq!(new, [3].map(Uuid::from_u128).into());
        let parked = list(&mut connection, None, 10).await.unwrap();
        assert_eq!(parked.len(), 3);
        let ids: Vec<_> = parked.iter().filter_map(|one| one.command_id.clone()).collect();
        assert_eq!(ids, ["order\u{FFFD}2"]);
        assert!(
            parked
                .iter()
                .all(|one| one.error_code == "invalid" && one.bytes == 3)
        );
    })
    .await;
}

#[tokio::test]
async fn the_oldest_beyond_what_is_kept_are_forgotten_those_of_commands_apart() {
    with_database(async |db| {
        let mut connection = db.database.writes.acquire().await.unwrap();
        let of_services = (1..=10).map(|number| letter(number, None));
        let of_commands = (11..=13).map(|number| letter(number, Some(0)));
        let all: Vec<_> = of_services.chain(of_commands).collect();
        insert(&mut connection, &all).await.unwrap();
        let kept = Kept { most: 4, days: 30 };
        // In bounded steps, until nothing is too much.
        for forgotten in [5, 1, 0] {
            assert_eq!(forget(&mut connection, false, kept, 5).await.unwrap(), forgotten);
        }
        assert_eq!(forget(&mut connection, true, kept, 5).await.unwrap(), 0);
        let left = list(&mut connection, None, 100).await.unwrap();
        let mut ids: Vec<_> = left.iter().map(|one| one.id.as_u128()).collect();
        ids.sort_unstable();
        assert_eq!(ids, [7, 8, 9, 10, 11, 12, 13]);
        sqlx::query("UPDATE dead_letters SET created_at = now() - interval '31 days' WHERE partition = 0")
            .execute(&mut *connection)
            .await
            .unwrap();
        assert_eq!(forget(&mut connection, true, kept, 5).await.unwrap(), 3);
        assert_eq!(forget(&mut connection, false, kept, 5).await.unwrap(), 0);
    })
    .await;
}
