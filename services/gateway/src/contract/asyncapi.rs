//! AsyncAPI 3.0 from a dialect's contract.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::dialect::Dialect;
use crate::dialect::contract::{Contract, Shape};

const CHANNEL: &str = "#/channels/socket";

/// The parts of a document that grow event by event.
#[derive(Default)]
struct DocumentParts {
    messages: Map<String, Value>,
    operations: Map<String, Value>,
    schemas: BTreeMap<String, Value>,
}

impl DocumentParts {
    /// Adds a message and returns the reference to it.
    fn message(&mut self, key: String, name: &str, summary: &str, shape: Shape) -> Value {
        for (name, schema) in shape.parts {
            let known = self.schemas.insert(name.clone(), schema.clone());
            debug_assert!(
                known.is_none_or(|known| known == schema),
                "two schemas are called {name}"
            );
        }
        let reference = json!({ "$ref": format!("{CHANNEL}/messages/{key}") });
        let message = json!({
            "name": name,
            "title": name,
            "summary": summary,
            "contentType": "application/json",
            "payload": shape.schema,
        });
        self.messages.insert(key, message);
        reference
    }
}

/// The document of a dialect.
pub(super) fn document(dialect: &dyn Dialect) -> Value {
    let contract = renewal(dialect.contract());
    let name = dialect.name();
    let mut parts = DocumentParts::default();
    let channel = json!({ "$ref": CHANNEL });
    for accepted in contract.accepted {
        let key = accepted.event.replace(':', ".");
        let request = parts.message(
            format!("client.{key}"),
            accepted.event,
            accepted.summary,
            accepted.payload,
        );
        let about = format!(
            "What the ack callback of {} gets, if there is one.",
            accepted.event
        );
        let ack = parts.message(format!("ack.{key}"), accepted.event, &about, accepted.ack);
        let operation = json!({
            "action": "receive",
            "channel": channel,
            "summary": accepted.summary,
            "messages": [request],
            "reply": { "channel": channel, "messages": [ack] },
        });
        parts.operations.insert(format!("receive.{key}"), operation);
    }
    for emitted in contract.emitted {
        let key = emitted.event.replace(':', ".");
        let message = parts.message(
            format!("server.{key}"),
            emitted.event,
            emitted.summary,
            emitted.payload,
        );
        let operation = json!({
            "action": "send",
            "channel": channel,
            "summary": emitted.summary,
            "messages": [message],
        });
        parts.operations.insert(format!("send.{key}"), operation);
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": format!("Parlance: the {name} dialect"),
            "version": env!("CARGO_PKG_VERSION"),
            "description": format!("{}\n\n{}", contract.description, transport(name)),
        },
        "defaultContentType": "application/json",
        "servers": { "gateway": {
            "host": "localhost:4004",
            "pathname": "/socket.io/",
            "protocol": "ws",
            "protocolVersion": "5",
            "description": "Socket.IO 4 (Engine.IO protocol 4), by WebSocket or HTTP long-polling.",
            "security": [{ "$ref": "#/components/securitySchemes/token" }],
        } },
        "channels": { "socket": {
            "address": "/",
            "title": "The default namespace",
            "description": "Events of one connection, in both directions. `client.*` are emitted by the client, `ack.*` \
                            are what its ack callbacks get, `server.*` are emitted by the server.",
            "servers": [{ "$ref": "#/servers/gateway" }],
            "messages": parts.messages,
        } },
        "operations": parts.operations,
        "components": {
            "schemas": parts.schemas,
            "securitySchemes": { "token": {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "description": "The token as `auth.token` of the handshake, or as `Authorization: Bearer`.",
            } },
        },
    })
}

/// What is about the connection and the same in every dialect.
fn renewal(contract: Contract) -> Contract {
    let token = json!({
        "type": "object",
        "required": ["token"],
        "properties": { "token": { "type": "string", "description": "A further token of the same user." } },
    });
    let renewed = json!({
        "type": "object",
        "required": ["ok", "success"],
        "properties": {
            "ok": { "type": "boolean" },
            "success": { "type": "boolean" },
            "expires_at": { "type": "string", "format": "date-time" },
            "expiresAt": { "type": "string", "format": "date-time" },
        },
    });
    let refused = json!({ "type": "object", "description": "A failure in the dialect's own form." });
    contract.accepts(
        "auth:refresh",
        "Stay connected beyond the end of the present token.",
        Shape::raw(token),
        Shape::raw(json!({ "anyOf": [renewed, refused] })),
    )
}

fn transport(name: &str) -> String {
    format!(
        "A connection speaks this dialect when its handshake says `auth: {{ token, dialect: \"{name}\" }}` or \
         `?dialect={name}`, its token claims it, or it is configured for the page's origin. Every event has one \
         argument, the payload, and may carry an ack callback. An event that is not listed, or whose payload does \
         not fit, is answered with an error.\n\n`auth.since` may hold positions as in the event `sync` of `native`: the \
         client then follows these conversations, and is told first what happened after each position."
    )
}
