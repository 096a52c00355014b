"""Statements in, answers out, a line of JSON each: DuckDB as the peer of `sql`.

{"sql": S} runs a statement; {"name": N, "sql": S} times a question. Before the clock starts, the
columns of each name are looked up once: times are given as microseconds since 1970, as one bind
of the question itself gives them.
"""
import json
import sys
import time

import duckdb

connection = duckdb.connect()
shapes = {}


def shape_of(name, sql):
    if name not in shapes:
        columns = connection.execute("DESCRIBE " + sql).fetchall()
        names = [column[0] for column in columns]
        given = ", ".join(
            f'epoch_us("{column[0]}") AS "{column[0]}"'
            if column[1].startswith("TIMESTAMP")
            else f'"{column[0]}"'
            for column in columns
        )
        shapes[name] = (names, given)
    return shapes[name]


def text(value):
    return "null" if value is None else str(value)


def answer(question):
    sql = question["sql"]
    if "name" not in question:
        connection.execute(sql)
        return {}
    names, given = shape_of(question["name"], sql)
    sql = f"SELECT {given} FROM ({sql})"
    start = time.perf_counter()
    rows = connection.execute(sql).fetchall()
    ms = (time.perf_counter() - start) * 1000
    order = sorted(range(len(names)), key=lambda at: names[at])
    lines = [" ".join(f"{names[at]}={text(row[at])}" for at in order) for row in rows]
    return {"ms": ms, "rows": sorted(lines)}


for line in sys.stdin:
    try:
        out = answer(json.loads(line))
    except Exception as error:  # noqa: BLE001 - told to who asked
        out = {"error": str(error)}
    print(json.dumps(out), flush=True)
