//! The replicas of persistence as this gateway sees them: how many queries each has in hand, and which do not answer.
//!
//! A query goes to the less busy of two that are chosen by chance. One that refuses work is spared for a moment; one that
//! does not even answer pings gets nothing until it does. Names are learned from replies to queries that any may answer; a
//! name is used once a ping to it was answered, since NATS may let this gateway, or that replica, have no queries by name.
//! Where replicas answer that cannot be named, one candidate is any of them; while none can, every query goes to any. Must
//! not know what is asked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a replica is spared that refused a query.
const SPARED: Duration = Duration::from_secs(1);
/// How long any replica is a candidate after one answered that cannot be named.
const UNNAMED: Duration = Duration::from_secs(10);
/// First and longest pause until a name that was never used is pinged again. Each ping that NATS denies is logged there.
const PROOFS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// How long a name counts that was never used and is not heard of.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// A replica that is gone and gives no answer for so long gives none any more.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// All that are known. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Replicas(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    replicas: Vec<Replica>,
    /// What any replica has in hand.
    any: Arc<Load>,
    /// Until when any is a candidate beside those that are named.
    any_until: Option<Instant>,
}

/// What is under way to one replica. Shared with each choice of it: one that is forgotten and learned again begins with none.
#[derive(Debug, Default)]
struct Load {
    outstanding: AtomicUsize,
    /// What it has answered.
    answers: AtomicUsize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It has not answered anything that was sent to it by its name.
    Unproven,
    /// It has.
    Answers,
    /// It did, and does not any more.
    Silent,
}

#[derive(Debug)]
struct Replica {
    name: Arc<str>,
    load: Arc<Load>,
    spared_until: Option<Instant>,
    standing: Standing,
    /// Pings to it are under way.
    is_probed: bool,
    /// When it is pinged again that is not proven, and how long after that.
    proof_at: Instant,
    proof_pause: Duration,
    /// When it answered what any could.
    heard_at: Instant,
    /// Cancelled when it turns out that it does not answer.
    lost: CancellationToken,
}

/// Where a query goes, and one more that is under way there until this is dropped.
#[derive(Debug)]
pub(super) struct Choice {
    /// `None` for any.
    pub(super) name: Option<Arc<str>>,
    load: Option<Arc<Load>>,
    /// Cancelled when it turns out that nothing will come from there.
    pub(super) lost: CancellationToken,
}

/// A replica that takes no more queries, and may still answer those it has.
#[derive(Debug)]
pub(super) struct Gone {
    load: Arc<Load>,
    lost: CancellationToken,
}

/// A name was heard.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// For the first time.
    New,
    /// Again.
    Known,
}

impl Drop for Choice {
    fn drop(&mut self) {
        if let Some(load) = &self.load {
            load.outstanding.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Choice {
    /// It has answered.
    pub(super) fn answered(&self) {
        if let Some(load) = &self.load {
            load.answers.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn of(name: Option<&Arc<str>>, load: &Arc<Load>, lost: CancellationToken) -> Self {
        load.outstanding.fetch_add(1, Ordering::Relaxed);
        Self {
            name: name.cloned(),
            load: Some(Arc::clone(load)),
            lost,
        }
    }
}

impl Gone {
    /// Waits until it answers nothing any more: what it has not answered by then is lost.
    pub(super) async fn ended(self) {
        let answers = || self.load.answers.load(Ordering::Relaxed);
        while self.load.outstanding.load(Ordering::Relaxed) > 0 {
            let before = answers();
            tokio::time::sleep(LAST_WORDS).await;
            if answers() == before {
                break;
            }
        }
        self.lost.cancel();
    }
}

impl Replicas {
    /// Where the next query goes.
    pub(super) fn choose(&self) -> Choice {
        self.lock().choice(None).unwrap_or_else(Self::any)
    }

    /// Where it goes once more that went to `first`; `None` where that is probably the same replica. What is lost there
    /// goes to any where no other is known: that one does not answer, and others may have come.
    pub(super) fn choose_other(&self, first: Option<&str>, is_lost: bool) -> Option<Choice> {
        let known = self.lock();
        match first {
            Some(_) => known.choice(first).or_else(|| is_lost.then(Self::any)),
            // Chance decided which replica got it: with others about, that decides once more.
            None if known.candidates() > 1 => Some(known.choice(None).unwrap_or_else(Self::any)),
            None => None,
        }
    }

    /// Any replica, by the bus.
    pub(super) fn any() -> Choice {
        Choice {
            name: None,
            load: None,
            lost: CancellationToken::new(),
        }
    }

    /// A replica answered what it was asked by its name. One that is gone meanwhile is not learned by that.
    pub(super) fn answered(&self, name: &str) {
        let mut known = self.lock();
        let found = |replica: &&mut Replica| &*replica.name == name;
        let Some(replica) = known.replicas.iter_mut().find(found) else {
            return;
        };
        match std::mem::replace(&mut replica.standing, Standing::Answers) {
            Standing::Answers => return,
            Standing::Unproven => {}
            Standing::Silent => tracing::info!(replica = name, "a persistence replica answers again"),
        }
        known.show();
    }

    /// A replica of this name answered what any could. That does not say that it can be asked by its name.
    pub(super) fn learned(&self, name: &str) -> Heard {
        let now = Instant::now();
        let mut known = self.lock();
        let found = |replica: &&mut Replica| &*replica.name == name;
        if let Some(replica) = known.replicas.iter_mut().find(found) {
            replica.heard_at = now;
            let cannot_be_named = replica.standing == Standing::Unproven && replica.proof_pause > PROOFS.0;
            if cannot_be_named {
                known.any_until = Some(now + UNNAMED);
            }
            return Heard::Known;
        }
        known.replicas.push(Replica {
            name: name.into(),
            load: Arc::default(),
            spared_until: None,
            standing: Standing::Unproven,
            is_probed: false,
            proof_at: now + PROOFS.0,
            proof_pause: PROOFS.0,
            heard_at: now,
            lost: CancellationToken::new(),
        });
        Heard::New
    }

    /// A replica answered what any could, and said no name.
    pub(super) fn unnamed(&self) {
        self.lock().any_until = Some(Instant::now() + UNNAMED);
    }

    /// It has too much to do.
    pub(super) fn refused(&self, name: &str) {
        let until = Instant::now() + SPARED.mul_f64(0.5 + fastrand::f64());
        self.of(name, |replica| replica.spared_until = Some(until));
    }

    /// It takes no more queries.
    pub(super) fn vanished(&self, name: &str) -> Option<Gone> {
        let mut known = self.lock();
        let place = known.replicas.iter().position(|replica| &*replica.name == name)?;
        let Replica { load, lost, .. } = known.replicas.swap_remove(place);
        known.show();
        Some(Gone { load, lost })
    }

    /// It does not answer pings: what was sent to it counts as lost.
    pub(super) fn is_silent(&self, name: &str) {
        self.of(name, |replica| match replica.standing {
            Standing::Unproven => {
                replica.proof_pause = (replica.proof_pause * 2).min(PROOFS.1);
                replica.proof_at = Instant::now() + replica.proof_pause;
            }
            Standing::Answers => {
                tracing::warn!(
                    replica = name,
                    "a persistence replica does not answer: it is asked nothing"
                );
                replica.standing = Standing::Silent;
                std::mem::take(&mut replica.lost).cancel();
            }
            Standing::Silent => {}
        });
        self.lock().show();
    }

    /// Those that are to be pinged. Forgets names that are of no use.
    pub(super) fn to_probe(&self) -> Vec<Arc<str>> {
        let now = Instant::now();
        let mut known = self.lock();
        let counts =
            |replica: &Replica| replica.standing != Standing::Unproven || now < replica.heard_at + FORGOTTEN;
        known.replicas.retain(counts);
        let is_due = |replica: &&Replica| match replica.standing {
            Standing::Unproven => now >= replica.proof_at,
            Standing::Answers => false,
            Standing::Silent => true,
        };
        let due = known.replicas.iter().filter(is_due);
        due.map(|replica| Arc::clone(&replica.name)).collect()
    }

    /// Whether it is to be pinged now: not where a ping is under way. [`Self::is_probed`] ends that.
    pub(super) fn probe(&self, name: &str) -> bool {
        let mut begins = false;
        self.of(name, |replica| {
            begins = !std::mem::replace(&mut replica.is_probed, true);
        });
        begins
    }

    /// The pings have ended.
    pub(super) fn is_probed(&self, name: &str) {
        self.of(name, |replica| replica.is_probed = false);
    }

    fn of(&self, name: &str, change: impl FnOnce(&mut Replica)) {
        let mut known = self.lock();
        if let Some(replica) = known.replicas.iter_mut().find(|replica| &*replica.name == name) {
            change(replica);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn choice(&self, except: Option<&str>) -> Option<Choice> {
        let now = Instant::now();
        let fits =
            |replica: &&Replica| replica.standing == Standing::Answers && except != Some(&*replica.name);
        let is_spared = |replica: &Replica| replica.spared_until.is_some_and(|until| now < until);
        let mut named: Vec<&Replica> = self.replicas.iter().filter(fits).collect();
        if named.iter().any(|replica| !is_spared(replica)) {
            named.retain(|replica| !is_spared(replica));
        }
        let mut candidates: Vec<Option<&Replica>> = named.into_iter().map(Some).collect();
        if self.any_counts(now) {
            candidates.push(None);
        }
        let first = *fastrand::choice(&candidates)?;
        let second = *fastrand::choice(&candidates)?;
        let load = |one: Option<&Replica>| match one {
            Some(replica) => replica.load.outstanding.load(Ordering::Relaxed),
            None => self.any.outstanding.load(Ordering::Relaxed),
        };
        let chosen = if load(second) < load(first) { second } else { first };
        Some(match chosen {
            Some(replica) => Choice::of(Some(&replica.name), &replica.load, replica.lost.clone()),
            None => Choice::of(None, &self.any, CancellationToken::new()),
        })
    }

    /// Replicas that are there, as far as is known.
    fn candidates(&self) -> usize {
        let silent = |replica: &&Replica| replica.standing != Standing::Silent;
        let named = self.replicas.iter().filter(silent).count();
        named + usize::from(self.any_counts(Instant::now()))
    }

    fn any_counts(&self, now: Instant) -> bool {
        self.any_until.is_some_and(|until| now < until)
    }

    #[expect(clippy::cast_precision_loss, reason = "there are few replicas")]
    fn show(&self) {
        let silent = |replica: &&Replica| replica.standing == Standing::Silent;
        let silent = self.replicas.iter().filter(silent).count();
        metrics::gauge!("chat_gateway_silent_replicas").set(silent as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(choice: &Choice) -> &str {
        choice.name.as_deref().unwrap_or("any")
    }

    fn proven(replicas: &Replicas, name: &str) {
        assert_eq!(replicas.learned(name), Heard::New);
        replicas.answered(name);
    }

    fn two() -> Replicas {
        let replicas = Replicas::default();
        proven(&replicas, "a");
        proven(&replicas, "b");
        replicas
    }

    fn chosen(replicas: &Replicas) -> std::collections::BTreeSet<String> {
        (0..50).map(|_| name(&replicas.choose()).to_owned()).collect()
    }

    fn are_idle(replicas: &Replicas) -> bool {
        let known = replicas.lock();
        let idle = |replica: &Replica| replica.load.outstanding.load(Ordering::Relaxed) == 0;
        known.replicas.iter().all(idle)
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_used_once_a_ping_to_it_was_answered_and_any_replica_until_then() {
        let replicas = Replicas::default();
        assert_eq!(name(&replicas.choose()), "any");
        assert!(replicas.choose_other(None, false).is_none());
        replicas.answered("a");
        assert_eq!(name(&replicas.choose()), "any");
        assert_eq!(replicas.learned("a"), Heard::New);
        assert_eq!(replicas.learned("a"), Heard::Known);
        assert_eq!(name(&replicas.choose()), "any");
        // One that is probably the same is not asked once more.
        assert!(replicas.choose_other(None, false).is_none());
        replicas.answered("a");
        assert_eq!(name(&replicas.choose()), "a");
        assert!(replicas.choose_other(Some("a"), false).is_none());
        assert_eq!(name(&replicas.choose_other(Some("a"), true).unwrap()), "any");
    }

    #[tokio::test(start_paused = true)]
    async fn where_names_cannot_be_used_any_replica_is_asked_and_names_are_seldom_tried() {
        let replicas = Replicas::default();
        let mut pings = 0;
        for _ in 0..120 {
            for name in ["a", "b"] {
                replicas.learned(name);
            }
            for name in replicas.to_probe() {
                pings += 1;
                replicas.is_silent(&name);
            }
            assert_eq!(name(&replicas.choose()), "any");
            assert_eq!(name(&replicas.choose_other(None, false).unwrap()), "any");
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!((8..=14).contains(&pings), "{pings}");
        tokio::time::advance(FORGOTTEN).await;
        assert!(replicas.to_probe().is_empty() && replicas.lock().replicas.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn replicas_that_cannot_be_named_get_their_share() {
        let replicas = Replicas::default();
        proven(&replicas, "a");
        replicas.unnamed();
        assert_eq!(chosen(&replicas), ["a", "any"].map(String::from).into());
        assert_eq!(name(&replicas.choose_other(Some("a"), false).unwrap()), "any");
        tokio::time::advance(UNNAMED).await;
        assert_eq!(chosen(&replicas), ["a"].map(String::from).into());
        replicas.learned("b");
        replicas.learned("b");
        assert_eq!(chosen(&replicas), ["a"].map(String::from).into());
        replicas.is_silent("b");
        replicas.learned("b");
        assert_eq!(chosen(&replicas), ["a", "any"].map(String::from).into());
    }

    #[tokio::test(start_paused = true)]
    async fn the_less_busy_replica_gets_most() {
        let replicas = two();
        let held: Vec<Choice> = (0..100).map(|_| replicas.choose()).collect();
        let of_a = held.iter().filter(|choice| name(choice) == "a").count();
        assert!((40..=60).contains(&of_a), "{of_a}");
        drop(held);
        assert!(are_idle(&replicas));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_answer_is_asked_nothing_until_it_does_by_its_name() {
        let replicas = two();
        let mut asked = replicas.choose();
        while name(&asked) != "a" {
            asked = replicas.choose();
        }
        replicas.is_silent("a");
        assert!(asked.lost.is_cancelled());
        assert!((0..50).all(|_| name(&replicas.choose()) == "b"));
        assert_eq!(replicas.to_probe(), [Arc::from("a")]);
        replicas.is_silent("b");
        assert_eq!(name(&replicas.choose()), "any");
        assert_eq!(replicas.learned("a"), Heard::Known);
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
        assert_eq!(chosen(&replicas).len(), 2);
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
        assert!(replicas.vanished("a").is_some() && replicas.vanished("b").is_some());
        assert!(replicas.vanished("a").is_none());
        assert_eq!(name(&replicas.choose()), "any");
        // It was only slow to say good-bye, or another one has its name: what was under way is not counted for it.
        replicas.answered(name(&held));
        assert_eq!(name(&replicas.choose()), "any");
        proven(&replicas, "a");
        proven(&replicas, "b");
        drop(held);
        assert!(are_idle(&replicas));
        drop(replicas.choose());
        assert!(are_idle(&replicas));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_draining_replica_has_is_lost_only_once_it_answers_nothing_any_more() {
        let replicas = Replicas::default();
        proven(&replicas, "a");
        let held: Vec<Choice> = (0..4).map(|_| replicas.choose()).collect();
        let begun = Instant::now();
        let gone = replicas.vanished("a").unwrap();
        let ended = tokio::spawn(gone.ended());
        for one in &held[..3] {
            tokio::time::sleep(LAST_WORDS * 3 / 4).await;
            assert!(!held[3].lost.is_cancelled());
            one.answered();
        }
        ended.await.unwrap();
        assert!(held[3].lost.is_cancelled());
        assert_eq!(begun.elapsed(), LAST_WORDS * 4);
    }
}
