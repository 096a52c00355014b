//! [`StreamTarget`]: any stream of bytes.

use super::{Delivered, Format, Target};
use annals_archive::reader::EventRef;
use annals_core::Result;
use async_trait::async_trait;
use std::fmt;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Writes events to a stream of bytes, part by part, each flushed.
pub struct StreamTarget<W> {
    name: String,
    stream: W,
    format: Format,
    part: Vec<u8>,
}

impl<W: AsyncWrite + Unpin + Send> StreamTarget<W> {
    /// A stream, and its name for the receipt.
    pub fn new(name: impl Into<String>, stream: W, format: Format) -> Self {
        Self {
            name: name.into(),
            stream,
            format,
            part: Vec::new(),
        }
    }
}

impl<W> fmt::Debug for StreamTarget<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamTarget")
            .field("name", &self.name)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl<W: AsyncWrite + Unpin + Send> Target for StreamTarget<W> {
    fn describe(&self) -> String {
        format!("stream {}", self.name)
    }

    async fn deliver(&mut self, events: &[EventRef<'_>]) -> Result<Delivered> {
        self.part.clear();
        for event in events {
            self.format.put(event, &mut self.part)?;
        }
        self.stream.write_all(&self.part).await?;
        self.stream.flush().await?;
        Ok(Delivered::all(events))
    }

    async fn finish(&mut self) -> Result<()> {
        Ok(self.stream.shutdown().await?)
    }
}
