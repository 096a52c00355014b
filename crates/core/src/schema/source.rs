//! The files of a catalog: checked, put in order, then handed to the compiler by name.

use super::{FILE_BYTES_MAX, FILES_MAX};
use crate::{Error, Result};
use protox::Error as CompileError;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use std::collections::{BTreeMap, BTreeSet};

/// Deepest nesting of brackets; the compiler recurses into them.
const DEPTH_MAX: usize = 64;

/// Parsed files by the name they are imported by.
#[derive(Debug)]
pub(super) struct Files(BTreeMap<String, File>);

impl Files {
    pub(super) fn new<N: Into<String>, B: AsRef<[u8]>>(
        files: impl IntoIterator<Item = (N, B)>,
    ) -> Result<Self> {
        let mut parsed = BTreeMap::new();
        for (name, bytes) in files {
            let name = name.into();
            let source = check(bytes.as_ref()).map_err(|e| e.context(&name))?;
            let file = File::from_source(&name, source)
                .map_err(|e| Error::invalid(format!("{name} does not compile: {e}")))?;
            if parsed.len() == FILES_MAX {
                return Err(Error::invalid(format!("more than {FILES_MAX} files")));
            }
            if parsed.insert(name.clone(), file).is_some() {
                return Err(Error::invalid(format!("{name} is given twice")));
            }
        }
        Ok(Self(parsed))
    }

    /// All names, each after those it imports: the compiler recurses into imports it has not
    /// seen yet, and the longest chain would decide how much stack is needed.
    pub(super) fn imports_first(&self) -> Result<Vec<String>> {
        let mut ordered = Vec::with_capacity(self.0.len());
        let mut started = BTreeSet::new();
        let mut path: Vec<(&str, std::slice::Iter<'_, String>)> = Vec::new();
        for (name, file) in &self.0 {
            if started.insert(name.as_str()) {
                path.push((name, imports(file)));
            }
            while let Some((name, rest)) = path.last_mut() {
                let Some(import) = rest.next() else {
                    ordered.push((*name).to_owned());
                    path.pop();
                    continue;
                };
                if started.insert(import) {
                    // What is not here is Google's, or missing: the compiler knows.
                    if let Some(file) = self.0.get(import) {
                        path.push((import, imports(file)));
                    }
                } else if let Some(at) = path.iter().position(|(name, _)| name == import) {
                    let cycle: Vec<_> = path[at..].iter().map(|(name, _)| *name).collect();
                    return Err(Error::invalid(format!(
                        "the imports form a cycle: {} -> {import}",
                        cycle.join(" -> ")
                    )));
                }
            }
        }
        Ok(ordered)
    }

    /// Google's files first, so that nobody redefines them.
    pub(super) fn into_resolver(self) -> ChainFileResolver {
        let mut chain = ChainFileResolver::new();
        chain.add(GoogleFileResolver::new());
        chain.add(self);
        chain
    }
}

impl FileResolver for Files {
    fn open_file(&self, name: &str) -> Result<File, CompileError> {
        let file = self.0.get(name).cloned();
        file.ok_or_else(|| CompileError::file_not_found(name))
    }
}

fn imports(file: &File) -> std::slice::Iter<'_, String> {
    file.file_descriptor_proto().dependency.iter()
}

fn check(bytes: &[u8]) -> Result<&str> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(Error::invalid(format!(
            "{} bytes of source, at most {FILE_BYTES_MAX} are allowed",
            bytes.len()
        )));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|e| Error::invalid("the source is not UTF-8").caused_by(e))?;
    if depth(text) > DEPTH_MAX {
        return Err(Error::invalid(format!(
            "brackets are nested deeper than {DEPTH_MAX}"
        )));
    }
    Ok(text)
}

/// Deepest nesting of brackets outside of comments and strings.
fn depth(source: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let mut rest = source.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let skipped = match (byte, after.first()) {
            (b'/', Some(b'/')) => after.iter().position(|&b| b == b'\n'),
            (b'/', Some(b'*')) => after.windows(2).skip(1).position(|w| w == b"*/"),
            (b'"' | b'\'', _) => string_len(byte, after),
            (b'{' | b'[' | b'(' | b'<', _) => {
                depth += 1;
                deepest = deepest.max(depth);
                Some(0)
            }
            (b'}' | b']' | b')' | b'>', _) => {
                depth = depth.saturating_sub(1);
                Some(0)
            }
            _ => Some(0),
        };
        // What is not closed runs to the end.
        rest = &after[skipped.unwrap_or(after.len())..];
    }
    deepest
}

fn string_len(quote: u8, after: &[u8]) -> Option<usize> {
    let mut escaped = false;
    let end = after.iter().position(|&byte| {
        let ends = !escaped && (byte == quote || byte == b'\n');
        escaped = !escaped && byte == b'\\';
        ends
    });
    end.map(|end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::depth;

    #[test]
    fn brackets_count_outside_of_comments_and_strings() {
        #[track_caller]
        fn check(source: &str, expected: usize) {
            assert_eq!(depth(source), expected, "{source}");
        }
        check("", 0);
        check("message A { map<a, b> c = 1 [x = {}]; }", 3);
        check("// {{{{\n{}", 1);
        check("/* {{ ' */ {} /*/ {{", 1);
        check(r#"option a = "{{\"{{"; {}"#, 1);
        check("'{{' {", 1);
        check("// it's\n{{}}", 2);
        check("}}}{", 1);
    }
}
