//! Where Socket.IO is served: HTTP paths and namespaces, as settings name them.

use parlance_runtime::config::Invalid;

/// Paths that are something else here.
const TAKEN: [&str; 5] = ["/api", "/api/v1", "/docs", "/health", "/metrics"];
/// Longest path or namespace, in characters.
const LONGEST: usize = 128;

/// The paths and namespaces of Socket.IO; all of a kind lead to the same.
#[derive(Debug, Clone)]
pub struct Endpoints {
    /// Without a slash at the end; longest first, so that one below another is found.
    paths: Vec<String>,
    namespaces: Vec<String>,
}

impl Endpoints {
    /// Reads `socket.path` and `socket.namespaces`.
    ///
    /// # Errors
    /// The first that is none; names the setting and the text.
    pub fn new(paths: &[String], namespaces: &[String]) -> Result<Self, Invalid> {
        const PATH: &str = "one or more paths that begin with / and are not taken by something else \
                            (/, /api, /api/v1, /docs, /health, /metrics), such as /socket.io";
        const NAMESPACE: &str = "one or more namespaces, each of which is / or begins with /, such as /chat";
        let is_plain = |text: &str| {
            text.starts_with('/')
                && text.chars().count() <= LONGEST
                && !text.contains(|c: char| c.is_whitespace() || c.is_control() || "?#,{}*%\"\\".contains(c))
        };
        let mut own: Vec<String> = Vec::new();
        for text in paths {
            let path = text.trim().trim_end_matches('/');
            if !is_plain(path) || !path.is_ascii() || path.contains("//") || TAKEN.contains(&path) {
                return Err(Invalid::new("socket.path", text, PATH));
            }
            own.push(path.to_owned());
        }
        if own.is_empty() {
            return Err(Invalid::hidden("socket.path", PATH));
        }
        if let Some(text) = namespaces.iter().find(|text| !is_plain(text)) {
            return Err(Invalid::new("socket.namespaces", text, NAMESPACE));
        }
        if namespaces.is_empty() {
            return Err(Invalid::hidden("socket.namespaces", NAMESPACE));
        }
        own.sort_by_key(|path| std::cmp::Reverse(path.len()));
        Ok(Self {
            paths: own,
            namespaces: namespaces.to_vec(),
        })
    }

    /// What follows the path of Socket.IO in a request's path, without slashes around it; `None` where the request
    /// is for something else.
    pub fn find<'a>(&self, path: &'a str) -> Option<&'a str> {
        self.paths.iter().find_map(|own| {
            let rest = path.strip_prefix(own.as_str())?;
            (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_matches('/'))
        })
    }

    /// The paths.
    pub fn paths(&self) -> &[String] {
        &self.paths
    }

    /// The namespaces.
    pub fn namespaces(&self) -> &[String] {
        &self.namespaces
    }

    /// What a client that asks for another namespace reads.
    pub fn no_namespace(&self) -> String {
        format!(
            "Invalid namespace: this server serves {} (setting socket.namespaces)",
            listed(&self.namespaces)
        )
    }

    /// What a client that connects to another path reads.
    pub fn no_path(&self) -> String {
        format!(
            "Socket.IO is not served at this path: set the client's option `path` to {} (setting socket.path)",
            listed(&self.paths)
        )
    }
}

/// `a`, `a or b`, `a, b or c`.
fn listed(all: &[String]) -> String {
    match all.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(paths: &[&str], namespaces: &[&str]) -> Result<Endpoints, Invalid> {
        let owned = |all: &[&str]| -> Vec<String> { all.iter().map(|&text| text.to_owned()).collect() };
        Endpoints::new(&owned(paths), &owned(namespaces))
    }

    #[test]
    fn each_path_is_found_with_and_without_a_slash_and_with_what_is_below() {
        let endpoints = endpoints(&["/socket.io/", "/chat", "/chat/ws"], &["/"]).unwrap();
        for (path, rest) in [
            ("/socket.io", Some("")),
            ("/socket.io/", Some("")),
            ("/socket.io/socket.io.js", Some("socket.io.js")),
            ("/chat/", Some("")),
            ("/chat/ws/", Some("")),
            ("/chat/ws/socket.io.js", Some("socket.io.js")),
            ("/socket.io2", None),
            ("/ws", None),
            ("/", None),
        ] {
            assert_eq!(endpoints.find(path), rest, "{path}");
        }
    }

    #[test]
    fn what_cannot_be_served_is_named_with_its_setting() {
        for path in [
            "",
            "/",
            "socket.io",
            "/api",
            "/api/v1/",
            "/docs",
            "/a b",
            "/{a}",
            "/*",
            "/ü",
            "/a//b",
        ] {
            let error = endpoints(&[path], &["/"]).unwrap_err();
            assert_eq!(
                (error.key.as_str(), error.value.as_str()),
                ("socket.path", path),
                "{path}"
            );
        }
        assert_eq!(endpoints(&[], &["/"]).unwrap_err().key, "socket.path");
        for namespace in ["", "chat", "/a b", "/{a}", "/a,b"] {
            let error = endpoints(&["/socket.io"], &["/", namespace]).unwrap_err();
            assert_eq!(
                (error.key.as_str(), error.value.as_str()),
                ("socket.namespaces", namespace)
            );
        }
        assert_eq!(
            endpoints(&["/socket.io"], &[]).unwrap_err().key,
            "socket.namespaces"
        );
    }

    #[test]
    fn sentences_name_what_is_served() {
        let endpoints = endpoints(&["/socket.io"], &["/", "/ws", "/chat"]).unwrap();
        assert!(endpoints.no_namespace().contains("/, /ws or /chat"));
        assert!(endpoints.no_path().contains("to /socket.io "));
    }
}
