//! Sends the clients of this replica elsewhere, spread over time, so that they do not all arrive there at once.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::sessions::Sessions;

/// Clients are disconnected in slices this long.
const SLICE: Duration = Duration::from_millis(100);

/// Disconnects everyone within `window`. Whoever is still on the way in is disconnected too.
pub async fn run(sessions: &Sessions, window: Duration) {
    let begun = Instant::now();
    let mut told = HashSet::new();
    // The first goes at once.
    let mut due = 1.0;
    loop {
        let here = sessions.all();
        let time = window.saturating_sub(begun.elapsed());
        let nobody = here.is_empty();
        let mut left: Vec<_> = here
            .into_iter()
            .filter(|session| !told.contains(&session.id))
            .collect();
        if nobody || (left.is_empty() && time.is_zero()) {
            return;
        }
        fastrand::shuffle(&mut left);
        for session in left.iter().take(take(&mut due, left.len(), time)) {
            // At transport level: after a disconnect packet stock clients would not come again.
            session.close_transport();
            told.insert(session.id);
        }
        // Half a slice to one and a half: replicas that drain together must not beat in time.
        tokio::time::sleep(SLICE.mul_f64(0.5 + fastrand::f64())).await;
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
