//! Starts the real binary on temporary directories.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

pub mod outside;
pub mod services;

use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};

/// The binary under test, without the environment's settings.
pub fn command(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_annals"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ANNALS_") {
            command.env_remove(name);
        }
    }
    command.arg("--data").arg(data).stdin(Stdio::null());
    command
}

/// Runs a verb to its end.
pub fn annals(data: &Path, arguments: &[&str]) -> Output {
    command(data).args(arguments).output().unwrap()
}

/// Runs a verb that has to end with this exit code; its standard output.
#[track_caller]
pub fn expect(code: i32, data: &Path, arguments: &[&str]) -> String {
    let output = annals(data, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        output.status.code(),
        Some(code),
        "{arguments:?}\n{stdout}\n{stderr}"
    );
    stdout
}

/// Runs a verb that has to succeed; its standard output as JSON.
#[track_caller]
pub fn json(data: &Path, arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["-o", "json"]).collect();
    serde_json::from_str(&expect(0, data, &arguments)).unwrap()
}

/// Standard error of a verb.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Publishes one event of a type, with an id and `{}` as data.
#[track_caller]
pub fn publish(data: &Path, event_type: &str, id: &str) {
    expect(0, data, &["publish", event_type, "--id", id, "-d", "{}"]);
}

/// Every file below a directory: its path from there, and its bytes.
pub fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().to_owned();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// A running `annals up`; killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Open, so that the server's output is never a closed pipe.
    _stdout: BufReader<ChildStdout>,
    pub data: PathBuf,
    pub amqp_port: u16,
}

impl Server {
    /// Starts it on free ports; returns when it says that it is ready.
    pub fn start(data: &Path, arguments: &[&str]) -> Self {
        let mut child = command(data)
            .args(["up", "--port", "0", "--amqp-port", "0", "-o", "jsonl"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).expect("it says where it listens");
        let port = ready["amqp"].as_str().unwrap().rsplit(':').next().unwrap();
        Self {
            child,
            _stdout: stdout,
            data: data.to_owned(),
            amqp_port: port.parse().unwrap(),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn amqp_uri(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.amqp_port)
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(self) -> ExitStatus {
        self.stop("-TERM")
    }

    /// A signal as `kill` names it, and how it ended.
    pub fn stop(mut self, signal: &str) -> ExitStatus {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
        self.child.wait().unwrap()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing to do where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The real sample of 5,000 events.
pub fn sample() -> String {
    root()
        .join("examples/vcs/events-5000.jsonl.zst")
        .display()
        .to_string()
}

/// 200 real events of another type.
pub fn tags() -> String {
    root()
        .join("examples/vcs/tags-200.jsonl.zst")
        .display()
        .to_string()
}

/// The events of a replayed `.binpb` file.
pub fn frames(path: &Path) -> Vec<annals_core::Event> {
    let bytes = std::fs::read(path).unwrap();
    annals_core::frame::iter(&bytes)
        .map(|event| annals_core::Event::parse(event.unwrap().to_vec()).unwrap())
        .collect()
}
