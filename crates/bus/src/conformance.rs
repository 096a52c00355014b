//! The suite every [`Bus`] passes: what the trait means, one property per function.
//!
//! ```no_run
//! # use annals_bus::{Bus, MemoryBus, conformance::{self, Backend}};
//! # use std::sync::Arc;
//! #[derive(Debug)]
//! struct Memory(MemoryBus);
//!
//! #[async_trait::async_trait]
//! impl Backend for Memory {
//!     async fn connect(&self) -> Arc<dyn Bus> {
//!         Arc::new(self.0.connect())
//!     }
//! }
//!
//! # async fn run() {
//! conformance::run_all(&|| Box::pin(async { Arc::new(Memory(MemoryBus::new())) as _ })).await;
//! # }
//! ```
//!
//! A property never asserts on time: that nothing more comes is shown by a marker that comes next.
//! What would wait for ever is ended by [`PATIENCE`].

mod consuming;
mod declaring;
mod publishing;
mod setting;

use crate::Bus;
use async_trait::async_trait;
use std::fmt::{Debug, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use consuming::*;
pub use declaring::*;
pub use publishing::*;

/// When a property that hangs has failed. No bus comes near it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What stands behind buses: empty when made, shared with nobody.
#[async_trait]
pub trait Backend: Debug + Send + Sync + 'static {
    /// Another connection to it.
    async fn connect(&self) -> Arc<dyn Bus>;

    /// Stops it and starts it on what it kept. `false` if it keeps nothing beyond its process: the
    /// properties that need it then hold for want of a claim.
    async fn restart(&self) -> bool {
        false
    }
}

/// A future on the heap.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
/// Makes a new backend for each property.
pub type Fresh<'a> = &'a dyn Fn() -> BoxFuture<Arc<dyn Backend>>;

/// One property: its name and the function that asserts it.
#[derive(Debug, Clone, Copy)]
pub struct Property {
    /// The function's name: a sentence.
    pub name: &'static str,
    /// Panics where the property does not hold.
    pub assert: fn(Arc<dyn Backend>) -> BoxFuture<()>,
}

macro_rules! properties {
    ($($name:ident),* $(,)?) => {
        /// All properties.
        pub const PROPERTIES: &[Property] = &[$(Property {
            name: stringify!($name),
            assert: |backend| Box::pin($name(backend)),
        }),*];
    };
}

properties![
    a_confirmed_message_is_queued,
    body_and_properties_arrive_byte_identical,
    messages_arrive_in_the_order_published,
    a_big_and_an_empty_body_pass,
    ten_thousand_small_messages_arrive,
    a_topic_exchange_routes_by_pattern,
    a_direct_exchange_routes_by_equality,
    a_fanout_exchange_routes_to_all,
    the_default_exchange_routes_by_queue_name,
    an_exchange_routes_to_exchanges,
    a_queue_gets_one_copy_though_several_bindings_match,
    an_unroutable_mandatory_message_is_an_error,
    an_unroutable_message_that_is_not_mandatory_is_no_error,
    an_unknown_exchange_fails_its_messages_only,
    prefetch_bounds_unsettled_deliveries,
    ack_up_to_settles_all_before,
    ack_of_one_settles_no_other,
    a_requeued_message_comes_back_in_its_place,
    a_redelivery_says_so,
    a_rejected_message_is_gone,
    a_wrong_tag_is_refused_and_harmless,
    a_cancelled_consumer_gives_back_what_it_held,
    a_closed_bus_gives_back_what_it_held,
    two_consumers_share_without_duplicates,
    next_can_be_dropped_without_loss,
    a_consumer_ends_with_its_bus,
    consuming_a_missing_queue_is_not_found,
    declaring_again_changes_nothing,
    a_conflicting_declaration_is_refused_and_harmless,
    an_exclusive_queue_goes_with_its_connection,
    a_durable_queue_outlives_a_restart,
];

/// Asserts every property, each on a backend of its own; panics with the names of those that do
/// not hold and why.
pub async fn run_all(fresh: Fresh<'_>) {
    let mut report = String::new();
    for (name, reason) in failures(fresh).await {
        writeln!(report, "- {name}: {reason}").expect("a string takes text");
    }
    assert!(report.is_empty(), "the bus does not conform:\n{report}");
}

/// The properties that do not hold, and why.
pub async fn failures(fresh: Fresh<'_>) -> Vec<(&'static str, String)> {
    let mut failures = Vec::new();
    for property in PROPERTIES {
        if let Err(reason) = assert_one(property, fresh().await).await {
            failures.push((property.name, reason));
        }
    }
    failures
}

async fn assert_one(property: &Property, backend: Arc<dyn Backend>) -> Result<(), String> {
    let mut running = tokio::spawn((property.assert)(backend));
    match tokio::time::timeout(PATIENCE, &mut running).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(failed)) => Err(panic_text(failed)),
        Err(_) => {
            running.abort();
            Err(format!("still waiting after {PATIENCE:?}"))
        }
    }
}

fn panic_text(failed: tokio::task::JoinError) -> String {
    let Ok(panic) = failed.try_into_panic() else {
        return "cancelled".to_owned();
    };
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("panicked").to_owned()
}
