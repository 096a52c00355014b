//! [`BucketUrl`]: a bucket's address, as flags and files have it.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A bucket's address: `s3://NAME/PREFIX` or `file:PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum BucketUrl {
    /// A directory, by its absolute path.
    Directory(PathBuf),
    /// S3, or what speaks its protocol.
    S3 {
        /// Name of the bucket there.
        name: String,
        /// What all names of ours begin with, without the `/` after it; may be empty.
        prefix: String,
    },
}

impl FromStr for BucketUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(rest) = text.strip_prefix("s3://") {
            let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if name.is_empty() {
                return Err(format!("{text:?} names no bucket: s3://NAME/PREFIX"));
            }
            return Ok(Self::S3 {
                name: name.to_owned(),
                prefix: prefix.trim_end_matches('/').to_owned(),
            });
        }
        let Some(path) = text.strip_prefix("file:") else {
            return Err(format!(
                "{text:?} is no bucket: s3://NAME/PREFIX or file:PATH"
            ));
        };
        // file:///path and file:/path are the same path.
        let path = match path.strip_prefix("//") {
            Some(absolute) if absolute.starts_with('/') => absolute,
            _ => path,
        };
        match std::path::absolute(path) {
            // Written down as text.
            Ok(path) if path.to_str().is_some() => Ok(Self::Directory(path)),
            Ok(_) => Err(format!("{text:?} lies below a path that is not UTF-8")),
            Err(e) => Err(format!("{text:?}: {e}")),
        }
    }
}

impl fmt::Display for BucketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "file:{}", path.display()),
            Self::S3 { name, prefix } if prefix.is_empty() => write!(f, "s3://{name}"),
            Self::S3 { name, prefix } => write!(f, "s3://{name}/{prefix}"),
        }
    }
}

impl From<BucketUrl> for String {
    fn from(url: BucketUrl) -> Self {
        url.to_string()
    }
}

impl TryFrom<String> for BucketUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_shown() {
        for (text, shown) in [
            ("s3://events", "s3://events"),
            ("s3://events/", "s3://events"),
            ("s3://events/shop/eu", "s3://events/shop/eu"),
            ("s3://events/shop/", "s3://events/shop"),
            ("file:/var/annals", "file:/var/annals"),
            ("file:///var/annals", "file:/var/annals"),
        ] {
            let url: BucketUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(shown.parse::<BucketUrl>().unwrap(), url);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_forms_there_are() {
        for text in [
            "",
            "events",
            "s3:events",
            "http://store/events",
            "gs://events",
        ] {
            let refusal = text.parse::<BucketUrl>().unwrap_err();
            assert!(refusal.contains("s3://NAME/PREFIX"), "{refusal}");
        }
        assert!("s3://".parse::<BucketUrl>().is_err());
        assert!("s3:///prefix".parse::<BucketUrl>().is_err());
    }

    #[test]
    fn a_relative_path_is_told_from_the_root() {
        let url: BucketUrl = "file:here".parse().unwrap();
        let expected = std::env::current_dir().unwrap().join("here");
        assert_eq!(url, BucketUrl::Directory(expected));
    }
}
