//! The only source of randomness of the crate: names of replicas, epochs, ids of dead letters.

use uuid::Uuid;

/// A fresh random id.
#[expect(clippy::disallowed_methods, reason = "this module owns randomness")]
pub fn random() -> Uuid {
    Uuid::new_v4()
}

/// The name of this process among its replicas: new with every start, so that a restarted replica never
/// takes itself for its predecessor.
pub fn replica_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let host = if host.is_empty() { "persistence" } else { host };
    let suffix = random().simple().to_string();
    format!(
        "{host}-{}-{}",
        std::process::id(),
        suffix.get(..8).unwrap_or_default()
    )
}
