//! The parts of an encoded update, so that mutations change meaning and not only bytes. Encodes whatever it holds.

/// Client and clock.
pub type Id = (u64, u64);

const HAS_LEFT: u8 = 0x80;
const HAS_RIGHT: u8 = 0x40;
pub const GONE: u8 = 0;
pub const DELETED: u8 = 1;
pub const STRING: u8 = 4;
pub const SKIP: u8 = 10;

#[derive(Debug, Clone, Default)]
pub struct Parts {
    pub sections: Vec<Section>,
    pub deleted: Vec<(u64, Vec<(u64, u64)>)>,
}

/// Blocks of one client from one clock on.
#[derive(Debug, Clone)]
pub struct Section {
    pub client: u64,
    pub clock: u64,
    pub blocks: Vec<Block>,
    /// Blocks that are announced, but not there.
    pub missing: u64,
}

#[derive(Debug, Clone)]
pub struct Block {
    pub kind: u8,
    pub left: Option<Id>,
    pub right: Option<Id>,
    pub parent: String,
    pub text: String,
    /// Of a block without text.
    pub length: u64,
}

impl Block {
    pub fn text(left: Option<Id>, right: Option<Id>, text: &str) -> Self {
        Self {
            kind: STRING,
            left,
            right,
            parent: "content".to_owned(),
            text: text.to_owned(),
            length: 0,
        }
    }

    pub fn empty(kind: u8, length: u64) -> Self {
        Self {
            kind,
            length,
            ..Self::text(None, None, "")
        }
    }

    /// UTF-16 units.
    pub fn units(&self) -> u64 {
        match self.kind {
            STRING => self.text.encode_utf16().count() as u64,
            _ => self.length,
        }
    }
}

impl Parts {
    /// `None` if these are not the bytes of plain text.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = Rest(bytes);
        let mut parts = Self::default();
        for _ in 0..rest.number()? {
            let blocks = rest.number()?;
            let (client, clock) = (rest.number()?, rest.number()?);
            let blocks = (0..blocks).map(|_| rest.block()).collect::<Option<Vec<_>>>()?;
            parts.sections.push(Section {
                client,
                clock,
                blocks,
                missing: 0,
            });
        }
        for _ in 0..rest.number()? {
            let client = rest.number()?;
            let ranges = (0..rest.number()?).map(|_| Some((rest.number()?, rest.number()?)));
            parts.deleted.push((client, ranges.collect::<Option<Vec<_>>>()?));
        }
        rest.0.is_empty().then_some(parts)
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        put(&mut bytes, self.sections.len() as u64);
        for section in &self.sections {
            put(
                &mut bytes,
                (section.blocks.len() as u64).saturating_add(section.missing),
            );
            put(&mut bytes, section.client);
            put(&mut bytes, section.clock);
            for block in &section.blocks {
                put_block(&mut bytes, block);
            }
        }
        put(&mut bytes, self.deleted.len() as u64);
        for (client, ranges) in &self.deleted {
            put(&mut bytes, *client);
            put(&mut bytes, ranges.len() as u64);
            for (clock, length) in ranges {
                put(&mut bytes, *clock);
                put(&mut bytes, *length);
            }
        }
        bytes
    }

    pub fn blocks(&self) -> usize {
        self.sections.iter().map(|section| section.blocks.len()).sum()
    }

    /// Any id that it inserts, or one beside.
    pub fn any_id(&self, random: &mut fastrand::Rng) -> Option<Id> {
        let section = random.choice(&self.sections)?;
        let units = section.blocks.iter().map(Block::units);
        let end = units.fold(section.clock, u64::saturating_add);
        let within = end.saturating_sub(section.clock).min(1 << 32);
        Some((
            section.client,
            section.clock.saturating_add(random.u64(..=within)),
        ))
    }
}

fn put_block(bytes: &mut Vec<u8>, block: &Block) {
    let is_item = !matches!(block.kind, GONE | SKIP);
    let (left, right) = (block.left.filter(|_| is_item), block.right.filter(|_| is_item));
    let flag = |id: &Option<Id>, flag| if id.is_some() { flag } else { 0 };
    bytes.push(block.kind | flag(&left, HAS_LEFT) | flag(&right, HAS_RIGHT));
    for (client, clock) in left.iter().chain(&right) {
        put(bytes, *client);
        put(bytes, *clock);
    }
    if is_item && left.is_none() && right.is_none() {
        put(bytes, 1);
        put_text(bytes, &block.parent);
    }
    match block.kind {
        STRING => put_text(bytes, &block.text),
        _ => put(bytes, block.length),
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put(bytes, text.len() as u64);
    bytes.extend_from_slice(text.as_bytes());
}

/// Seven bits a byte, the lowest first.
pub fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    fn block(&mut self) -> Option<Block> {
        let info = self.byte()?;
        let mut block = Block::empty(info & 0x1f, 0);
        if !matches!(block.kind, GONE | SKIP) {
            let mut id = |flag| match info & flag {
                0 => Some(None),
                _ => Some(Some((self.number()?, self.number()?))),
            };
            (block.left, block.right) = (id(HAS_LEFT)?, id(HAS_RIGHT)?);
            if block.left.is_none() && block.right.is_none() {
                if self.number()? != 1 {
                    return None;
                }
                block.parent = self.text()?;
            }
        }
        match block.kind {
            STRING => block.text = self.text()?,
            GONE | SKIP | DELETED => block.length = self.number()?,
            _ => return None,
        }
        Some(block)
    }
}
