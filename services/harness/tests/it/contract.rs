//! The contract that a gateway serves, and that its routes answer as it says.

use std::collections::BTreeSet;
use std::path::Path;

use parlance_harness::Stack;
use reqwest::header::{AUTHORIZATION, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use reqwest::{Client, Method};
use serde_json::{Value, json};

/// A client that holds every answer against the document.
struct Checked {
    client: Client,
    url: String,
    document: Value,
    /// Operations that succeeded, as `GET /path`.
    done: BTreeSet<String>,
}

impl Checked {
    fn operation(&self, method: &str, path: &str) -> &Value {
        let operation = &self.document["paths"][path][method.to_lowercase()];
        assert!(operation.is_object(), "{method} {path} is not documented");
        operation
    }

    /// What is wrong with a value by a schema of the document; `closed` forbids undocumented fields.
    fn flaws(&self, schema: &Value, value: &Value, closed: bool) -> Vec<String> {
        let mut root = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "allOf": [schema],
            "components": self.document["components"],
        });
        if closed {
            root["unevaluatedProperties"] = json!(false);
        }
        let validator = jsonschema::validator_for(&root).unwrap();
        let told = validator.iter_errors(value);
        told.map(|error| format!("{error} at {}", error.instance_path()))
            .collect()
    }

    /// A body with every documented field that is absent set to `null`.
    fn with_nulls(&self, operation: &Value, body: &Value) -> Value {
        let mut schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        while let Some(reference) = schema["$ref"].as_str() {
            schema = self
                .document
                .pointer(reference.trim_start_matches('#'))
                .unwrap_or(&Value::Null);
        }
        let mut body = body.clone();
        if let (Some(fields), Some(known)) = (body.as_object_mut(), schema["properties"].as_object()) {
            for field in known.keys() {
                fields.entry(field).or_insert(Value::Null);
            }
        }
        body
    }

    /// Calls a route, its variable parts filled in order, and holds request and answer against the document.
    async fn call(
        &mut self,
        token: Option<&str>,
        method: &str,
        path: &str,
        parts: &[&str],
        query: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        let operation = self.operation(method, path).clone();
        let mut filled = String::new();
        let mut parts = parts.iter();
        for (index, piece) in path.split(['{', '}']).enumerate() {
            filled.push_str(if index % 2 == 0 {
                piece
            } else {
                parts.next().unwrap()
            });
        }
        let url = format!("{}{filled}{query}", self.url);
        let mut request = self.client.request(method.parse::<Method>().unwrap(), &url);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(body) = &body {
            // Absent fields are sent as null: it must be all the same.
            request = request.json(&self.with_nulls(&operation, body));
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let told = format!("{method} {filled}{query} answered {status}");
        let kind = answer
            .headers()
            .get(CONTENT_TYPE)
            .map(|kind| kind.to_str().unwrap().to_owned());
        let text = answer.text().await.unwrap();
        let documented = &operation["responses"][status.to_string()];
        assert!(documented.is_object(), "{told}, which is not documented: {text}");
        if status < 300 {
            self.done.insert(format!("{method} {path}"));
            if let Some(body) = &body {
                let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
                let flaws = self.flaws(schema, body, false);
                assert!(flaws.is_empty(), "{told}, but the body does not fit: {flaws:?}");
            }
        }
        let documented = match documented["$ref"].as_str() {
            Some(reference) => self.document.pointer(reference.trim_start_matches('#')).unwrap(),
            None => documented,
        };
        if documented["content"].is_null() {
            assert_eq!(text, "", "{told}");
            return (status, Value::Null);
        }
        let kind = kind.unwrap_or_default();
        let content = &documented["content"][&kind];
        assert!(content.is_object(), "{told} as {kind:?}: {documented}");
        let value: Value = serde_json::from_str(&text).unwrap();
        let flaws = self.flaws(&content["schema"], &value, true);
        assert!(flaws.is_empty(), "{told}: {flaws:?} in {text}");
        (status, value)
    }

    /// A call that succeeds.
    async fn ok(
        &mut self,
        token: &str,
        method: &str,
        path: &str,
        parts: &[&str],
        body: Option<Value>,
    ) -> Value {
        let (status, value) = self.call(Some(token), method, path, parts, "", body).await;
        assert!(status < 300, "{method} {path}: {value}");
        value
    }
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

async fn checked(stack: &Stack) -> Checked {
    let url = stack.gateway(0).base_url();
    let document = reqwest::get(format!("{url}/docs/openapi.json")).await.unwrap();
    Checked {
        client: Client::new(),
        url: url.to_owned(),
        document: document.json().await.unwrap(),
        done: BTreeSet::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_as_documented() {
    let stack = Stack::builder().gateways(1).persistence(1).start().await.unwrap();
    let mut api = checked(&stack).await;
    let (alice, bob) = (stack.token("alice"), stack.token("bob"));

    let group = conversations(&mut api, &alice, &bob).await;
    messages(&mut api, &alice, &bob, &group).await;
    encrypted(&mut api, &alice, &bob).await;
    journals(&mut api, &alice, &bob).await;
    presence(&mut api, &alice).await;
    api.ok(&alice, "DELETE", "/api/v1/conversations/{id}", &[&group], None)
        .await;

    let paths = api.document["paths"].clone();
    let mut all = BTreeSet::new();
    for (path, item) in paths.as_object().unwrap() {
        for method in item
            .as_object()
            .unwrap()
            .keys()
            .map(|method| method.to_uppercase())
        {
            if !path.starts_with("/api/") {
                let path = path.replace("{dialect}", "native");
                let answer = reqwest::get(format!("{}{path}", api.url)).await.unwrap();
                assert_eq!(answer.status(), 200, "{path}");
                continue;
            }
            let parts = ["1", "2"];
            let (status, _) = api.call(None, &method, path, &parts, "", None).await;
            assert_eq!(status, 401, "{method} {path} without a token");
            all.insert(format!("{method} {path}"));
        }
    }
    // Only a message that streams can be stopped: js/tests/streams.mjs does.
    all.remove("POST /api/v1/conversations/{id}/messages/{mid}/stop");
    assert_eq!(api.done, all, "left: what succeeded, right: what is documented");
}

async fn conversations(api: &mut Checked, alice: &str, bob: &str) -> String {
    const ALL: &str = "/api/v1/conversations";
    const ONE: &str = "/api/v1/conversations/{id}";
    let direct = json!({ "userId": "bob" });
    let made = api
        .ok(alice, "POST", "/api/v1/conversations/direct", &[], Some(direct))
        .await;
    let mixed =
        json!({ "participantIds": ["bob"], "kind": null, "channel": "voice", "metadata": { "a": 1 } });
    api.ok(alice, "POST", ALL, &[], Some(mixed)).await;
    let group = json!({ "title": "All", "participant_ids": ["bob", "carol"] });
    let group = api
        .ok(alice, "POST", "/api/v1/conversations/group", &[], Some(group))
        .await;
    let group = text(&group, "id");
    api.ok(bob, "GET", ALL, &[], None).await;
    api.ok(bob, "GET", ONE, &[&group], None).await;
    api.ok(alice, "PUT", ONE, &[&group], Some(json!({ "title": "Everyone" })))
        .await;
    let update = json!({ "status": "archived", "channel": "email", "metadata": {}, "readOnly": false });
    api.ok(alice, "PATCH", ONE, &[&group], Some(update)).await;
    api.ok(
        alice,
        "PATCH",
        ONE,
        &[&group],
        Some(json!({ "status": "active" })),
    )
    .await;
    let (people, one) = (
        "/api/v1/conversations/{id}/participants",
        "/api/v1/conversations/{id}/participants/{user_id}",
    );
    api.ok(alice, "GET", people, &[&group], None).await;
    api.ok(
        alice,
        "POST",
        people,
        &[&group],
        Some(json!({ "user_ids": ["dave"], "role": "member" })),
    )
    .await;
    api.ok(
        alice,
        "PATCH",
        one,
        &[&group, "dave"],
        Some(json!({ "role": "moderator" })),
    )
    .await;
    api.ok(alice, "DELETE", one, &[&group, "dave"], None).await;

    relations(api, alice, bob, &group).await;
    let positions = json!({ "conversations": { &group: { "seq": 0, "receipts_version": 0 } } });
    api.ok(alice, "POST", "/api/v1/sync", &[], Some(positions)).await;

    // How it fails.
    let (status, _) = api.call(Some(bob), "DELETE", ONE, &[&group], "", None).await;
    assert_eq!(status, 403);
    let (status, _) = api.call(Some(bob), "GET", ONE, &["99999"], "", None).await;
    assert_eq!(status, 404);
    let (status, _) = api.call(Some(bob), "GET", ONE, &["x"], "", None).await;
    assert_eq!(status, 400);
    let long = json!({ "title": "x".repeat(1000) });
    let (status, _) = api
        .call(Some(alice), "PATCH", ONE, &[&group], "", Some(long))
        .await;
    assert_eq!(status, 413);
    text(&made, "id");
    group
}

/// What users decide about each other and about a conversation.
async fn relations(api: &mut Checked, alice: &str, bob: &str, group: &str) {
    const MUTE: &str = "/api/v1/conversations/{id}/mute";
    let until = json!({ "until": "2100-01-01T00:00:00Z" });
    let muted = api.ok(bob, "PUT", MUTE, &[group], Some(until)).await;
    assert_eq!(muted["muted_until"], "2100-01-01T00:00:00.000Z");
    api.ok(bob, "GET", "/api/v1/unread", &[], None).await;
    api.ok(bob, "DELETE", MUTE, &[group], None).await;
    const BLOCK: &str = "/api/v1/blocks/{user_id}";
    api.ok(bob, "PUT", BLOCK, &["carol"], None).await;
    api.ok(bob, "GET", "/api/v1/blocks", &[], None).await;
    api.ok(bob, "DELETE", BLOCK, &["carol"], None).await;
    const BANS: &str = "/api/v1/conversations/{id}/bans";
    const BAN: &str = "/api/v1/conversations/{id}/bans/{user_id}";
    api.ok(alice, "PUT", BAN, &[group, "dave"], None).await;
    let page = api.ok(alice, "GET", BANS, &[group], None).await;
    assert_eq!(page["bans"][0]["user_id"], "dave");
    api.ok(alice, "DELETE", BAN, &[group, "dave"], None).await;
}

async fn messages(api: &mut Checked, alice: &str, bob: &str, group: &str) {
    const ALL: &str = "/api/v1/conversations/{id}/messages";
    const ONE: &str = "/api/v1/conversations/{id}/messages/{mid}";
    const MARKS: &str = "/api/v1/conversations/{id}/messages/{mid}/reactions";
    let send = json!({ "content": "hello", "clientMsgId": "m-1", "type": "text", "metadata": { "a": 1 } });
    let sent = api.ok(alice, "POST", ALL, &[group], Some(send.clone())).await;
    let message = text(&sent, "id");
    let (status, repeated) = api.call(Some(alice), "POST", ALL, &[group], "", Some(send)).await;
    assert_eq!((status, text(&repeated, "id")), (200, message.clone()));
    let reply = json!({ "content": "aha", "reply_to": message, "messageType": "image" });
    let reply = api.ok(bob, "POST", ALL, &[group], Some(reply)).await;
    let both = [group, &message];
    api.ok(alice, "PATCH", ONE, &both, Some(json!({ "content": "hello!" })))
        .await;
    api.ok(alice, "GET", ONE, &both, None).await;
    api.ok(
        alice,
        "GET",
        "/api/v1/conversations/{id}/messages/{mid}/edits",
        &both,
        None,
    )
    .await;
    api.ok(bob, "POST", MARKS, &both, Some(json!({ "emoji": "+1" })))
        .await;
    let (status, _) = api
        .call(Some(bob), "DELETE", MARKS, &both, "?emoji=%2B1", None)
        .await;
    assert_eq!(status, 200);
    let report = json!({ "reason": "spam", "comment": "twice" });
    const REPORT: &str = "/api/v1/conversations/{id}/messages/{mid}/report";
    api.ok(bob, "POST", REPORT, &both, Some(report)).await;
    let status = json!({ "status": "delivered" });
    api.ok(
        bob,
        "POST",
        "/api/v1/conversations/{id}/messages/{mid}/status",
        &both,
        Some(status),
    )
    .await;
    let read = json!({ "upToSeq": 1, "messageIds": [message] });
    api.ok(
        bob,
        "POST",
        "/api/v1/conversations/{id}/read",
        &[group],
        Some(read),
    )
    .await;
    let (status, _) = api.call(Some(bob), "DELETE", ONE, &both, "?scope=me", None).await;
    assert_eq!(status, 204);
    api.ok(bob, "DELETE", ONE, &[group, &text(&reply, "id")], None)
        .await;
    let (status, page) = api
        .call(Some(alice), "GET", ALL, &[group], "?limit=1", None)
        .await;
    assert_eq!(
        (status, page["messages"].as_array().map(Vec::len)),
        (200, Some(1))
    );
    let empty = Some(json!({ "content": "" }));
    let (status, _) = api.call(Some(alice), "POST", ALL, &[group], "", empty).await;
    assert_eq!(status, 400);
    threads(api, alice, bob, group, &message).await;
}

async fn threads(api: &mut Checked, alice: &str, bob: &str, group: &str, message: &str) {
    let (threads, thread) = (
        "/api/v1/conversations/{id}/threads",
        "/api/v1/conversations/{id}/threads/{tid}",
    );
    let begin = json!({ "title": "Aside", "rootMessageId": message });
    let begun = api.ok(alice, "POST", threads, &[group], Some(begin)).await;
    let both = [group, &text(&begun, "id")];
    api.ok(bob, "POST", thread, &both, Some(json!({ "content": "in here" })))
        .await;
    api.ok(alice, "GET", thread, &both, None).await;
    api.ok(alice, "GET", threads, &[group], None).await;
    // After everything above: all kinds of changes.
    let events = api
        .ok(alice, "GET", "/api/v1/conversations/{id}/events", &[group], None)
        .await;
    let kinds: BTreeSet<_> = events["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| text(event, "type"))
        .collect();
    assert!(kinds.len() > 6, "{kinds:?}");
}

async fn encrypted(api: &mut Checked, alice: &str, bob: &str) {
    const ONE: &str = "/api/v1/messages/{id}";
    const MARKS: &str = "/api/v1/messages/{id}/reactions";
    let direct = json!({ "user_id": "bob" });
    let direct = api
        .ok(alice, "POST", "/api/v1/conversations/direct", &[], Some(direct))
        .await;
    let direct = text(&direct, "id");
    let send = json!({ "conversationId": direct, "contentEncrypted": "Y2lwaGVy", "clientMsgId": "e-1" });
    let sent = api.ok(alice, "POST", "/api/v1/messages", &[], Some(send)).await;
    let message = text(&sent, "id");
    api.ok(bob, "GET", ONE, &[&direct], None).await;
    api.ok(
        alice,
        "PATCH",
        ONE,
        &[&message],
        Some(json!({ "content_encrypted": "eA" })),
    )
    .await;
    let status = json!({ "status": "read" });
    api.ok(
        bob,
        "POST",
        "/api/v1/messages/{id}/status",
        &[&message],
        Some(status),
    )
    .await;
    api.ok(bob, "POST", MARKS, &[&message], Some(json!({ "emoji": "+1" })))
        .await;
    api.ok(bob, "DELETE", MARKS, &[&message], Some(json!({ "emoji": "+1" })))
        .await;
    api.ok(alice, "DELETE", ONE, &[&message], None).await;
    let stranger = api.call(Some(bob), "GET", ONE, &["99999"], "", None).await;
    assert_eq!(
        (stranger.0, text(&stranger.1, "name")),
        (403, "ForbiddenError".to_owned())
    );
}

async fn journals(api: &mut Checked, alice: &str, bob: &str) {
    const ALL: &str = "/api/v1/journals";
    const ONE: &str = "/api/v1/journals/{id}";
    const SHARED: &str = "/api/v1/journals/{id}/collaborators/{user_id}";
    let made = api
        .ok(
            alice,
            "POST",
            ALL,
            &[],
            Some(json!({ "title": "Plan", "content": "a" })),
        )
        .await;
    let id = text(&made, "id");
    let share = json!({ "userId": "bob", "permission": "viewer" });
    api.ok(
        alice,
        "POST",
        "/api/v1/journals/{id}/collaborators",
        &[&id],
        Some(share),
    )
    .await;
    api.ok(
        alice,
        "PATCH",
        SHARED,
        &[&id, "bob"],
        Some(json!({ "permission": "editor" })),
    )
    .await;
    let update = json!({ "content": "ab", "baseVersion": made["version"] });
    api.ok(bob, "PATCH", ONE, &[&id], Some(update)).await;
    api.ok(bob, "GET", ONE, &[&id], None).await;
    api.ok(bob, "GET", ALL, &[], None).await;
    for path in ["/api/v1/journals/{id}/versions", "/api/v1/journals/{id}/blame"] {
        api.ok(bob, "GET", path, &[&id], None).await;
    }
    for (method, path) in [
        ("GET", "/api/v1/journals/{id}/versions/{version}"),
        ("POST", "/api/v1/journals/{id}/restore/{version}"),
    ] {
        api.ok(bob, method, path, &[&id, "1"], None).await;
    }
    api.ok(alice, "DELETE", SHARED, &[&id, "bob"], None).await;
    api.ok(alice, "DELETE", ONE, &[&id], None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_served_to_everyone_unless_switched_off() {
    let stack = Stack::builder().gateways(1).persistence(1).start().await.unwrap();
    let url = stack.gateway(0).base_url();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/contract");
    let mut files = vec!["openapi.json".to_owned()];
    for entry in std::fs::read_dir(folder.join("asyncapi")).unwrap() {
        files.push(format!(
            "asyncapi/{}",
            entry.unwrap().file_name().into_string().unwrap()
        ));
    }
    assert!(files.len() > 6, "{files:?}");
    for file in files {
        let served = reqwest::get(format!("{url}/docs/{file}")).await.unwrap();
        assert_eq!(served.status(), 200, "{file}");
        let checked_in = std::fs::read_to_string(folder.join(&file)).unwrap();
        assert!(
            served.text().await.unwrap() == checked_in,
            "{file} is not what is checked in"
        );
    }
    let page = reqwest::get(format!("{url}/docs")).await.unwrap();
    assert_eq!(page.status(), 200);
    assert_eq!(page.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
    let policy = page.headers()[CONTENT_SECURITY_POLICY]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(
        policy.starts_with("default-src 'none';") && !policy.contains("unsafe"),
        "{policy}"
    );
    let page = page.text().await.unwrap();
    for shown in [
        "/api/v1/conversations/{id}/messages",
        "chat:message_send",
        "new_message",
        "joinRoom",
    ] {
        assert!(page.contains(shown), "{shown} is not on the page");
    }
    assert!(!page.contains("<script"), "the page has a script");
    assert_eq!(
        reqwest::get(format!("{url}/docs/style.css"))
            .await
            .unwrap()
            .status(),
        200
    );
    let unknown = reqwest::get(format!("{url}/docs/asyncapi/other.json"))
        .await
        .unwrap();
    assert_eq!(unknown.status(), 404);
    drop(stack);

    let off = Stack::builder()
        .gateways(1)
        .persistence(1)
        .gateway_env("PARLANCE_DOCS_ENABLED", "false");
    let off = off.start().await.unwrap();
    let page = reqwest::get(format!("{}/docs", off.gateway(0).base_url()))
        .await
        .unwrap();
    assert_eq!(page.status(), 404);
}

async fn presence(api: &mut Checked, alice: &str) {
    api.ok(
        alice,
        "PATCH",
        "/api/v1/users/me",
        &[],
        Some(json!({ "name": "Alice" })),
    )
    .await;
    api.ok(alice, "GET", "/api/v1/users/{user_id}/presence", &["bob"], None)
        .await;
    let (status, seen) = api
        .call(
            Some(alice),
            "GET",
            "/api/v1/presence",
            &[],
            "?user_ids=bob,alice",
            None,
        )
        .await;
    assert_eq!(
        (status, seen["presence"].as_array().map(Vec::len)),
        (200, Some(2))
    );
}
