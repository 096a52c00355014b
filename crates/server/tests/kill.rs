//! Kill tests: `annals up` is killed under load, again and again, and loses nothing it confirmed.
//!
//! The publisher is outside, and keeps its own log. Batches are sealed all the time, so that kills
//! meet uploads, ledger entries and index files half done. `ANNALS_KILL_CYCLES` says how often.

mod support;

use annals_core::{Event, EventBuilder};
use serde_json::Value;
use support::outside::{Log, publish_until_killed, replay_all};
use support::services::print_past_capture;
use support::{Server, expect, json};

const CYCLES: u64 = 50;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_confirmed_is_lost_by_kills_under_load() {
    let cycles = std::env::var("ANNALS_KILL_CYCLES").map_or(CYCLES, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut log = Log::default();
    for cycle in 0..cycles {
        // A restart needs no hand: the same command on the same directory.
        let server = Server::start(&data, &["--seal-after", "5ms", "--seal-at", "64KiB"]);
        // A different moment in every cycle, the same in every run.
        let until = 200 + (cycle * 7_919) % 2_000;
        publish_until_killed(server, cycle, until, event, &mut log).await;
    }
    let server = Server::start(&data, &[]);
    expect(0, &data, &["archive", "seal"]);
    let path = dir.path().join("publish.log");
    std::fs::write(&path, &log.text).unwrap();
    let against = ["archive", "verify", "--against", path.to_str().unwrap()];
    let found = json(&data, &against);
    assert_eq!(found["finding_count"], 0, "{found:#}");

    let replayed = replay_all(&data, &dir.path().join("all.binpb"));
    let lost = log.lost(&replayed);
    let stats = json(&data, &["archive", "stats"]);
    report(cycles, &log, lost.len(), replayed.len(), &stats, &found);
    assert!(
        lost.is_empty(),
        "confirmed, and missing or changed: {lost:?}"
    );
    assert!(log.confirmed.len() as u64 >= cycles * 200);
    assert!(
        replayed.len() as u64 <= log.tried,
        "events nobody published"
    );
    assert_eq!(stats["events"], replayed.len());
    assert_eq!(stats["conflicts"], 0);
    assert!(
        stats["segments"].as_u64().unwrap() >= 4 * cycles,
        "kills never met a seal: {stats:#}"
    );
    assert!(server.terminate().success());
}

fn report(cycles: u64, log: &Log, lost: usize, replayed: usize, stats: &Value, found: &Value) {
    let left = found["unregistered"].as_array().map_or(0, Vec::len);
    print_past_capture(&format!(
        "kills {cycles}, published {}, confirmed {}, of these lost or changed {lost}, replayed \
         {replayed} each once; records {} in {} segments, {} ledger entries, duplicates kept {}, \
         uploads cut off by a kill {left}",
        log.tried,
        log.confirmed.len(),
        stats["records"],
        stats["segments"],
        stats["ledger_position"],
        stats["duplicates"],
    ));
}

fn event(cycle: u64, number: u64) -> Event {
    let types = ["shop.v1.OrderPlaced", "shop.v1.OrderPaid", "mail.v1.Sent"];
    EventBuilder::new(
        types[(number % 3) as usize],
        "/outside",
        format!("{cycle}-{number}"),
    )
    .unwrap()
    .subject(format!("o-{}", number % 17))
    .unwrap()
    .time("2026-11-21T09:00:00Z".parse().unwrap())
    .json(format!(
        "{{\"number\":{number},\"padding\":\"{}\"}}",
        "x".repeat(200)
    ))
    .build()
    .unwrap()
}
