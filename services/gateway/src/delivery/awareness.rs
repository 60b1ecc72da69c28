//! What the awareness states of a page say of its user: always who its session belongs to. Pure.

use parlance_journal::ClientState;
use serde_json::{Map, Value};

use crate::error::ClientError;

/// A state that a session sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentState {
    /// It names the user of the session.
    pub state: ClientState,
    /// It is probably another user's, whom it named before: a page may send back all that it was sent.
    pub is_echo: bool,
}

/// Editors write these into styles.
const COLORS: [&str; 2] = ["color", "colorLight"];

/// Writes who the user is into each state of an update: `user.id` and `user.name`, whatever it said; all other fields stay,
/// but colors that are none.
///
/// # Errors
/// A state is neither a JSON object nor null.
pub fn identify(states: Vec<ClientState>, user_id: &str, name: &str) -> Result<Vec<SentState>, ClientError> {
    let are_several = states.len() > 1;
    let identified = states.into_iter().map(|mut state| {
        let mut names_another = false;
        if let Some(text) = &state.state {
            let (text, named) = identified(text, user_id, name).ok_or_else(|| {
                ClientError::invalid("update holds a state that is neither a JSON object nor null")
            })?;
            state.state = Some(text);
            names_another = named;
        }
        Ok(SentState {
            state,
            is_echo: are_several && names_another,
        })
    });
    identified.collect()
}

/// The state with its user, and whether it named another; `None` if it is no object.
fn identified(state: &str, user_id: &str, name: &str) -> Option<(String, bool)> {
    // Of a field that is there twice the last one counts, and is the only one that is written.
    let mut fields: Map<String, Value> = serde_json::from_str(state).ok()?;
    let mut user = match fields.remove("user") {
        Some(Value::Object(user)) => user,
        _ => Map::new(),
    };
    for name in COLORS {
        if user.get(name).is_some_and(|color| !is_color(color)) {
            user.remove(name);
        }
    }
    let claimed = user.insert("id".to_owned(), user_id.into());
    user.insert("name".to_owned(), name.into());
    fields.insert("user".to_owned(), user.into());
    let names_another = claimed.is_some_and(|id| id != user_id);
    Some((Value::Object(fields).to_string(), names_another))
}

/// `#` and hexadecimal digits.
fn is_color(value: &Value) -> bool {
    let digits = value.as_str().and_then(|text| text.strip_prefix('#'));
    digits.is_some_and(|digits| digits.len() <= 8 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn state(client: u64, state: &str) -> ClientState {
        ClientState {
            client,
            clock: 1,
            state: Some(state.to_owned()),
        }
    }

    #[test]
    fn a_state_names_the_user_of_its_session_whatever_it_claims() {
        let identified = |given: &str| {
            let (text, names_another) = identified(given, "alice", "Alice").unwrap();
            let fields: Value = serde_json::from_str(&text).unwrap();
            (fields, names_another)
        };
        let user = json!({ "id": "alice", "name": "Alice" });
        for (given, names_another) in [
            ("{}", false),
            (r#"{"user":"bob"}"#, false),
            (r#"{"user":{"id":"alice","name":"Bob"}}"#, false),
            (r#"{"user":{"id":"bob"}}"#, true),
            (r#"{"user":{"id":"alice"},"user":{"id":7}}"#, true),
        ] {
            assert_eq!(
                identified(given),
                (json!({ "user": user }), names_another),
                "{given}"
            );
        }
        let (fields, _) = identified(r##"{"cursor":{"anchor":1.5},"user":{"color":"#fff"}}"##);
        assert_eq!(fields["cursor"]["anchor"], 1.5);
        assert_eq!(fields["user"]["color"], "#fff");
    }

    #[test]
    fn a_color_that_could_be_more_than_one_is_left_out() {
        for bad in [
            "red;position:fixed",
            "url(https://a.example/x)",
            "#12345678f",
            "#ggg",
            "",
        ] {
            let state = json!({ "user": { "color": bad, "colorLight": "#30bced33" } });
            let (text, _) = identified(&state.to_string(), "alice", "Alice").unwrap();
            let fields: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(
                fields["user"],
                json!({ "id": "alice", "name": "Alice", "colorLight": "#30bced33" }),
                "{bad}"
            );
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for bad in ["[]", "1", "", "{", "{}x", &"[".repeat(2_000)] {
            let refused = identify(vec![state(1, bad)], "alice", "Alice").unwrap_err();
            assert_eq!(refused.code, "invalid", "{bad}");
        }
    }

    #[test]
    fn of_several_states_those_of_others_are_echoes() {
        let (own, other) = (r#"{"user":{"id":"alice"}}"#, r#"{"user":{"id":"bob"}}"#);
        let echoes = |given: &[&str]| {
            let states = given.iter().map(|one| state(1, one)).collect();
            let sent = identify(states, "alice", "Alice").unwrap();
            sent.into_iter().map(|one| one.is_echo).collect::<Vec<_>>()
        };
        assert_eq!(echoes(&[own, other, "{}"]), [false, true, false]);
        // Some application's own id of its only user.
        assert_eq!(echoes(&[other]), [false]);
    }
}
