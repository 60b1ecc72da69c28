//! Settings in three layers: documented defaults, then an optional TOML file, then the environment.
//!
//! The defaults declare which settings exist and of which type; whatever the file or the
//! environment adds to that is refused. This is the only module that reads the process
//! environment. It must not open a port, log, or show a secret.

mod error;
mod redact;
mod schema;
mod secrets;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use ::config::{Config, File, FileFormat, Map, Source, Value, ValueKind};
use serde::de::DeserializeOwned;

pub use error::{ConfigError, Invalid, Validate, both_or_none, in_range, not_empty, one_of};
pub use redact::{is_secret, without_credentials};
pub use secrets::{is_loopback, refuse_public_secrets};

use error::Origin;
use schema::{PREFIX, Schema, display, variable_of};

/// The variable that names the configuration file.
const FILE_VARIABLE: &str = "PARLANCE_CONFIG";

/// Everything settings are made from. Tests fill it by hand.
#[derive(Debug, Clone)]
pub struct Sources {
    /// TOML with every setting, its default and a comment. An empty table declares a free-form
    /// table of texts.
    pub defaults: &'static str,
    /// TOML file laid over the defaults.
    pub file: Option<PathBuf>,
    /// Environment variables; only `PARLANCE_*` and the aliases are looked at. A setting `a.b_c`
    /// is `PARLANCE_A_B_C`, lists are comma-separated, tables are `name=value` pairs separated by
    /// commas and are merged with those of the file.
    pub env: BTreeMap<String, String>,
    /// Further variable names: (variable, setting). The `PARLANCE_*` name wins over its alias.
    pub aliases: &'static [(&'static str, &'static str)],
}

/// The environment's values as a source for the `config` crate.
#[derive(Debug, Clone)]
struct Environment(Map<String, Value>);

/// Which layer set which setting.
#[derive(Debug, Default)]
struct Provenance {
    file: String,
    from_file: BTreeSet<String>,
    from_variable: BTreeMap<String, String>,
}

impl Sources {
    /// Defaults and aliases of the program with the process environment and the file that
    /// `PARLANCE_CONFIG` names.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the process environment"
    )]
    pub fn from_process(defaults: &'static str, aliases: &'static [(&'static str, &'static str)]) -> Self {
        let env: BTreeMap<_, _> = std::env::vars_os()
            .map(|(name, value)| (into_text(&name), into_text(&value)))
            .collect();
        let file = env
            .get(FILE_VARIABLE)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from);
        Self {
            defaults,
            file,
            env,
            aliases,
        }
    }
}

/// Loads and validates the settings.
///
/// # Errors
/// The first setting that is unknown, of the wrong type or out of its allowed values; or a file
/// that cannot be read.
pub fn load<T: DeserializeOwned + Validate>(sources: &Sources) -> Result<T, ConfigError> {
    let defaults = parse_toml(sources.defaults, "built-in defaults")?;
    let schema = Schema::of(&defaults)?;
    let mut provenance = Provenance::default();
    let mut builder = Config::builder().add_source(Environment(defaults));

    if let Some(path) = &sources.file {
        provenance.file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            let problem = format!("cannot be read: {error}; correct or unset {FILE_VARIABLE}");
            ConfigError::new("", None, Origin::File(provenance.file.clone()), problem)
        })?;
        let content = parse_toml(&text, &provenance.file)?;
        provenance.from_file = schema.check_file(&content, &provenance.file)?;
        builder = builder.add_source(Environment(content));
    }

    let environment = read_environment(sources, &schema, &mut provenance)?;
    let merged = builder
        .add_source(environment)
        .build()
        .map_err(|error| ConfigError::new("", None, Origin::Unsaid, error.to_string()))?;
    let values = merged.cache.clone();
    let settings: T = merged.try_deserialize().map_err(|error| {
        let variants = || unknown_variant::<T>(&values);
        provenance.explain(&error, &flatten(&values), variants)
    })?;
    settings.validate().map_err(|invalid| {
        let origin = provenance.origin_of(&invalid.key);
        ConfigError::from_invalid(invalid, origin)
    })?;
    Ok(settings)
}

impl Source for Environment {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ::config::ConfigError> {
        Ok(self.0.clone())
    }
}

impl Provenance {
    fn origin_of(&self, key: &str) -> Origin {
        if let Some(variable) = self.from_variable.get(key) {
            Origin::Variable(variable.clone())
        } else if self.from_file.contains(key) {
            Origin::File(self.file.clone())
        } else {
            Origin::Defaults {
                variable: variable_of(key),
            }
        }
    }

    /// Our own error for one of the deserializer, which knows the key but not the layer.
    fn explain(
        &self,
        error: &::config::ConfigError,
        shown: &BTreeMap<String, String>,
        unknown_variant: impl FnOnce() -> Option<String>,
    ) -> ConfigError {
        use ::config::ConfigError as Raw;
        let (key, problem) = match error {
            Raw::Type {
                key: Some(key),
                expected,
                ..
            } => (key.clone(), format!("must be {expected}")),
            Raw::At {
                key: Some(key),
                error,
                ..
            } => (
                key.clone(),
                unknown_variant().unwrap_or_else(|| error.to_string()),
            ),
            other => (String::new(), other.to_string()),
        };
        // The deserializer quotes the value in its message.
        let problem = if is_secret(&key) {
            "has a value of the wrong form".to_owned()
        } else {
            problem
        };
        let value = shown.get(&key).cloned();
        ConfigError::new(&key, value, self.origin_of(&key), without_credentials(&problem))
    }
}

fn read_environment(
    sources: &Sources,
    schema: &Schema,
    provenance: &mut Provenance,
) -> Result<Environment, ConfigError> {
    let mut table = Map::new();
    for (variable, key) in sources.aliases {
        if schema.kind(key).is_none() {
            let problem = format!("is not a setting but has the alias {variable}");
            return Err(ConfigError::new(*key, None, Origin::Unsaid, problem));
        }
    }
    let mut known: BTreeSet<String> = sources
        .aliases
        .iter()
        .map(|(variable, _)| (*variable).to_owned())
        .collect();
    for (key, kind) in schema.keys() {
        let own = variable_of(key);
        known.insert(own.clone());
        let aliases = sources.aliases.iter().filter(|(_, target)| *target == key);
        let names = std::iter::once(own).chain(aliases.map(|(variable, _)| (*variable).to_owned()));
        let Some((variable, text)) = names
            .filter_map(|name| sources.env.get(&name).map(|text| (name, text)))
            .next()
        else {
            continue;
        };
        let Some(value) = kind.parse(text) else {
            let problem = format!("must be {}", kind.describe());
            let origin = Origin::Variable(variable);
            return Err(ConfigError::new(key, Some(text.clone()), origin, problem));
        };
        insert(&mut table, key, value);
        provenance.from_variable.insert(key.to_owned(), variable);
    }
    let stray = sources
        .env
        .keys()
        .find(|name| name.starts_with(PREFIX) && !known.contains(*name) && schema.claims(name));
    if let Some(name) = stray {
        let problem = format!("is not a setting; known here: {}", schema.variables_beside(name));
        return Err(ConfigError::new(name, None, Origin::Unsaid, problem));
    }
    Ok(Environment(table))
}

/// Puts `value` at a dotted path, making the tables on the way.
fn insert(table: &mut Map<String, Value>, path: &str, value: ValueKind) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), Value::new(None, value));
        }
        Some((first, rest)) => {
            let entry = table
                .entry(first.to_owned())
                .or_insert_with(|| Value::new(None, ValueKind::Table(Map::new())));
            if let ValueKind::Table(inner) = &mut entry.kind {
                insert(inner, rest, value);
            }
        }
    }
}

/// All values by dotted path, as texts.
fn flatten(root: &Value) -> BTreeMap<String, String> {
    fn walk(value: &Value, path: &str, into: &mut BTreeMap<String, String>) {
        if let ValueKind::Table(entries) = &value.kind {
            for (name, inner) in entries {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                walk(inner, &path, into);
            }
        } else {
            into.insert(path.to_owned(), display(value));
        }
    }
    let mut flat = BTreeMap::new();
    walk(root, "", &mut flat);
    flat
}

/// The text of serde's own error when a value is none of a closed list. The `config` crate leaves
/// out which values would be allowed, so the settings are read once more as JSON to learn them.
fn unknown_variant<T: DeserializeOwned>(root: &Value) -> Option<String> {
    let error = serde_json::from_value::<T>(into_json(root)).err()?.to_string();
    error.starts_with("unknown variant").then_some(error)
}

fn into_json(value: &Value) -> serde_json::Value {
    match &value.kind {
        ValueKind::Boolean(flag) => (*flag).into(),
        ValueKind::I64(number) => (*number).into(),
        ValueKind::U64(number) => (*number).into(),
        ValueKind::Float(number) => (*number).into(),
        ValueKind::Array(items) => items.iter().map(into_json).collect(),
        ValueKind::Table(entries) => {
            let entries = entries
                .iter()
                .map(|(name, inner)| (name.clone(), into_json(inner)));
            serde_json::Value::Object(entries.collect())
        }
        _ => value.to_string().into(),
    }
}

fn parse_toml(text: &str, name: &str) -> Result<Map<String, Value>, ConfigError> {
    let broken = |error: ::config::ConfigError| {
        let cause = match &error {
            ::config::ConfigError::FileParse { cause, .. } => cause.to_string(),
            other => other.to_string(),
        };
        // The parser's first line says where, its last line says what; the lines between quote
        // the file, which may hold a secret.
        let mut lines = cause.lines();
        let place = lines.next().unwrap_or_default();
        let what = lines
            .next_back()
            .map(|line| format!(": {line}"))
            .unwrap_or_default();
        let problem = format!("{place}{what}");
        ConfigError::new("", None, Origin::File(name.to_owned()), problem)
    };
    File::from_str(text, FileFormat::Toml).collect().map_err(broken)
}

fn into_text(text: &std::ffi::OsStr) -> String {
    text.to_string_lossy().into_owned()
}
