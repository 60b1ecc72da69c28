//! Answers made smaller for clients that ask for it: REST and long-polling, by gzip, Brotli or Zstandard.
//!
//! An answer is compressed whole before it is sent, at the fastest level: a client that reads slowly holds no compressor, and
//! a large answer is no work of the runtime. WebSocket messages are never compressed, because the stack has no
//! `permessage-deflate`. Must not be put before what answers without a token, beyond what is small.

use std::convert::Infallible;

use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use futures::executor::block_on;
use http::header;
use parlance_runtime::tasks;
use tower::{Service, ServiceExt as _};
use tower_http::CompressionLevel;
use tower_http::compression::predicate::SizeAbove;
use tower_http::compression::{Compression as Compressing, CompressionBody};

use crate::error::ClientError;

/// From this many bytes on, compressing takes longer than what the runtime may be kept from others.
const LARGE: u64 = 32 * 1024;

/// Whether answers are compressed. Cheap to clone.
#[derive(Debug, Clone, Copy)]
pub struct Compression {
    least: u64,
}

impl Compression {
    /// Of answers of so many bytes; 0 for none.
    pub fn new(least: u64) -> Self {
        Self { least }
    }

    /// What the service answers, as the request asks for it.
    pub async fn answer<S>(self, service: S, request: Request) -> Response
    where
        S: Service<Request, Response = Response, Error = Infallible>,
    {
        if self.least == 0 {
            let Ok(response) = service.oneshot(request).await;
            return response;
        }
        let compressing = Compressing::new(service)
            .quality(CompressionLevel::Fastest)
            .compress_when(SizeAbove::new(self.least));
        let Ok(response) = compressing.oneshot(request).await;
        whole(response).await
    }
}

async fn whole(response: http::Response<CompressionBody<Body>>) -> Response {
    let (head, body) = response.into_parts();
    if !head.headers.contains_key(header::CONTENT_ENCODING) {
        return Response::from_parts(head, Body::new(body));
    }
    let large = body.get_ref().size_hint().lower() >= LARGE;
    let bytes = to_bytes(Body::new(body), usize::MAX);
    let bytes = match large {
        // All of it is in memory: nothing waits there.
        true => tasks::blocking("compress", move || block_on(bytes)).await,
        false => Ok(bytes.await),
    };
    match bytes {
        Ok(Ok(bytes)) => Response::from_parts(head, Body::from(bytes)),
        _ => ClientError::internal().into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use tower::service_fn;

    use super::*;

    const LEAST: u64 = 1_024;

    /// What is answered to a request that accepts this: the encoding, the length that the head says, and the body.
    async fn answered(least: u64, accepted: &str, size: usize) -> (Option<String>, Option<usize>, Vec<u8>) {
        let service = service_fn(move |_: Request| ready(Ok(Response::new(Body::from(text(size))))));
        let request = Request::builder().header(header::ACCEPT_ENCODING, accepted);
        let request = request.body(Body::empty()).unwrap();
        let response = Compression::new(least).answer(service, request).await;
        let headers = response.headers();
        let encoding = headers.get(header::CONTENT_ENCODING);
        let encoding = encoding.map(|encoding| encoding.to_str().unwrap().to_owned());
        let length = response.body().size_hint().exact();
        let length = length.map(|length| usize::try_from(length).unwrap());
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (encoding, length, body.to_vec())
    }

    fn text(size: usize) -> String {
        "word by word ".repeat(size).chars().take(size).collect()
    }

    #[tokio::test]
    async fn what_is_compressed_has_a_length_and_is_the_same_text_whether_or_not_it_is_large() {
        for size in [1_024, 40_000, 2_000_000] {
            let (encoding, length, body) = answered(LEAST, "zstd", size).await;
            assert_eq!(encoding.as_deref(), Some("zstd"));
            assert_eq!(length, Some(body.len()));
            assert!(body.len() < size / 4, "{} of {size} bytes", body.len());
            assert_eq!(zstd::decode_all(&*body).unwrap(), text(size).into_bytes());
        }
    }

    #[tokio::test]
    async fn what_is_small_or_not_wanted_is_sent_as_it_is() {
        for (least, accepted, size) in [
            (LEAST, "gzip", 1_023),
            (LEAST, "", 5_000),
            (LEAST, "identity", 5_000),
            (LEAST, "br;q=0", 5_000),
            (0, "gzip", 5_000),
        ] {
            let (encoding, length, body) = answered(least, accepted, size).await;
            assert_eq!((encoding, length), (None, Some(size)), "{accepted}");
            assert_eq!(body, text(size).into_bytes());
        }
    }
}
