//! A replay of listed events: what is there is delivered once, what is not is counted.

mod support;

use annals_archive::reader::EventRef;
use annals_core::{ErrorKind, Event, EventSet, Selection};
use annals_replay::targets::ConsumerTarget;
use annals_replay::{ListedEvent, Register, Request};
use std::ops::ControlFlow;
use std::sync::Arc;
use support::{World, event, message};

const PLACED: &str = "shop.v1.OrderPlaced";
const PLACE: &str = "shop.commands.v1.PlaceOrder";

/// 100 events in two ledger entries, every tenth a command, all of the first archived twice.
async fn history() -> (World, Vec<Event>) {
    let world = World::new().await;
    let of_type = |number| match number % 10 {
        0 => PLACE,
        _ => PLACED,
    };
    let events: Vec<Event> = (0..100).map(|n| event(of_type(n), n)).collect();
    world
        .archive(events[..50].iter().map(message).collect())
        .await;
    world.archive(events.iter().map(message).collect()).await;
    (world, events)
}

fn request(events: &EventSet) -> Request {
    Request::new(Selection {
        events: Some(Arc::new(events.clone())),
        ..Selection::all()
    })
}

#[tokio::test]
async fn what_is_listed_is_delivered_once_and_what_is_missing_is_in_the_receipt() {
    let (world, events) = history().await;
    let mut list = EventSet::new();
    for number in [71, 3, 10, 44, 1000] {
        list.insert("/shop", &format!("e-{number}")).unwrap();
    }
    list.insert_id("e-44").unwrap();
    list.insert_id("e-52").unwrap();
    list.insert("/elsewhere", "e-3").unwrap();
    let replay = world.replay(request(&list)).await;
    let plan = replay.plan().await.unwrap();
    assert_eq!((plan.selected, plan.commands, plan.missing()), (7, 1, 2));
    assert_eq!(plan.to_deliver(), 4);
    let mut seen = Vec::new();
    let mut target = ConsumerTarget::new("seen", |part: &[EventRef<'_>]| {
        seen.extend(part.iter().map(EventRef::to_bytes));
        Ok(())
    });
    let receipt = replay
        .run(&plan, &mut target, |_| ControlFlow::Continue(()))
        .await
        .unwrap();
    let expected: Vec<_> = [3, 44, 52, 71]
        .map(|n: usize| events[n].bytes().clone())
        .into();
    assert_eq!(seen, expected, "in the order of the archive");
    assert!(receipt.completed);
    assert_eq!(
        receipt.selected,
        receipt.delivered + receipt.skipped.total()
    );
    assert_eq!((receipt.delivered, receipt.skipped.missing), (4, 2));
    let listed = receipt.listed.as_ref().unwrap();
    assert_eq!((listed.listed, listed.missing, listed.several), (8, 2, 0));
    let named = |source: &str, id: &str| ListedEvent {
        source: Some(source.to_owned()),
        id: id.to_owned(),
    };
    let missing = [named("/shop", "e-1000"), named("/elsewhere", "e-3")];
    assert_eq!(listed.missing_first, missing);
    // It is written down, and can be asked for again.
    let register = Register::new(world.bucket.clone());
    let (started, kept) = register.read(replay.id()).await.unwrap().unwrap();
    assert_eq!(kept, Some(receipt));
    let again = started.selection.to_selection().unwrap();
    assert_eq!(again.events.as_deref(), Some(&list));
}

#[tokio::test]
async fn a_list_too_long_to_be_kept_is_written_down_as_its_hash() {
    let (world, events) = history().await;
    let mut list = EventSet::new();
    for number in 0..12_000 {
        list.insert("/shop", &format!("e-{number}")).unwrap();
    }
    let replay = world.replay(request(&list)).await;
    let plan = replay.plan().await.unwrap();
    let mut target = ConsumerTarget::new("none", |_: &[EventRef<'_>]| Ok(()));
    let receipt = replay
        .run(&plan, &mut target, |_| ControlFlow::Continue(()))
        .await
        .unwrap();
    let commands = events.len() as u64 / 10;
    assert_eq!(
        (receipt.delivered, receipt.skipped.commands),
        (90, commands)
    );
    assert_eq!(receipt.skipped.missing, 12_000 - 100);
    let register = Register::new(world.bucket.clone());
    let (started, _) = register.read(replay.id()).await.unwrap().unwrap();
    assert_eq!(started.selection.events.as_ref().unwrap().hash.len(), 64);
    let error = started.selection.to_selection().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}
