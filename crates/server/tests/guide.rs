//! The guide is run: the commands of each page, in a directory of its own, against one server.
//!
//! A block that begins with `annals up` is the server's terminal; all others run as they stand, in
//! order, in a shell that ends at the first command that fails.

mod support;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use support::root;

const BINARY: &str = env!("CARGO_BIN_EXE_annals");

/// One fenced block: its language, its lines.
struct Block {
    language: String,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let path = root().join("docs/guide").join(page);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(language), None) => {
                open = Some(Block {
                    language: language.to_owned(),
                    text: String::new(),
                });
            }
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{page}: a block does not end");
    blocks
}

/// A directory to follow the guide in.
struct Place {
    dir: tempfile::TempDir,
    server: Option<Child>,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let examples = root().join("examples").canonicalize().unwrap();
        std::os::unix::fs::symlink(examples, dir.path().join("examples")).unwrap();
        Self { dir, server: None }
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ANNALS_") {
                command.env_remove(name);
            }
        }
        let bin = Path::new(BINARY).parent().unwrap().display().to_string();
        let path = std::env::var("PATH").unwrap();
        command
            .env("PATH", format!("{bin}:{path}"))
            .env("ANNALS_PORT", "0")
            .env("ANNALS_AMQP_PORT", "0")
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs `annals up …` until it says where it listens.
    fn up(&mut self, text: &str) {
        let mut shell = self.command("sh");
        let exec = format!("exec {text}");
        let mut child = shell
            .args(["-euc", &exec])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.any(|line| line.unwrap().starts_with("pid"));
        assert!(ready, "{text}");
        self.server = Some(child);
    }

    /// Runs a block to its end; what it printed.
    #[track_caller]
    fn run(&self, text: &str) -> String {
        let output = self.command("sh").args(["-euxc", text]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{printed}\n{said}");
        printed
    }

    fn amqp_port(&self) -> String {
        let path = self.dir.path().join("annals-data/annals.json");
        let text = std::fs::read(path).unwrap();
        let address: serde_json::Value = serde_json::from_slice(&text).unwrap();
        address["amqp_port"].to_string()
    }

    /// Follows a page; what all its blocks printed.
    fn follow(&mut self, page: &str) -> String {
        let mut printed = String::new();
        for block in blocks(page).iter().filter(|b| b.language == "sh") {
            match block.text.starts_with("annals up") {
                true => self.up(&block.text),
                false => printed += &self.run(&block.text),
            }
        }
        printed
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            // Where it has ended already there is nothing to do.
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

#[track_caller]
fn check(page: &str, wanted: &[&str]) {
    let printed = Place::new().follow(page);
    for text in wanted {
        assert!(
            printed.contains(text),
            "{page}: {text:?} is not in\n{printed}"
        );
    }
}

#[test]
fn getting_started_works_as_it_is_written() {
    check(
        "getting-started.md",
        &[
            "\"total\":42",
            "to_deliver         5,000",
            "verdict       intact",
        ],
    );
}

#[test]
fn the_page_on_the_archive_works_as_it_is_written() {
    check("archive.md", &["SegmentMissing", "verdict       intact"]);
}

#[test]
fn the_page_on_replay_works_as_it_is_written() {
    check(
        "replay.md",
        &["delivered          200", "completed          true"],
    );
}

#[test]
fn the_page_on_the_command_line_works_as_it_is_written() {
    check("command-line.md", &["shop.v1.OrderPlaced"]);
}

#[test]
fn services_in_any_language_publish_and_listen_as_it_is_written() {
    let mut place = Place::new();
    place.up("annals up");
    let mut events = 0;
    for (language, program, variable) in [
        ("python", python(), None),
        (
            "js",
            Some("node".into()),
            Some(("NODE_PATH", services().join("node/node_modules"))),
        ),
    ] {
        let scripts: Vec<_> = blocks("services-in-any-language.md")
            .into_iter()
            .filter(|block| block.language == language)
            .collect();
        assert_eq!(scripts.len(), 2, "{language}: one publishes, one listens");
        let Some(program) = program else {
            eprintln!("SKIPPED: {language}: its client is not installed");
            continue;
        };
        let probe = match language {
            "python" => ["-c", "import pika"],
            _ => ["-e", "require('amqplib')"],
        };
        let start = |arguments: &[&str]| {
            let mut command = place.command(&program);
            command.args(arguments);
            if let Some((name, value)) = &variable {
                command.env(name, value);
            }
            command
        };
        if !start(&probe).output().is_ok_and(|o| o.status.success()) {
            eprintln!("SKIPPED: {language}: its client is not installed");
            continue;
        }
        let port = place.amqp_port();
        let script = |block: &Block| block.text.replace("5672", &port);
        let (publish, listen) = (script(&scripts[0]), script(&scripts[1]));
        let mut listener = start(&[probe[0], &listen]);
        let mut listener = listener.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(listener.stdout.take().unwrap()).lines();
        let mut next = || lines.next().unwrap().unwrap();
        assert_eq!(next(), "listening", "{language}");
        let published = start(&[probe[0], &publish]).output().unwrap();
        let said = String::from_utf8_lossy(&published.stderr);
        assert!(published.status.success(), "{language}: {said}");
        let heard = next();
        assert!(heard.contains("shop.v1.OrderPlaced"), "{language}: {heard}");
        listener.kill().unwrap();
        listener.wait().unwrap();
        events += 1;
        let kept = place.run("annals archive seal -q >&2; annals archive cat");
        assert_eq!(kept.lines().count(), events, "{language}: {kept}");
        let last = kept.lines().last().unwrap();
        assert!(
            last.contains("\"data\":{\"total\":42}"),
            "{language}: {last}"
        );
        let stats = place.run("annals archive stats");
        assert!(stats.contains("undecodable      0"), "{language}: {stats}");
    }
}

fn services() -> PathBuf {
    let named = std::env::var_os("ANNALS_SERVICES_DIR").map(PathBuf::from);
    named.unwrap_or_else(|| root().join(".services"))
}

fn python() -> Option<PathBuf> {
    let installed = services().join("python/bin/python");
    [installed, "python3".into()].into_iter().find(|python| {
        let import = Command::new(python).args(["-c", "import pika"]).output();
        import.is_ok_and(|output| output.status.success())
    })
}
