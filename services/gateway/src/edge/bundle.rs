//! The client library for `<script src="/socket.io/socket.io.js">`, as the reference server serves it.
//!
//! Read once, from the folder that a setting names; no request reads a file.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::Path;
use std::sync::Arc;

use axum::body::Bytes;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use parlance_runtime::config::Invalid;

/// Files of the package `socket.io-client`; each may have a source map beside it.
const FILES: [&str; 4] = [
    "socket.io.js",
    "socket.io.min.js",
    "socket.io.esm.min.js",
    "socket.io.msgpack.min.js",
];

/// The files of the client library. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Bundle(Arc<HashMap<String, File>>);

#[derive(Debug)]
struct File {
    kind: HeaderValue,
    tag: HeaderValue,
    text: Bytes,
}

impl Bundle {
    /// Reads the folder; an empty name is no folder.
    ///
    /// # Errors
    /// It holds none of the files, or one that cannot be read.
    pub fn read(folder: &str) -> Result<Self, Invalid> {
        if folder.is_empty() {
            return Ok(Self::default());
        }
        let invalid = |problem: &dyn std::fmt::Display| {
            let allowed =
                format!("a folder with socket.io.js, as dist of the package socket.io-client ({problem})");
            Invalid::new("socket.client_folder", folder, allowed)
        };
        let mut files = HashMap::new();
        for name in FILES
            .iter()
            .flat_map(|name| [(*name).to_owned(), format!("{name}.map")])
        {
            match std::fs::read(Path::new(folder).join(&name)) {
                Ok(text) => drop(files.insert(name.clone(), File::new(&name, text))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(invalid(&error)),
            }
        }
        if files.is_empty() {
            return Err(invalid(&"it holds none"));
        }
        Ok(Self(Arc::new(files)))
    }

    /// Whether a file of this name belongs to the client library, served here or not.
    pub fn names(name: &str) -> bool {
        FILES.contains(&name.strip_suffix(".map").unwrap_or(name))
    }

    /// The answer to a request for a file; `None` where it is not served.
    pub fn answer(&self, name: &str, asked: &HeaderMap) -> Option<Response> {
        let file = self.0.get(name)?;
        let headers = [
            (header::ETAG, file.tag.clone()),
            (header::CONTENT_TYPE, file.kind.clone()),
            (
                header::CACHE_CONTROL,
                HeaderValue::from_static("public, max-age=0"),
            ),
            (
                header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            ),
        ];
        let known = asked.get(header::IF_NONE_MATCH);
        Some(if known == Some(&file.tag) {
            (StatusCode::NOT_MODIFIED, headers).into_response()
        } else {
            (headers, file.text.clone()).into_response()
        })
    }
}

impl File {
    fn new(name: &str, text: Vec<u8>) -> Self {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let tag = HeaderValue::try_from(format!("\"{:016x}\"", hasher.finish()));
        Self {
            kind: HeaderValue::from_static(if name.ends_with(".map") {
                "application/json; charset=utf-8"
            } else {
                "application/javascript; charset=utf-8"
            }),
            tag: tag.unwrap_or_else(|_| HeaderValue::from_static("\"0\"")),
            text: text.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_the_package_is_served_and_nothing_else_in_it() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("socket.io.js", "io"),
            ("socket.io.js.map", "{}"),
            ("secret", "x"),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let bundle = Bundle::read(folder.path().to_str().unwrap()).unwrap();
        let mut asked = HeaderMap::new();
        let script = bundle.answer("socket.io.js", &asked).unwrap();
        assert_eq!(script.status(), 200);
        assert_eq!(
            script.headers()[header::CONTENT_TYPE],
            "application/javascript; charset=utf-8"
        );
        asked.insert(header::IF_NONE_MATCH, script.headers()[header::ETAG].clone());
        assert_eq!(bundle.answer("socket.io.js", &asked).unwrap().status(), 304);
        assert_eq!(bundle.answer("socket.io.js.map", &asked).unwrap().status(), 200);
        for name in ["secret", "socket.io.min.js", "../socket.io.js"] {
            assert!(bundle.answer(name, &asked).is_none(), "{name}");
        }
        assert!(Bundle::names("socket.io.min.js.map") && !Bundle::names("secret"));
    }

    #[test]
    fn a_folder_without_the_library_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().to_str().unwrap(), "/no/such/folder"] {
            let error = Bundle::read(path).unwrap_err();
            assert_eq!(
                (error.key.as_str(), error.value.as_str()),
                ("socket.client_folder", path)
            );
        }
        assert!(
            Bundle::read("")
                .unwrap()
                .answer("socket.io.js", &HeaderMap::new())
                .is_none()
        );
    }
}
