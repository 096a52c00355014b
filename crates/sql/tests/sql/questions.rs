//! What a question can say, and what it gets.

use crate::fixture::{POSITION, ask, engine, error, lines, number};
use annals_core::ErrorKind;
use annals_core::schema::Catalog;
use annals_sql::{Format, Limit, Question};
use futures::StreamExt;

#[tokio::test]
async fn a_table_is_named_in_full_in_any_case_quoted_or_by_its_last_part() {
    let engine = engine();
    for name in [
        "vcs.v1.CommitPushed",
        "VCS.V1.COMMITPUSHED",
        "\"vcs.v1.CommitPushed\"",
        "vcs.v1.\"CommitPushed\"",
        "CommitPushed",
        "v1.commitpushed",
        "events",
        "EVENTS",
    ] {
        let count = number(&engine, &format!("SELECT count(*) FROM {name}")).await;
        assert_eq!(count, 7, "{name}");
    }
    assert_eq!(
        number(&engine, "SELECT count(*) FROM shop.v2.OrderPlaced").await,
        2
    );
}

#[tokio::test]
async fn a_name_that_is_wrong_or_can_mean_two_is_answered_with_names() {
    let engine = engine();
    let unknown = error(&engine, "SELECT 1\nFROM vcs.v1.ComitPushed").await;
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    let text = unknown.to_string();
    assert!(text.contains("did you mean vcs.v1.CommitPushed?"), "{text}");
    assert!(text.contains("line 2, column 6"), "{text}");
    let text = error(&engine, "SELECT 1 FROM OrderPlaced")
        .await
        .to_string();
    assert!(
        text.contains("shop.v1.OrderPlaced, shop.v2.OrderPlaced"),
        "{text}"
    );
    let text = error(&engine, "SELECT subjct FROM events")
        .await
        .to_string();
    assert!(
        text.contains("there is no column subjct: did you mean subject?"),
        "{text}"
    );
    assert!(text.contains("line 1, column 8"), "{text}");
    let text = error(&engine, "SELECT nothing_like_it FROM events")
        .await
        .to_string();
    assert!(text.contains("there are position, ordinal"), "{text}");
    let text = error(&engine, "SELECT 1 +\n, 2").await.to_string();
    assert!(text.contains("Line: 2, Column: 1"), "{text}");
    let text = error(&engine, "SELECT nofunction(1)").await.to_string();
    assert!(text.contains("nofunction"), "{text}");
}

#[tokio::test]
async fn expressions_and_aliases_go_before_tables() {
    let engine = engine();
    for (sql, expected) in [
        (
            "WITH CommitPushed AS (SELECT 41 AS n) SELECT n + 1 FROM CommitPushed",
            42,
        ),
        // Its own body still means the table.
        (
            "WITH events AS (SELECT count(*) AS n FROM events) SELECT n FROM events",
            7,
        ),
        (
            "WITH a AS (SELECT 1 AS x), b AS (SELECT x + 1 AS x FROM a) SELECT x FROM b",
            2,
        ),
        ("SELECT x FROM (SELECT 3 AS x) AS events", 3),
        ("SELECT max(e.commits) FROM events AS e", 9),
        (
            "SELECT (SELECT count(*) FROM shop.v1.OrderPlaced) FROM (VALUES (1)) AS v(x)",
            2,
        ),
        (
            "SELECT count(*) FROM events e JOIN vcs.v1.CommitPushed c ON e.id = c.id",
            7,
        ),
        (
            "SELECT count(*) FROM shop.v1.OrderPlaced JOIN shop.v2.OrderPlaced \
             ON shop.v1.OrderPlaced.id = shop.v2.OrderPlaced.id",
            2,
        ),
        (
            "SELECT max(CommitPushed.ordinal)::bigint FROM vcs.v1.CommitPushed",
            0,
        ),
        (
            "SELECT count(vcs.v1.CommitPushed.payload.repo) FROM vcs.v1.CommitPushed",
            7,
        ),
        (
            "SELECT count(*) FROM events WHERE EXISTS (SELECT 1 FROM CommitPushed c WHERE c.id = events.id)",
            7,
        ),
    ] {
        assert_eq!(number(&engine, sql).await, expected, "{sql}");
    }
    let all = lines(
        &engine,
        "SELECT vcs.v1.CommitPushed.* FROM vcs.v1.CommitPushed LIMIT 1",
    )
    .await;
    assert_eq!(all.len(), 1);
}

#[tokio::test]
async fn fields_of_a_payload_are_reached_by_dots_and_by_brackets() {
    let engine = engine();
    for sql in [
        "SELECT payload.repo FROM CommitPushed WHERE id = 'e-6'",
        "SELECT payload['repo'] FROM CommitPushed WHERE id = 'e-6'",
        "SELECT e.payload.repo FROM CommitPushed e WHERE e.payload.commits = 7",
        "SELECT e.payload['repo'] FROM CommitPushed e WHERE e.payload['commits'] = 7",
        "SELECT vcs.v1.CommitPushed.payload.repo FROM vcs.v1.CommitPushed WHERE id = 'e-6'",
        "SELECT vcs.v1.CommitPushed.payload['repo'] FROM vcs.v1.CommitPushed WHERE id = 'e-6'",
    ] {
        assert_eq!(lines(&engine, sql).await, ["site"], "{sql}");
    }
    for sql in [
        "SELECT payload.author.name FROM CommitPushed LIMIT 1",
        "SELECT e.payload.author.name FROM CommitPushed e LIMIT 1",
        "SELECT e.payload['author']['name'] FROM CommitPushed e LIMIT 1",
        "SELECT vcs.v1.CommitPushed.payload.author.name FROM vcs.v1.CommitPushed LIMIT 1",
        "SELECT payload.author.\"eMail\" FROM CommitPushed LIMIT 1",
        "SELECT payload['author']['eMail'] FROM CommitPushed LIMIT 1",
        "SELECT p.author.name FROM (SELECT payload AS p FROM CommitPushed) LIMIT 1",
    ] {
        assert_eq!(lines(&engine, sql).await, ["ann"], "{sql}");
    }
    let grouped = "SELECT payload.repo, sum(payload.commits) AS n FROM CommitPushed \
                   GROUP BY payload.repo ORDER BY n DESC, 1";
    assert_eq!(
        lines(&engine, grouped).await,
        ["annals|12", "nobody|9", "site|7", "docs|3"]
    );
}

#[tokio::test]
async fn fields_of_a_payload_are_called_by_their_own_names() {
    #[track_caller]
    fn check(found: Vec<String>, expected: &[&str]) {
        assert_eq!(found, expected);
    }
    let engine = engine();
    let names = async |sql: &str| -> Vec<String> {
        let (batches, _) = ask(&engine, sql).await.unwrap();
        let fields = batches[0].schema().fields().clone();
        fields.iter().map(|f| f.name().clone()).collect()
    };
    let nested = "SELECT e.payload.repo, payload.author.\"eMail\", payload['commits'] \
                  FROM CommitPushed e ORDER BY payload.repo";
    check(names(nested).await, &["repo", "eMail", "commits"]);
    let of_table = "SELECT vcs.v1.CommitPushed.payload.author.name FROM vcs.v1.CommitPushed";
    check(names(of_table).await, &["name"]);
    let grouped = "SELECT payload.repo, count(*) AS n FROM CommitPushed GROUP BY payload.repo \
                   HAVING payload.repo <> 'x' ORDER BY payload.repo";
    check(names(grouped).await, &["repo", "n"]);
    let distinct = "SELECT DISTINCT payload.repo FROM CommitPushed ORDER BY payload.repo";
    check(names(distinct).await, &["repo"]);
    // What is called so already keeps its name.
    let beside = "SELECT a.id, b.id, a.subject AS repo, a.payload.repo FROM CommitPushed a \
                  JOIN CommitPushed b ON a.id = b.id";
    let beside = names(beside).await;
    assert_eq!(beside[..3], ["id", "id", "repo"]);
    assert_ne!(beside[3], "repo");
    let inner = "SELECT repo FROM (SELECT payload.repo FROM CommitPushed WHERE id = 'e-6')";
    assert_eq!(lines(&engine, inner).await, ["site"]);
}

#[tokio::test]
async fn latest_gives_the_newest_row_of_each_entity() {
    let engine = engine();
    for of in [
        "CommitPushed",
        "vcs.v1.CommitPushed",
        "'vcs.v1.CommitPushed'",
        "'commitpushed'",
    ] {
        let sql = format!("SELECT subject, id, payload.commits FROM latest({of}) ORDER BY subject");
        // repo-1 by version, not by time; repo-2 has no versions: by time. No subject, no row.
        assert_eq!(
            lines(&engine, &sql).await,
            ["repo-1|e-1|5", "repo-2|e-4|2", "repo-3|e-6|7"],
            "{of}"
        );
    }
    let joined = "SELECT l.id FROM latest(CommitPushed) AS l JOIN events e ON e.id = l.id \
                  WHERE l.payload.repo = 'docs'";
    assert_eq!(lines(&engine, joined).await, ["e-4"]);
    let all = ask(&engine, "SELECT * FROM latest(CommitPushed)")
        .await
        .unwrap()
        .0;
    let of_table = ask(&engine, "SELECT * FROM CommitPushed").await.unwrap().0;
    let names = |b: &annals_sql::datafusion::arrow::array::RecordBatch| {
        b.schema()
            .fields()
            .iter()
            .map(|f| f.name().clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&all[0]), names(&of_table[0]));
    for (sql, expected) in [
        ("SELECT * FROM latest()", "latest takes one event type"),
        (
            "SELECT * FROM latest(CommitPushd)",
            "did you mean vcs.v1.CommitPushed?",
        ),
        ("SELECT * FROM latest(1)", "name a type"),
    ] {
        let text = error(&engine, sql).await.to_string();
        assert!(text.contains(expected), "{sql}: {text}");
    }
}

#[tokio::test]
async fn latest_is_planned_as_an_aggregate_of_the_columns_asked_for() {
    let engine = engine();
    let plan = lines(
        &engine,
        "EXPLAIN SELECT subject, id FROM latest(CommitPushed)",
    )
    .await
    .join("\n");
    assert!(
        plan.contains("AggregateExec") || plan.contains("Aggregate:"),
        "{plan}"
    );
    assert!(!plan.contains("Window"), "{plan}");
    assert!(
        plan.contains("annals_row_key") && !plan.contains("payload"),
        "{plan}"
    );
    // Of one entity, the greatest key of that one is looked for.
    let of_one = "EXPLAIN SELECT id FROM latest(CommitPushed) WHERE subject = 'repo-2'";
    let plan = lines(&engine, of_one).await.join("\n");
    let physical = plan.split("physical_plan").nth(1).unwrap();
    assert_eq!(physical.matches("repo-2").count(), 2, "{plan}");
}

#[tokio::test]
async fn json_in_text_is_reached_by_functions_and_operators() {
    let engine = engine();
    for (expression, expected) in [
        ("json_get(json, 'repo')", "\"annals\""),
        ("json_get_str(json, 'repo')", "annals"),
        ("json_get_int(json, 'commits', 0)", "3"),
        ("json_get_float(json, 'commits', 0)", "3.0"),
        ("json_get_bool(json, 'deep', 'x')", "true"),
        ("json_get(json, 'commits')", "[3,0]"),
        ("json_length(json, 'commits')", "2"),
        ("json_length(json)", "3"),
        ("json_contains(json, 'deep', 'x')", "true"),
        ("json_contains(json, 'deep', 'y')", "false"),
        ("json -> 'deep' -> 'x'", "true"),
        ("json ->> 'repo'", "annals"),
        ("json -> 'commits' ->> -1", "0"),
        (
            "json_get_int('{\"n\":\"9007199254740993\"}', 'n')",
            "9007199254740993",
        ),
        ("json_get('not json', 'a') IS NULL", "true"),
        ("json_get_str('{\"a\":null}', 'a') IS NULL", "true"),
        ("json_get_str(json, substr('repository', 1, 4))", "annals"),
        ("json_get(json, repo) IS NULL", "true"),
    ] {
        let sql = format!("SELECT {expression} FROM events WHERE id = 'e-0'");
        assert_eq!(lines(&engine, &sql).await, [expected], "{expression}");
    }
    let sql = "SELECT count(*) FROM events WHERE json ->> 'repo' = 'docs'";
    assert_eq!(number(&engine, sql).await, 2);
    let text = error(&engine, "SELECT json_get(commits, 'a') FROM events")
        .await
        .to_string();
    assert!(text.contains("json_get takes JSON as text"), "{text}");
}

#[tokio::test]
async fn payload_json_decodes_by_the_catalog_of_its_time() {
    let engine = engine();
    let sql = "SELECT payload_json(type, data) FROM events WHERE id = 'e-0'";
    assert_eq!(lines(&engine, sql).await, [""]);
    let source = "syntax = \"proto3\"; package vcs.v1; \
                  message CommitPushed { string repo = 1; int64 commits = 2; }";
    engine.set_catalog(Catalog::from_files([("vcs.proto", source)]).unwrap());
    assert_eq!(
        lines(&engine, sql).await,
        [r#"{"repo":"annals","commits":"3"}"#]
    );
    let sql =
        "SELECT json_get_int(payload_json(type, data), 'commits') FROM events WHERE id = 'e-0'";
    assert_eq!(number(&engine, sql).await, 3);
    let sql = "SELECT count(payload_json('other.v1.Type', data)) FROM events";
    assert_eq!(number(&engine, sql).await, 0);
}

#[tokio::test]
async fn tables_and_columns_are_listed() {
    let engine = engine();
    assert_eq!(
        lines(&engine, "SHOW TABLES").await,
        [
            "events",
            "shop.v1.OrderPlaced",
            "shop.v2.OrderPlaced",
            "vcs.v1.CommitPushed"
        ]
    );
    let described = lines(&engine, "DESCRIBE vcs.v1.commitpushed").await;
    for expected in [
        "id|text|YES",
        "time|timestamp UTC|YES",
        "payload|struct|YES",
        "payload.commits|int64|YES",
        "payload.author.\"eMail\"|text|YES",
    ] {
        assert!(
            described.iter().any(|l| l == expected),
            "{expected}: {described:?}"
        );
    }
    let schema = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'history'";
    assert_eq!(lines(&engine, schema).await.len(), 4);
}

#[tokio::test]
async fn an_answer_ends_with_what_it_cost() {
    let engine = engine();
    let (batches, summary) = ask(&engine, "SELECT * FROM events").await.unwrap();
    let rows: usize = batches.iter().map(|b| b.num_rows()).sum();
    assert_eq!((summary.rows, rows), (7, 7));
    assert_eq!((summary.position, summary.scanned.files), (POSITION, 2));
    assert!(!summary.truncated);
}

#[tokio::test]
async fn more_rows_than_asked_for_are_cut_and_said_to_be() {
    let engine = engine();
    for (rows_max, rows, truncated) in
        [(Some(3), 3, true), (Some(7), 7, false), (Some(0), 7, false)]
    {
        let question = Question {
            rows_max,
            ..Question::new("SELECT id FROM events ORDER BY time")
        };
        let answer = engine.query(&question).await.unwrap();
        let (batches, summary) = answer.collect().await.unwrap();
        let got: usize = batches.iter().map(|b| b.num_rows()).sum();
        assert_eq!(
            (got, summary.rows, summary.truncated),
            (rows, rows as u64, truncated)
        );
    }
    let wide = ask(&engine, "SELECT * FROM generate_series(1, 25000)")
        .await
        .unwrap()
        .1;
    assert_eq!((wide.rows, wide.truncated), (10_000, true));
}

#[tokio::test]
async fn an_answer_is_streamed_in_every_format() {
    let engine = engine();
    for (format, expected) in [
        (
            Format::JsonLines,
            "{\"id\":\"e-0\",\"time\":\"1970-01-01T00:01:40.000000Z\",\"entityversion\":1}\n",
        ),
        (
            Format::Json,
            "[{\"id\":\"e-0\",\"time\":\"1970-01-01T00:01:40.000000Z\",\"entityversion\":1}]\n",
        ),
        (
            Format::Csv,
            "id,time,entityversion\r\ne-0,1970-01-01T00:01:40.000000Z,1\r\n",
        ),
    ] {
        let question = Question::new("SELECT id, time, entityversion FROM events WHERE id = 'e-0'");
        let answer = engine.query(&question).await.unwrap();
        let chunks: Vec<_> = Box::pin(annals_sql::render::stream(answer, format))
            .collect()
            .await;
        let bytes: Vec<u8> = chunks.into_iter().flat_map(|c| c.unwrap()).collect();
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }
    let question = Question {
        rows_max: Some(0),
        ..Question::new("SELECT value AS n FROM generate_series(1, 100000)")
    };
    let answer = engine.query(&question).await.unwrap();
    let chunks: Vec<_> = Box::pin(annals_sql::render::stream(answer, Format::JsonLines))
        .collect()
        .await;
    assert!(chunks.iter().all(|c| c.as_ref().unwrap().len() < 128 << 10));
    let lines: usize = chunks
        .iter()
        .map(|c| c.as_ref().unwrap().iter().filter(|b| **b == b'\n').count())
        .sum();
    assert_eq!(lines, 100_000);
}

#[tokio::test]
async fn a_failure_in_the_middle_is_the_last_piece() {
    let engine = engine();
    let question = Question {
        rows_max: Some(0),
        ..Question::new("SELECT 1 / (100000 - value) FROM generate_series(1, 100000)")
    };
    let answer = engine.query(&question).await.unwrap();
    let chunks: Vec<_> = Box::pin(annals_sql::render::stream(answer, Format::JsonLines))
        .collect()
        .await;
    let error = chunks.last().unwrap().as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(Limit::of(error).is_none());
    assert!(chunks[..chunks.len() - 1].iter().all(Result::is_ok));
}
