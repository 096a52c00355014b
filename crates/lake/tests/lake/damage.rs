//! Tables that lost or changed bytes are found so, and made anew.

use crate::world::{BUS, ORDER, ORDERS_V1, World, order, schemas};
use annals_archive::bucket::Entry;
use annals_core::ErrorKind;
use annals_lake::{Lake, TableName};

async fn converted() -> World {
    let mut world = World::new().await;
    for step in 0..4 {
        world.archive(&[order(&format!("a{step}"), step, 1)]).await;
        world.convert(ORDERS_V1).await;
    }
    world
}

async fn logs(world: &World, name: &TableName) -> Vec<Entry> {
    let folder = format!("{}/_delta_log/", name.folder(BUS));
    let mut logs = world.bucket.list(&folder, None).await.unwrap();
    logs.retain(|entry| entry.name.ends_with(".json"));
    logs
}

/// Damages, converts once more, and checks that every event has one row again.
async fn check_mended(world: &mut World, what: &str) {
    world.archive(&[order("after", 1, 1)]).await;
    let progress = world.convert(ORDERS_V1).await;
    assert!(
        !progress.rebuilt.is_empty(),
        "{what}: nothing was made anew"
    );
    let counts = world.counts(&[ORDER]).await;
    assert_eq!((counts["events"], counts[ORDER]), (5, 5), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_commit_of_a_types_table_is_found_and_the_table_made_anew() {
    let mut world = converted().await;
    let name = TableName::of_type(ORDER).unwrap();
    let last = logs(&world, &name).await.pop().unwrap();
    world.bucket.delete(&last.name).await.unwrap();
    let error = Lake::new(world.bucket.clone(), BUS)
        .table(&name)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    check_mended(&mut world, "the last commit is gone").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_in_a_tables_log_is_found_and_the_table_made_anew() {
    for name in [TableName::Events, TableName::of_type(ORDER).unwrap()] {
        let mut world = converted().await;
        let logs = logs(&world, &name).await;
        world.bucket.delete(&logs[1].name).await.unwrap();
        check_mended(&mut world, &format!("a hole in {name}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_or_changed_commit_is_found_and_the_table_made_anew() {
    for name in [TableName::Events, TableName::of_type(ORDER).unwrap()] {
        for at in 0..4 {
            for lines in 0..4 {
                let mut world = converted().await;
                let log = logs(&world, &name).await.swap_remove(at).name;
                let whole = world.bucket.get(&log).await.unwrap();
                let whole = String::from_utf8(whole.to_vec()).unwrap();
                // Cut between lines, and within one.
                let kept: Vec<&str> = whole.lines().take(lines).collect();
                let torn = match lines {
                    3 => whole[..whole.len() - 9].to_owned(),
                    _ if kept.len() < whole.lines().count() => kept.join("\n"),
                    _ => continue,
                };
                world.bucket.put(&log, torn.into()).await.unwrap();
                check_mended(&mut world, &format!("{name} commit {at} cut to {lines}")).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_commit_of_the_events_table_is_converted_again() {
    let mut world = converted().await;
    let last = logs(&world, &TableName::Events).await.pop().unwrap();
    world.bucket.delete(&last.name).await.unwrap();
    world.archive(&[order("after", 1, 1)]).await;
    world.convert(ORDERS_V1).await;
    let counts = world.counts(&[ORDER]).await;
    assert_eq!((counts["events"], counts[ORDER]), (5, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_state_makes_the_tables_of_types_anew() {
    let mut world = converted().await;
    let states = world
        .bucket
        .list("lake/v1/main/state/", None)
        .await
        .unwrap();
    for state in states {
        world.bucket.delete(&state.name).await.unwrap();
    }
    check_mended(&mut world, "the state is gone").await;
    let mut converter = world.converter(schemas(1, ORDERS_V1));
    assert_eq!(converter.catch_up().await.unwrap().rebuilt, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_puts_whole_files_in_place_of_damaged_ones_of_the_same_rows() {
    for name in [TableName::Events, TableName::of_type(ORDER).unwrap()] {
        for kept in [None, Some(0), Some(700)] {
            let mut world = World::new().await;
            world.archive(&[order("a", 1, 1), order("b", 2, 1)]).await;
            world.convert(ORDERS_V1).await;
            let before = world.rows(&name, &["id", "time"]).await;
            let table = world.table(&name).await.unwrap();
            let [file] = &table.files().unwrap()[..] else {
                panic!("one file holds all rows");
            };
            let object = format!("{}/{}", table.folder(), file.path);
            let whole = world.bucket.get(&object).await.unwrap();
            match kept {
                None => world.bucket.delete(&object).await.unwrap(),
                Some(kept) => {
                    let cut = whole.slice(..kept);
                    world.bucket.put(&object, cut).await.unwrap();
                }
            }
            let mut converter = world.converter(schemas(1, ORDERS_V1));
            let rebuilt = converter.rebuild(&name, Default::default()).await.unwrap();
            assert_eq!((rebuilt.rows_before, rebuilt.rows), (2, 2));
            let now = world.bucket.get(&object).await.unwrap();
            assert!(now == whole, "{name}, cut to {kept:?}: {} bytes", now.len());
            assert_eq!(world.rows(&name, &["id", "time"]).await, before);
        }
    }
}
