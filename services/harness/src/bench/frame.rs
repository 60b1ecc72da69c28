//! WebSocket frames of a client, by hand: text frames out, whole frames in.
//!
//! Must not know what a frame carries. Compression and fragments are never negotiated and therefore errors.

use anyhow::{bail, ensure};

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const MASKED: u8 = 0x80;
/// A larger frame is taken for a misread length.
const LARGEST: usize = 64 << 20;
/// An idle connection keeps no more than this.
const KEPT: usize = 1_024;

/// One frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Text: one Engine.IO packet.
    Text(&'a str),
    /// A WebSocket ping or pong, which Socket.IO servers do not use.
    Control,
    /// The server closes the connection.
    Close,
}

/// Cuts a stream of bytes into frames, whatever the boundaries of the reads were.
#[derive(Debug, Default)]
pub struct FrameReader {
    bytes: Vec<u8>,
    at: usize,
}

impl FrameReader {
    /// Adds what was read.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.at == self.bytes.len() {
            self.bytes.clear();
            self.at = 0;
            self.bytes.shrink_to(KEPT);
        } else if self.at > 0 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one.
    ///
    /// # Errors
    /// The server sent a frame that was not negotiated.
    pub fn next_frame(&mut self) -> anyhow::Result<Option<Frame<'_>>> {
        let Some((length, header)) = length(&self.bytes[self.at..])? else {
            return Ok(None);
        };
        let start = self.at + header;
        if self.bytes.len() < start + length {
            return Ok(None);
        }
        let first = self.bytes[self.at];
        self.at = start + length;
        let payload = &self.bytes[start..start + length];
        Ok(Some(match first {
            TEXT => Frame::Text(std::str::from_utf8(payload)?),
            PING | PONG => Frame::Control,
            CLOSE => Frame::Close,
            other => bail!("a frame that starts with {other:#x} was not negotiated"),
        }))
    }
}

/// Length of the payload and of the header before it; none while the header is incomplete.
fn length(bytes: &[u8]) -> anyhow::Result<Option<(usize, usize)>> {
    let (length, header) = match bytes {
        [_, 126, high, low, ..] => (usize::from(u16::from_be_bytes([*high, *low])), 4),
        [_, 127, a, b, c, d, e, f, g, h, ..] => {
            let length = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
            (usize::try_from(length)?, 10)
        }
        [_, 126 | 127, ..] | [] | [_] => return Ok(None),
        [_, short, ..] => {
            ensure!(short & MASKED == 0, "servers must not mask");
            (usize::from(*short), 2)
        }
    };
    ensure!(length <= LARGEST, "a frame of {length} bytes");
    Ok(Some((length, header)))
}

/// A text frame. Clients must mask; a key of zeros leaves the text as it is and costs nothing.
#[must_use]
pub fn text(payload: &str) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 14);
    frame.push(TEXT);
    match payload.len() {
        length @ 0..=125 => frame.push(MASKED | u8::try_from(length).unwrap_or_default()),
        length @ 126..=65_535 => {
            frame.push(MASKED | 126);
            frame.extend(u16::try_from(length).unwrap_or_default().to_be_bytes());
        }
        length => {
            frame.push(MASKED | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload.as_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame as servers send it.
    fn served(first: u8, payload: &str) -> Vec<u8> {
        let mut frame = text(payload);
        frame[0] = first;
        frame[1] &= !MASKED;
        let header = match payload.len() {
            0..=125 => 2,
            126..=65_535 => 4,
            _ => 10,
        };
        frame.drain(header..header + 4);
        frame
    }

    fn texts(reader: &mut FrameReader) -> Vec<String> {
        let mut found = vec![];
        while let Some(frame) = reader.next_frame().unwrap() {
            if let Frame::Text(text) = frame {
                found.push(text.to_owned());
            }
        }
        found
    }

    #[test]
    fn frames_of_every_length_form_are_read_whatever_the_reads_are_cut_into() {
        let sent = [
            "2".to_owned(),
            "x".repeat(125),
            "y".repeat(126),
            "z".repeat(70_000),
        ];
        let bytes: Vec<u8> = sent.iter().flat_map(|text| served(TEXT, text)).collect();
        for size in [1, 2, 3, 7, 128, 4_096, bytes.len()] {
            let mut reader = FrameReader::default();
            let mut found = vec![];
            for part in bytes.chunks(size) {
                reader.feed(part);
                found.extend(texts(&mut reader));
            }
            assert_eq!(found, sent, "in parts of {size}");
        }
    }

    #[test]
    fn several_frames_of_one_read_are_all_delivered() {
        let mut reader = FrameReader::default();
        reader.feed(
            &[
                served(TEXT, "a"),
                served(PING, ""),
                served(TEXT, "b"),
                served(CLOSE, ""),
            ]
            .concat(),
        );
        assert_eq!(reader.next_frame().unwrap(), Some(Frame::Text("a")));
        assert_eq!(reader.next_frame().unwrap(), Some(Frame::Control));
        assert_eq!(reader.next_frame().unwrap(), Some(Frame::Text("b")));
        assert_eq!(reader.next_frame().unwrap(), Some(Frame::Close));
        assert_eq!(reader.next_frame().unwrap(), None);
    }

    #[test]
    fn fragments_and_masked_frames_are_refused() {
        for bytes in [&[0x01, 0x01, b'a'][..], &[TEXT, MASKED | 1, 0, 0, 0, 0, b'a']] {
            let mut reader = FrameReader::default();
            reader.feed(bytes);
            assert!(reader.next_frame().is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn client_frames_carry_a_mask_and_the_length() {
        assert_eq!(text("3"), [TEXT, MASKED | 1, 0, 0, 0, 0, b'3']);
        assert_eq!(
            text(&"x".repeat(126))[..8],
            [TEXT, MASKED | 126, 0, 126, 0, 0, 0, 0]
        );
        assert_eq!(
            text(&"x".repeat(65_536))[1..10],
            [MASKED | 127, 0, 0, 0, 0, 0, 1, 0, 0]
        );
    }
}
