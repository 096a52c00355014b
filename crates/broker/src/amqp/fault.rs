//! [`Fault`]: why a channel or a connection is closed, with the code and words RabbitMQ uses.

/// Class and method a fault answers; zeros when it answers none.
pub(crate) type MethodId = (u16, u16);

/// Closes a channel (soft codes) or the connection (all others).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: u16,
    pub(crate) text: String,
    pub(crate) method: MethodId,
}

impl Fault {
    /// A fault whose text is the code's name and `detail`.
    pub(crate) fn new(code: u16, detail: impl std::fmt::Display) -> Self {
        Self::refused(code, format!("{} - {detail}", name(code)))
    }

    /// A fault whose text is complete.
    pub(crate) fn refused(code: u16, text: String) -> Self {
        Self {
            code,
            text,
            method: (0, 0),
        }
    }

    /// Bytes that are not AMQP.
    pub(crate) fn frame_error(detail: impl std::fmt::Display) -> Self {
        Self::new(501, detail)
    }

    /// A frame of the right form in the wrong place.
    pub(crate) fn unexpected_frame(detail: impl std::fmt::Display) -> Self {
        Self::new(505, detail)
    }

    /// A method or an option that is not served here.
    pub(crate) fn not_implemented(detail: impl std::fmt::Display) -> Self {
        Self::new(540, detail)
    }

    /// Says which method is answered.
    #[must_use]
    pub(crate) fn on(mut self, method: MethodId) -> Self {
        self.method = method;
        self
    }

    /// Whether only the channel is closed.
    pub(crate) fn is_soft(&self) -> bool {
        matches!(self.code, 311..=313 | 403..=406)
    }

    /// The text, cut to what a short string holds.
    pub(crate) fn short_text(&self) -> &str {
        cut(&self.text, 255)
    }
}

/// The longest prefix of at most `bytes_max` bytes that ends between characters.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

fn name(code: u16) -> &'static str {
    match code {
        311 => "CONTENT_TOO_LARGE",
        312 => "NO_ROUTE",
        313 => "NO_CONSUMERS",
        320 => "CONNECTION_FORCED",
        402 => "INVALID_PATH",
        403 => "ACCESS_REFUSED",
        404 => "NOT_FOUND",
        405 => "RESOURCE_LOCKED",
        406 => "PRECONDITION_FAILED",
        501 => "FRAME_ERROR",
        502 => "SYNTAX_ERROR",
        503 => "COMMAND_INVALID",
        504 => "CHANNEL_ERROR",
        505 => "UNEXPECTED_FRAME",
        506 => "RESOURCE_ERROR",
        530 => "NOT_ALLOWED",
        540 => "NOT_IMPLEMENTED",
        _ => "INTERNAL_ERROR",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_over_255_bytes_is_cut_between_characters() {
        let fault = Fault::new(404, "ü".repeat(200));
        assert!(fault.text.len() > 255);
        assert!(fault.short_text().len() <= 255);
        assert!(fault.short_text().ends_with('ü'));
    }

    #[test]
    fn only_the_soft_codes_spare_the_connection() {
        assert!(Fault::new(404, "x").is_soft());
        assert!(Fault::new(406, "x").is_soft());
        assert!(!Fault::frame_error("x").is_soft());
        assert!(!Fault::not_implemented("x").is_soft());
        assert!(!Fault::new(530, "x").is_soft());
    }
}
