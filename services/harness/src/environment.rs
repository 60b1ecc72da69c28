//! The only reader of process-wide inputs: environment variables, the clock and randomness.
//!
//! Must not interpret what it reads; callers know what a value means.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};

/// A variable's value; unset, empty and non-Unicode count as absent.
#[expect(
    clippy::disallowed_methods,
    reason = "this module owns reading the environment"
)]
#[must_use]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Every variable whose name starts with `prefix`, sorted by name.
#[expect(
    clippy::disallowed_methods,
    reason = "this module owns reading the environment"
)]
#[must_use]
pub fn variables(prefix: &str) -> Vec<(String, String)> {
    let mut found: Vec<_> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with(prefix))
        .collect();
    found.sort();
    found
}

/// Unix time in whole seconds.
#[expect(clippy::disallowed_methods, reason = "this module owns reading the clock")]
#[must_use]
pub fn unix_seconds() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// 122 random bits as 32 hexadecimal characters, from the operating system's generator.
#[expect(clippy::disallowed_methods, reason = "this module owns randomness")]
#[must_use]
pub fn random_hex() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// A number that differs between calls and processes; not secret.
#[must_use]
pub fn scatter() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// The program called `name` in the folders of `PATH`, if there is one.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let path = variable("PATH")?;
    path.split(':')
        .map(|folder| Path::new(folder).join(name))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
