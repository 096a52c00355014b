//! Questions to all of history: DataFusion over the lake and the raw tail.
