//! Encodes an event at most once per dialect, however many sessions it goes to.

use crate::dialect::{Dialect, Frame, Outbound};

/// The frames of one event.
pub struct Frames<'a> {
    outbound: Outbound<'a>,
    made: Vec<(&'static str, Vec<Frame>)>,
}

impl<'a> Frames<'a> {
    /// Nothing is encoded until someone needs it.
    pub fn new(outbound: Outbound<'a>) -> Self {
        Self {
            outbound,
            made: Vec::new(),
        }
    }

    /// The event in a dialect; empty where it has no word for it.
    pub fn of(&mut self, dialect: &'static dyn Dialect) -> &[Frame] {
        let name = dialect.name();
        let place = match self.made.iter().position(|(made, _)| *made == name) {
            Some(place) => place,
            None => {
                self.made.push((name, dialect.frames(self.outbound)));
                self.made.len() - 1
            }
        };
        &self.made[place].1
    }
}
