//! The JSON form of an order: the field names of `Control`, with one field for the case.

use parlance_proto::v1::{Control, DisconnectUser, RevokeToken, RevokeUserTokens, control};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum JsonControl {
    DisconnectUser(JsonDisconnectUser),
    RevokeToken(JsonRevokeToken),
    RevokeUserTokens(JsonRevokeUserTokens),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonDisconnectUser {
    user_id: String,
    #[serde(default)]
    for_good: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonRevokeToken {
    jti: String,
    #[serde(default)]
    expires_at: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonRevokeUserTokens {
    user_id: String,
    issued_before: i64,
}

/// Reads an order.
///
/// # Errors
/// It is none.
pub fn parse(payload: &[u8]) -> Result<Control, &'static str> {
    let control = serde_json::from_slice(payload).map_err(|_| "the payload is no JSON Control")?;
    let body = match control {
        JsonControl::DisconnectUser(JsonDisconnectUser { user_id, for_good }) => {
            control::Body::DisconnectUser(DisconnectUser { user_id, for_good })
        }
        JsonControl::RevokeToken(JsonRevokeToken { jti, expires_at }) => {
            control::Body::RevokeToken(RevokeToken { jti, expires_at })
        }
        JsonControl::RevokeUserTokens(JsonRevokeUserTokens {
            user_id,
            issued_before,
        }) => control::Body::RevokeUserTokens(RevokeUserTokens {
            user_id,
            issued_before,
        }),
    };
    Ok(Control { body: Some(body) })
}
