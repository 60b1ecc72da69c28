//! Pages: what a client is as long as it is open, however often it connects. A page's id names a position of the client's
//! own user and opens nothing, so it needs no proof.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Characters of a page's id.
pub const LENGTH: usize = 12;

/// One page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Page([u8; LENGTH]);

impl Page {
    /// A page that was not open before.
    pub fn open() -> Self {
        let mut id = [0; LENGTH];
        id.copy_from_slice(random().as_bytes());
        Self(id)
    }

    /// The page of this id; `None` where it can be none of ours.
    pub fn parse(id: &str) -> Option<Self> {
        let id: [u8; LENGTH] = id.as_bytes().try_into().ok()?;
        let is_ours = id
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte));
        is_ours.then_some(Self(id))
    }
}

impl std::fmt::Display for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

/// Random characters, as many as a page's id has.
pub fn random() -> String {
    let mut random = [0; LENGTH / 4 * 3];
    random.fill_with(|| fastrand::u8(..));
    URL_SAFE_NO_PAD.encode(random)
}
