//! Messages that stream, with their text so far, for clients whose dialect shows one by edits.
//!
//! A message is taken over when it is created, or read from what is stored when a chunk comes first; it grows by its chunks as
//! at a native client. Kept only while a client is shown it like that, and while it streams. An edit may be dropped: the end
//! of the stream, which no client misses, brings the whole text.

use std::collections::HashMap;
use std::time::Duration;

use parlance_proto::v1::{Message, MessageChunk, StreamState, event};
use parlance_runtime::tasks;
use tokio::time::Instant;

use super::Room;
use crate::dialect::Outbound;

/// Shortest time between two edits of one message.
const PACE: Duration = Duration::from_secs(1);
/// Messages of one conversation; persistence lets fewer stream.
const MOST: usize = 128;
/// Chunks kept while their message is read: what comes in two seconds.
const MOST_EARLY: usize = 20;

/// By seq.
#[derive(Default)]
pub(super) struct StreamedTexts(HashMap<u64, StreamedText>);

struct StreamedText {
    message_id: String,
    known: Known,
    /// When it was shown, or read, last.
    at: Instant,
    /// It is to be shown again.
    is_owed: bool,
}

enum Known {
    /// It is read; the chunks that came meanwhile.
    Read(Vec<MessageChunk>),
    Message(Box<Message>),
}

impl StreamedText {
    fn add(&mut self, chunk: &MessageChunk) {
        match &mut self.known {
            Known::Read(early) if early.len() < MOST_EARLY => early.push(chunk.clone()),
            Known::Read(_) => {}
            Known::Message(message) => {
                let offset = usize::try_from(chunk.offset).unwrap_or(usize::MAX);
                let end = offset.saturating_add(chunk.text.len());
                // After a gap nothing is added: a later chunk goes back to before it. One that ends where the text does says
                // that all of it is stored by now: an edit before may have been dropped, or replaced on a screen by a history that
                // was read since.
                if message.content.is_char_boundary(offset) && end >= message.content.len() {
                    message.content.truncate(offset);
                    message.content.push_str(&chunk.text);
                    self.is_owed = true;
                }
            }
        }
    }
}

impl StreamedTexts {
    /// A message begins to stream.
    fn begins(&mut self, message: &Message, now: Instant) {
        if self.0.len() < MOST {
            let text = StreamedText {
                message_id: message.id.clone(),
                known: Known::Message(Box::new(message.clone())),
                at: now,
                is_owed: false,
            };
            self.0.insert(message.seq, text);
        }
    }

    /// Takes a chunk. Whether its message is to be read.
    fn chunk(&mut self, chunk: &MessageChunk, now: Instant) -> bool {
        let is_new = !self.0.contains_key(&chunk.seq);
        if is_new && self.0.len() >= MOST {
            return false;
        }
        let text = self.0.entry(chunk.seq).or_insert_with(|| StreamedText {
            message_id: chunk.message_id.clone(),
            known: Known::Read(Vec::new()),
            at: now,
            is_owed: false,
        });
        text.add(chunk);
        let reads_again = matches!(text.known, Known::Read(_)) && now >= text.at + PACE;
        if reads_again {
            text.at = now;
        }
        is_new || reads_again
    }

    /// Takes over what was read, unless it is known by now or streams no more.
    fn found(&mut self, message: Message) {
        let seq = message.seq;
        if message.stream() != StreamState::Open {
            self.ended(seq);
            return;
        }
        let text = self.0.get_mut(&seq).filter(|text| text.message_id == message.id);
        if let Some(text) = text
            && let Known::Read(early) = &mut text.known
        {
            let early = std::mem::take(early);
            text.is_owed = !message.content.is_empty();
            text.known = Known::Message(Box::new(message));
            for chunk in &early {
                text.add(chunk);
            }
        }
    }

    /// The message streams no more.
    pub(super) fn ended(&mut self, seq: u64) {
        self.0.remove(&seq);
    }

    /// When the next of them is to be shown.
    pub(super) fn next(&self) -> Option<Instant> {
        let owed = self.0.values().filter(|text| text.is_owed);
        owed.map(|text| text.at + PACE).min()
    }

    /// Those to be shown by then, which count as shown.
    fn take_due(&mut self, now: Instant) -> impl Iterator<Item = &Message> {
        let due = self.0.values_mut();
        let due = due.filter(move |text| text.is_owed && text.at + PACE <= now);
        due.filter_map(move |text| {
            (text.at, text.is_owed) = (now, false);
            match &text.known {
                Known::Message(message) => Some(&**message),
                Known::Read(_) => None,
            }
        })
    }
}

impl Room {
    /// A message begins to stream, for those who are shown it by edits.
    pub(super) fn stream_begins(&mut self, message: &Message) {
        if message.stream() == StreamState::Open && self.audience.is_shown_edits() {
            self.streamed.begins(message, Instant::now());
        }
    }

    /// A chunk came, for those who are shown its message by edits.
    pub(super) fn stream_grows(&mut self, chunk: &MessageChunk) {
        if !self.audience.is_shown_edits() {
            self.streamed = StreamedTexts::default();
            return;
        }
        if !self.streamed.chunk(chunk, Instant::now()) {
            return;
        }
        let (rooms, conversation, before) =
            (self.rooms.clone(), self.conversation, chunk.seq.saturating_sub(1));
        tasks::spawn("read a message that streams", async move {
            // Without an answer it is read again at a later chunk.
            let page = rooms.backend.events(None, conversation, before, 1).await;
            let created = page.ok().and_then(|page| page.events.into_iter().next());
            if let Some(event::Body::MessageCreated(created)) = created.and_then(|event| event.body)
                && let Some(message) = created.message
            {
                rooms.found_stream(conversation, message);
            }
        });
    }

    pub(super) fn found_stream(&mut self, message: Message) {
        self.streamed.found(message);
    }

    pub(super) fn show_streams(&mut self) {
        for message in self.streamed.take_due(Instant::now()) {
            self.lists.grown(message);
            self.audience
                .whisper(Outbound::MessageGrown(&self.place, message), "");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(offset: u64, text: &str) -> MessageChunk {
        MessageChunk {
            message_id: "m".to_owned(),
            seq: 7,
            offset,
            text: text.to_owned(),
        }
    }

    fn message(content: &str, stream: StreamState) -> Message {
        Message {
            id: "m".to_owned(),
            seq: 7,
            content: content.to_owned(),
            stream: stream.into(),
            ..Message::default()
        }
    }

    fn shown(texts: &mut StreamedTexts, now: Instant) -> Vec<String> {
        let due = texts.take_due(now);
        due.map(|message| message.content.clone()).collect()
    }

    #[test]
    fn a_message_that_was_read_has_what_came_meanwhile_and_is_shown_once_a_second() {
        let (mut texts, start) = (StreamedTexts::default(), Instant::now());
        assert!(texts.chunk(&chunk(2, "y"), start));
        assert!(!texts.chunk(&chunk(3, " you"), start), "it is read already");
        texts.found(message("Hé", StreamState::Open));
        // Another answer is older than what is known.
        texts.found(message("H", StreamState::Open));
        assert!(shown(&mut texts, start).is_empty());
        let next = texts.next().unwrap();
        assert_eq!(shown(&mut texts, next), ["Hé you"]);
        assert_eq!(texts.next(), None);
        // A gap, a part that begins within a character, one that ends earlier, one that goes back.
        for (offset, text) in [(9, "?"), (2, " you there"), (3, " "), (4, "you there")] {
            assert!(!texts.chunk(&chunk(offset, text), next));
        }
        assert!(shown(&mut texts, next).is_empty());
        assert_eq!(shown(&mut texts, next + PACE), ["Hé you there"]);
        // Once more, when all of it is stored.
        texts.chunk(&chunk(0, "Hé you there"), next);
        assert_eq!(shown(&mut texts, next + PACE * 2), ["Hé you there"]);
    }

    #[test]
    fn a_message_that_was_seen_to_begin_is_not_read() {
        let (mut texts, start) = (StreamedTexts::default(), Instant::now());
        texts.begins(&message("", StreamState::Open), start);
        assert_eq!(texts.next(), None);
        assert!(!texts.chunk(&chunk(0, "a"), start + PACE * 2));
        assert_eq!(shown(&mut texts, start + PACE * 2), ["a"]);
    }

    #[test]
    fn a_read_that_failed_is_made_again_and_what_has_ended_is_kept_no_longer() {
        let (mut texts, start) = (StreamedTexts::default(), Instant::now());
        assert!(texts.chunk(&chunk(0, "a"), start));
        assert!(texts.chunk(&chunk(0, "a"), start + PACE));
        texts.found(message("ab", StreamState::Finished));
        assert!(texts.0.is_empty());
        texts.chunk(&chunk(0, "a"), start);
        texts.ended(7);
        texts.found(message("a", StreamState::Open));
        assert!(texts.0.is_empty() && texts.next().is_none());
    }
}
