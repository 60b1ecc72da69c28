//! Reads the outline of a Yjs (v1) update before the library does: only plain text in the one text a journal
//! has, and no counts that its bytes cannot back. A few bytes could otherwise ask for gigabytes.

/// Highest clock: what a document of this service can never reach by itself.
const MAX_CLOCK: u64 = 1 << 31;
/// Blocks of one update: putting them in their place can cost their product with what stands there already,
/// and others wait meanwhile.
const MAX_BLOCKS: u64 = 2_000;
/// Client ids have 53 bits.
const MAX_CLIENT: u64 = 1 << 53;

const GC: u8 = 0;
const DELETED: u8 = 1;
const STRING: u8 = 4;
const SKIP: u8 = 10;
const HAS_RIGHT_ORIGIN: u8 = 0x40;
const HAS_ORIGIN: u8 = 0x80;

struct Reader<'a>(&'a [u8]);

/// `Some` if the bytes are an update of nothing but the plain text `name`.
pub(super) fn is_text_update(bytes: &[u8], name: &str) -> Option<()> {
    let mut reader = Reader(bytes);
    let mut total = 0;
    for _ in 0..reader.count()? {
        let blocks = reader.count()?;
        total += blocks;
        (total <= MAX_BLOCKS).then_some(())?;
        reader.below(MAX_CLIENT)?;
        let mut clock = reader.below(MAX_CLOCK)?;
        for _ in 0..blocks {
            clock += reader.block(name)?;
            (clock < MAX_CLOCK).then_some(())?;
        }
    }
    for _ in 0..reader.count()? {
        reader.below(MAX_CLIENT)?;
        for _ in 0..reader.count()? {
            let clock = reader.below(MAX_CLOCK)?;
            let len = reader.below(MAX_CLOCK)?;
            (clock + len <= MAX_CLOCK).then_some(())?;
        }
    }
    reader.0.is_empty().then_some(())
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// A number of 7 bits per byte, lowest first.
    fn number(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..56).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn below(&mut self, bound: u64) -> Option<u64> {
        self.number().filter(|&number| number < bound)
    }

    /// How many of something follow: each takes at least a byte.
    fn count(&mut self) -> Option<u64> {
        let left = self.0.len() as u64;
        self.number().filter(|&count| count <= left)
    }

    fn text(&mut self) -> Option<&str> {
        let len = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    /// One block; how far it moves the clock.
    fn block(&mut self, name: &str) -> Option<u64> {
        let info = self.byte()?;
        if info == GC || info == SKIP {
            return self.below(MAX_CLOCK).filter(|&len| len > 0);
        }
        let (origin, right) = (info & HAS_ORIGIN != 0, info & HAS_RIGHT_ORIGIN != 0);
        for _ in 0..u8::from(origin) + u8::from(right) {
            self.below(MAX_CLIENT)?;
            self.below(MAX_CLOCK)?;
        }
        if !origin && !right {
            (self.number()? == 1).then_some(())?;
            (self.text()? == name).then_some(())?;
        }
        match info & !(HAS_ORIGIN | HAS_RIGHT_ORIGIN) {
            DELETED => self.below(MAX_CLOCK).filter(|&len| len > 0),
            // Clocks count UTF-16 units.
            STRING => self
                .text()
                .map(|text| text.encode_utf16().count() as u64)
                .filter(|&len| len > 0),
            // Formats, embedded objects, keys of maps.
            _ => None,
        }
    }
}
