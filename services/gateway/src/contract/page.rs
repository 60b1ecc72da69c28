//! The contract as one HTML page without scripts. Everything that comes from a document is escaped.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// The page for these documents.
pub(super) fn html(documents: &[(String, Value)]) -> String {
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Parlance: contract</title>\
         <link rel=\"stylesheet\" href=\"/docs/style.css\"></head><body><h1>Parlance: contract</h1>\n<nav>",
    );
    for (path, _) in documents {
        let path = escaped(path);
        push(&mut page, format_args!("<a href=\"/docs/{path}\">{path}</a> "));
    }
    page.push_str("</nav>\n");
    for (path, document) in documents {
        let title = text(document, "/info/title");
        let description = text(document, "/info/description");
        push(
            &mut page,
            format_args!(
                "<section id=\"{}\"><h2>{title}</h2><p>{description}</p>\n",
                escaped(path)
            ),
        );
        for (path, item) in entries(document, "/paths") {
            for (method, operation) in item.as_object().into_iter().flatten() {
                details(
                    &mut page,
                    method,
                    path,
                    operation,
                    &["parameters", "requestBody", "responses"],
                );
            }
        }
        for (key, message) in entries(document, "/channels/socket/messages") {
            let from = key.split('.').next().unwrap_or_default();
            let name = message["name"].as_str().unwrap_or_default();
            details(&mut page, from, name, message, &["payload"]);
        }
        page.push_str("<h3>Schemas</h3>\n");
        for (name, schema) in entries(document, "/components/schemas") {
            push(
                &mut page,
                format_args!(
                    "<details><summary><code>{}</code></summary><pre>{}</pre></details>\n",
                    escaped(name),
                    escaped(&format!("{schema:#}"))
                ),
            );
        }
        page.push_str("</section>\n");
    }
    page.push_str("</body></html>\n");
    page
}

/// One operation or message.
fn details(page: &mut String, kind: &str, name: &str, value: &Value, fields: &[&str]) {
    let shown: Map<_, _> = fields
        .iter()
        .filter_map(|field| Some(((*field).to_owned(), value.get(field)?.clone())))
        .collect();
    push(
        page,
        format_args!(
            "<details><summary><b>{}</b> <code>{}</code> {}</summary><pre>{}</pre></details>\n",
            escaped(kind),
            escaped(name),
            text(value, "/summary"),
            escaped(&format!("{:#}", Value::Object(shown)))
        ),
    );
}

fn entries<'a>(document: &'a Value, place: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    document
        .pointer(place)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

fn text(value: &Value, place: &str) -> String {
    escaped(value.pointer(place).and_then(Value::as_str).unwrap_or_default())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing into a String cannot fail.
    let _ = page.write_fmt(text);
}
