//! AMQP reply codes as errors.

use crate::{Error, ErrorKind};
use std::fmt::Display;

/// The error that a refusal with this code is.
pub(crate) fn error(code: u16, text: impl Display) -> Error {
    let kind = match code {
        311 | 501 | 502 | 503 | 540 => ErrorKind::Invalid,
        403 | 405 | 530 => ErrorKind::NotAllowed,
        404 => ErrorKind::NotFound,
        406 => ErrorKind::Conflict,
        320 | 506 => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, text.to_string())
}
