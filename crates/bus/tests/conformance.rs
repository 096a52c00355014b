//! Every bus passes the suite.

use annals_bus::conformance::{Backend, run_all};
use annals_bus::{Bus, MemoryBus};
use async_trait::async_trait;
use std::sync::Arc;

#[derive(Debug)]
struct Memory(MemoryBus);

#[async_trait]
impl Backend for Memory {
    async fn connect(&self) -> Arc<dyn Bus> {
        Arc::new(self.0.connect())
    }
}

// Time is paused: a property that waits for ever fails at once.
#[tokio::test(start_paused = true)]
async fn the_bus_in_memory_conforms() {
    run_all(&|| Box::pin(async { Arc::new(Memory(MemoryBus::new())) as _ })).await;
}
