//! Statements that must not be answered, or only harmlessly; an ordinary one works after each.

use crate::corpus::REFUSED;
use crate::fixture::{ask, engine, number};
use annals_core::ErrorKind;
use annals_sql::{Engine, Limit, Question};
use std::time::Duration;

#[tokio::test]
async fn hostile_statements_are_refused_by_name_and_an_ordinary_one_works_after_each() {
    let engine = engine();
    assert!(REFUSED.len() >= 200, "{}", REFUSED.len());
    let mut wrong = Vec::new();
    for (sql, word) in REFUSED {
        match ask(&engine, sql).await {
            Ok((batches, _)) => wrong.push(format!("{sql}: answered {batches:?}")),
            Err(error) => {
                let text = error.to_string();
                if !text.to_lowercase().contains(&word.to_lowercase()) {
                    wrong.push(format!("{sql}: {text}"));
                }
                let kinds = [
                    ErrorKind::Invalid,
                    ErrorKind::NotAllowed,
                    ErrorKind::NotFound,
                ];
                if !kinds.contains(&error.kind()) {
                    wrong.push(format!("{sql}: {:?} {text}", error.kind()));
                }
            }
        }
        assert_eq!(
            number(&engine, "SELECT count(*) FROM events").await,
            7,
            "after {sql}"
        );
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        REFUSED.len(),
        wrong.join("\n")
    );
}

/// Texts that grow without end in each way a grammar nests.
fn deep(n: usize) -> Vec<(&'static str, String)> {
    let chain = |with: &str| vec!["1"; n].join(with);
    vec![
        (
            "parentheses",
            format!("SELECT {}1{}", "(".repeat(n), ")".repeat(n)),
        ),
        ("open parentheses", format!("SELECT {}", "(".repeat(n))),
        ("closed parentheses", format!("SELECT 1{}", ")".repeat(n))),
        ("first parentheses", "(".repeat(n)),
        ("ors", format!("SELECT {}", chain("=1 OR "))),
        ("ands", format!("SELECT {}", chain("=1 AND "))),
        ("sums", format!("SELECT {}", chain("+"))),
        ("concatenations", format!("SELECT {}", chain("||"))),
        ("minuses", format!("SELECT {}1", "- ".repeat(n))),
        ("pluses", format!("SELECT {}1", "+ ".repeat(n))),
        ("nots", format!("SELECT {}true", "NOT ".repeat(n))),
        ("tildes", format!("SELECT {}1", "~ ".repeat(n))),
        (
            "cases",
            format!(
                "SELECT {}1{}",
                "CASE WHEN true THEN ".repeat(n),
                " END".repeat(n)
            ),
        ),
        (
            "case arms",
            format!("SELECT CASE {} END", "WHEN true THEN 1 ".repeat(n)),
        ),
        (
            "subqueries",
            format!("{}1{}", "SELECT (".repeat(n), ")".repeat(n)),
        ),
        (
            "derived tables",
            format!("{}SELECT 1{}", "SELECT * FROM (".repeat(n), ") x".repeat(n)),
        ),
        (
            "existences",
            format!(
                "SELECT 1 WHERE {}SELECT 1{}",
                "EXISTS (SELECT 1 WHERE ".repeat(n),
                ")".repeat(n)
            ),
        ),
        ("unions", vec!["SELECT 1"; n].join(" UNION ALL ")),
        (
            "unions to the right",
            format!("{}SELECT 1{}", "SELECT 1 UNION (".repeat(n), ")".repeat(n)),
        ),
        (
            "joins",
            format!("SELECT 1 FROM events {}", "CROSS JOIN events ".repeat(n)),
        ),
        (
            "commas",
            format!("SELECT 1 FROM {}", vec!["events"; n].join(", ")),
        ),
        (
            "nested joins",
            format!(
                "SELECT 1 FROM {}events{}",
                "(".repeat(n),
                " CROSS JOIN events)".repeat(n)
            ),
        ),
        (
            "calls",
            format!("SELECT {}1{}", "abs(".repeat(n), ")".repeat(n)),
        ),
        (
            "lists",
            format!("SELECT {}1{}", "ARRAY[".repeat(n), "]".repeat(n)),
        ),
        (
            "brackets",
            format!("SELECT {}1{}", "[".repeat(n), "]".repeat(n)),
        ),
        (
            "subscripts",
            format!("SELECT json{} FROM events", "['a']".repeat(n)),
        ),
        (
            "arrows",
            format!("SELECT json{} FROM events", "->'a'".repeat(n)),
        ),
        ("dots", format!("SELECT a{} FROM events", ".a".repeat(n))),
        (
            "dotted tables",
            format!("SELECT 1 FROM a{}", ".a".repeat(n)),
        ),
        ("casts", format!("SELECT 1{}", "::bigint".repeat(n))),
        ("is nulls", format!("SELECT 1{}", " IS NULL".repeat(n))),
        (
            "betweens",
            format!("SELECT 1{}", " BETWEEN 1 AND 1".repeat(n)),
        ),
        (
            "ins",
            format!("SELECT {}1{}", "1 IN (".repeat(n), ")".repeat(n)),
        ),
        (
            "time zones",
            format!("SELECT now(){}", " AT TIME ZONE 'UTC'".repeat(n)),
        ),
        (
            "collations",
            format!("SELECT 'a'{}", " COLLATE \"C\"".repeat(n)),
        ),
        (
            "intervals",
            format!("SELECT {}'1 day'", "INTERVAL ".repeat(n)),
        ),
        (
            "types",
            format!(
                "SELECT CAST(1 AS {}INT{})",
                "ARRAY<".repeat(n),
                ">".repeat(n)
            ),
        ),
        ("array types", format!("SELECT 1::int{}", "[]".repeat(n))),
        (
            "windows",
            format!("SELECT sum({}1{}", "sum(".repeat(n), ") OVER ()".repeat(n)),
        ),
        ("explains", format!("{}SELECT 1", "EXPLAIN ".repeat(n))),
        (
            "withs",
            format!(
                "{}SELECT 1{}",
                "WITH a AS (".repeat(n),
                ") SELECT 1".repeat(n)
            ),
        ),
        (
            "comments",
            format!("SELECT {}1{}", "/*".repeat(n), "*/".repeat(n)),
        ),
        (
            "in list",
            format!("SELECT 1 IN ({})", vec!["1"; n].join(",")),
        ),
        (
            "select list",
            format!("SELECT {}", vec!["abs(1)"; n].join(",")),
        ),
        (
            "order list",
            format!("SELECT 1 ORDER BY {}", vec!["abs(1)"; n].join(",")),
        ),
    ]
}

#[tokio::test]
async fn however_deep_a_question_nests_it_is_refused_without_a_crash() {
    let engine = engine();
    for (name, sql) in deep(100_000) {
        let refused = ask(&engine, &sql).await;
        assert!(refused.is_err() || name == "comments", "{name}");
        let error = refused.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.len() < 2_000, "{name}: {error}");
        assert_eq!(
            number(&engine, "SELECT count(*) FROM events").await,
            7,
            "after {name}"
        );
    }
}

#[tokio::test]
async fn what_is_nested_as_deeply_as_is_let_through_is_planned_without_a_crash() {
    let engine = engine();
    for n in [10, 25, 60, 200, 480, 990] {
        for (name, sql) in deep(n) {
            let question = Question {
                timeout: Some(Duration::from_secs(60)),
                ..Question::new(sql)
            };
            let started = std::time::Instant::now();
            // Answered or refused: what counts is that it comes back, and soon.
            let result = match engine.query(&question).await {
                Ok(answer) => answer.collect().await.map(|_| ()),
                Err(error) => Err(error),
            };
            let took = started.elapsed();
            let time_out = result.err().and_then(|e| Limit::of(&e));
            assert!(
                !matches!(time_out, Some(Limit::Time { .. })),
                "{n} {name}: {took:?}"
            );
        }
    }
    assert_eq!(number(&engine, "SELECT count(*) FROM events").await, 7);
}

#[tokio::test]
async fn what_multiplies_when_it_is_written_out_is_refused() {
    let engine = engine();
    let doubled_tables = (1..40).fold("a0 AS (SELECT 1 AS x)".to_owned(), |with, i| {
        format!(
            "{with}, a{i} AS (SELECT x FROM a{0} UNION ALL SELECT x FROM a{0})",
            i - 1
        )
    });
    let doubled_columns = (1..30).fold("SELECT id AS s FROM events".to_owned(), |inner, _| {
        format!("SELECT s || s AS s FROM ({inner})")
    });
    let through_with = (1..30).fold(
        "a0 AS (SELECT id AS s FROM events)".to_owned(),
        |with, i| format!("{with}, a{i} AS (SELECT s || s AS s FROM a{})", i - 1),
    );
    for (name, sql) in [
        (
            "doubled tables",
            format!("WITH {doubled_tables} SELECT count(*) FROM a39"),
        ),
        ("doubled columns", doubled_columns.clone()),
        (
            "doubled columns, filtered",
            format!("SELECT * FROM ({doubled_columns}) WHERE s = 'x'"),
        ),
        (
            "doubled columns of expressions",
            format!("WITH {through_with} SELECT count(s) FROM a29"),
        ),
    ] {
        let error = ask(&engine, &sql).await.expect_err(name);
        assert_eq!(Limit::of(&error), Some(Limit::Question), "{name}: {error}");
    }
}

#[tokio::test]
async fn text_longer_than_is_read_is_refused_unread() {
    let engine: Engine = engine();
    let sql = format!("SELECT '{}'", "x".repeat(1 << 20));
    let error = ask(&engine, &sql).await.unwrap_err();
    assert_eq!(Limit::of(&error), Some(Limit::Question));
    assert!(error.to_string().contains("1048576"), "{error}");
}
