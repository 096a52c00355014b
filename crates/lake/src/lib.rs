//! History as Delta tables: converter, files, commits, rebuild.
