//! Replays from a real archive: what is planned is delivered, once, in order, and proven.

mod support;

use annals_archive::reader::EventRef;
use annals_core::disk::{Access, Disk};
use annals_core::sim::SimDisk;
use annals_core::{Error, ErrorKind, Event, Range, Result, frame, json};
use annals_replay::targets::{ConsumerTarget, FileTarget, Format, StreamTarget};
use annals_replay::{Progress, Receipt, Register, Replay, Request, Target};
use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use support::{World, event, message, types};

const PLACED: &str = "shop.v1.OrderPlaced";
const SHIPPED: &str = "shop.v1.OrderShipped";
const PLACE: &str = "shop.commands.v1.PlaceOrder";

/// 300 events in three ledger entries, some of them twice, 30 of them commands.
async fn history() -> (World, Vec<Event>) {
    let world = World::new().await;
    let events: Vec<Event> = (0..300)
        .map(|number| match number % 10 {
            0 => event(PLACE, number),
            1..=5 => event(PLACED, number),
            _ => event(SHIPPED, number),
        })
        .collect();
    for third in events.chunks(100) {
        let mut messages: Vec<_> = third.iter().map(message).collect();
        messages.extend(third[..7].iter().map(message));
        messages.push(message(&events[0]));
        world.archive(messages).await;
    }
    (world, events)
}

async fn run(replay: &Replay, target: &mut dyn Target) -> Result<Receipt> {
    let plan = replay.plan().await?;
    let receipt = replay
        .run(&plan, target, |_| ControlFlow::Continue(()))
        .await?;
    assert_eq!(
        receipt.delivered + receipt.skipped.unrouted,
        plan.to_deliver()
    );
    assert_eq!(
        receipt.selected,
        receipt.delivered + receipt.skipped.total()
    );
    Ok(receipt)
}

fn content(disk: &SimDisk, path: &str) -> Vec<u8> {
    let file = disk.open(Path::new(path), Access::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[tokio::test]
async fn a_file_holds_the_published_bytes_of_each_event_once_in_order() {
    let (world, events) = history().await;
    let disk = Arc::new(SimDisk::new());
    let replay = world.replay(types(&[])).await;
    let mut target = FileTarget::create(disk.clone(), "/all.binpb").unwrap();
    let receipt = run(&replay, &mut target).await.unwrap();
    assert!(receipt.completed);
    assert_eq!((receipt.selected, receipt.delivered), (300, 270));
    assert_eq!(receipt.skipped.commands, 30);

    let bytes = content(&disk, "/all.binpb");
    let found: Vec<&[u8]> = frame::iter(&bytes).collect::<Result<_>>().unwrap();
    let expected: Vec<&[u8]> = events
        .iter()
        .filter(|event| event.header().event_type != PLACE)
        .map(|event| &event.bytes()[..])
        .collect();
    assert_eq!(found, expected);
    assert!(
        disk.open(Path::new("/all.binpb.part"), Access::Read)
            .is_err()
    );
}

#[tokio::test]
async fn a_file_of_json_lines_has_one_event_a_line() {
    let (world, events) = history().await;
    let disk = Arc::new(SimDisk::new());
    let mut request = types(&[SHIPPED]);
    request.selection.range =
        Range::parse("2026-01-01T00:00:10Z..2026-01-01T00:00:20Z", now()).unwrap();
    let replay = world.replay(request).await;
    let mut target = FileTarget::create(disk.clone(), "/some.jsonl").unwrap();
    let receipt = run(&replay, &mut target).await.unwrap();
    let text = String::from_utf8(content(&disk, "/some.jsonl")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len() as u64, receipt.delivered);
    for (line, expected) in lines.iter().zip(&events[16..20]) {
        let found = json::decode(line.as_bytes()).unwrap();
        assert_eq!(found.header().key(), expected.header().key());
        assert_eq!(found.header().time, expected.header().time);
    }
    assert_eq!(lines.len(), 4);
}

#[tokio::test]
async fn a_file_that_exists_is_never_replaced_and_a_broken_off_part_is() {
    let (world, _) = history().await;
    let disk = Arc::new(SimDisk::new());
    disk.create(Path::new("/a.jsonl")).unwrap();
    let error = FileTarget::create(disk.clone(), "/a.jsonl").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);

    let part = disk.create(Path::new("/b.jsonl.part")).unwrap();
    part.write_all_at(b"half a li", 0).unwrap();
    let mut target = FileTarget::create(disk.clone(), "/b.jsonl").unwrap();
    // Somebody else makes the file meanwhile.
    let other = disk.create(Path::new("/b.jsonl")).unwrap();
    other.write_all_at(b"mine", 0).unwrap();
    let replay = world.replay(types(&[PLACED])).await;
    let error = run(&replay, &mut target).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(content(&disk, "/b.jsonl"), b"mine");
}

#[tokio::test]
async fn a_stream_gets_what_a_file_would() {
    let (world, events) = history().await;
    let mut stream = Vec::new();
    let mut target = StreamTarget::new("memory", &mut stream, Format::JsonLines);
    run(&world.replay(types(&[PLACED])).await, &mut target)
        .await
        .unwrap();
    let placed = events
        .iter()
        .filter(|e| e.header().event_type == PLACED)
        .count();
    assert_eq!(stream.split(|&byte| byte == b'\n').count(), placed + 1);
}

#[tokio::test]
async fn commands_go_only_where_their_type_is_named() {
    let (world, _) = history().await;
    for (patterns, delivered) in [
        (&[][..], 270),
        (&["#"], 270),
        (&["shop.commands.#"], 0),
        (&[PLACE], 30),
        (&["#", PLACE], 300),
    ] {
        let mut seen = 0;
        let mut target = ConsumerTarget::new("count", |events: &[EventRef<'_>]| {
            seen += events.len() as u64;
            Ok(())
        });
        let receipt = run(&world.replay(types(patterns)).await, &mut target)
            .await
            .unwrap();
        assert_eq!(receipt.delivered, delivered, "{patterns:?}");
        assert_eq!(seen, delivered, "{patterns:?}");
    }
}

#[tokio::test]
async fn a_catalog_decides_what_a_command_is() {
    let (world, _) = history().await;
    let mut request = types(&[]);
    request.is_command = Arc::new(|name| name == SHIPPED);
    let mut target = ConsumerTarget::new("none", |_: &[EventRef<'_>]| Ok(()));
    let receipt = run(&world.replay(request).await, &mut target)
        .await
        .unwrap();
    assert_eq!((receipt.delivered, receipt.skipped.commands), (180, 120));
}

#[tokio::test]
async fn a_type_that_reads_as_a_wildcard_is_counted_like_any_other() {
    let world = World::new().await;
    let odd = ["a.*", "a.b", "commands.#", "commands.x"];
    let messages = odd
        .iter()
        .enumerate()
        .map(|(i, name)| message(&event(name, i)));
    world.archive(messages.collect()).await;
    let mut seen = Vec::new();
    let mut target = ConsumerTarget::new("odd", |events: &[EventRef<'_>]| {
        seen.extend(
            events
                .iter()
                .map(|event| event.header.event_type.to_owned()),
        );
        Ok(())
    });
    let receipt = run(&world.replay(types(&["#"])).await, &mut target)
        .await
        .unwrap();
    assert_eq!(receipt.skipped.commands, 2);
    assert_eq!(seen, ["a.*", "a.b"]);
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept_to() {
    let (world, _) = history().await;
    let mut request = types(&[PLACED]);
    request.rate = NonZeroU32::new(50);
    let replay = world.replay(request).await;
    let plan = replay.plan().await.unwrap();
    let start = tokio::time::Instant::now();
    let mut reached = Vec::new();
    let mut target = ConsumerTarget::new("slow", |_: &[EventRef<'_>]| Ok(()));
    let progress = |progress: &Progress| {
        reached.push((start.elapsed().as_millis(), progress.delivered));
        ControlFlow::Continue(())
    };
    replay.run(&plan, &mut target, progress).await.unwrap();
    // Virtual time: 150 events, 20 ms each, the first at once.
    for (millis, delivered) in &reached {
        assert!(u128::from(*delivered) <= millis / 20 + 2, "{reached:?}");
    }
    let (last, delivered) = *reached.last().unwrap();
    assert_eq!(delivered, 150);
    assert!((2_900..3_100).contains(&last), "{last}");
}

#[tokio::test]
async fn a_cancelled_replay_has_a_receipt_that_says_so_and_is_not_run_again() {
    let (world, _) = history().await;
    let replay = world.replay(types(&[])).await;
    let plan = replay.plan().await.unwrap();
    let mut target = ConsumerTarget::new("none", |_: &[EventRef<'_>]| Ok(()));
    let receipt = replay
        .run(&plan, &mut target, |_| ControlFlow::Break(()))
        .await
        .unwrap();
    assert!(!receipt.completed);
    assert_eq!(receipt.delivered, 90, "one part of the first ledger entry");
    let again = replay
        .run(&plan, &mut target, |_| ControlFlow::Continue(()))
        .await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::Conflict);

    let register = Register::new(world.bucket.clone());
    let (started, kept) = register.read(replay.id()).await.unwrap().unwrap();
    assert_eq!(kept, Some(receipt));
    assert_eq!(started.to_deliver, 270);
    assert_eq!(
        started.selection.to_selection().unwrap(),
        types(&[]).selection
    );
}

#[tokio::test]
async fn a_target_that_fails_leaves_no_receipt() {
    let (world, _) = history().await;
    let replay = world.replay(types(&[])).await;
    let mut target = ConsumerTarget::new("broken", |_: &[EventRef<'_>]| {
        Err(Error::new(ErrorKind::Unavailable, "database is gone"))
    });
    let error = run(&replay, &mut target).await.unwrap_err();
    assert!(error.to_string().contains("database is gone"));
    let register = Register::new(world.bucket.clone());
    let (_, receipt) = register.read(replay.id()).await.unwrap().unwrap();
    assert_eq!(receipt, None);
}

#[tokio::test]
async fn what_is_archived_after_the_archive_was_opened_is_not_in_the_replay() {
    let (world, _) = history().await;
    let replay = world.replay(types(&[])).await;
    world.archive(vec![message(&event(PLACED, 1000))]).await;
    let plan = replay.plan().await.unwrap();
    assert_eq!(plan.selected, 300);
    assert_eq!(plan.types, [PLACE, PLACED, SHIPPED]);
    assert!(plan.segments >= 6 && plan.stored_bytes > 0);
    let mut target = ConsumerTarget::new("none", |_: &[EventRef<'_>]| Ok(()));
    assert_eq!(run(&replay, &mut target).await.unwrap().delivered, 270);

    let later = world.replay(types(&[])).await;
    let stale = later
        .run(&plan, &mut target, |_| ControlFlow::Continue(()))
        .await;
    assert_eq!(stale.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(later.plan().await.unwrap().selected, 301);
}

#[tokio::test]
async fn an_empty_selection_ends_with_an_empty_receipt() {
    let (world, _) = history().await;
    let mut target = ConsumerTarget::new("none", |_: &[EventRef<'_>]| Ok(()));
    let receipt = run(&world.replay(types(&["mail.#"])).await, &mut target)
        .await
        .unwrap();
    assert!(receipt.completed);
    assert_eq!((receipt.selected, receipt.delivered), (0, 0));
}

#[tokio::test]
async fn the_days_of_a_range_replay_what_the_whole_range_does() {
    let (world, _) = history().await;
    let count = |from: u32, until: u32| {
        let text = format!("{}..{}", 1_767_225_600 + from, 1_767_225_600 + until);
        let mut request: Request = types(&[]);
        request.selection.range = Range::parse(&text, now()).unwrap();
        let replay = world.replay(request);
        async move { replay.await.plan().await.unwrap().selected }
    };
    let mut parts = 0;
    for from in (0..300).step_by(50) {
        parts += count(from, from + 50).await;
    }
    assert_eq!(parts, 300);
    assert_eq!(count(0, 300).await, 300);
}

fn now() -> annals_core::Timestamp {
    annals_core::Timestamp::UNIX_EPOCH
}
