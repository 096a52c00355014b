"""Answers questions in SQL of a lake's tables, with an engine that is not annals.

    read_lake.py duckdb|deltalake|polars|spark < request.json > answers.json
    read_lake.py probe duckdb|deltalake|polars|spark      ends well if the engine is installed

The request: {"questions": [{"path": ..., "sql": ...}], "s3": {...} or null}. A question names its
table `{t}`, a field of its payload `{payload.a.b}`. The answers: a list of lists of rows, in order.

Nothing here knows what annals writes but the formats: tables are found by Delta's log. Spark has no
Delta library here: it reads the Parquet files that the log names, and nothing else.
"""

import base64
import datetime
import decimal
import json
import math
import os
import pathlib
import re
import sys
import time

os.environ["TZ"] = "UTC"
time.tzset()


def plain(value):
    """A value as JSON has it, the way docs/guide/sql-reference.md says."""
    if isinstance(value, datetime.datetime):
        # Spark's are without a zone, in that of the session: UTC.
        value = value if value.tzinfo is None else value.astimezone(datetime.timezone.utc)
        return value.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    if is_row(value):
        value = value.asDict()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        # Maps of delta-rs are lists of pairs.
        if value and all(isinstance(item, tuple) and not is_row(item) for item in value):
            return {str(key): plain(item) for key, item in value}
        return [plain(item) for item in value]
    return value


def is_row(value):
    """Whether it is a row of Spark, which is a tuple, too."""
    return hasattr(value, "asDict")


def fields(sql, write):
    """The question with the payload's fields written as the engine wants them."""
    return re.sub(r"\{(payload(?:\.\w+)+)\}", lambda found: write(found[1].split(".")), sql)


def dotted(names):
    return ".".join(names)


def bracketed(names):
    return names[0] + "".join(f"['{name}']" for name in names[1:])


class Duckdb:
    def __init__(self, s3):
        import duckdb

        config = {"autoinstall_known_extensions": False, "autoload_known_extensions": False}
        self.connection = duckdb.connect(config=config)
        self.load("duckdb_extension_delta")
        self.connection.execute("SET TimeZone = 'UTC'")
        if s3:
            self.load("duckdb_extension_httpfs")
            endpoint = s3["AWS_ENDPOINT_URL"].removeprefix("http://")
            self.connection.execute(
                f"CREATE SECRET (TYPE s3, KEY_ID '{s3['AWS_ACCESS_KEY_ID']}', "
                f"SECRET '{s3['AWS_SECRET_ACCESS_KEY']}', REGION '{s3['AWS_REGION']}', "
                f"ENDPOINT '{endpoint}', URL_STYLE 'path', USE_SSL false)"
            )

    def load(self, package):
        found = __import__(package)
        file = next(pathlib.Path(found.__file__).parent.rglob("*.duckdb_extension"))
        self.connection.execute(f"LOAD '{file}'")

    def answer(self, path, sql):
        asked = fields(sql, dotted).replace("{t}", f"delta_scan('{path}')")
        cursor = self.connection.execute(asked)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row)) for row in cursor.fetchall()]


class Deltalake:
    def __init__(self, s3):
        self.options = s3 and {**s3, "AWS_ALLOW_HTTP": "true"}

    def answer(self, path, sql):
        from deltalake import DeltaTable, QueryBuilder

        table = DeltaTable(path, storage_options=self.options)
        asked = fields(sql, bracketed).replace("{t}", "t")
        found = QueryBuilder().register("t", table).execute(asked).read_all()
        columns = [column.to_pylist() for column in found.columns]
        return [dict(zip(found.column_names, row)) for row in zip(*columns)]


class Polars:
    def __init__(self, s3):
        self.options = s3 and {**s3, "AWS_ALLOW_HTTP": "true"}

    def answer(self, path, sql):
        import polars

        table = polars.scan_delta(path, storage_options=self.options)
        asked = fields(sql, dotted).replace("{t}", "t")
        return polars.SQLContext(t=table).execute(asked).collect().to_dicts()


class Spark:
    def __init__(self, s3):
        from pyspark.sql import SparkSession

        assert not s3, "Spark reads directories only"
        settings = {
            "spark.ui.enabled": "false",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.sql.session.timeZone": "UTC",
            "spark.sql.shuffle.partitions": "1",
            "spark.log.level": "ERROR",
        }
        builder = SparkSession.builder.master("local[1]")
        for name, value in settings.items():
            builder = builder.config(name, value)
        self.session = builder.getOrCreate()
        self.known = {}

    def answer(self, path, sql):
        if path not in self.known:
            view = f"t{len(self.known)}"
            reader = self.session.read.option("mergeSchema", "true").option("basePath", path)
            reader.parquet(*live_files(path)).createOrReplaceTempView(view)
            self.known[path] = view
        asked = fields(sql, dotted).replace("{t}", self.known[path])
        return [row.asDict() for row in self.session.sql(asked).collect()]


def live_files(path):
    """The files a table consists of, by its log's commits."""
    live = {}
    for commit in sorted(pathlib.Path(path, "_delta_log").glob("*.json")):
        for line in commit.read_text().splitlines():
            action = json.loads(line)
            if "remove" in action:
                live.pop(action["remove"]["path"])
            if "add" in action:
                live[action["add"]["path"]] = f"{path}/{action['add']['path']}"
    return list(live.values())


READERS = {"duckdb": Duckdb, "deltalake": Deltalake, "polars": Polars, "spark": Spark}


def probe(name):
    needed = {
        "duckdb": ["duckdb", "duckdb_extension_delta", "duckdb_extension_httpfs", "pytz"],
        "deltalake": ["deltalake"],
        "polars": ["polars", "deltalake"],
        "spark": ["pyspark"],
    }
    for module in needed[name]:
        __import__(module)
    if name == "spark":
        import shutil

        assert shutil.which("java"), "Spark needs Java"


def main():
    if sys.argv[1] == "probe":
        return probe(sys.argv[2])
    request = json.load(sys.stdin)
    reader = READERS[sys.argv[1]](request.get("s3"))
    answers = []
    for question in request["questions"]:
        try:
            rows = reader.answer(question["path"], question["sql"])
        except Exception as error:
            raise SystemExit(f"{question['sql']}: {type(error).__name__}: {error}")
        answers.append([plain(row) for row in rows])
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
