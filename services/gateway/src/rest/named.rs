//! Names of failures beside their codes, for the front ends of the older routes.

use axum::response::{IntoResponse as _, Response};

use crate::dialect::encrypted::error_name;
use crate::error::ClientError;

/// Names a failure after its status.
pub(super) async fn by_status(response: Response) -> Response {
    rename(response, |error| {
        let forbidden = *error == ClientError::no_conversation();
        if forbidden {
            "NotFoundError"
        } else {
            error_name(error)
        }
    })
}

/// Names a failure; who is not in a conversation is forbidden to do anything in it.
pub(super) async fn by_class(response: Response) -> Response {
    rename(response, error_name)
}

fn rename(mut response: Response, name: impl FnOnce(&ClientError) -> &'static str) -> Response {
    match response.extensions_mut().remove::<ClientError>() {
        Some(error) if !error.is_named() => {
            let name = name(&error);
            error.named(name).into_response()
        }
        _ => response,
    }
}
