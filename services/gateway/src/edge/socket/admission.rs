//! How many clients may be on their way in at a time: as many as the backend digests.
//!
//! A client is on its way from its handshake until its session has begun or is refused. The bound on those rises while
//! that takes little time and falls where it takes long, so a slow backend gets fewer clients, and never none. Clients
//! that do not go on with their handshake do not count for long, because they cost the backend nothing; and those of
//! one address take no more than their share of the bound, so that they keep nobody else out meanwhile.
//!
//! As many again wait for a moment, in the order they came: a client that is refused comes back a second later at best,
//! and most of a crowd are in sooner than that.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use parlance_runtime::tasks;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::edge::addresses::ClientAddress;

/// Clients on their way in that are admitted however long they take.
const LEAST: usize = 16;
/// Clients that take longer than this lower the bound.
const TOO_LONG: Duration = Duration::from_millis(1_500);
/// Clients that take less than this raise it.
const SHORT: Duration = Duration::from_millis(750);
/// Pause between two steps down: those that are on their way already take as long as they take.
const STEP: Duration = Duration::from_millis(250);
/// The part of the bound that the clients of one address may take: one in so many.
const SHARE: usize = 8;
/// How long a client waits until it is admitted or refused: less than it would stay away.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a client counts that does not go on with its handshake.
const IDLE: Duration = Duration::from_secs(3);

/// The bound. Cheap to clone.
#[derive(Clone)]
pub struct Admission(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    most: usize,
    bound: usize,
    /// Clients on their way in.
    under_way: usize,
    /// Those of them whose address is known.
    by_address: HashMap<ClientAddress, usize>,
    /// Clients that are neither admitted nor refused yet, at most as many as the bound; of one address no more than its
    /// share.
    waiting: VecDeque<WaitingHandshake>,
    lowered_at: Option<Instant>,
}

#[derive(Debug)]
struct WaitingHandshake {
    address: Option<ClientAddress>,
    /// Answered once the client counts as under way.
    admitted: oneshot::Sender<()>,
}

/// A handshake that waits. If it is dropped after it was admitted and before it learnt that, the admission is given back.
struct QueuedHandshake<'a> {
    admission: &'a Admission,
    address: Option<ClientAddress>,
    admitted: oneshot::Receiver<()>,
}

/// A client on its way in, until dropped.
pub struct Ticket {
    admission: Admission,
    address: Option<ClientAddress>,
    since: Instant,
    /// Whether the backend was asked for it.
    is_served: bool,
}

/// Where the ticket of a connection is until its session has begun.
pub type TicketHolder = Mutex<Option<Ticket>>;

impl Admission {
    /// With this bound at most.
    pub fn new(most: usize) -> Self {
        let most = most.max(LEAST);
        Self(Arc::new(Mutex::new(State {
            most,
            bound: most,
            under_way: 0,
            by_address: HashMap::new(),
            waiting: VecDeque::new(),
            lowered_at: None,
        })))
    }

    /// Admits one more client, of this address where it is known, perhaps after a moment; `None` where too many are on
    /// their way in.
    pub async fn enter(&self, address: Option<ClientAddress>) -> Option<Ticket> {
        let mut queued = {
            let mut state = self.lock();
            if state.admits(address) {
                state.count(address);
                return Some(self.ticket(address));
            }
            QueuedHandshake {
                admission: self,
                address,
                admitted: state.wait(address)?,
            }
        };
        // An admission that came at the last moment is given back as the queued handshake is dropped.
        let admitted = timeout(PATIENCE, &mut queued.admitted).await.ok()?;
        admitted.ok().map(|()| self.ticket(address))
    }

    fn ticket(&self, address: Option<ClientAddress>) -> Ticket {
        Ticket {
            admission: self.clone(),
            address,
            since: Instant::now(),
            is_served: false,
        }
    }

    fn leave(&self, address: Option<ClientAddress>, took: Option<Duration>) {
        let mut state = self.lock();
        state.under_way -= 1;
        if let Some(address) = address
            && let Some(own) = state.by_address.get_mut(&address)
        {
            *own -= 1;
            if *own == 0 {
                state.by_address.remove(&address);
            }
        }
        match took {
            Some(took) if took > TOO_LONG => state.lower(Instant::now()),
            Some(took) if took < SHORT => state.bound = (state.bound + 1).min(state.most),
            _ => {}
        }
        state.admit_waiting();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What the clients of one address may take of the bound.
    fn share(&self) -> usize {
        self.bound / SHARE
    }

    fn admits(&self, address: Option<ClientAddress>) -> bool {
        let own = address.and_then(|address| self.by_address.get(&address));
        self.under_way < self.bound && own.is_none_or(|own| *own < self.share())
    }

    fn count(&mut self, address: Option<ClientAddress>) {
        self.under_way += 1;
        if let Some(address) = address {
            *self.by_address.entry(address).or_default() += 1;
        }
    }

    fn wait(&mut self, address: Option<ClientAddress>) -> Option<oneshot::Receiver<()>> {
        // Others may have lost patience, or be gone.
        self.waiting.retain(|one| !one.admitted.is_closed());
        let mut of_address = self.waiting.iter().filter(|one| one.address == address);
        let is_crowded = address.is_some() && of_address.nth(self.share().saturating_sub(1)).is_some();
        if is_crowded || self.waiting.len() >= self.bound {
            return None;
        }
        let (sender, admitted) = oneshot::channel();
        self.waiting.push_back(WaitingHandshake {
            address,
            admitted: sender,
        });
        Some(admitted)
    }

    /// Admits those who wait, in their order, as far as there is room.
    fn admit_waiting(&mut self) {
        while self.under_way < self.bound
            && let Some(first) = self.waiting.iter().position(|one| self.admits(one.address))
            && let Some(WaitingHandshake { address, admitted }) = self.waiting.remove(first)
        {
            if admitted.send(()).is_ok() {
                self.count(address);
            }
        }
    }

    fn lower(&mut self, now: Instant) {
        if self.lowered_at.is_none_or(|at| now >= at + STEP) {
            self.bound = (self.bound * 3 / 4).max(LEAST);
            self.lowered_at = Some(now);
        }
    }
}

impl Ticket {
    /// Holds the ticket for a connection that may be gone before its session begins.
    pub fn hold<T: Send + Sync + 'static>(
        self,
        owner: &Arc<T>,
        holder: impl Fn(&T) -> &TicketHolder + Send + 'static,
    ) {
        *holder(owner).lock().unwrap_or_else(PoisonError::into_inner) = Some(self);
        let owner: Weak<T> = Arc::downgrade(owner);
        tasks::spawn("expire a ticket", async move {
            tokio::time::sleep(IDLE).await;
            if let Some(owner) = owner.upgrade() {
                drop(
                    holder(&owner)
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .take(),
                );
            }
        });
    }

    /// From here on it takes the time of the backend.
    pub fn begin(&mut self) {
        self.since = Instant::now();
        self.is_served = true;
    }
}

impl Drop for QueuedHandshake<'_> {
    fn drop(&mut self) {
        self.admitted.close();
        if self.admitted.try_recv().is_ok() {
            self.admission.leave(self.address, None);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let took = self.is_served.then(|| self.since.elapsed());
        self.admission.leave(self.address, took);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    /// What comes at once.
    fn enter(admission: &Admission, address: Option<ClientAddress>) -> Option<Ticket> {
        admission.enter(address).now_or_never().flatten()
    }

    fn served(admission: &Admission) -> Ticket {
        let mut ticket = enter(admission, None).unwrap();
        ticket.begin();
        ticket
    }

    fn address(last: u8) -> Option<ClientAddress> {
        Some(ClientAddress::of([192, 0, 2, last].into()))
    }

    #[tokio::test(start_paused = true)]
    async fn clients_beyond_the_bound_wait_until_others_are_in() {
        let admission = Admission::new(20);
        let mut tickets: Vec<_> = (0..20).map(|_| served(&admission)).collect();
        assert!(enter(&admission, None).is_none());
        tickets.pop();
        assert!(enter(&admission, None).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_admitted_in_order_and_refused_after_a_moment() {
        let admission = Admission::new(20);
        let mut tickets: Vec<_> = (0..20).map(|_| served(&admission)).collect();
        let mut waiting: Vec<_> = (0..25).map(|_| Box::pin(admission.enter(None))).collect();
        let states: Vec<_> = waiting
            .iter_mut()
            .map(|one| one.now_or_never().is_none())
            .collect();
        assert_eq!(
            states,
            [[true; 20].as_slice(), &[false; 5]].concat(),
            "no more wait than may be under way"
        );
        tickets.truncate(18);
        let _first = waiting.remove(0).now_or_never().unwrap().unwrap();
        // The second one is gone before it learns that it is admitted: the third one takes its place.
        drop(waiting.remove(0));
        let _third = waiting.remove(0).now_or_never().unwrap().unwrap();
        assert!(waiting[0].as_mut().now_or_never().is_none());
        tokio::time::sleep(PATIENCE + Duration::from_millis(1)).await;
        assert!(waiting.remove(0).await.is_none());
        drop(tickets);
        assert_eq!(admission.lock().under_way, 2 + 16);
        drop(waiting);
        assert_eq!(admission.lock().under_way, 2, "what nobody took is given back");
    }

    #[tokio::test(start_paused = true)]
    async fn those_of_one_address_who_wait_hold_up_nobody_else() {
        let admission = Admission::new(LEAST);
        let mut own: Vec<_> = (0..3 * LEAST)
            .map(|_| Box::pin(admission.enter(address(1))))
            .collect();
        let admitted: Vec<_> = own
            .iter_mut()
            .filter_map(|one| one.now_or_never().flatten())
            .collect();
        assert_eq!(admitted.len(), LEAST / SHARE);
        assert_eq!(admission.lock().waiting.len(), LEAST / SHARE);
        assert!(enter(&admission, address(2)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_clients_of_one_address_leave_room_for_others() {
        let admission = Admission::new(LEAST);
        let silent: Vec<_> = (0..LEAST).filter_map(|_| enter(&admission, address(1))).collect();
        assert_eq!(silent.len(), LEAST / SHARE);
        assert!(enter(&admission, address(2)).is_some() && enter(&admission, None).is_some());
        drop(silent);
        assert!(enter(&admission, address(1)).is_some());
        assert!(
            admission.lock().by_address.is_empty(),
            "an idle address leaves nothing"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_bound_follows_what_the_backend_digests_and_never_closes() {
        let admission = Admission::new(400);
        for _ in 0..40 {
            let slow = served(&admission);
            tokio::time::advance(TOO_LONG + STEP).await;
            drop(slow);
        }
        assert_eq!(admission.lock().bound, LEAST);
        assert!(enter(&admission, None).is_some());
        for _ in 0..500 {
            drop(served(&admission));
        }
        assert_eq!(admission.lock().bound, 400);
    }

    #[tokio::test(start_paused = true)]
    async fn many_slow_clients_at_once_lower_the_bound_by_one_step() {
        let admission = Admission::new(400);
        let slow: Vec<_> = (0..400).map(|_| served(&admission)).collect();
        tokio::time::advance(TOO_LONG + STEP).await;
        drop(slow);
        assert_eq!(admission.lock().bound, 300);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_go_on_counts_for_a_while_only() {
        let admission = Admission::new(16);
        let idle: Vec<Arc<TicketHolder>> = (0..16).map(|_| Arc::default()).collect();
        for holder in &idle {
            enter(&admission, None).unwrap().hold(holder, |holder| holder);
        }
        assert!(enter(&admission, None).is_none());
        tokio::time::sleep(IDLE + Duration::from_millis(1)).await;
        assert!(enter(&admission, None).is_some());
        assert_eq!(admission.lock().bound, 16);
    }
}
