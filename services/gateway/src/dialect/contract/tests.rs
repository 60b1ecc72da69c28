//! Holds every dialect's contract against what the dialect really reads and writes.

use std::collections::BTreeSet;
use std::path::Path;

use jsonschema::Validator;
use parlance_proto::UserId;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::aliases::ALIASES;
use super::{Contract, Shape};
use crate::dialect::{Action, DEFAULT, DIALECTS, Decoded, Dialect, Speaker, samples};
use crate::error::ClientError;
use crate::limits::tests::small;

/// Refusals that no schema could express, by their words, and why.
const BEYOND_SHAPE: &[(&str, &str)] = &[
    ("is larger than", "a configured limit in bytes"),
    ("is longer than", "a configured limit in characters"),
    ("has more than", "a configured limit in number"),
    ("holds a NUL", "what Postgres cannot store"),
    ("differ", "one thing named twice"),
    ("is not base64", "an encoding"),
    ("is not an awareness update", "an encoding"),
    ("is not the connected user", "who speaks"),
    ("has white space, control or invisible", "what ids may consist of"),
];

fn validator(shape: &Shape, closed: bool) -> Validator {
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "allOf": [shape.schema],
        "components": { "schemas": shape.parts },
    });
    if closed {
        schema["unevaluatedProperties"] = json!(false);
    }
    jsonschema::options()
        .should_validate_formats(true)
        .build(&schema)
        .unwrap()
}

/// What is wrong with a value.
fn flaws(validator: &Validator, value: &Value) -> Vec<String> {
    let told = |error: jsonschema::ValidationError<'_>| format!("{} at {}", error, error.instance_path());
    validator.iter_errors(value).map(told).collect()
}

fn decode(dialect: &dyn Dialect, event: &str, payload: &RawValue) -> Result<Decoded, ClientError> {
    let user = UserId::parse("alice").unwrap();
    let speaker = Speaker {
        user: &user,
        number: 11,
    };
    dialect.decode(speaker, event, payload, &small())
}

/// The samples of answers to an action.
fn answers_to(action: &Action) -> &'static [&'static str] {
    match action {
        Action::Send(_)
        | Action::Edit { .. }
        | Action::Delete { .. }
        | Action::React { .. }
        | Action::Report(_) => &["message", "message_elsewhere", "message_encrypted"],
        Action::Join(_) | Action::Mute { .. } | Action::Conversation(_) => {
            &["conversation_direct", "conversation_group"]
        }
        Action::Receipt { .. } => &["receipt", "receipt_elsewhere"],
        Action::CreateThread { .. } => &["thread"],
        Action::JoinJournal {
            state_vector: Some(_),
            ..
        } => &["journal_sync"],
        Action::JoinJournal { .. } | Action::EditJournal { .. } => &["journal"],
        Action::ListBlocks { .. } => &["blocks"],
        Action::ListParticipants { .. } => &["participants"],
        Action::Sync(_) => &["pages"],
        Action::WatchPresence(_) => &["presence"],
        Action::Leave(_)
        | Action::UnwatchPresence(_)
        | Action::LeaveJournal(_)
        | Action::ShareAwareness { .. }
        | Action::SwitchThread { .. }
        | Action::Stop { .. }
        | Action::Block { .. }
        | Action::Typing { .. }
        | Action::Presence { .. } => &["done"],
        // Only over REST.
        Action::Rename(_) | Action::Journal(_) => &[],
    }
}

#[test]
fn what_is_understood_fits_and_what_is_refused_does_not() {
    let mut used = BTreeSet::new();
    let mut wrong = Vec::new();
    for dialect in DIALECTS {
        let contract = dialect.contract();
        for (case, fixture) in samples::fixtures(*dialect) {
            let case = format!("{}/{case}", dialect.name());
            let Some(taken) = contract
                .accepted
                .iter()
                .find(|taken| taken.event == fixture.event)
            else {
                let code = decode(*dialect, &fixture.event, fixture.payload())
                    .unwrap_err()
                    .code;
                assert_eq!(code, "unknown_event", "{case}: {} is not listed", fixture.event);
                continue;
            };
            let payload: Value = serde_json::from_str(fixture.payload().get()).unwrap();
            let flaws = flaws(&validator(&taken.payload, false), &payload);
            match decode(*dialect, &fixture.event, fixture.payload()) {
                Ok(_) if flaws.is_empty() => {}
                Ok(_) => wrong.push(format!("{case} is understood, yet {flaws:?}")),
                Err(error) => {
                    let beyond = BEYOND_SHAPE
                        .iter()
                        .find(|(words, _)| error.message.contains(words));
                    match beyond {
                        Some((words, _)) => drop(used.insert(*words)),
                        None if flaws.is_empty() => {
                            wrong.push(format!("{case} is refused ({}), yet fits", error.message));
                        }
                        None => {}
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (words, _) in BEYOND_SHAPE {
        assert!(
            used.contains(words),
            "no fixture is refused because something {words}"
        );
    }
}

#[test]
fn the_events_listed_are_the_events_taken() {
    for dialect in DIALECTS {
        let contract = dialect.contract();
        let listed: Vec<_> = contract.accepted.iter().map(|taken| taken.event).collect();
        assert_eq!(listed, dialect.inbound_events(), "{}", dialect.name());
    }
}

#[test]
fn everything_emitted_is_listed_and_fits() {
    for dialect in DIALECTS {
        let contract = dialect.contract();
        let mut unseen: BTreeSet<_> = contract.emitted.iter().map(|listed| listed.event).collect();
        assert_eq!(
            unseen.len(),
            contract.emitted.len(),
            "{} lists one twice",
            dialect.name()
        );
        let outbound = samples::outbound().into_iter();
        let emitted = outbound.map(|(name, outbound)| (name, dialect.encode(outbound)));
        let expiring = dialect.expiring(0).into_iter().collect();
        for (name, frames) in emitted.chain([("expiring", expiring)]) {
            for frame in frames {
                let case = format!("{}/{name}: {}", dialect.name(), frame.event);
                let mut listed = contract.emitted.iter();
                let listed = listed.find(|listed| listed.event == frame.event);
                let listed = listed.unwrap_or_else(|| panic!("{case} is not listed"));
                let payload = serde_json::from_str(frame.payload.get()).unwrap();
                let flaws = flaws(&validator(&listed.payload, true), &payload);
                assert!(flaws.is_empty(), "{case}: {flaws:?}");
                unseen.remove(frame.event);
            }
        }
        assert!(unseen.is_empty(), "{} never emits {unseen:?}", dialect.name());
    }
}

#[test]
fn every_ack_fits_the_event_it_answers() {
    for dialect in DIALECTS {
        let contract = dialect.contract();
        for (case, fixture) in samples::fixtures(*dialect) {
            let Ok(decoded) = decode(*dialect, &fixture.event, fixture.payload()) else {
                continue;
            };
            let taken = contract
                .accepted
                .iter()
                .find(|taken| taken.event == fixture.event)
                .unwrap();
            let validator = validator(&taken.ack, true);
            let wanted = answers_to(&decoded.action);
            let mut seen = 0;
            for (name, outcome, place) in samples::answers() {
                if outcome.is_ok() && !wanted.contains(&name) {
                    continue;
                }
                let answer = dialect.answer(outcome.as_ref().map_err(|error| *error), place);
                let flaws = flaws(&validator, &serde_json::from_str(answer.get()).unwrap());
                assert!(flaws.is_empty(), "{}/{case}, {name}: {flaws:?}", dialect.name());
                seen += 1;
            }
            assert!(seen > wanted.len(), "{case}: no failure was answered");
        }
    }
}

#[test]
fn every_native_event_that_changes_something_takes_an_idempotency_key_and_no_other_does() {
    let contract = DEFAULT.contract();
    let mut seen = BTreeSet::new();
    for (case, fixture) in samples::fixtures(DEFAULT) {
        let Ok(decoded) = decode(DEFAULT, &fixture.event, fixture.payload()) else {
            continue;
        };
        let mut events = contract.accepted.iter();
        let taken = events.find(|taken| taken.event == fixture.event).unwrap();
        let takes_key = taken.payload.parts.contains_key("KeyedPayload");
        assert_eq!(takes_key, decoded.action.is_change(), "{case}");
        seen.insert(taken.event);
    }
    let all: BTreeSet<_> = contract.accepted.iter().map(|taken| taken.event).collect();
    assert_eq!(seen, all);
}

/// A payload that fits under a field's first name is understood alike under each of its others.
#[test]
fn every_further_name_of_a_field_is_read() {
    let mut read = BTreeSet::new();
    for dialect in DIALECTS {
        let Contract { accepted: taken, .. } = dialect.contract();
        for (case, fixture) in samples::fixtures(*dialect) {
            let Ok(Value::Object(payload)) = serde_json::from_str(fixture.payload().get()) else {
                continue;
            };
            let plain = RawValue::from_string(json!(payload).to_string()).unwrap();
            let Ok(decoded) = decode(*dialect, &fixture.event, &plain) else {
                continue;
            };
            let taken = taken.iter().find(|taken| taken.event == fixture.event).unwrap();
            let known = |schema: &str| taken.payload.parts.contains_key(schema);
            for (schema, field, others) in ALIASES.iter().filter(|(schema, ..)| known(schema)) {
                let named = |other: &&&str| !payload.contains_key(**other);
                for other in others.iter().filter(named) {
                    let mut renamed = payload.clone();
                    let Some(value) = renamed.remove(*field) else {
                        continue;
                    };
                    renamed.insert((*other).to_owned(), value);
                    let text = RawValue::from_string(Value::Object(renamed).to_string()).unwrap();
                    let again = decode(*dialect, &fixture.event, &text);
                    assert_eq!(again.as_ref(), Ok(&decoded), "{}/{case}: {other}", dialect.name());
                    read.insert((*schema, *other));
                }
            }
        }
    }
    assert!(read.len() > 20, "{read:?}");
}

/// Front ends write `null` where they have nothing to say: under any name of a field it is as if it were absent.
#[test]
fn a_field_that_is_null_is_as_if_it_were_absent() {
    let mut nulls = 0;
    for dialect in DIALECTS {
        let Contract { accepted: taken, .. } = dialect.contract();
        for (case, fixture) in samples::fixtures(*dialect) {
            let Ok(Value::Object(payload)) = serde_json::from_str(fixture.payload().get()) else {
                continue;
            };
            let Some(taken) = taken.iter().find(|taken| taken.event == fixture.event) else {
                continue;
            };
            let read = |payload: &Map<String, Value>| {
                let text = RawValue::from_string(json!(payload).to_string()).unwrap();
                decode(*dialect, &fixture.event, &text)
            };
            for name in fields_of(&taken.payload) {
                let (mut absent, mut null) = (payload.clone(), payload.clone());
                absent.remove(&name);
                null.insert(name.clone(), Value::Null);
                assert_eq!(read(&null), read(&absent), "{}/{case}: {name}", dialect.name());
                nulls += 1;
            }
        }
    }
    assert!(nulls > 500, "{nulls}");
}

/// The names of all fields of a payload.
fn fields_of(shape: &Shape) -> BTreeSet<String> {
    let schemas = [&shape.schema].into_iter().chain(shape.parts.values());
    schemas
        .filter_map(|schema| schema["properties"].as_object())
        .flat_map(|properties| properties.keys().cloned())
        .collect()
}

#[test]
fn the_further_names_are_those_of_the_sources() {
    let mut declared = Vec::new();
    let mut names = BTreeSet::new();
    for file in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = std::fs::read_to_string(&file).unwrap();
        for (schema, field, others) in fields(&text, &mut names) {
            declared.push((schema, field, others));
        }
    }
    declared.sort();
    let table: Vec<_> = ALIASES
        .iter()
        .map(|(schema, field, others)| {
            let others: Vec<_> = others.iter().map(|other| (*other).to_owned()).collect();
            ((*schema).to_owned(), (*field).to_owned(), others)
        })
        .collect();
    assert_eq!(
        declared, table,
        "dialect/contract/aliases.rs is not what the sources declare"
    );
}

/// The fields with further names of one source file; `names` collects those of schemas, each once.
fn fields(text: &str, names: &mut BTreeSet<String>) -> Vec<(String, String, Vec<String>)> {
    let mut found = Vec::new();
    let (mut schema, mut camel, mut attributes) = (None, false, String::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("#[schema(as = ") {
            let name = rest.trim_end_matches(")]").to_owned();
            assert!(
                names.insert(name.clone()),
                "two types are called {name} in schemas"
            );
            schema = Some(name);
        } else if line.starts_with("#[derive(") {
            camel = false;
        } else if line.contains("rename_all = \"camelCase\"") {
            camel = true;
        } else if line == "}" {
            schema = None;
        }
        let line = line.trim();
        if line.starts_with("#[") {
            attributes.push_str(line);
            continue;
        }
        let field = line
            .trim_start_matches("pub(super) ")
            .split_once(": ")
            .map_or("", |(field, _)| field);
        let others = quoted(&attributes, "alias = \"");
        if let Some(schema) = schema.as_ref().filter(|_| !others.is_empty()) {
            let field = match quoted(&attributes, "rename = \"").first() {
                Some(name) => name.clone(),
                None if camel => camel_case(field),
                None => field.to_owned(),
            };
            found.push((schema.clone(), field, others));
        }
        if !line.starts_with("//") {
            attributes.clear();
        }
    }
    found
}

fn quoted(text: &str, before: &str) -> Vec<String> {
    let each = text
        .split(before)
        .skip(1)
        .filter_map(|rest| rest.split('"').next());
    each.map(str::to_owned).collect()
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |done, word| {
        let (head, tail) = word.split_at(1);
        done + &head.to_uppercase() + tail
    })
}

fn sources(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .collect()
}
