//! Sends the clients of this replica elsewhere, spread over time, so that they do not all arrive there at once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::relay::Relay;
use crate::session::sessions::Sessions;
use crate::session::wire::Wire;
use crate::session::{Session, SessionId};

/// Clients are disconnected in slices this long.
const SLICE: Duration = Duration::from_millis(100);

/// A client that is connected through this replica.
enum Client {
    Here(Arc<Session>),
    /// Of a session elsewhere.
    Carried(u64, Arc<Wire>),
}

/// Names a [`Client`].
#[derive(PartialEq, Eq, Hash)]
enum ClientId {
    Here(SessionId),
    Carried(u64),
}

/// Disconnects everyone within `window`. Whoever is still on the way in is disconnected too.
pub async fn run(sessions: &Sessions, relay: &Relay, window: Duration) {
    let begun = Instant::now();
    let mut told = HashSet::new();
    // The first goes at once.
    let mut due = 1.0;
    loop {
        let here = sessions.all().into_iter().map(Client::Here);
        let carried = relay.carried().into_iter();
        let all: Vec<_> = here
            .chain(carried.map(|(number, wire)| Client::Carried(number, wire)))
            .collect();
        let time = window.saturating_sub(begun.elapsed());
        let nobody = all.is_empty();
        let mut left: Vec<_> = all
            .into_iter()
            .filter(|client| !told.contains(&client.id()))
            .collect();
        if nobody || (left.is_empty() && time.is_zero()) {
            return;
        }
        fastrand::shuffle(&mut left);
        for client in left.iter().take(take(&mut due, left.len(), time)) {
            client.close();
            told.insert(client.id());
        }
        // Half a slice to one and a half: replicas that drain together must not beat in time.
        tokio::time::sleep(SLICE.mul_f64(0.5 + fastrand::f64())).await;
    }
}

impl Client {
    fn id(&self) -> ClientId {
        match self {
            Self::Here(session) => ClientId::Here(session.id),
            Self::Carried(number, _) => ClientId::Carried(*number),
        }
    }

    /// At transport level: after a disconnect packet stock clients would not come again.
    fn close(&self) {
        match self {
            Self::Here(session) => session.close_transport(),
            Self::Carried(_, wire) => wire.kill(),
        }
    }
}

/// How many of `left` go in the next slice when `time` is left for all; `due` holds the fraction for later ones.
fn take(due: &mut f64, left: usize, time: Duration) -> usize {
    let slices = time.div_duration_f64(SLICE);
    if slices <= 1.0 {
        return left;
    }
    *due += left as f64 / slices;
    let whole = due.floor();
    *due -= whole;
    whole as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_goes_by_the_end_and_no_slice_is_much_larger_than_another() {
        for clients in [1, 7, 667, 2_000] {
            let window = Duration::from_secs(10);
            let (mut left, mut due, mut most) = (clients, 1.0, 0);
            for slice in 0..100 {
                let count = take(&mut due, left, window - SLICE * slice);
                most = most.max(count);
                left -= count;
            }
            assert_eq!(left, 0, "of {clients}");
            assert!(most <= clients / 100 + 2, "{most} of {clients} at once");
        }
        assert_eq!(take(&mut 0.0, 7, Duration::ZERO), 7);
    }
}
