//! How much goes into one answer: a count asked for, and what fits a bus message. Pure.

use parlance_proto::UserId;
use parlance_proto::v1::{Error, Participant};

use crate::model::refusals::refuse;

/// Items when the asker says nothing.
const DEFAULT_LIMIT: u32 = 50;
/// Most items of one page.
const MAX_LIMIT: u32 = 100;
/// Bytes of items in one reply; the bus takes 900 KiB in all, and the rest of a reply is small.
pub(super) const MAX_BYTES: usize = 700 * 1024;

/// The limit that is meant.
pub(super) fn limit(asked: u32) -> u32 {
    if asked == 0 {
        DEFAULT_LIMIT
    } else {
        asked.min(MAX_LIMIT)
    }
}

/// How many of the items fit `bytes`, in their order; at least one.
pub(super) fn fitting<'a, T: prost::Message + 'a>(
    items: impl IntoIterator<Item = &'a T>,
    bytes: usize,
) -> usize {
    let mut used = 0;
    let mut count = 0;
    for item in items {
        used += item.encoded_len() + 8;
        if used > bytes && count > 0 {
            break;
        }
        count += 1;
    }
    count
}

/// Cuts items in their order to what fits a page. The place of the last one that is left, from which the next page goes on;
/// `None` where nothing was cut off.
pub(super) fn cut_page<T: prost::Message>(items: &mut Vec<T>, limit: u32) -> Option<usize> {
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let kept = fitting(items.iter().take(most), MAX_BYTES);
    let is_last = kept == items.len();
    items.truncate(kept);
    kept.checked_sub(1).filter(|_| !is_last)
}

/// The same of items beside their seqs: the seq is the cursor, 0 where nothing was cut off.
pub(super) fn cut_page_by_seq<T: prost::Message>(seqs: &[u64], items: &mut Vec<T>, limit: u32) -> u64 {
    let last = cut_page(items, limit).and_then(|last| seqs.get(last));
    last.copied().unwrap_or_default()
}

/// The same of items by user: the user is the cursor, empty where nothing was cut off.
pub(super) fn cut_page_by_user<T: prost::Message>(
    items: &mut Vec<T>,
    limit: u32,
    user: impl Fn(&T) -> &str,
) -> String {
    let last = cut_page(items, limit).and_then(|last| items.get(last));
    last.map(|last| user(last).to_owned()).unwrap_or_default()
}

/// A cursor that is a user id; empty for the first page.
///
/// # Errors
/// It is neither.
pub(super) fn check_user_cursor(after: &str) -> Result<(), Error> {
    if !after.is_empty() {
        UserId::parse(after).map_err(|_| refuse("after is no user id"))?;
    }
    Ok(())
}

/// Cuts off what does not fit the bytes that are left, and takes those away that are used: all of them where
/// something was cut off, so that what comes after does not overtake it. Whether nothing was.
pub(super) fn cut<T: prost::Message>(items: &mut Vec<T>, left: &mut usize) -> bool {
    let whole = items.len();
    items.truncate(if *left == 0 { 0 } else { fitting(&*items, *left) });
    let used: usize = items.iter().map(prost::Message::encoded_len).sum();
    let is_whole = items.len() == whole;
    *left = if is_whole { left.saturating_sub(used) } else { 0 };
    is_whole
}

/// Leaves out what the participants of a very large conversation have read, where it would not fit.
pub(super) fn slim<T: prost::Message>(item: &mut T, participants: impl Fn(&mut T) -> &mut Vec<Participant>) {
    if item.encoded_len() > MAX_BYTES {
        for participant in participants(item) {
            participant.read.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use parlance_proto::v1::Message;

    use super::*;

    #[test]
    fn limits_are_kept_within_bounds() {
        assert_eq!((limit(0), limit(7), limit(u32::MAX)), (50, 7, 100));
    }

    #[test]
    fn the_cursor_of_a_page_is_the_seq_of_its_last_item_where_there_is_more() {
        let items = |count: usize, bytes: usize| {
            vec![
                Message {
                    content: "x".repeat(bytes),
                    ..Message::default()
                };
                count
            ]
        };
        let page = |mut items: Vec<Message>, limit| {
            let next = cut_page_by_seq(&[3, 5, 9], &mut items, limit);
            (items.len(), next)
        };
        assert_eq!(page(items(3, 1), 3), (3, 0));
        assert_eq!(page(items(3, 1), 2), (2, 5));
        assert_eq!(page(items(3, 400 * 1024), 3), (1, 3));
        assert_eq!(page(Vec::new(), 3), (0, 0));
    }

    #[test]
    fn a_page_never_outgrows_its_bytes_but_always_moves_on() {
        let message = |bytes: usize| Message {
            content: "x".repeat(bytes),
            ..Message::default()
        };
        let items = [message(400), message(400), message(400)];
        assert_eq!(fitting(&items, 900), 2);
        assert_eq!(fitting(&items, 10), 1);
        assert_eq!(fitting(&items, 9_000), 3);
    }
}
