//! Which object stores a plan may open: those the table providers registered, no file system.

use datafusion::common::{Result, exec_err};
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::object_store::ObjectStore;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use url::Url;

/// Stores by scheme and authority. Unlike DataFusion's own, it starts empty and refuses `file:`.
#[derive(Debug, Default)]
pub(super) struct Stores {
    stores: RwLock<HashMap<String, Arc<dyn ObjectStore>>>,
}

impl ObjectStoreRegistry for Stores {
    fn register_store(
        &self,
        url: &Url,
        store: Arc<dyn ObjectStore>,
    ) -> Option<Arc<dyn ObjectStore>> {
        if url.scheme() == "file" {
            tracing::warn!("a file system is never registered with the query engine");
            return None;
        }
        self.stores.write().insert(key(url), store)
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        match self.stores.read().get(&key(url)) {
            Some(store) => Ok(Arc::clone(store)),
            None => exec_err!("nothing can be read from {}", key(url)),
        }
    }
}

fn key(url: &Url) -> String {
    format!("{}://{}", url.scheme(), url.authority())
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::object_store::memory::InMemory;

    #[test]
    fn only_what_was_registered_can_be_opened_and_never_a_file_system() {
        let stores = Stores::default();
        let lake = Url::parse("annals-lake://one/").unwrap();
        let file = Url::parse("file:///").unwrap();
        assert!(stores.get_store(&lake).is_err());
        stores.register_store(&lake, Arc::new(InMemory::new()));
        stores.register_store(&file, Arc::new(InMemory::new()));
        assert!(stores.get_store(&lake).is_ok());
        assert!(stores.get_store(&file).is_err());
    }
}
