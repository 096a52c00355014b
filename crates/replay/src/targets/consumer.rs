//! [`ConsumerTarget`]: a function in this process.

use super::{Delivered, Target};
use annals_archive::reader::EventRef;
use annals_core::Result;
use async_trait::async_trait;
use std::fmt;

/// Hands events to a function, where they lie in the archive's decompressed frames: nothing is
/// copied. An error of the function ends the replay.
pub struct ConsumerTarget<F> {
    name: String,
    consume: F,
}

impl<F: FnMut(&[EventRef<'_>]) -> Result<()> + Send> ConsumerTarget<F> {
    /// A function, and its name for the receipt.
    pub fn new(name: impl Into<String>, consume: F) -> Self {
        let name = name.into();
        Self { name, consume }
    }
}

impl<F> fmt::Debug for ConsumerTarget<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConsumerTarget").field(&self.name).finish()
    }
}

#[async_trait]
impl<F: FnMut(&[EventRef<'_>]) -> Result<()> + Send> Target for ConsumerTarget<F> {
    fn describe(&self) -> String {
        format!("consumer {}", self.name)
    }

    async fn deliver(&mut self, events: &[EventRef<'_>]) -> Result<Delivered> {
        (self.consume)(events)?;
        Ok(Delivered::all(events))
    }

    async fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}
