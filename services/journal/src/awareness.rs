//! The awareness of a journal, as y-protocols defines it: what each open page shows of its user to the others, such as
//! name and cursor. Ephemeral: states are never stored, and end by themselves.
//!
//! A state is a JSON object with a clock, under the Yjs client id of a page. Decoding is bounded before anything is
//! allocated: `yrs` would reserve memory for as many states as the first bytes claim.
//!
//! Merge rule ([`AwarenessStates::apply`]): the higher clock wins; at equal clocks only a removal does. A removed state
//! leaves its clock behind, so that one that is late does not bring it back. Only the page itself counts the clock on:
//! removing its state for it keeps the clock, so that whatever the page shows next wins everywhere, also where
//! the removal comes later. A state belongs to the user whose session sent it, and no other user changes it while it
//! lives.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use yrs::encoding::read::{Cursor, Read as _};
use yrs::encoding::write::Write as _;

/// How long a state lives that is not renewed.
pub const STATE_LIVES: Duration = Duration::from_secs(12);
/// Most bytes of an update.
pub const MAX_AWARENESS_UPDATE: usize = 64 * 1024;
/// Most bytes of a state as its client sends it.
pub const MAX_STATE: usize = 2 * 1024;
/// Most states of a journal, and of an update.
pub const MAX_STATES: usize = 1_000;

/// How long the clock of a removed state is kept.
const CLOCK_KEPT: Duration = Duration::from_secs(60);
/// Most states and clocks of removed states.
const MAX_KEPT: usize = 2 * MAX_STATES;
/// JavaScript counts to 2^53: a higher id would break the decoders of all other clients.
const MAX_CLIENT: u64 = 1 << 53;

/// The state of one client at one clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientState {
    /// The Yjs client id.
    pub client: u64,
    /// Grows with each change and each renewal.
    pub clock: u32,
    /// A JSON object; `None` removes the state.
    pub state: Option<String>,
}

/// Why an awareness update is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAwareness {
    /// The bytes are not an awareness update.
    #[error("update is not an awareness update of y-protocols")]
    Malformed,
    /// The update has more than [`MAX_STATES`] states.
    #[error("update has more than {MAX_STATES} entries")]
    TooMany,
    /// The update is larger than [`MAX_AWARENESS_UPDATE`] bytes.
    #[error("update is larger than {MAX_AWARENESS_UPDATE} bytes")]
    TooLarge,
    /// A state is larger than [`MAX_STATE`] bytes.
    #[error("update holds a state that is larger than {MAX_STATE} bytes")]
    StateTooLarge,
}

/// Decodes an awareness update.
///
/// # Errors
/// See [`InvalidAwareness`]; whether states are JSON objects is for others to find out.
pub fn decode_awareness(update: &[u8]) -> Result<Vec<ClientState>, InvalidAwareness> {
    if update.len() > MAX_AWARENESS_UPDATE {
        return Err(InvalidAwareness::TooLarge);
    }
    let mut cursor = Cursor::new(update);
    let count = cursor
        .read_var::<u64>()
        .map_err(|_| InvalidAwareness::Malformed)?;
    if count > MAX_STATES as u64 {
        return Err(InvalidAwareness::TooMany);
    }
    let mut states = Vec::new();
    for _ in 0..count {
        states.push(decode_state(&mut cursor)?);
    }
    if cursor.has_content() {
        return Err(InvalidAwareness::Malformed);
    }
    Ok(states)
}

fn decode_state(cursor: &mut Cursor<'_>) -> Result<ClientState, InvalidAwareness> {
    let malformed = |_| InvalidAwareness::Malformed;
    let client = cursor.read_var::<u64>().map_err(malformed)?;
    let clock = cursor.read_var::<u64>().map_err(malformed)?;
    let clock = u32::try_from(clock).map_err(|_| InvalidAwareness::Malformed)?;
    let state = cursor.read_string().map_err(malformed)?;
    if client >= MAX_CLIENT {
        return Err(InvalidAwareness::Malformed);
    }
    if state.len() > MAX_STATE {
        return Err(InvalidAwareness::StateTooLarge);
    }
    Ok(ClientState {
        client,
        clock,
        state: (state.trim() != "null").then(|| state.to_owned()),
    })
}

/// Encodes an awareness update of client ids, clocks and states.
pub fn encode_awareness<'a>(states: impl ExactSizeIterator<Item = (u64, u32, Option<&'a str>)>) -> Vec<u8> {
    let mut update = Vec::new();
    update.write_var(states.len());
    for (client, clock, state) in states {
        update.write_var(client);
        update.write_var(clock);
        update.write_string(state.unwrap_or("null"));
    }
    update
}

/// What became of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It is the client's state now.
    Changed,
    /// It brings nothing: it is known, or older than what is.
    Known,
    /// Its client's state was removed at the same or a higher clock: its client goes on once it knows that.
    Outdated,
    /// The state of this client belongs to another user, and this is a change of it.
    Foreign,
    /// There are [`MAX_STATES`] others.
    Full,
}

/// The states of the pages that have a journal open.
#[derive(Debug, Default)]
pub struct AwarenessStates {
    kept: HashMap<u64, Kept>,
    living: usize,
    /// Clients in the order of their removal, some of which have a state again.
    removed: VecDeque<u64>,
    /// Nothing ends, and no clock is forgotten, before that.
    next_check: Option<Instant>,
}

/// What is known of a client.
#[derive(Debug)]
struct Kept {
    clock: u32,
    /// `None` once it is removed.
    state: Option<Arc<str>>,
    owner: Arc<str>,
    seen_at: Instant,
}

impl AwarenessStates {
    /// Merges a state that a session of `owner` sent. It lives for [`STATE_LIVES`].
    pub fn apply(&mut self, owner: &str, sent: ClientState, now: Instant) -> Applied {
        let ClientState { client, clock, state } = sent;
        match self.kept.get(&client) {
            Some(kept) if kept.state.is_some() => {
                let is_newer = clock > kept.clock;
                let removes = clock == kept.clock && state.is_none();
                if *kept.owner != *owner {
                    return if is_newer {
                        Applied::Foreign
                    } else {
                        Applied::Known
                    };
                }
                if !is_newer && !removes {
                    return Applied::Known;
                }
            }
            // While it is remembered: another user, who has seen the id of a page that is away, must not take it.
            Some(kept) if *kept.owner != *owner => {
                return match state {
                    Some(_) if clock > kept.clock => Applied::Foreign,
                    _ => Applied::Known,
                };
            }
            Some(kept) if clock <= kept.clock => {
                return match state {
                    Some(_) => Applied::Outdated,
                    None => Applied::Known,
                };
            }
            _ if state.is_none() => return Applied::Known,
            _ if self.living >= MAX_STATES => return Applied::Full,
            _ => {}
        }
        self.put(client, clock, state, owner.into(), now);
        Applied::Changed
    }

    /// Removes a client's state at its own clock; whether there was one.
    pub fn remove(&mut self, client: u64, now: Instant) -> bool {
        let Some(kept) = self.kept.get(&client).filter(|kept| kept.state.is_some()) else {
            return false;
        };
        let (clock, owner) = (kept.clock, Arc::clone(&kept.owner));
        self.put(client, clock, None, owner, now);
        true
    }

    /// Removes the states that were not renewed, and forgets what was removed long ago. Returns the clients whose
    /// states ended.
    pub fn expire(&mut self, now: Instant) -> Vec<u64> {
        if self.next_check.is_none_or(|at| at > now) {
            return Vec::new();
        }
        let ends = |kept: &Kept| kept.state.is_some() && kept.ends_at() <= now;
        let ended = self.kept.iter().filter(|(_, kept)| ends(kept));
        let ended: Vec<_> = ended.map(|(client, _)| *client).collect();
        for client in &ended {
            self.remove(*client, now);
        }
        let kept = &mut self.kept;
        kept.retain(|_, kept| kept.state.is_some() || kept.ends_at() > now);
        self.removed
            .retain(|client| kept.get(client).is_some_and(|kept| kept.state.is_none()));
        self.next_check = self.kept.values().map(Kept::ends_at).min();
        ended
    }

    /// When to [`expire`](Self::expire) next.
    pub fn next_check(&self) -> Option<Instant> {
        self.next_check
    }

    /// The user whom a client's state belongs to, while it has one.
    pub fn owner(&self, client: u64) -> Option<&str> {
        let kept = self.kept.get(&client)?;
        kept.state.as_ref().map(|_| &*kept.owner)
    }

    /// The user whom a client's state belongs to, or belonged to before it was removed.
    pub fn last_owner(&self, client: u64) -> Option<&str> {
        Some(&*self.kept.get(&client)?.owner)
    }

    /// What is known of a client; `None` if nothing is.
    pub fn get(&self, client: u64) -> Option<(u32, Option<&str>)> {
        let kept = self.kept.get(&client)?;
        Some((kept.clock, kept.state.as_deref()))
    }

    /// The clients that have a state.
    pub fn clients(&self) -> impl Iterator<Item = u64> {
        let living = self.kept.iter().filter(|(_, kept)| kept.state.is_some());
        living.map(|(client, _)| *client)
    }

    fn put(&mut self, client: u64, clock: u32, state: Option<String>, owner: Arc<str>, now: Instant) {
        let lives = state.is_some();
        let kept = Kept {
            clock,
            state: state.map(Into::into),
            owner,
            seen_at: now,
        };
        let ends_at = kept.ends_at();
        self.next_check = Some(self.next_check.map_or(ends_at, |at| at.min(ends_at)));
        let before = self.kept.insert(client, kept);
        self.living -= usize::from(before.is_some_and(|before| before.state.is_some()));
        self.living += usize::from(lives);
        if !lives {
            self.removed.push_back(client);
        }
        while self.kept.len() > MAX_KEPT || self.removed.len() > MAX_KEPT {
            let Some(oldest) = self.removed.pop_front() else {
                return;
            };
            if self.kept.get(&oldest).is_some_and(|kept| kept.state.is_none()) {
                self.kept.remove(&oldest);
            }
        }
    }
}

impl Kept {
    fn ends_at(&self) -> Instant {
        self.seen_at
            + match self.state {
                Some(_) => STATE_LIVES,
                None => CLOCK_KEPT,
            }
    }
}

#[cfg(test)]
mod tests;
