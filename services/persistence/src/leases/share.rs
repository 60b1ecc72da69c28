//! How many partitions a replica should own. Pure.

/// The most one replica owns when `live` replicas share `total` partitions.
pub fn fair(total: usize, live: usize) -> usize {
    total.div_ceil(live.max(1))
}

/// What a replica that owns `owned` of `total` should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Give that many back.
    Release(usize),
    /// Take at most that many free ones; 0 when the share is full.
    Take(usize),
}

/// Compares what is owned with the fair share.
pub fn plan(total: usize, live: usize, owned: usize) -> Plan {
    let share = fair(total, live);
    if owned > share {
        Plan::Release(owned - share)
    } else {
        Plan::Take(share - owned)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shares_settle_with_every_partition_owned_and_nobody_above_the_fair_share(
            total in 1usize..200,
            start in prop::collection::vec(0usize..50, 1..12),
        ) {
            let live = start.len();
            // Any split of at most `total` partitions to begin with.
            let mut left = total;
            let mut owned: Vec<usize> = start.iter().map(|&n| { let n = n.min(left); left -= n; n }).collect();
            let mut free = left;
            // Releases of one round are seen by the next.
            for _ in 0..3 {
                for own in &mut owned {
                    match plan(total, live, *own) {
                        Plan::Release(n) => { *own -= n; free += n; }
                        Plan::Take(n) => { let n = n.min(free); *own += n; free -= n; }
                    }
                }
            }
            prop_assert_eq!(free, 0);
            prop_assert!(owned.iter().all(|&own| own <= fair(total, live)));
        }
    }

    #[test]
    fn a_lonely_replica_owns_all() {
        assert_eq!(plan(16, 1, 0), Plan::Take(16));
        assert_eq!(plan(16, 0, 0), Plan::Take(16));
        assert_eq!(plan(16, 2, 16), Plan::Release(8));
    }
}
