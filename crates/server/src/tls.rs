//! The one TLS provider of the process: rustls on ring.

/// Makes ring the provider. First thing in every `main`: a library that links another one besides
/// leaves rustls without a choice, and it would panic at the first handshake. Again does nothing.
pub fn install() {
    // Refused where there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
