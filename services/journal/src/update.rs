//! An encoded Yjs (v1) update that a client sent: decoded, checked and priced before any document sees it.
//!
//! The decoding is that of `yrs`. [`Inspector`] stands between it and the bytes: it refuses what a journal never
//! holds (formats, embedded objects, other texts), counts that the bytes cannot back, and clocks that overflow;
//! and it counts the blocks. `tests/fuzz` holds it to that.

use std::collections::HashSet;

use yrs::block::{
    BLOCK_GC_REF_NUMBER, BLOCK_ITEM_DELETED_REF_NUMBER, BLOCK_ITEM_STRING_REF_NUMBER, BLOCK_SKIP_REF_NUMBER,
    HAS_ORIGIN, HAS_RIGHT_ORIGIN,
};
use yrs::encoding::read::{Cursor, Error as ReadError, Read};
use yrs::encoding::varint::VarInt;
use yrs::updates::decoder::{Decode as _, Decoder};
use yrs::{Any, ClientID, ID, IdSet, StateVector, Update};

use crate::error::Error;

/// The name of the text in the document, as CRDT clients open it.
pub const TEXT: &str = "content";

/// No document of this service reaches this clock by itself; `yrs` computes with clocks as `i32`.
const MAX_CLOCK: u64 = 1 << 31;
/// JavaScript counts to 2^53.
const MAX_CLIENT: u64 = 1 << 53;

/// What an update writes: the ids that it inserts and the ids that it deletes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Written {
    pub(crate) inserted: IdSet,
    pub(crate) deleted: IdSet,
}

/// A checked update.
pub(crate) struct Incoming {
    pub(crate) update: Update,
    pub(crate) written: Written,
    /// Blocks, most of which are insertions.
    pub(crate) blocks: u64,
    /// Ranges of deleted ids.
    pub(crate) deletions: u64,
    /// Whether it inserts nothing but ASCII.
    pub(crate) is_ascii: bool,
    /// Whether it inserts characters of two UTF-16 units.
    pub(crate) has_pairs: bool,
    /// Ids that must be known before.
    origins: Vec<ID>,
}

impl Written {
    pub(crate) fn of(update: &Update) -> Self {
        Self {
            inserted: update.insertions(true),
            deleted: update.delete_set().clone(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.inserted.is_empty() && self.deleted.is_empty()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.inserted.merge_with(other.inserted.clone());
        self.deleted.merge_with(other.deleted.clone());
    }

    pub(crate) fn remove(&mut self, other: &Self) {
        self.inserted.diff_with(&other.inserted);
        self.deleted.diff_with(&other.deleted);
    }

    pub(crate) fn is_within(&self, other: &Self) -> bool {
        let mut rest = self.clone();
        rest.remove(other);
        rest.is_empty()
    }
}

impl Incoming {
    /// Decodes and checks an update.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the bytes are not an update of plain text named [`TEXT`]; [`Error::NotStorable`] if
    /// it inserts a NUL character.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut inspector = Inspector::new(bytes);
        let update = Update::decode(&mut inspector).map_err(|_| Error::Malformed)?;
        if inspector.cursor.has_content() {
            return Err(Error::Malformed);
        }
        if inspector.has_nul {
            return Err(Error::NotStorable);
        }
        Ok(Self {
            written: Written::of(&update),
            update,
            blocks: inspector.blocks,
            deletions: inspector.deletions,
            is_ascii: inspector.is_ascii,
            has_pairs: inspector.has_pairs,
            origins: inspector.origins,
        })
    }

    /// Whether all that the update builds on is in a document with this state or in the update itself.
    pub(crate) fn is_complete(&self, state: &StateVector) -> bool {
        let inserted = &self.written.inserted;
        let known = |id: &ID| id.clock < state.get(&id.client) || inserted.contains(id);
        let without_gap = |client: ClientID| {
            let mut end = state.get(&client);
            let ranges = inserted
                .get(&client)
                .into_iter()
                .flat_map(|ranges| ranges.ranges());
            for range in ranges {
                if range.start > end {
                    return None;
                }
                end = end.max(range.end);
            }
            Some(end)
        };
        self.origins.iter().all(known)
            && inserted.client_ids().all(|client| without_gap(client).is_some())
            && self.written.deleted.iter().all(|(client, ranges)| {
                let end = without_gap(*client);
                ranges.into_iter().all(|range| Some(range.end) <= end)
            })
    }

    /// Whether a block of one client builds on a block of another one that the update brings as well. Such
    /// blocks may build on each other in a circle.
    pub(crate) fn crosses_clients(&self, state: &StateVector) -> bool {
        let clients = self.written.inserted.client_ids().count();
        clients > 1 && self.origins.iter().any(|id| id.clock >= state.get(&id.client))
    }
}

/// Decodes what a client says it knows. `yrs` trusts the count and the clients of a state vector.
///
/// # Errors
/// [`Error::Malformed`] if the bytes are not a state vector.
pub(crate) fn decode_state_vector(bytes: &[u8]) -> Result<StateVector, Error> {
    let mut cursor = Cursor::new(bytes);
    let mut number = || cursor.read_var::<u64>().map_err(|_| Error::Malformed);
    // Each client takes two bytes at least.
    let clients = number()?;
    if clients > bytes.len() as u64 / 2 {
        return Err(Error::Malformed);
    }
    for _ in 0..clients {
        if number()? >= MAX_CLIENT || number()? >= MAX_CLOCK {
            return Err(Error::Malformed);
        }
    }
    StateVector::decode_v1(bytes).map_err(|_| Error::Malformed)
}

/// A decoder of lib0 version 1 that refuses what would be unsafe to go on with.
struct Inspector<'a> {
    cursor: Cursor<'a>,
    awaits: Awaits,
    /// Whether the next string is the name of the text rather than content.
    names_parent: bool,
    clients: HashSet<ClientID>,
    last_count: u64,
    /// Client and clock of the block that is read.
    client: ClientID,
    clock: u64,
    deleted_to: u64,
    blocks: u64,
    deletions: u64,
    origins: Vec<ID>,
    has_nul: bool,
    is_ascii: bool,
    has_pairs: bool,
}

/// What the next number of 32 bits is. Clients have 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaits {
    /// How many of something follow; each takes a byte at least.
    Count,
    /// The clock of a client's first block.
    Clock,
    /// The length of a block to skip.
    Length,
}

fn refuse<T>(reason: &'static str) -> Result<T, ReadError> {
    Err(ReadError::Custom(reason.to_owned()))
}

impl<'a> Inspector<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            cursor: Cursor::new(bytes),
            awaits: Awaits::Count,
            names_parent: false,
            clients: HashSet::new(),
            last_count: 0,
            client: ClientID::new(0),
            clock: 0,
            deleted_to: 0,
            blocks: 0,
            deletions: 0,
            origins: Vec::new(),
            has_nul: false,
            is_ascii: true,
            has_pairs: false,
        }
    }

    /// The next number, which stays to be read.
    fn peek(&self) -> Result<u64, ReadError> {
        let mut ahead = Cursor {
            buf: self.cursor.buf,
            next: self.cursor.next,
        };
        ahead.read_var()
    }

    fn advance_clock(&mut self, length: u64) -> Result<(), ReadError> {
        self.clock = self.clock.saturating_add(length);
        if length == 0 || self.clock >= MAX_CLOCK {
            return refuse("an empty block, or a clock out of range");
        }
        Ok(())
    }

    fn id(&mut self) -> Result<ID, ReadError> {
        let client: u64 = self.cursor.read_var()?;
        let clock: u32 = self.cursor.read_var()?;
        if client >= MAX_CLIENT || u64::from(clock) >= MAX_CLOCK {
            return refuse("an id out of range");
        }
        let id = ID::new(ClientID::new(client), clock);
        if id.client == self.client && u64::from(clock) >= self.clock {
            return refuse("a block that builds on itself or on a later one");
        }
        self.origins.push(id);
        Ok(id)
    }

    /// A string, read as bytes that are valid UTF-8.
    fn text(&mut self) -> Result<&'a str, ReadError> {
        let length = self.peek()?;
        let _: u32 = self.cursor.read_var()?;
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| self.cursor.next.checked_add(length));
        let bytes = end.and_then(|end| self.cursor.buf.get(self.cursor.next..end));
        let bytes = bytes.ok_or(ReadError::EndOfBuffer(0))?;
        self.cursor.next += bytes.len();
        std::str::from_utf8(bytes).or_else(|_| refuse("not UTF-8"))
    }
}

impl Read for Inspector<'_> {
    fn read_exact(&mut self, len: usize) -> Result<&[u8], ReadError> {
        let left = self.cursor.buf.len() - self.cursor.next;
        if len > left {
            return Err(ReadError::EndOfBuffer(len));
        }
        self.cursor.read_exact(len)
    }

    fn read_u8(&mut self) -> Result<u8, ReadError> {
        self.cursor.read_u8()
    }

    fn read_var<T: VarInt>(&mut self) -> Result<T, ReadError> {
        let number = self.peek()?;
        if size_of::<T>() == size_of::<u64>() {
            // The client of a delete set.
            if number >= MAX_CLIENT {
                return refuse("a client out of range");
            }
            return self.cursor.read_var();
        }
        match std::mem::replace(&mut self.awaits, Awaits::Count) {
            Awaits::Count => {
                self.last_count = number;
                let left = self.cursor.buf.len() - self.cursor.next;
                if number > left as u64 {
                    return refuse("more of something than bytes");
                }
            }
            Awaits::Clock => {
                if number >= MAX_CLOCK {
                    return refuse("a clock out of range");
                }
                self.clock = number;
            }
            Awaits::Length => self.advance_clock(number)?,
        }
        self.cursor.read_var()
    }

    fn read_string(&mut self) -> Result<&str, ReadError> {
        let text = self.text()?;
        if std::mem::take(&mut self.names_parent) {
            return if text == TEXT {
                Ok(text)
            } else {
                refuse("not the text of a journal")
            };
        }
        self.advance_clock(text.encode_utf16().count() as u64)?;
        self.has_nul |= text.contains('\0');
        self.is_ascii &= text.is_ascii();
        self.has_pairs |= text.contains(|char: char| char.len_utf16() == 2);
        Ok(text)
    }
}

impl Decoder for Inspector<'_> {
    fn reset_ds_cur_val(&mut self) {
        self.deleted_to = 0;
    }

    fn read_ds_clock(&mut self) -> Result<u32, ReadError> {
        let clock: u32 = self.cursor.read_var()?;
        if u64::from(clock) < self.deleted_to {
            return refuse("deleted ranges out of order");
        }
        self.deleted_to = u64::from(clock);
        Ok(clock)
    }

    fn read_ds_len(&mut self) -> Result<u32, ReadError> {
        let length: u32 = self.cursor.read_var()?;
        self.deleted_to += u64::from(length);
        self.deletions += 1;
        if length == 0 || self.deleted_to >= MAX_CLOCK {
            return refuse("a deleted range out of range");
        }
        Ok(length)
    }

    fn read_left_id(&mut self) -> Result<ID, ReadError> {
        self.id()
    }

    fn read_right_id(&mut self) -> Result<ID, ReadError> {
        self.id()
    }

    fn read_client(&mut self) -> Result<ClientID, ReadError> {
        let client: u64 = self.cursor.read_var()?;
        self.awaits = Awaits::Clock;
        if client >= MAX_CLIENT || self.last_count == 0 || !self.clients.insert(ClientID::new(client)) {
            return refuse("a client out of range, without blocks, or a second time");
        }
        self.client = ClientID::new(client);
        Ok(self.client)
    }

    fn read_info(&mut self) -> Result<u8, ReadError> {
        let info = self.cursor.read_u8()?;
        self.blocks += 1;
        match (info, info & !(HAS_ORIGIN | HAS_RIGHT_ORIGIN)) {
            (BLOCK_SKIP_REF_NUMBER, _) => self.awaits = Awaits::Length,
            (BLOCK_GC_REF_NUMBER, _) => {}
            (_, BLOCK_ITEM_DELETED_REF_NUMBER | BLOCK_ITEM_STRING_REF_NUMBER) => {}
            _ => return refuse("not plain text"),
        }
        Ok(info)
    }

    fn read_parent_info(&mut self) -> Result<bool, ReadError> {
        let is_named: u32 = self.cursor.read_var()?;
        if is_named != 1 {
            return refuse("not the text of a journal");
        }
        self.names_parent = true;
        Ok(true)
    }

    fn read_type_ref(&mut self) -> Result<u8, ReadError> {
        refuse("not plain text")
    }

    fn read_len(&mut self) -> Result<u32, ReadError> {
        let length: u32 = self.cursor.read_var()?;
        self.advance_clock(u64::from(length))?;
        Ok(length)
    }

    fn read_any(&mut self) -> Result<Any, ReadError> {
        refuse("not plain text")
    }

    fn read_json(&mut self) -> Result<Any, ReadError> {
        refuse("not plain text")
    }

    fn read_key(&mut self) -> Result<std::sync::Arc<str>, ReadError> {
        refuse("not plain text")
    }

    fn read_to_end(&mut self) -> Result<&[u8], ReadError> {
        Ok(&self.cursor.buf[self.cursor.next..])
    }
}
