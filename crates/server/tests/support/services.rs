//! What `cargo xtask services up` installed and started: an object store, other engines; and
//! platforms with their archive in such a store.

use super::{command, root, stderr};
use annals_core::Random;
use annals_core::system::SystemRandom;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

/// Where services are: in `.services` in the repository's root, or where `ANNALS_SERVICES_DIR` says.
pub fn services_dir() -> PathBuf {
    let named = std::env::var_os("ANNALS_SERVICES_DIR").map(PathBuf::from);
    named.unwrap_or_else(|| root().join(".services"))
}

/// Says that a test, or a part of it, is not run: past the capture of test output, as nobody is to
/// take this for a pass.
pub fn skipped(what: &str, service: &str) {
    print_past_capture(&format!(
        "SKIPPED: {what}: `cargo xtask services up {service}`"
    ));
}

/// Prints a line past the test harness, which hides what a test that passes prints.
pub fn print_past_capture(line: &str) {
    let line = format!("{line}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// How a bucket is reached; each has a prefix of its own.
pub struct Store {
    pub env: BTreeMap<String, String>,
    prefix: String,
}

impl Store {
    /// The one that `cargo xtask services up s3` started.
    pub fn of_service(test: &str) -> Option<Self> {
        let Ok(text) = std::fs::read_to_string(services_dir().join("s3/env")) else {
            skipped(test, "s3");
            return None;
        };
        let setting = |line: &str| Some(line.split_once('=')?).map(|(n, v)| (n.into(), v.into()));
        Some(Self {
            env: text.lines().filter_map(setting).collect(),
            prefix: format!("run-{:016x}", SystemRandom.next_u64()),
        })
    }

    /// Keys that nobody asks for.
    pub fn of_no_service() -> Self {
        let keys = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
        Self {
            env: keys.map(|(n, v)| (n.to_owned(), v.to_owned())).into(),
            prefix: String::new(),
        }
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.env.insert(name.to_owned(), value.to_owned());
    }

    pub fn bucket(&self) -> String {
        format!("s3://annals/{}", self.prefix)
    }

    pub fn address(&self) -> SocketAddr {
        let url = &self.env["AWS_ENDPOINT_URL"];
        url.trim_start_matches("http://").parse().unwrap()
    }

    pub fn command(&self, data: &Path) -> Command {
        let mut command = command(data);
        clear(&mut command, "AWS_");
        command.envs(&self.env);
        command
    }

    pub fn run(&self, data: &Path, arguments: &[&str]) -> Output {
        self.command(data).args(arguments).output().unwrap()
    }

    #[track_caller]
    pub fn expect(&self, code: i32, data: &Path, arguments: &[&str]) -> String {
        let output = self.run(data, arguments);
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{told}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    pub fn json(&self, data: &Path, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["-o", "json"]].concat();
        serde_json::from_str(&self.expect(0, data, &arguments)).unwrap()
    }

    /// Replays everything to a file.
    #[track_caller]
    pub fn replay(&self, data: &Path, from: &[&str], path: &Path) {
        let target = format!("file:{}", path.display());
        self.expect(0, data, &[&["replay", "--to", &target], from].concat());
    }

    /// Starts a platform; returns when it is ready.
    #[track_caller]
    pub fn up(&self, data: &Path, arguments: &[&str]) -> Running {
        Running::ready(self.command(data).args(up(arguments)).args(["-o", "jsonl"]))
    }

    /// A shell in a directory, that finds the binary.
    pub fn shell(&self, dir: &Path) -> Command {
        let binary = Path::new(env!("CARGO_BIN_EXE_annals"));
        let folders = binary.parent().unwrap().display().to_string();
        let path = std::env::var("PATH").unwrap();
        let mut shell = Command::new("sh");
        clear(&mut shell, "AWS_");
        clear(&mut shell, "ANNALS_");
        shell
            .env("PATH", format!("{folders}:{path}"))
            .env("ANNALS_PORT", "0")
            .env("ANNALS_AMQP_PORT", "0")
            .envs(&self.env)
            .current_dir(dir)
            .stdin(Stdio::null());
        shell
    }
}

/// The arguments of a platform on free ports.
pub fn up<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let ports = ["up", "--port", "0", "--amqp-port", "0"];
    [&ports[..], arguments].concat()
}

/// Takes the variables away whose names begin so.
fn clear(command: &mut Command, names: &str) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with(names) {
            command.env_remove(name);
        }
    }
}

/// A running platform; killed when dropped.
pub struct Running {
    child: Child,
    /// Open, so that its output is never a closed pipe.
    _stdout: BufReader<ChildStdout>,
    amqp_port: u16,
}

impl Running {
    /// Starts it; returns when it says where it listens.
    #[track_caller]
    pub fn ready(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).expect("it says where it listens");
        let port = ready["amqp"].as_str().unwrap().rsplit(':').next().unwrap();
        let amqp_port = port.parse().unwrap();
        Self {
            child,
            _stdout: stdout,
            amqp_port,
        }
    }

    pub fn amqp_uri(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.amqp_port)
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; whether it ended well.
    pub fn terminate(mut self) -> bool {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        sent.success() && self.child.wait().unwrap().success()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing to do where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
