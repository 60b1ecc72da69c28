//! What commands do to journals, and how far they may go. The documents themselves are `parlance-journal`'s. Pure: bytes
//! in, bytes out.

use parlance_journal::{Document, Error, Writer};

/// How large journals and changes of them may become. The units are those of `[journals]` in `defaults.toml`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Longest text.
    pub text_bytes: usize,
    /// Longest update.
    pub update_bytes: usize,
    /// Longest document, with all that was ever deleted. It is looked at when it may be too long: those are a few bytes
    /// for each change since the last checkpoint.
    pub document_bytes: usize,
    /// Most work that merging one update may take, in the units of [`Document::price`].
    pub work: u64,
}

/// A change that cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The document does not take it.
    #[error(transparent)]
    Document(#[from] Error),
    /// The update, or what it would lead to, is too long.
    #[error("the {what} would have {bytes} bytes; {most} are allowed")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// How many it would have.
        bytes: usize,
        /// How many it may have.
        most: usize,
    },
}

/// The document of a journal while changes are merged into it. It is made when it is first needed.
#[derive(Debug)]
pub struct Journal {
    /// A checkpoint and the updates since.
    parts: Vec<Vec<u8>>,
    document: Option<Document>,
}

impl Clone for Journal {
    /// The copy makes its document anew.
    fn clone(&self) -> Self {
        Self::new(self.parts.clone())
    }
}

impl Journal {
    /// The document that a checkpoint and the updates since make; without any, an empty one.
    pub fn new(parts: Vec<Vec<u8>>) -> Self {
        Self {
            parts,
            document: None,
        }
    }

    /// Merges an update that a client made. Returns whether that changed anything.
    ///
    /// # Errors
    /// See [`Refusal`]. The document stays as it was.
    pub fn merge(&mut self, update: &[u8], limits: &Limits) -> Result<bool, Refusal> {
        fits("update", update.len(), limits.update_bytes)?;
        match self.document()?.apply_new(update, limits.work) {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(false),
            Err(refused) => {
                if refused == Error::Broken {
                    self.document = None;
                }
                return Err(refused.into());
            }
        }
        self.parts.push(update.to_vec());
        let fits = self.fits(limits);
        if fits.is_err() {
            self.parts.pop();
            self.document = None;
        }
        fits.map(|()| true)
    }

    /// Bytes of the text.
    ///
    /// # Errors
    /// What is stored makes no document.
    pub fn text_bytes(&mut self) -> Result<usize, Refusal> {
        Ok(self.document()?.text_bytes())
    }

    /// The text.
    ///
    /// # Errors
    /// What is stored makes no document.
    pub fn text(&mut self) -> Result<String, Refusal> {
        Ok(self.document()?.text())
    }

    /// The whole document as one update, which stands for all that it was made of from now on.
    ///
    /// # Errors
    /// What is stored makes no document.
    pub fn checkpoint(&mut self) -> Result<Vec<u8>, Refusal> {
        let checkpoint = self.document()?.checkpoint();
        self.parts = vec![checkpoint.clone()];
        Ok(checkpoint)
    }

    /// Bytes of all that it is made of.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(Vec::len).sum()
    }

    fn fits(&mut self, limits: &Limits) -> Result<(), Refusal> {
        fits("text", self.document()?.text_bytes(), limits.text_bytes)?;
        // More than the document takes, or a little less.
        if self.bytes() > limits.document_bytes {
            let bytes = self.document()?.checkpoint().len();
            fits("document", bytes, limits.document_bytes)?;
        }
        Ok(())
    }

    fn document(&mut self) -> Result<&mut Document, Refusal> {
        let document = match self.document.take() {
            Some(document) => document,
            None => Document::load(&self.parts, Writer::NONE).map_err(|_| Error::Broken)?,
        };
        Ok(self.document.insert(document))
    }
}

fn fits(what: &'static str, bytes: usize, most: usize) -> Result<(), Refusal> {
    if bytes > most {
        return Err(Refusal::TooLarge { what, bytes, most });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
