//! `cargo xtask codegen`: Rust from `proto/`, committed beside the code that uses it.
//!
//! Compiled by protox, so nobody needs `protoc`. `--check` changes nothing and fails where the
//! committed code is stale.

use crate::root;
use anyhow::{Context, Result, bail};
use std::path::Path;

/// Some files of `proto/` and the Rust folder made of them.
struct Target {
    protos: &'static [&'static str],
    folder: &'static str,
    /// Packages whose Rust lives elsewhere: Protobuf path, Rust path.
    externs: &'static [(&'static str, &'static str)],
}

const TARGETS: &[Target] = &[
    Target {
        protos: &["cloudevents/v1/cloudevents.proto"],
        folder: "crates/core/src/gen",
        externs: &[],
    },
    Target {
        protos: &["annals/archive/v1/archive.proto"],
        folder: "crates/archive/src/gen",
        externs: &[(".io.cloudevents.v1", "::annals_core::envelope")],
    },
];

/// Generates everything; with `check`, compares instead of writing.
pub(crate) fn run(check: bool) -> Result<()> {
    let root = root();
    for Target {
        protos,
        folder,
        externs,
    } in TARGETS
    {
        let out = root
            .join("target")
            .join("codegen")
            .join(folder.replace('/', "-"));
        std::fs::create_dir_all(&out)?;
        let set = protox::compile(*protos, [root.join("proto")]).context("compiling proto/")?;
        let mut config = prost_build::Config::new();
        config.out_dir(&out).btree_map(["."]).bytes(["."]);
        for (package, path) in *externs {
            config.extern_path(*package, *path);
        }
        config.compile_fds(set)?;
        for file in std::fs::read_dir(&out)? {
            let file = file?;
            place(
                &file.path(),
                &root.join(folder).join(file.file_name()),
                check,
            )?;
        }
    }
    Ok(())
}

fn place(made: &Path, committed: &Path, check: bool) -> Result<()> {
    let text = std::fs::read_to_string(made)?;
    if std::fs::read_to_string(committed).is_ok_and(|old| old == text) {
        return Ok(());
    }
    if check {
        bail!(
            "{} is stale: run `cargo xtask codegen`",
            committed.display()
        );
    }
    std::fs::create_dir_all(committed.parent().context("no folder")?)?;
    std::fs::write(committed, text)?;
    Ok(())
}
