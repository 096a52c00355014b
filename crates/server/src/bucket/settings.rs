//! [`StoreSettings`]: what the environment says about object stores.

use std::collections::BTreeMap;
use std::fmt;

const ENDPOINT: &str = "AWS_ENDPOINT_URL";
const ENDPOINT_OF_S3: &str = "AWS_ENDPOINT_URL_S3";
const REGIONS: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];

/// Settings of the environment that an object store is reached by: `AWS_*`.
#[derive(Clone, Default)]
pub struct StoreSettings(BTreeMap<String, String>);

impl StoreSettings {
    /// Those of this process.
    pub fn of_process() -> Self {
        Self::from_variables(std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }))
    }

    /// Those among some variables that are set.
    pub fn from_variables(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let ours = |(name, value): &(String, String)| name.starts_with("AWS_") && !value.is_empty();
        Self(variables.into_iter().filter(ours).collect())
    }

    pub(super) fn endpoint(&self) -> Option<String> {
        let named = self.0.get(ENDPOINT_OF_S3).or(self.0.get(ENDPOINT));
        named.cloned()
    }

    pub(super) fn region(&self) -> Option<String> {
        REGIONS.iter().find_map(|name| self.0.get(*name).cloned())
    }

    /// All of them, but with this endpoint and region where there is one.
    pub(super) fn with(
        mut self,
        endpoint: Option<&String>,
        region: Option<&String>,
    ) -> BTreeMap<String, String> {
        if let Some(endpoint) = endpoint {
            self.0.remove(ENDPOINT_OF_S3);
            self.0.insert(ENDPOINT.to_owned(), endpoint.clone());
        }
        if let Some(region) = region {
            self.0.insert(REGIONS[0].to_owned(), region.clone());
        }
        self.0
    }
}

impl fmt::Debug for StoreSettings {
    /// Names only: some values are secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> StoreSettings {
        let pairs = pairs.iter().map(|(n, v)| (n.to_string(), v.to_string()));
        StoreSettings::from_variables(pairs)
    }

    #[test]
    fn only_what_is_set_for_stores_is_taken() {
        let found = settings(&[
            ("AWS_REGION", "eu-central-1"),
            ("AWS_SESSION_TOKEN", ""),
            ("HOME", "/root"),
        ]);
        assert_eq!(found.0.len(), 1);
        assert_eq!(found.region().as_deref(), Some("eu-central-1"));
    }

    #[test]
    fn the_endpoint_of_s3_goes_before_the_general_one_and_a_named_one_before_both() {
        let both = [
            ("AWS_ENDPOINT_URL", "http://all"),
            ("AWS_ENDPOINT_URL_S3", "http://s3"),
        ];
        let found = settings(&both);
        assert_eq!(found.endpoint().as_deref(), Some("http://s3"));
        let named = found.with(Some(&"http://named".to_owned()), None);
        assert_eq!(
            named.get(ENDPOINT).map(String::as_str),
            Some("http://named")
        );
        assert_eq!(named.get(ENDPOINT_OF_S3), None);
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?}", settings(&[("AWS_SECRET_ACCESS_KEY", "hush")]));
        assert!(shown.contains("AWS_SECRET_ACCESS_KEY") && !shown.contains("hush"));
    }
}
