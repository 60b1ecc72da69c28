//! What the query of a request's URI says, as it stands there: no decoding.

use http::Uri;

/// The value of the first parameter with this prefix.
pub fn query_value<'a>(uri: &'a Uri, prefix: &str) -> Option<&'a str> {
    let mut parts = uri.query()?.split('&');
    parts.find_map(|part| part.strip_prefix(prefix))
}
