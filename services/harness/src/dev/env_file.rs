//! `.devstack/env`: how other programs find the running stack. Readable by a shell.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use anyhow::Context;

use super::folder::{DevFolder, write_private};

/// Writes the settings, each as `NAME='value'`.
///
/// # Errors
/// The folder cannot be written.
pub fn write(folder: &DevFolder, settings: &[(&str, String)]) -> anyhow::Result<()> {
    let mut text = String::new();
    for (name, value) in settings {
        writeln!(text, "{name}={}", quoted(value))?;
    }
    write_private(&folder.env_file(), &text)
}

/// Reads the settings back.
///
/// # Errors
/// No stack has been started.
pub fn read(folder: &DevFolder) -> anyhow::Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(folder.env_file()).ok();
    let text = text.context("no stack is running here: start one with `make up`")?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.into(), plain(value)))
        .collect())
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

fn plain(value: &str) -> String {
    let inner = value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    inner.unwrap_or(value).replace(r"'\''", "'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_value_survives_quoting() {
        for value in [
            "http://127.0.0.1:1,http://127.0.0.1:2",
            "",
            "it's & $HOME \"x\"",
            "'",
        ] {
            assert_eq!(plain(&quoted(value)), value);
        }
    }
}
