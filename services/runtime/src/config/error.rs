//! What can be wrong with a setting, and the one line that the operator reads. Owns the wording;
//! it must not show a secret.

use std::fmt::{self, Display};
use std::ops::RangeInclusive;

use super::redact;

/// Settings that know their own allowed values.
pub trait Validate {
    /// Checks every value that its type alone does not.
    ///
    /// # Errors
    /// The first setting that is out of its allowed values.
    fn validate(&self) -> Result<(), Invalid>;
}

/// A setting whose value is not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Dotted path of the setting, as in the defaults.
    pub key: String,
    /// The value as it may be shown; empty where it must not be.
    pub value: String,
    /// What would be allowed, to be read after "must be".
    pub allowed: String,
}

/// Why the settings could not be loaded. Displays as one line: key, value, origin, what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    key: String,
    value: Option<String>,
    origin: Origin,
    problem: String,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// The program's own defaults; holds the variable that would change the setting.
    Defaults { variable: String },
    /// The configuration file.
    File(String),
    /// An environment variable.
    Variable(String),
    /// Not known, or already part of the problem's text.
    Unsaid,
}

impl Invalid {
    /// A setting whose value may be shown.
    #[must_use]
    pub fn new(key: impl Into<String>, value: impl Display, allowed: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            value: value.to_string(),
            allowed: allowed.into(),
        }
    }

    /// A setting whose value must not be shown.
    #[must_use]
    pub fn hidden(key: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            value: String::new(),
            allowed: allowed.into(),
        }
    }
}

impl Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ConfigError::from(self.clone()).fmt(f)
    }
}

impl std::error::Error for Invalid {}

impl ConfigError {
    pub(super) fn new(
        key: impl Into<String>,
        value: Option<String>,
        origin: Origin,
        problem: impl Into<String>,
    ) -> Self {
        Self {
            key: key.into(),
            value,
            origin,
            problem: problem.into(),
        }
    }

    /// Dotted path of the setting at fault; empty when the file as a whole is.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn from_invalid(invalid: Invalid, origin: Origin) -> Self {
        let Invalid { key, value, allowed } = invalid;
        let value = (!value.is_empty()).then_some(value);
        Self {
            key,
            value,
            origin,
            problem: format!("must be {allowed}"),
        }
    }
}

impl From<Invalid> for ConfigError {
    fn from(invalid: Invalid) -> Self {
        Self::from_invalid(invalid, Origin::Unsaid)
    }
}

impl Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = String::from("bad configuration");
        if !self.key.is_empty() {
            line.push_str(&format!(": {}", self.key));
            if let Some(value) = &self.value {
                line.push_str(&format!(" = {}", redact::shown(&self.key, value)));
            }
        }
        match &self.origin {
            Origin::Defaults { variable } => {
                line.push_str(&format!(" (the default; set {variable})"));
            }
            Origin::File(path) => line.push_str(&format!(" (from the file {path})")),
            Origin::Variable(name) => line.push_str(&format!(" (from the environment variable {name})")),
            Origin::Unsaid => {}
        }
        line.push_str(&format!(": {}", self.problem));
        f.write_str(&line.replace(['\n', '\r'], " "))
    }
}

impl std::error::Error for ConfigError {}

/// Checks that a number lies in `range`.
///
/// # Errors
/// Names the key and the range.
pub fn in_range<T: PartialOrd + Display>(
    key: &str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<(), Invalid> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(Invalid::new(
        key,
        value,
        format!("within {} and {}", range.start(), range.end()),
    ))
}

/// Checks that a text is one of a closed list.
///
/// # Errors
/// Names the key and the list.
pub fn one_of(key: &str, value: &str, allowed: &[&str]) -> Result<(), Invalid> {
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(Invalid::new(key, value, format!("one of {}", allowed.join(", "))))
}

/// Two settings that make sense together only.
///
/// # Errors
/// One is empty and the other is not; names the empty one.
pub fn both_or_none(one: (&str, &str), other: (&str, &str)) -> Result<(), Invalid> {
    let missing = match (one.1.is_empty(), other.1.is_empty()) {
        (true, false) => (one.0, other.0),
        (false, true) => (other.0, one.0),
        _ => return Ok(()),
    };
    Err(Invalid::hidden(
        missing.0,
        format!("set too, because {} is", missing.1),
    ))
}

/// Checks that a text is not empty.
///
/// # Errors
/// Names the key; `meaning` says what the text is, e.g. "the URL of the database".
pub fn not_empty(key: &str, value: &str, meaning: &str) -> Result<(), Invalid> {
    if value.trim().is_empty() {
        Err(Invalid::hidden(key, meaning))
    } else {
        Ok(())
    }
}
