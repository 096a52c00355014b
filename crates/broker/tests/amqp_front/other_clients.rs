//! Clients in other languages: pika (Python) and amqplib (Node), each running the same script of
//! steps, `tests/clients/`.
//!
//! They are found where `cargo xtask services up clients` puts them, `.services` in the repository's
//! root or where `ANNALS_SERVICES_DIR` says (`python/bin/python`, `node/node_modules`), else as the
//! system's own; a test whose client is missing says so and passes.

use super::server::Server;
use annals_core::{EventBuilder, Timestamp};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The canonical envelope that the scripts publish, as hex.
fn canonical() -> String {
    let id = "11111111-2222-7333-8444-555555555555";
    let event = EventBuilder::new("vcs.v1.TagCreated", "/vcs", id)
        .expect("names")
        .time(Timestamp::UNIX_EPOCH)
        .protobuf(vec![8, 1])
        .build()
        .expect("an event");
    event
        .bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn services() -> PathBuf {
    let default = || {
        [env!("CARGO_MANIFEST_DIR"), "..", "..", ".services"]
            .iter()
            .collect()
    };
    std::env::var_os("ANNALS_SERVICES_DIR").map_or_else(default, PathBuf::from)
}

fn skipped(what: &str) {
    // Past the capture of test output: nobody is to take this for a pass.
    let message = format!("SKIPPED: {what}: `cargo xtask services up clients`\n");
    let told = std::io::stderr().write_all(message.as_bytes());
    told.expect("stderr takes text");
}

/// Runs a client's script to its end, away from the runtime's threads.
async fn run(mut command: Command, server: &Server) -> Output {
    command
        .env("AMQP_PORT", server.address.port().to_string())
        .env("CANONICAL_HEX", canonical())
        .stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("no panic")
        .expect("the client starts")
}

#[track_caller]
fn check(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.trim_end().ends_with("done"), "{text}\n{errors}");
}

fn script(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "clients", name]
        .iter()
        .collect()
}

#[tokio::test]
async fn pika_finds_what_it_knows_from_rabbitmq() {
    let candidates = [services().join("python/bin/python"), "python3".into()];
    let python = candidates.into_iter().find(|python| {
        let import = Command::new(python).args(["-c", "import pika"]).output();
        import.is_ok_and(|output| output.status.success())
    });
    let Some(python) = python else {
        return skipped("no Python with pika");
    };
    let server = Server::start().await;
    let mut command = Command::new(python);
    command.arg(script("pika_client.py"));
    check(&run(command, &server).await);
    assert!(server.broker.failed().is_none());
}

#[tokio::test]
async fn amqplib_finds_what_it_knows_from_rabbitmq() {
    let modules = services().join("node/node_modules");
    let node = || {
        let mut command = Command::new("node");
        if modules.exists() {
            command.env("NODE_PATH", &modules);
        }
        command
    };
    let import = node().args(["-e", "require('amqplib')"]).output();
    if !import.is_ok_and(|output| output.status.success()) {
        return skipped("no Node with amqplib");
    }
    let server = Server::start().await;
    let mut command = node();
    command.arg(script("amqplib_client.js"));
    check(&run(command, &server).await);
    assert!(server.broker.failed().is_none());
}
