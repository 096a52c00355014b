//! `annals schema push`: files to the next schema revision.

use crate::cli::Context;
use crate::exit::{Exit, Failure, Result, at_path};
use crate::output::Table;
use crate::schemas::SchemaFiles;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  annals schema push proto                       every .proto file below proto
  annals schema push --root proto proto/shop/v1/shop.proto

Files are stored under their path below the directory, which is how they import each other. Files
pushed before stay; one of the same path is replaced from the next event on.";

/// Store .proto files as the next revision, if they compile
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Directories and .proto files
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Directory that import paths of files start at
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
}

/// Pushes.
pub async fn run(args: Args, context: &mut Context) -> Result<()> {
    let files = collect(&args.paths, args.root.as_deref())?;
    let server = context.server().await?;
    let pushed = SchemaFiles { revision: 0, files };
    let receipt = server.push_schemas(&pushed).await?;
    context.out.table(&Table::record([
        ("revision", json!(receipt.revision)),
        ("files", json!(receipt.files)),
        ("types", json!(receipt.types)),
    ]))
}

/// The `.proto` files of the paths, by import name.
pub fn collect(paths: &[PathBuf], root: Option<&Path>) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for path in paths {
        if path.is_dir() {
            walk(path, root.unwrap_or(path), &mut files)?;
        } else {
            let root = root.or_else(|| path.parent()).unwrap_or(Path::new(""));
            add(path, root, &mut files)?;
        }
    }
    match files.is_empty() {
        false => Ok(files),
        true => Err(Failure::new(
            Exit::NothingMatched,
            "there is no .proto file",
        )),
    }
}

fn walk(dir: &Path, root: &Path, files: &mut BTreeMap<String, String>) -> Result<()> {
    for entry in std::fs::read_dir(dir).map_err(at_path(dir))? {
        let path = entry.map_err(at_path(dir))?.path();
        if path.is_dir() && !path.is_symlink() {
            walk(&path, root, files)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            add(&path, root, files)?;
        }
    }
    Ok(())
}

fn add(path: &Path, root: &Path, files: &mut BTreeMap<String, String>) -> Result<()> {
    let name = path.strip_prefix(root).map_err(|_| {
        Failure::usage(format!(
            "{} does not lie below {}",
            path.display(),
            root.display()
        ))
    })?;
    let text = std::fs::read_to_string(path).map_err(at_path(path))?;
    files.insert(name.to_string_lossy().into_owned(), text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_by_their_path_below_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("shop/v1")).unwrap();
        std::fs::write(dir.path().join("shop/v1/shop.proto"), "x").unwrap();
        std::fs::write(dir.path().join("shop/README.md"), "y").unwrap();
        let whole = collect(&[dir.path().to_owned()], None).unwrap();
        assert_eq!(whole.keys().collect::<Vec<_>>(), ["shop/v1/shop.proto"]);
        let file = dir.path().join("shop/v1/shop.proto");
        let one = collect(std::slice::from_ref(&file), Some(dir.path())).unwrap();
        assert_eq!(one, whole);
        assert_eq!(
            collect(&[file], None).unwrap().keys().next().unwrap(),
            "shop.proto"
        );
        let empty = tempfile::tempdir().unwrap();
        let none = collect(&[empty.path().to_owned()], None).unwrap_err();
        assert_eq!(none.exit, Exit::NothingMatched);
    }
}
