//! S3 and what speaks its protocol, by the usual settings.

use super::{StoreBucket, check_name};
use annals_core::{Error, Result};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};
use std::sync::Arc;
use std::time::Duration;

/// Longest prefix, in bytes, so that every name of ours fits behind it in a key.
const PREFIX_BYTES_MAX: usize = 200;
/// Longest that one request may take: a large segment over a slow line.
const REQUEST_TIMEOUT: &str = "3m";
/// Reads and overwrites are tried again this often …
const RETRIES_MAX: usize = 4;
/// … and no longer than this.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

impl StoreBucket {
    /// A bucket of S3, or the part of it below `prefix` (empty: all of it).
    ///
    /// Settings are named as the environment variables of AWS' own tools are (`AWS_REGION`,
    /// `AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, …); those of other names and empty ones are left
    /// out. Plain HTTP is spoken only to an endpoint that begins with `http://`. Nothing is sent
    /// yet. If the process has no rustls provider so far, ring becomes it.
    pub fn s3(
        name: &str,
        prefix: &str,
        settings: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self> {
        check_bucket_name(name)?;
        // Ours or another's: what counts is that there is one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let shown = [name, prefix].join("/");
        let failed = |e: object_store::Error| {
            Error::invalid(format!("s3://{}", shown.trim_end_matches('/'))).caused_by(e)
        };
        let builder = builder(settings).with_bucket_name(name);
        let store = builder.clone().with_retry(retries(RETRIES_MAX)).build();
        let store = store.map_err(failed)?;
        // One set of credentials, fetched and renewed once for both.
        let creator = builder
            .with_credentials(store.credentials().clone())
            .with_retry(retries(0))
            .build()
            .map_err(failed)?;
        if prefix.is_empty() {
            return Ok(Self::with_creator(Arc::new(store), Arc::new(creator)));
        }
        check_name(prefix)?;
        if prefix.len() > PREFIX_BYTES_MAX {
            return Err(Error::invalid(format!(
                "prefix {prefix:?} is longer than {PREFIX_BYTES_MAX} bytes"
            )));
        }
        let path = Path::parse(prefix).map_err(|e| Error::invalid(e.to_string()))?;
        let below = |store| Arc::new(PrefixStore::new(store, path.clone())) as Arc<dyn ObjectStore>;
        Ok(Self::with_creator(below(store), below(creator)))
    }
}

fn builder(settings: impl IntoIterator<Item = (String, String)>) -> AmazonS3Builder {
    let timeout = AmazonS3ConfigKey::Client(ClientConfigKey::Timeout);
    // One object at a time is deleted, and not every store knows the request for many.
    let mut builder = AmazonS3Builder::new()
        .with_disable_bulk_delete(true)
        .with_config(timeout, REQUEST_TIMEOUT);
    let mut plain_http = false;
    for (name, value) in settings {
        let name = name.to_ascii_lowercase();
        let Ok(key) = name.parse::<AmazonS3ConfigKey>() else {
            continue;
        };
        // Where the bucket is was named by the caller.
        if !name.starts_with("aws_") || value.is_empty() || key == AmazonS3ConfigKey::Bucket {
            continue;
        }
        if let AmazonS3ConfigKey::Endpoint | AmazonS3ConfigKey::S3Endpoint = key {
            plain_http |= value.starts_with("http://");
        }
        builder = builder.with_config(key, value);
    }
    match plain_http {
        true => builder.with_allow_http(true),
        false => builder,
    }
}

fn retries(max_retries: usize) -> RetryConfig {
    RetryConfig {
        max_retries,
        retry_timeout: RETRY_TIMEOUT,
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            base: 2.0,
        },
    }
}

/// Letters, digits, `.`, `-` and `_`, and none of them a way out of the name.
fn check_bucket_name(name: &str) -> Result<()> {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if (3..=255).contains(&name.len()) && name.bytes().all(sound) && !name.starts_with('.') {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{name:?} is not the name of an S3 bucket"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use annals_core::ErrorKind;

    fn settings(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let keys = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
        let all = keys.iter().chain(pairs);
        all.map(|(name, value)| (name.to_string(), value.to_string()))
            .collect()
    }

    #[test]
    fn names_and_prefixes_that_lead_elsewhere_are_refused() {
        let long = "x".repeat(PREFIX_BYTES_MAX + 1);
        for (name, prefix) in [
            ("", ""),
            ("a", ""),
            ("..", ""),
            ("../etc", ""),
            ("a/b", ""),
            ("bucket?x", ""),
            ("bucket", "/a"),
            ("bucket", "a/"),
            ("bucket", "a/../b"),
            ("bucket", &long),
        ] {
            let error = StoreBucket::s3(name, prefix, settings(&[])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{name:?} {prefix:?}");
        }
        StoreBucket::s3("bucket", "a/b", settings(&[])).unwrap();
    }

    #[test]
    fn half_a_set_of_credentials_is_refused() {
        let half = [("AWS_ACCESS_KEY_ID".to_owned(), "a".to_owned())];
        assert!(StoreBucket::s3("bucket", "", half).is_err());
    }

    #[test]
    fn plain_http_is_allowed_by_the_endpoint_alone() {
        let allows = |pairs: &[(&str, &str)]| {
            let key = AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp);
            builder(settings(pairs)).get_config_value(&key)
        };
        let plain = allows(&[("AWS_ENDPOINT_URL", "http://127.0.0.1:8333")]);
        assert_eq!(plain.as_deref(), Some("true"));
        let secure = allows(&[("AWS_ENDPOINT_URL", "https://store")]);
        assert_ne!(secure.as_deref(), Some("true"));
    }

    #[test]
    fn a_setting_never_moves_the_bucket() {
        let moved = builder(settings(&[("AWS_BUCKET", "other"), ("BUCKET", "other")]));
        assert_eq!(moved.get_config_value(&AmazonS3ConfigKey::Bucket), None);
    }
}
