//! The replicas of persistence as this gateway sees them: how many queries each has in hand, and which do not answer.
//!
//! A query goes to the less busy of two that are chosen by chance. One that refuses work is spared for a moment; one that
//! does not even answer a ping gets nothing until it does. Replicas are learned from replies to queries that any may
//! answer; while none is known, every query is one. Must not know what is asked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a replica is spared that refused a query.
const SPARED: Duration = Duration::from_secs(1);

/// All that are known. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Replicas(Arc<Mutex<Vec<Replica>>>);

#[derive(Debug)]
struct Replica {
    name: Arc<str>,
    /// Shared with each choice of it: one that is forgotten and learned again begins with none.
    outstanding: Arc<AtomicUsize>,
    spared_until: Option<Instant>,
    /// It does not answer.
    is_silent: bool,
    /// A ping is under way to it.
    is_probed: bool,
    /// Cancelled when it turns out that it does not answer.
    lost: CancellationToken,
}

/// Where a query goes, and one more that is under way there until this is dropped.
#[derive(Debug)]
pub(super) struct Choice {
    /// `None` for any.
    pub(super) name: Option<Arc<str>>,
    outstanding: Option<Arc<AtomicUsize>>,
    /// Cancelled when it turns out that nothing will come from there.
    pub(super) lost: CancellationToken,
}

impl Drop for Choice {
    fn drop(&mut self) {
        if let Some(outstanding) = &self.outstanding {
            outstanding.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Replicas {
    /// Where the next query goes.
    pub(super) fn choose(&self) -> Choice {
        self.choice(None).unwrap_or_else(Self::any)
    }

    /// Where it goes once more; `None` where no replica is known to answer but the one it went to, if that had a name.
    pub(super) fn choose_other(&self, than: Option<&str>) -> Option<Choice> {
        match than {
            Some(name) => self.choice(Some(name)),
            None => Some(self.choose()),
        }
    }

    /// Any replica, by the bus.
    pub(super) fn any() -> Choice {
        Choice {
            name: None,
            outstanding: None,
            lost: CancellationToken::new(),
        }
    }

    fn choice(&self, except: Option<&str>) -> Option<Choice> {
        let now = Instant::now();
        let known = self.lock();
        let fits = |replica: &Replica| !replica.is_silent && except != Some(&*replica.name);
        let spared = |replica: &Replica| replica.spared_until.is_some_and(|until| now < until);
        let mut places: Vec<usize> = (0..known.len()).filter(|at| fits(&known[*at])).collect();
        if places.iter().any(|at| !spared(&known[*at])) {
            places.retain(|at| !spared(&known[*at]));
        }
        let first = fastrand::choice(&places)?;
        let second = fastrand::choice(&places)?;
        let at = *[first, second]
            .into_iter()
            .min_by_key(|at| known[**at].outstanding.load(Ordering::Relaxed))?;
        let replica = &known[at];
        replica.outstanding.fetch_add(1, Ordering::Relaxed);
        Some(Choice {
            name: Some(Arc::clone(&replica.name)),
            outstanding: Some(Arc::clone(&replica.outstanding)),
            lost: replica.lost.clone(),
        })
    }

    /// A replica answered what it was asked by its name. One that is gone meanwhile is not learned by that.
    pub(super) fn answered(&self, name: &str) {
        let mut known = self.lock();
        let silent = |replica: &&mut Replica| &*replica.name == name && replica.is_silent;
        if let Some(replica) = known.iter_mut().find(silent) {
            tracing::info!(replica = name, "a persistence replica answers again");
            replica.is_silent = false;
            show(&known);
        }
    }

    /// A replica of this name answered what any could.
    pub(super) fn learned(&self, name: &str) {
        self.answered(name);
        let mut known = self.lock();
        if known.iter().all(|replica| &*replica.name != name) {
            known.push(Replica {
                name: name.into(),
                outstanding: Arc::default(),
                spared_until: None,
                is_silent: false,
                is_probed: false,
                lost: CancellationToken::new(),
            });
        }
    }

    /// It has too much to do.
    pub(super) fn refused(&self, name: &str) {
        let until = Instant::now() + SPARED.mul_f64(0.5 + fastrand::f64());
        self.of(name, |replica| replica.spared_until = Some(until));
    }

    /// It is not there any more.
    pub(super) fn vanished(&self, name: &str) {
        let mut known = self.lock();
        known.retain(|replica| {
            let is_it = &*replica.name == name;
            if is_it {
                replica.lost.cancel();
            }
            !is_it
        });
        show(&known);
    }

    /// It does not answer: what was sent to it counts as lost.
    pub(super) fn is_silent(&self, name: &str) {
        self.of(name, |replica| {
            if !replica.is_silent {
                tracing::warn!(
                    replica = name,
                    "a persistence replica does not answer: it is asked nothing"
                );
            }
            replica.is_silent = true;
            std::mem::take(&mut replica.lost).cancel();
        });
        show(&self.lock());
    }

    /// Those that do not answer.
    pub(super) fn silent(&self) -> Vec<Arc<str>> {
        let known = self.lock();
        let silent = known.iter().filter(|replica| replica.is_silent);
        silent.map(|replica| Arc::clone(&replica.name)).collect()
    }

    /// Whether it is to be pinged now: not where a ping is under way. [`Self::is_probed`] ends that.
    pub(super) fn probe(&self, name: &str) -> bool {
        let mut begins = false;
        self.of(name, |replica| {
            begins = !std::mem::replace(&mut replica.is_probed, true);
        });
        begins
    }

    /// A ping has ended.
    pub(super) fn is_probed(&self, name: &str) {
        self.of(name, |replica| replica.is_probed = false);
    }

    fn of(&self, name: &str, change: impl FnOnce(&mut Replica)) {
        if let Some(replica) = self.lock().iter_mut().find(|replica| &*replica.name == name) {
            change(replica);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Replica>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::cast_precision_loss, reason = "there are few replicas")]
fn show(known: &[Replica]) {
    let silent = known.iter().filter(|replica| replica.is_silent).count();
    metrics::gauge!("chat_gateway_silent_replicas").set(silent as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(choice: &Choice) -> &str {
        choice.name.as_deref().unwrap_or("any")
    }

    fn two() -> Replicas {
        let replicas = Replicas::default();
        replicas.learned("a");
        replicas.learned("b");
        replicas
    }

    #[tokio::test(start_paused = true)]
    async fn any_replica_is_asked_while_none_is_known() {
        let replicas = Replicas::default();
        let first = replicas.choose();
        assert_eq!(name(&first), "any");
        assert_eq!(name(&replicas.choose_other(None).unwrap()), "any");
        replicas.answered("a");
        assert_eq!(name(&replicas.choose()), "any");
        replicas.learned("a");
        let known = replicas.choose();
        assert_eq!(name(&known), "a");
        assert!(replicas.choose_other(Some("a")).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_less_busy_replica_gets_most() {
        let replicas = two();
        let held: Vec<Choice> = (0..100).map(|_| replicas.choose()).collect();
        let of_a = held.iter().filter(|choice| name(choice) == "a").count();
        assert!((40..=60).contains(&of_a), "{of_a}");
        drop(held);
        let idle = |replica: &Replica| replica.outstanding.load(Ordering::Relaxed) == 0;
        assert!(replicas.lock().iter().all(idle));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_answer_is_asked_nothing_until_it_does() {
        let replicas = two();
        let mut asked = replicas.choose();
        while name(&asked) != "a" {
            asked = replicas.choose();
        }
        replicas.is_silent("a");
        assert!(asked.lost.is_cancelled());
        assert!((0..50).all(|_| name(&replicas.choose()) == "b"));
        assert_eq!(replicas.silent(), [Arc::from("a")]);
        replicas.is_silent("b");
        assert_eq!(name(&replicas.choose()), "any");
        replicas.answered("a");
        let again = replicas.choose();
        assert_eq!(name(&again), "a");
        assert!(!again.lost.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_refuses_is_spared_for_a_moment_unless_all_do() {
        let replicas = two();
        replicas.refused("a");
        assert!((0..50).all(|_| name(&replicas.choose()) == "b"));
        replicas.refused("b");
        let names: std::collections::HashSet<String> =
            (0..50).map(|_| name(&replicas.choose()).to_owned()).collect();
        assert_eq!(names.len(), 2);
        tokio::time::advance(SPARED * 2).await;
        replicas.refused("b");
        assert!((0..50).all(|_| name(&replicas.choose()) == "a"));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_gone_is_forgotten_and_one_ping_at_a_time_is_under_way() {
        let replicas = two();
        assert!(replicas.probe("a") && !replicas.probe("a") && replicas.probe("b"));
        replicas.is_probed("a");
        assert!(replicas.probe("a"));
        let held = replicas.choose();
        replicas.vanished("a");
        replicas.vanished("b");
        assert!(held.lost.is_cancelled());
        assert_eq!(name(&replicas.choose()), "any");
        // It was only slow to say good-bye, or another one has its name: what was under way is not counted for it.
        replicas.learned("a");
        replicas.learned("b");
        drop(held);
        let idle = |replica: &Replica| replica.outstanding.load(Ordering::Relaxed) == 0;
        assert!(replicas.lock().iter().all(idle));
    }
}
