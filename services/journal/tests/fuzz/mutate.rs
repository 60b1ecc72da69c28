//! Mutations of updates: such that an honest client could have sent the result, of the parts, and of the bytes.

use std::collections::BTreeMap;

use crate::parts::{Block, DELETED, GONE, Id, Parts, SKIP, STRING, put};

const TEXTS: &[&str] = &["", "x", "👍", "👍🏽", "é", "\u{301}", "\0", "\n", "one two three"];
const NUMBERS: &[u64] = &[
    0,
    1,
    2,
    0x7f,
    0x80,
    0xffff,
    (1 << 31) - 1,
    1 << 31,
    u32::MAX as u64,
    (1 << 53) - 1,
    1 << 53,
    u64::MAX,
];

/// What a client may send that holds to the rules of Yjs: parts of updates, blocks cut in two, other deletions.
pub fn honest(random: &mut fastrand::Rng, parts: &mut Parts, others: &[Parts]) {
    match random.usize(0..6) {
        0 => {
            // The blocks from one on are sent later.
            if let Some(section) = random.choice(&mut parts.sections) {
                section.blocks.truncate(random.usize(..=section.blocks.len()));
            }
            parts.sections.retain(|section| !section.blocks.is_empty());
        }
        1 => cut_block(random, parts),
        2 => {
            let known = random.choice(others).cloned().unwrap_or_default();
            let Some((client, clock)) = known.any_id(random) else {
                return;
            };
            if parts.deleted.iter().all(|(deleted, _)| *deleted != client) {
                parts.deleted.push((client, vec![(clock, random.u64(1..4))]));
            }
        }
        3 => {
            parts.deleted.truncate(random.usize(..=parts.deleted.len()));
        }
        4 => {
            let other = random.choice(others).cloned().unwrap_or_default();
            for section in other.sections {
                if parts.sections.iter().all(|known| known.client != section.client) {
                    parts.sections.push(section);
                }
            }
        }
        _ => random.shuffle(&mut parts.sections),
    }
    delete_what_is_gone(parts);
}

/// Of a block that comes without its text the deletion is never missing.
fn delete_what_is_gone(parts: &mut Parts) {
    let mut deleted: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
    for (client, ranges) in parts.deleted.drain(..) {
        deleted.entry(client).or_default().extend(ranges);
    }
    for section in &parts.sections {
        let mut clock = section.clock;
        for block in &section.blocks {
            if block.kind == DELETED {
                let ranges = deleted.entry(section.client).or_default();
                ranges.push((clock, block.length));
            }
            clock += block.units();
        }
    }
    for (client, mut ranges) in deleted {
        ranges.sort_unstable();
        ranges.dedup_by(|next, last| {
            let overlaps = next.0 <= last.0 + last.1;
            if overlaps {
                last.1 = last.1.max(next.0 + next.1 - last.0);
            }
            overlaps
        });
        parts.deleted.push((client, ranges));
    }
}

/// One block as two, the way Yjs cuts them: never a surrogate pair.
fn cut_block(random: &mut fastrand::Rng, parts: &mut Parts) {
    let Some(section) = random.choice(&mut parts.sections) else {
        return;
    };
    let at = random.usize(..section.blocks.len());
    let before: u64 = section.blocks[..at].iter().map(Block::units).sum();
    let block = &mut section.blocks[at];
    let places: Vec<usize> = block.text.char_indices().map(|(at, _)| at).skip(1).collect();
    let Some(place) = random.choice(places) else {
        return;
    };
    let text = block.text.split_off(place);
    let last = section.clock + before + block.units() - 1;
    let second = Block::text(Some((section.client, last)), block.right, &text);
    section.blocks.insert(at + 1, second);
}

/// What no client sends that holds to the rules.
pub fn forged(random: &mut fastrand::Rng, parts: &mut Parts, others: &[Parts]) {
    let other = random.choice(others).cloned().unwrap_or_default();
    let id = match random.usize(0..4) {
        0 => parts.any_id(random),
        1 => Some((number(random), number(random))),
        2 => None,
        _ => other.any_id(random),
    };
    match random.usize(0..9) {
        0 => {
            if let Some(section) = random.choice(&mut parts.sections) {
                section.client = id.map_or(1, |id| id.0);
            }
        }
        1 => {
            if let Some(section) = random.choice(&mut parts.sections) {
                section.clock = id.map_or(0, |id| id.1);
            }
        }
        2 => {
            if let Some(section) = random.choice(&mut parts.sections) {
                section.missing = number(random);
            }
        }
        3 => parts.sections.extend(random.choice(&other.sections).cloned()),
        4 => {
            let ranges = (0..random.usize(0..4)).map(|_| (number(random), number(random)));
            let ranges = ranges.collect();
            parts.deleted.push((id.map_or(1, |id| id.0), ranges));
        }
        5 => {
            if let Some((client, clock)) = id {
                parts.deleted.push((client, vec![(clock, number(random))]));
            }
        }
        _ => {
            if let Some(section) = random.choice(&mut parts.sections) {
                let at = random.usize(..=section.blocks.len());
                forge_block(random, &mut section.blocks, at, id);
            }
        }
    }
}

fn forge_block(random: &mut fastrand::Rng, blocks: &mut Vec<Block>, at: usize, id: Option<Id>) {
    let kind = random
        .choice([GONE, DELETED, STRING, SKIP, 5, 31])
        .unwrap_or(GONE);
    let text = random.choice(TEXTS).copied().unwrap_or_default();
    let Some(block) = blocks.get_mut(at) else {
        blocks.push(Block::text(id, id, text));
        return;
    };
    match random.usize(0..8) {
        0 => block.left = id,
        1 => block.right = id,
        2 => (block.left, block.right) = (block.right, block.left),
        3 => block.text = text.to_owned(),
        4 => (block.kind, block.length) = (kind, number(random)),
        5 => block.parent = text.to_owned(),
        6 => {
            let block = block.clone();
            blocks.insert(at, block);
        }
        _ => {
            blocks.remove(at);
        }
    }
}

fn number(random: &mut fastrand::Rng) -> u64 {
    match random.bool() {
        true => random.u64(0..16),
        false => random.choice(NUMBERS).copied().unwrap_or_default(),
    }
}

/// Bytes as they may come from anywhere.
pub fn damaged(random: &mut fastrand::Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = random.usize(..=bytes.len());
    let end = (at + random.usize(..8)).min(bytes.len());
    match random.usize(0..8) {
        0 => bytes.truncate(at),
        1 => {
            // A number in place of a number.
            let mut number_bytes = Vec::new();
            put(&mut number_bytes, number(random));
            let length = bytes[at..].iter().take_while(|byte| **byte >= 0x80).count() + 1;
            bytes.splice(at..(at + length).min(bytes.len()), number_bytes);
        }
        2 => bytes.insert(at, random.u8(..)),
        3 => {
            let from = random.usize(..=other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        4 => {
            let part = bytes[at..end].to_vec();
            bytes.splice(at..at, part.repeat(random.usize(1..20)));
        }
        5 => {
            bytes.drain(at..end);
        }
        6 => bytes.rotate_left(at),
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.usize(0..8);
            }
        }
    }
}
