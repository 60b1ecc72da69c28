//! Which settings exist and of which type: read from the defaults, so that a setting is declared
//! in one place only. Owns the names of the environment variables and the check of a
//! configuration file against the defaults; it must not read files or the environment.

use std::collections::{BTreeMap, BTreeSet};

use config::{Map, Value, ValueKind};

use super::error::{ConfigError, Origin};

/// First part of the name of every environment variable that is a setting.
pub(super) const PREFIX: &str = "PARLANCE_";

/// The type of a setting, taken from its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Integer,
    Float,
    Boolean,
    /// Array of strings; comma-separated in a variable.
    List,
    /// Free-form table of strings, declared as an empty table; `name=value` pairs in a variable.
    Table,
}

/// All settings of one service.
#[derive(Debug)]
pub(super) struct Schema {
    /// Dotted path of each setting.
    keys: BTreeMap<String, Kind>,
    /// Dotted path of each table that holds settings.
    tables: BTreeSet<String>,
}

impl Kind {
    fn of_default(value: &Value) -> Option<Self> {
        Some(match &value.kind {
            ValueKind::String(_) => Self::Text,
            ValueKind::I64(_) | ValueKind::U64(_) => Self::Integer,
            ValueKind::Float(_) => Self::Float,
            ValueKind::Boolean(_) => Self::Boolean,
            ValueKind::Array(items) if items.iter().all(is_text) => Self::List,
            ValueKind::Table(entries) if entries.is_empty() => Self::Table,
            _ => return None,
        })
    }

    /// To be read after "must be".
    pub(super) const fn describe(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Integer => "a whole number",
            Self::Float => "a number",
            Self::Boolean => "true or false",
            Self::List => "a list of texts",
            Self::Table => "a table of texts",
        }
    }

    fn accepts(self, value: &Value) -> bool {
        match (self, &value.kind) {
            (Self::Text, ValueKind::String(_))
            | (Self::Integer | Self::Float, ValueKind::I64(_) | ValueKind::U64(_))
            | (Self::Float, ValueKind::Float(_))
            | (Self::Boolean, ValueKind::Boolean(_)) => true,
            (Self::List, ValueKind::Array(items)) => items.iter().all(is_text),
            (Self::Table, ValueKind::Table(entries)) => entries.values().all(is_text),
            _ => false,
        }
    }

    /// Reads the text of an environment variable; `None` when it is not of this kind.
    pub(super) fn parse(self, text: &str) -> Option<ValueKind> {
        let items = || text.split(',').map(str::trim).filter(|item| !item.is_empty());
        Some(match self {
            Self::Text => ValueKind::String(text.to_owned()),
            Self::Integer => ValueKind::I64(text.trim().parse().ok()?),
            Self::Float => {
                let number: f64 = text.trim().parse().ok()?;
                ValueKind::Float(number.is_finite().then_some(number)?)
            }
            Self::Boolean => ValueKind::Boolean(text.trim().parse().ok()?),
            Self::List => ValueKind::Array(items().map(|item| Value::new(None, item)).collect()),
            Self::Table => {
                let pairs = items().map(|item| {
                    let (name, value) = item.split_once('=')?;
                    Some((name.trim().to_owned(), Value::new(None, value.trim())))
                });
                ValueKind::Table(pairs.collect::<Option<Map<_, _>>>()?)
            }
        })
    }
}

impl Schema {
    /// Reads the settings that `defaults` declares.
    ///
    /// # Errors
    /// A default of a type that no variable could carry, or two settings with one variable: both
    /// are mistakes of the program, found by the first test that loads the defaults.
    pub(super) fn of(defaults: &Map<String, Value>) -> Result<Self, ConfigError> {
        let mut schema = Self {
            keys: BTreeMap::new(),
            tables: BTreeSet::new(),
        };
        schema.collect(defaults, "")?;
        let mut variables = BTreeMap::new();
        for key in schema.keys.keys() {
            if let Some(other) = variables.insert(variable_of(key), key) {
                let problem = format!("shares its environment variable with {other}");
                return Err(ConfigError::new(key, None, Origin::Unsaid, problem));
            }
        }
        Ok(schema)
    }

    fn collect(&mut self, table: &Map<String, Value>, prefix: &str) -> Result<(), ConfigError> {
        for (name, value) in table {
            let path = join(prefix, name);
            match (&value.kind, Kind::of_default(value)) {
                (_, Some(kind)) => {
                    self.keys.insert(path, kind);
                }
                (ValueKind::Table(entries), None) => {
                    self.collect(entries, &path)?;
                    self.tables.insert(path);
                }
                (_, None) => {
                    let problem = "has a default that is neither a text, a number, true, false, \
                                   nor a list of texts";
                    return Err(ConfigError::new(path, None, Origin::Unsaid, problem));
                }
            }
        }
        Ok(())
    }

    /// All settings with their kinds.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&str, Kind)> {
        self.keys.iter().map(|(key, kind)| (key.as_str(), *kind))
    }

    pub(super) fn kind(&self, key: &str) -> Option<Kind> {
        self.keys.get(key).copied()
    }

    /// Whether the variable `name` lies in one of this service's sections.
    pub(super) fn claims(&self, name: &str) -> bool {
        self.section_of(name).is_some()
    }

    /// The settings of the section that the variable `name` lies in, as a hint.
    pub(super) fn variables_beside(&self, name: &str) -> String {
        let Some(section) = self.section_of(name) else {
            return String::new();
        };
        let inside = format!("{section}.");
        let names = self.keys.keys().filter(|key| key.starts_with(&inside));
        names.map(|key| variable_of(key)).collect::<Vec<_>>().join(", ")
    }

    /// The longest section wins, so that `http_client` is not taken for a part of `http`.
    fn section_of(&self, name: &str) -> Option<&str> {
        let lies_in = |table: &&String| name.starts_with(&format!("{}_", variable_of(table)));
        self.tables
            .iter()
            .filter(lies_in)
            .max_by_key(|table| table.len())
            .map(String::as_str)
    }

    /// Checks a configuration file's content and lists the settings it holds.
    ///
    /// # Errors
    /// The first setting that is unknown or of another type than its default.
    pub(super) fn check_file(
        &self,
        content: &Map<String, Value>,
        path: &str,
    ) -> Result<BTreeSet<String>, ConfigError> {
        let mut found = BTreeSet::new();
        self.check_table(content, "", path, &mut found)?;
        Ok(found)
    }

    fn check_table(
        &self,
        table: &Map<String, Value>,
        prefix: &str,
        file: &str,
        found: &mut BTreeSet<String>,
    ) -> Result<(), ConfigError> {
        let origin = || Origin::File(file.to_owned());
        for (name, value) in table {
            let key = join(prefix, name);
            match (self.kind(&key), &value.kind) {
                (Some(kind), _) if kind.accepts(value) => {
                    found.insert(key);
                }
                (Some(kind), _) => {
                    let problem = format!("must be {}", kind.describe());
                    return Err(ConfigError::new(key, Some(display(value)), origin(), problem));
                }
                (None, ValueKind::Table(entries)) if self.tables.contains(&key) => {
                    self.check_table(entries, &key, file, found)?;
                }
                (None, _) => {
                    let problem = format!("is not a setting; {}", self.known_beside(prefix));
                    return Err(ConfigError::new(key, None, origin(), problem));
                }
            }
        }
        Ok(())
    }

    fn known_beside(&self, prefix: &str) -> String {
        let direct = |path: &&String| match prefix {
            "" => !path.contains('.'),
            _ => path
                .strip_prefix(prefix)
                .and_then(|rest| rest.strip_prefix('.'))
                .is_some_and(|rest| !rest.contains('.')),
        };
        let known: Vec<_> = self
            .keys
            .keys()
            .chain(&self.tables)
            .filter(direct)
            .map(String::as_str)
            .collect();
        format!("known here: {}", known.join(", "))
    }
}

/// The environment variable of a setting: `a.b_c` is `PARLANCE_A_B_C`.
pub(super) fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_ascii_uppercase())
}

/// `value` as text, lists comma-separated.
pub(super) fn display(value: &Value) -> String {
    match &value.kind {
        ValueKind::Array(items) => items.iter().map(display).collect::<Vec<_>>().join(","),
        ValueKind::Table(_) => "(a table)".to_owned(),
        _ => value.to_string(),
    }
}

fn is_text(value: &Value) -> bool {
    matches!(value.kind, ValueKind::String(_))
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() {
        name.to_owned()
    } else {
        format!("{prefix}.{name}")
    }
}
