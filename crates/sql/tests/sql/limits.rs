//! Every heavy question ends by the limit it hits, by name, and others go on meanwhile.

use crate::fixture::{ask, config, engine, number, with_numbers};
use annals_core::ErrorKind;
use annals_sql::{Answer, Engine, EngineConfig, Limit, Question};
use std::sync::Arc;
use std::time::Duration;

/// Long enough to plan and begin anything here, short enough to wait for.
const SHORT: Duration = Duration::from_millis(400);

fn within(sql: &str, timeout: Duration) -> Question {
    Question {
        timeout: Some(timeout),
        ..Question::new(sql)
    }
}

async fn drained(engine: &Engine, question: &Question) -> annals_core::Result<u64> {
    Ok(engine.query(question).await?.collect().await?.1.rows)
}

/// Waits until no task of the engine is alive. The test's own time-out is its bound.
async fn idle(engine: &Engine) {
    while engine.tasks_alive() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_question_without_end_is_stopped_by_time_and_its_tasks_end() {
    let engine = Engine::new(Arc::new(with_numbers(1_000_000)), config()).unwrap();
    for sql in [
        "SELECT count(*) FROM big.v1.Number a CROSS JOIN big.v1.Number b WHERE (a.n + b.n) % 7 = 3",
        "SELECT count(*) FROM generate_series(1, 1000000) a CROSS JOIN generate_series(1, 1000000) b",
        "SELECT max(a.n * b.n) FROM big.v1.Number a JOIN big.v1.Number b ON a.n % 10 = b.n % 10",
        "SELECT count(*) FROM generate_series(1, 9000000000000000000) WHERE value < 0",
        "SELECT sum(sin(value)) FROM generate_series(1, 9000000000000000000)",
        "SELECT count(*) FROM generate_series(1, 100000000000) a WHERE concat(value, 'x') ~ 'a.*b.*c$'",
    ] {
        let error = drained(&engine, &within(sql, SHORT)).await.expect_err(sql);
        match Limit::of(&error) {
            Some(Limit::Time { timeout: SHORT }) => {
                assert!(error.to_string().contains("longer than 0.4 s"), "{error}");
            }
            // A join may reach the other bound before.
            Some(Limit::Memory { .. }) if sql.contains("JOIN") => {}
            _ => panic!("{sql}: {error}"),
        }
        idle(&engine).await;
    }
    assert_eq!(number(&engine, "SELECT count(*) FROM events").await, 7);
}

#[tokio::test]
async fn dropping_an_answer_or_the_question_stops_the_work() {
    let engine = Engine::new(Arc::new(with_numbers(100_000)), config()).unwrap();
    let endless = Question {
        rows_max: Some(0),
        ..Question::new("SELECT a.n FROM big.v1.Number a CROSS JOIN big.v1.Number b")
    };
    let mut answer: Answer = engine.query(&endless).await.unwrap();
    assert!(answer.next().await.unwrap().is_ok());
    assert!(engine.tasks_alive() > 0);
    drop(answer);
    idle(&engine).await;
    let counting = Question::new(
        "SELECT count(*) FROM big.v1.Number a CROSS JOIN big.v1.Number b WHERE a.n + b.n = 1",
    );
    {
        let mut answer = engine.query(&counting).await.unwrap();
        let first = tokio::time::timeout(Duration::from_millis(50), answer.next()).await;
        assert!(first.is_err(), "it was to take longer");
    }
    idle(&engine).await;
}

#[tokio::test]
async fn more_memory_than_a_question_may_hold_is_refused_by_name() {
    let small = EngineConfig {
        memory_bytes: 4 << 20,
        ..config()
    };
    let engine = Engine::new(Arc::new(with_numbers(2_000_000)), small).unwrap();
    for sql in [
        "SELECT n FROM big.v1.Number ORDER BY n % 1000, n DESC",
        "SELECT n, count(*) FROM big.v1.Number GROUP BY n",
        "SELECT array_agg(n) FROM big.v1.Number",
        "SELECT string_agg(n::text, ',') FROM big.v1.Number",
        "SELECT count(*) FROM big.v1.Number a JOIN big.v1.Number b ON a.n = b.n",
        "SELECT DISTINCT n FROM big.v1.Number",
        "SELECT n, row_number() OVER (PARTITION BY n % 100 ORDER BY n DESC) FROM big.v1.Number",
        "SELECT count(DISTINCT n) FROM big.v1.Number",
        "SELECT median(n) FROM big.v1.Number",
    ] {
        let question = Question {
            rows_max: Some(0),
            ..Question::new(sql)
        };
        let error = drained(&engine, &question).await.expect_err(sql);
        assert_eq!(
            Limit::of(&error),
            Some(Limit::Memory { bytes: 4 << 20 }),
            "{sql}: {error}"
        );
        let text = error.to_string();
        assert!(
            text.contains("needs more than 4 MiB: narrow the time range, or raise --memory"),
            "{text}"
        );
        idle(&engine).await;
    }
    assert_eq!(
        number(&engine, "SELECT count(*) FROM big.v1.Number").await,
        2_000_000
    );
}

#[tokio::test]
async fn a_question_may_ask_for_less_memory_but_not_for_more() {
    let engine = Engine::new(Arc::new(with_numbers(1_000_000)), config()).unwrap();
    let sql = "SELECT n, count(*) FROM big.v1.Number GROUP BY n ORDER BY n";
    for (asked, given) in [(1 << 20, 1 << 20), (usize::MAX, config().memory_bytes)] {
        let question = Question {
            rows_max: Some(0),
            memory_bytes: Some(asked),
            ..Question::new(sql)
        };
        match drained(&engine, &question).await {
            Ok(rows) => assert!(given > 1 << 20 && rows == 1_000_000),
            Err(error) => assert_eq!(Limit::of(&error), Some(Limit::Memory { bytes: given })),
        }
    }
}

#[tokio::test]
async fn with_a_directory_to_spill_to_a_large_sort_ends_well() {
    let directory = tempfile::tempdir().unwrap();
    let spilling = EngineConfig {
        memory_bytes: 16 << 20,
        threads: 1,
        spill_directory: Some(directory.path().to_owned()),
        ..config()
    };
    let engine = Engine::new(Arc::new(with_numbers(2_000_000)), spilling).unwrap();
    let question = Question {
        rows_max: Some(0),
        ..Question::new("SELECT n FROM big.v1.Number ORDER BY -n")
    };
    assert_eq!(drained(&engine, &question).await.unwrap(), 2_000_000);
}

#[tokio::test]
async fn questions_go_on_beside_heavy_ones_until_all_turns_are_taken() {
    let engine = Arc::new(Engine::new(Arc::new(with_numbers(1_000_000)), config()).unwrap());
    let heavy = within(
        "SELECT count(*) FROM generate_series(1, 9000000000000000000) WHERE value < 0",
        Duration::from_secs(3600),
    );
    let mut running = Vec::new();
    for _ in 0..config().queries_at_once - 1 {
        running.push(engine.query(&heavy).await.unwrap());
    }
    for _ in 0..20 {
        assert_eq!(number(&engine, "SELECT count(*) FROM events").await, 7);
    }
    running.push(engine.query(&heavy).await.unwrap());
    let late = drained(&engine, &within("SELECT 1", SHORT))
        .await
        .unwrap_err();
    assert_eq!(Limit::of(&late), Some(Limit::Time { timeout: SHORT }));
    running.pop();
    assert_eq!(number(&engine, "SELECT count(*) FROM events").await, 7);
    drop(running);
    idle(&engine).await;
}

#[tokio::test]
async fn one_more_than_may_wait_is_refused_at_once() {
    let one = EngineConfig {
        queries_at_once: 1,
        queries_waiting: 1,
        ..config()
    };
    let engine = Arc::new(Engine::new(Arc::new(with_numbers(1_000)), one).unwrap());
    let endless = Question {
        rows_max: Some(0),
        ..within(
            "SELECT * FROM generate_series(1, 100000000)",
            Duration::from_secs(3600),
        )
    };
    let held = engine.query(&endless).await.unwrap();
    let mut waiting = Box::pin(async { engine.query(&Question::new("SELECT 1")).await });
    assert!(futures::poll!(&mut waiting).is_pending());
    let refused = ask(&engine, "SELECT 1").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert_eq!(Limit::of(&refused), Some(Limit::Waiting { questions: 1 }));
    drop(held);
    assert_eq!(waiting.await.unwrap().collect().await.unwrap().1.rows, 1);
}

#[tokio::test]
async fn a_reader_that_stalls_does_not_hold_its_turn_past_the_deadline() {
    let one = EngineConfig {
        queries_at_once: 1,
        ..config()
    };
    let engine = Engine::new(Arc::new(with_numbers(1_000)), one).unwrap();
    let endless = Question {
        rows_max: Some(0),
        ..within("SELECT * FROM generate_series(1, 1000000000000)", SHORT)
    };
    let mut stalled = engine.query(&endless).await.unwrap();
    assert_eq!(number(&engine, "SELECT count(*) FROM events").await, 7);
    let mut last = None;
    while let Some(batch) = stalled.next().await {
        last = Some(batch);
    }
    let error = last.unwrap().unwrap_err();
    assert_eq!(Limit::of(&error), Some(Limit::Time { timeout: SHORT }));
}

#[tokio::test]
async fn wide_questions_are_bounded_but_not_small() {
    let engine = engine();
    let list: Vec<String> = (0..9_999).map(|i| format!("'id-{i}'")).collect();
    let sql = format!(
        "SELECT count(*) FROM events WHERE id NOT IN ({})",
        list.join(",")
    );
    assert_eq!(number(&engine, &sql).await, 7);
    let sql = format!(
        "SELECT count(*) FROM events WHERE id IN ('e-1',{},'a','b')",
        list.join(",")
    );
    let error = ask(&engine, &sql).await.unwrap_err();
    assert!(error.to_string().contains("IN list"), "{error}");
    let ors: Vec<String> = (0..300).map(|i| format!("commits = {i}")).collect();
    let sql = format!("SELECT count(*) FROM events WHERE {}", ors.join(" OR "));
    assert_eq!(number(&engine, &sql).await, 7);
    let tables = vec!["SELECT * FROM events"; 60].join(" UNION ALL ");
    assert_eq!(
        number(&engine, &format!("SELECT count(*) FROM ({tables})")).await,
        420
    );
    let error = ask(
        &engine,
        &vec!["SELECT * FROM events"; 65].join(" UNION ALL "),
    )
    .await
    .unwrap_err();
    assert!(error.to_string().contains("64 tables"), "{error}");
}
