//! Statements that must not be answered, or only harmlessly; an ordinary one works after each.

use crate::fixture::{ask, engine, number};
use annals_core::ErrorKind;
use annals_sql::{Engine, Limit, Question};
use std::time::Duration;

/// Statements refused by name: the statement, and a word of the error.
#[rustfmt::skip]
const REFUSED: &[(&str, &str)] = &[
    // what changes tables
    ("CREATE TABLE t (a INT)", "CREATE"),
    ("CREATE TABLE t AS SELECT 1", "CREATE"),
    ("CREATE OR REPLACE TABLE t AS SELECT 1", "CREATE"),
    ("CREATE TEMPORARY TABLE t AS SELECT 1", "CREATE"),
    ("CREATE UNLOGGED TABLE t (a INT)", "CREATE"),
    ("CREATE VIEW v AS SELECT 1", "CREATE"),
    ("CREATE MATERIALIZED VIEW v AS SELECT 1", "CREATE"),
    ("CREATE SCHEMA s", "CREATE"),
    ("CREATE DATABASE d", "CREATE"),
    ("CREATE INDEX i ON events (id)", "CREATE"),
    ("CREATE FUNCTION f() RETURNS INT RETURN 1", "CREATE"),
    (
        "CREATE FUNCTION f() RETURNS INT LANGUAGE C AS '/lib/x.so', 'f'",
        "CREATE",
    ),
    ("CREATE ROLE r SUPERUSER", "CREATE"),
    ("CREATE USER u", "CREATE"),
    ("CREATE EXTENSION dblink", "CREATE"),
    (
        "CREATE TRIGGER t AFTER INSERT ON events EXECUTE FUNCTION f()",
        "CREATE",
    ),
    ("CREATE SEQUENCE s", "CREATE"),
    ("CREATE TYPE t AS ENUM ('a')", "CREATE"),
    ("CREATE SECRET s (TYPE S3)", "CREATE"),
    ("CREATE MACRO m() AS 1", "CREATE"),
    ("CREATE SERVER s FOREIGN DATA WRAPPER w", "CREATE"),
    ("CREATE POLICY p ON events", "CREATE"),
    (
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE",
    ),
    (
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 's3://other/bucket'",
        "CREATE",
    ),
    (
        "CREATE UNBOUNDED EXTERNAL TABLE t STORED AS CSV LOCATION '/tmp/x'",
        "CREATE",
    ),
    ("CREATE CATALOG c", "CREATE"),
    ("DROP TABLE events", "DROP"),
    ("DROP TABLE IF EXISTS events CASCADE", "DROP"),
    ("DROP VIEW events", "DROP"),
    ("DROP SCHEMA history", "DROP"),
    ("DROP DATABASE annals", "DROP"),
    ("DROP FUNCTION json_get", "DROP"),
    ("DROP INDEX i", "DROP"),
    ("DROP ROLE r", "DROP"),
    ("ALTER TABLE events ADD COLUMN x INT", "ALTER"),
    ("ALTER TABLE events DROP COLUMN id", "ALTER"),
    ("ALTER TABLE events RENAME TO e", "ALTER"),
    ("ALTER SYSTEM SET x = 1", "ALTER"),
    ("ALTER ROLE r SUPERUSER", "ALTER"),
    ("ALTER VIEW v AS SELECT 1", "ALTER"),
    ("TRUNCATE events", "TRUNCATE"),
    ("TRUNCATE TABLE events", "TRUNCATE"),
    ("COMMENT ON TABLE events IS 'x'", "COMMENT"),
    ("RENAME TABLE events TO e", "RENAME"),
    // what changes rows
    ("INSERT INTO events VALUES (1)", "INSERT"),
    ("INSERT INTO events SELECT * FROM events", "INSERT"),
    ("INSERT OVERWRITE events SELECT * FROM events", "INSERT"),
    (
        "INSERT INTO events (id) VALUES ('x') RETURNING id",
        "INSERT",
    ),
    ("INSERT INTO '/tmp/x.csv' SELECT 1", "INSERT"),
    ("REPLACE INTO events VALUES (1)", "REPLACE"),
    ("UPDATE events SET id = 'x'", "UPDATE"),
    (
        "UPDATE events SET id = 'x' WHERE id = 'e-0' RETURNING id",
        "UPDATE",
    ),
    ("DELETE FROM events", "DELETE"),
    ("DELETE FROM events WHERE id = 'e-0'", "DELETE"),
    (
        "MERGE INTO events USING events e ON true WHEN MATCHED THEN DELETE",
        "MERGE",
    ),
    ("UPSERT INTO events VALUES (1)", "UPSERT"),
    (
        "WITH x AS (DELETE FROM events RETURNING *) SELECT * FROM x",
        "DELETE",
    ),
    (
        "WITH x AS (INSERT INTO events VALUES (1) RETURNING *) SELECT * FROM x",
        "INSERT",
    ),
    (
        "WITH x AS (UPDATE events SET id = 'x' RETURNING *) SELECT * FROM x",
        "UPDATE",
    ),
    (
        "WITH x AS (SELECT 1) INSERT INTO events SELECT * FROM x",
        "INSERT",
    ),
    ("WITH x AS (SELECT 1) DELETE FROM events", "DELETE"),
    ("WITH x AS (SELECT 1) UPDATE events SET id = 'x'", "UPDATE"),
    ("SELECT 1 INTO t", "INTO"),
    ("SELECT * INTO t FROM events", "INTO"),
    ("SELECT * INTO TEMPORARY t FROM events", "INTO"),
    ("SELECT * FROM (SELECT 1 INTO t) x", "INTO"),
    ("SELECT * FROM events FOR UPDATE", "FOR UPDATE"),
    ("SELECT * FROM events FOR SHARE", "FOR UPDATE"),
    ("SELECT * FROM events FOR NO KEY UPDATE", "sql"),
    ("SELECT * FROM events FOR UPDATE SKIP LOCKED", "FOR UPDATE"),
    (
        "SELECT * FROM (SELECT * FROM events FOR UPDATE) x",
        "FOR UPDATE",
    ),
    ("TABLE events", "TABLE"),
    // what reads or writes files and networks
    ("COPY events TO '/tmp/x.csv'", "COPY"),
    ("COPY events TO '/tmp/x.parquet' STORED AS PARQUET", "COPY"),
    (
        "COPY (SELECT * FROM events) TO 's3://other/x.parquet'",
        "COPY",
    ),
    ("COPY events FROM '/etc/passwd'", "COPY"),
    ("COPY events FROM PROGRAM 'id'", "COPY"),
    ("COPY (SELECT 1) TO PROGRAM 'id'", "COPY"),
    ("UNLOAD (SELECT 1) TO 's3://x'", "UNLOAD"),
    ("EXPORT DATABASE '/tmp/x'", "EXPORT"),
    ("IMPORT DATABASE '/tmp/x'", "IMPORT"),
    ("IMPORT FOREIGN SCHEMA s FROM SERVER x INTO y", "IMPORT"),
    ("ATTACH '/tmp/x.db' AS x", "ATTACH"),
    ("ATTACH DATABASE '/tmp/x.db' AS x", "ATTACH"),
    ("DETACH x", "DETACH"),
    ("LOAD 'httpfs'", "LOAD"),
    ("LOAD DATA INPATH '/tmp/x' INTO TABLE events", "LOAD"),
    ("INSTALL httpfs", "INSTALL"),
    ("CACHE TABLE events", "CACHE"),
    ("UNCACHE TABLE events", "UNCACHE"),
    ("MSCK REPAIR TABLE events", "MSCK"),
    ("SELECT * FROM read_csv('/etc/passwd')", "read_csv"),
    (
        "SELECT * FROM read_csv_auto('/etc/passwd')",
        "read_csv_auto",
    ),
    (
        "SELECT * FROM read_parquet('s3://other/*.parquet')",
        "read_parquet",
    ),
    ("SELECT * FROM read_json('/etc/passwd')", "read_json"),
    ("SELECT * FROM read_text('/etc/passwd')", "read_text"),
    ("SELECT * FROM read_blob('/etc/passwd')", "read_blob"),
    ("SELECT * FROM glob('/*')", "glob"),
    ("SELECT * FROM parquet_scan('/tmp/x')", "parquet_scan"),
    (
        "SELECT * FROM parquet_metadata('/tmp/x')",
        "parquet_metadata",
    ),
    ("SELECT * FROM metadata_cache()", "metadata_cache"),
    ("SELECT * FROM file('/etc/passwd')", "file"),
    ("SELECT * FROM url('http://localhost/')", "url"),
    ("SELECT * FROM s3('s3://x')", "s3"),
    ("SELECT * FROM remote('localhost', system.one)", "remote"),
    (
        "SELECT * FROM dblink('host=localhost', 'select 1') AS t(a int)",
        "dblink",
    ),
    ("SELECT * FROM pg_ls_dir('/')", "pg_ls_dir"),
    ("SELECT * FROM pg_read_file('/etc/passwd')", "pg_read_file"),
    ("SELECT * FROM system.read_csv('/etc/passwd')", "read_csv"),
    ("SELECT * FROM \"read_csv\"('/etc/passwd')", "read_csv"),
    ("SELECT * FROM READ_CSV('/etc/passwd')", "READ_CSV"),
    ("SELECT * FROM LATERAL read_csv('/etc/passwd')", "read_csv"),
    ("SELECT (SELECT * FROM read_csv('/etc/passwd'))", "read_csv"),
    (
        "WITH x AS (SELECT * FROM read_csv('/etc/passwd')) SELECT 1",
        "read_csv",
    ),
    (
        "SELECT 1 WHERE EXISTS (SELECT * FROM read_csv('/etc/passwd'))",
        "read_csv",
    ),
    (
        "SELECT * FROM events JOIN read_csv('/etc/passwd') ON true",
        "read_csv",
    ),
    (
        "SELECT 1 UNION SELECT * FROM read_csv('/etc/passwd')",
        "read_csv",
    ),
    ("EXPLAIN SELECT * FROM read_csv('/etc/passwd')", "read_csv"),
    ("SELECT * FROM '/etc/passwd'", "no table"),
    ("SELECT * FROM \"/etc/passwd\"", "no table"),
    ("SELECT * FROM \"file:///etc/passwd\"", "no table"),
    ("SELECT * FROM \"s3://bucket/x.parquet\"", "no table"),
    ("SELECT * FROM \"x.parquet\"", "no table"),
    ("SELECT * FROM \"../../etc/passwd.csv\"", "no table"),
    ("SELECT * FROM \"http://localhost/x.json\"", "no table"),
    ("DESCRIBE \"/etc/passwd\"", "no table"),
    ("SELECT pg_read_file('/etc/passwd')", "pg_read_file"),
    ("SELECT pg_sleep(100)", "pg_sleep"),
    ("SELECT lo_import('/etc/passwd')", "lo_import"),
    ("SELECT load_extension('x')", "load_extension"),
    ("SELECT load_file('/etc/passwd')", "load_file"),
    ("SELECT getenv('HOME')", "getenv"),
    ("SELECT input_file_name() FROM events", "input_file_name"),
    ("SELECT current_setting('x')", "current_setting"),
    ("SELECT set_config('a', 'b', false)", "set_config"),
    ("SELECT nextval('s')", "nextval"),
    ("SELECT dblink_exec('x', 'y')", "dblink_exec"),
    ("SELECT query('DROP TABLE events')", "query"),
    (
        "SELECT query_to_xml('select 1', true, true, '')",
        "query_to_xml",
    ),
    // what changes the session or the server
    ("SET x = 1", "SET"),
    ("SET datafusion.execution.batch_size = 1", "SET"),
    ("SET datafusion.runtime.memory_limit = '100G'", "SET"),
    ("SET TIME ZONE 'UTC'", "SET"),
    ("SET ROLE admin", "SET"),
    ("SET SESSION AUTHORIZATION admin", "SET"),
    ("SET GLOBAL x = 1", "SET"),
    ("RESET x", "RESET"),
    ("RESET ALL", "RESET"),
    ("RESET datafusion.runtime.memory_limit", "RESET"),
    ("PRAGMA database_list", "PRAGMA"),
    ("USE other", "USE"),
    ("CALL f()", "CALL"),
    ("DO $$ BEGIN END $$", "DO"),
    ("EXECUTE p", "EXECUTE"),
    ("EXECUTE IMMEDIATE 'DROP TABLE events'", "EXECUTE"),
    ("PREPARE p AS SELECT 1", "PREPARE"),
    ("DEALLOCATE p", "DEALLOCATE"),
    ("DECLARE c CURSOR FOR SELECT 1", "DECLARE"),
    ("FETCH 1 FROM c", "FETCH"),
    ("CLOSE c", "CLOSE"),
    ("BEGIN", "BEGIN"),
    ("START TRANSACTION", "START"),
    ("COMMIT", "COMMIT"),
    ("ROLLBACK", "ROLLBACK"),
    ("SAVEPOINT s", "SAVEPOINT"),
    ("RELEASE s", "RELEASE"),
    ("LOCK TABLE events", "LOCK"),
    ("GRANT SELECT ON events TO public", "GRANT"),
    ("REVOKE SELECT ON events FROM public", "REVOKE"),
    ("KILL 1", "KILL"),
    ("SHUTDOWN", "SHUTDOWN"),
    ("VACUUM", "VACUUM"),
    ("ANALYZE events", "ANALYZE"),
    ("OPTIMIZE TABLE events", "OPTIMIZE"),
    ("REFRESH TABLE events", "REFRESH"),
    ("CHECKPOINT", "CHECKPOINT"),
    ("LISTEN x", "LISTEN"),
    ("NOTIFY x", "NOTIFY"),
    ("UNLISTEN x", "UNLISTEN"),
    ("DISCARD ALL", "DISCARD"),
    ("FLUSH TABLES", "FLUSH"),
    ("ASSERT true", "ASSERT"),
    ("RAISE 'x'", "RAISE"),
    ("PRINT 'x'", "PRINT"),
    ("RETURN 1", "RETURN"),
    ("SHOW ALL", "SHOW"),
    ("SHOW datafusion.runtime.memory_limit", "SHOW"),
    ("SHOW FUNCTIONS", "SHOW"),
    ("SHOW CREATE TABLE events", "SHOW"),
    ("SHOW COLUMNS FROM events", "SHOW"),
    ("SHOW TABLES LIKE 'x'", "SHOW TABLES"),
    ("EXPLAIN INSERT INTO events VALUES (1)", "INSERT"),
    ("EXPLAIN ANALYZE DELETE FROM events", "DELETE"),
    ("EXPLAIN COPY events TO '/tmp/x.csv'", "EXPLAIN"),
    ("EXPLAIN CREATE TABLE t (a INT)", "CREATE"),
    (
        "EXPLAIN CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "EXPLAIN",
    ),
    ("EXPLAIN SET x = 1", "SET"),
    ("EXPLAIN EXPLAIN SELECT 1", "EXPLAIN"),
    // several statements, and hiding one
    ("SELECT 1; DROP TABLE events", "second statement"),
    ("SELECT 1; SELECT 2", "second statement"),
    (";; SELECT 1; SELECT 2", "second statement"),
    ("SELECT 1;;DROP TABLE events", "second statement"),
    ("SELECT 1 /* ; */; DELETE FROM events", "second statement"),
    ("SELECT 1 -- x\n; DELETE FROM events", "second statement"),
    ("/* SELECT 1 */ DROP TABLE events", "DROP"),
    ("-- SELECT 1\nDROP TABLE events", "DROP"),
    ("(DROP TABLE events)", "DROP"),
    ("((DELETE FROM events))", "DELETE"),
    ("dRoP tAbLe events", "DROP"),
    ("\u{feff}SELECT 1", "refused"),
    ("", "empty"),
    (" \n\t ", "empty"),
    (";;;", "empty"),
    ("-- nothing", "empty"),
    ("SELECT", "sql"),
    ("SELECT '", "sql"),
    ("SELECT \"", "sql"),
    ("SELECT /* ", "sql"),
    ("SELECT $$", "sql"),
    ("'; DROP TABLE events; --", "sql"),
    ("\0", "sql"),
    ("💥", "💥"),
    ("SELECT $1", "parameter"),
    ("SELECT * FROM events WHERE id = $1", "parameter"),
    // what takes without end
    (
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT * FROM r",
        "RECURSIVE",
    ),
    (
        "SELECT * FROM (WITH RECURSIVE r AS (SELECT 1 UNION ALL SELECT 1 FROM r) SELECT * FROM r) x",
        "RECURSIVE",
    ),
    (
        "SELECT arrow_cast(NULL, 'FixedSizeBinary(2000000000)')",
        "arrow_cast",
    ),
    (
        "SELECT arrow_try_cast(1, 'FixedSizeList(2000000000, Int64)')",
        "arrow_try_cast",
    ),
    ("SELECT NULL::int[2000000000]", "fixed"),
    ("SELECT CAST(ARRAY[1] AS int[2000000000])", "fixed"),
    ("SELECT array_repeat(1, 2000000000)", "array_repeat"),
    ("SELECT array_resize(ARRAY[1], 2000000000)", "array_resize"),
    ("SELECT range(0, 2000000000)", "range"),
    ("SELECT generate_series(0, 2000000000)", "generate_series"),
    ("SELECT levenshtein(id, id) FROM events", "levenshtein"),
    (
        "SELECT approx_percentile_cont(0.5, 1000000000) WITHIN GROUP (ORDER BY commits) FROM events",
        "approx_percentile_cont",
    ),
    ("SELECT repeat('x', 2000000000)", "more than"),
    ("SELECT repeat(repeat('x', 60000), 60000)", "more than"),
    ("SELECT lpad('x', 2000000000)", "more than"),
    ("SELECT rpad('x', 2000000000, 'yz')", "more than"),
    (
        "SELECT replace(repeat('x', 60000), 'x', repeat('y', 60000))",
        "more than",
    ),
    (
        "SELECT regexp_replace(repeat('x', 60000), 'x', repeat('y', 60000), 'g')",
        "more than",
    ),
    (
        "SELECT array_to_string(string_to_array(repeat('x,', 30000), ','), repeat('y', 60000))",
        "more than",
    ),
    ("SELECT repeat(id, 2000000000) FROM events", "more than"),
    (
        "SELECT count(repeat('x', 60000 + value % 2)) FROM generate_series(1, 100000)",
        "more than",
    ),
    ("SELECT id ~ subject FROM events", "no constant"),
    ("SELECT regexp_like(id, subject) FROM events", "no constant"),
    (
        "SELECT regexp_replace(id, subject, 'x') FROM events",
        "no constant",
    ),
    ("SELECT regexp_match(id, id) FROM events", "no constant"),
    ("SELECT id SIMILAR TO subject FROM events", "no constant"),
    (
        "SELECT id ~ '(((a{100}){100}){100}){100}' FROM events",
        "regex",
    ),
    ("SELECT id ~ '((((a*)*)*)*' FROM events", "regex"),
    (
        "SELECT 1 FROM events TABLESAMPLE BERNOULLI (10)",
        "TABLESAMPLE",
    ),
    (
        "SELECT commits, count(*) FROM events GROUP BY CUBE (1, 2, 3, 4, 5, 6, 7)",
        "CUBE",
    ),
    (
        "SELECT count(*) FROM events GROUP BY CUBE (id, type), CUBE (repo, source)",
        "more than one",
    ),
    (
        "SELECT * FROM JSON_TABLE('[]', '$' COLUMNS (a INT PATH '$'))",
        "JSON_TABLE",
    ),
    (
        "SELECT * FROM XMLTABLE('/a' PASSING '<a/>' COLUMNS a INT)",
        "XMLTABLE",
    ),
];

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
