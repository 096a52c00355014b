//! Questions asked of an engine over tables in memory. One binary: each links all of DataFusion.

mod corpus;
mod fixture;
mod hostile;
mod limits;
mod questions;
