"""Steps that a pika user expects to work, against AMQP_PORT on this machine.

Prints "done" last; any other end is a failure. Needs CANONICAL_HEX, an event in canonical form.
"""

import json
import os

import pika
from pika.exceptions import ChannelClosedByBroker, UnroutableError

CANONICAL = bytes.fromhex(os.environ["CANONICAL_HEX"])
STRUCTURED = json.dumps({
    "specversion": "1.0", "id": "j-1", "source": "/vcs", "type": "vcs.v1.TagCreated",
    "time": "2026-01-01T00:00:00Z", "datacontenttype": "application/json", "data": {"tag": "v1"},
}).encode()
PERSISTENT = 2


def connect():
    parameters = pika.ConnectionParameters(
        "127.0.0.1", int(os.environ["AMQP_PORT"]), "/",
        pika.PlainCredentials("guest", "guest"), heartbeat=5)
    return pika.BlockingConnection(parameters)


def expect(name, got, wanted):
    assert got == wanted, f"{name}: {got!r}, not {wanted!r}"
    print("ok", name)


def refused(name, connection, wanted, step):
    channel = connection.channel()
    try:
        step(channel)
    except ChannelClosedByBroker as error:
        expect(name, error.reply_code, wanted)
    else:
        raise AssertionError(f"{name}: not refused")


def events(channel):
    """The three bodies of an event, each as properties and body."""
    return [
        (pika.BasicProperties(content_type="application/cloudevents+protobuf", message_id="id-1",
                              type="vcs.v1.TagCreated", app_id="vcs", delivery_mode=PERSISTENT),
         CANONICAL),
        (pika.BasicProperties(content_type="application/cloudevents+json",
                              delivery_mode=PERSISTENT),
         STRUCTURED),
        (pika.BasicProperties(content_type="application/json", delivery_mode=PERSISTENT, headers={
            "cloudEvents_specversion": "1.0", "cloudEvents_id": "b-1",
            "cloudEvents_source": "/vcs", "cloudEvents_type": "vcs.v1.TagCreated",
            "cloudEvents_time": "2026-01-01T00:00:00Z", "number": 7, "big": 1 << 40,
            "flag": True, "nested": {"list": [1, "two", None]}}),
         b'{"tag":"v1"}'),
    ]


def publish_and_consume(connection):
    channel = connection.channel()
    channel.confirm_delivery()
    channel.exchange_declare("events", "topic", durable=True)
    declared = channel.queue_declare("pika", durable=True)
    expect("queue name", declared.method.queue, "pika")
    channel.queue_bind("pika", "events", "vcs.#")

    sent = events(channel)
    for properties, body in sent:
        channel.basic_publish("events", "vcs.v1.TagCreated", body, properties, mandatory=True)
    try:
        channel.basic_publish("events", "nowhere", b"x", mandatory=True)
        raise AssertionError("unroutable, and not returned")
    except UnroutableError as error:
        expect("return", error.messages[0].method.reply_code, 312)

    for properties, body in sent:
        method, got, content = channel.basic_get("pika")
        expect("body", content, body)
        expect("content type", got.content_type, properties.content_type)
        expect("headers", got.headers, properties.headers)
        expect("message id", got.message_id, properties.message_id)
        channel.basic_ack(method.delivery_tag)
    expect("get of nothing", channel.basic_get("pika")[0], None)
    channel.close()


def consume_with_prefetch(connection):
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare("pika", durable=True)
    for number in range(20):
        channel.basic_publish("", "pika", str(number).encode())
    channel.basic_qos(prefetch_count=5)
    seen = []
    for method, _, body in channel.consume("pika", inactivity_timeout=30):
        seen.append((int(body), method.redelivered))
        if len(seen) == 1:
            channel.basic_nack(method.delivery_tag, requeue=True)
        elif int(body) == 1:
            channel.basic_reject(method.delivery_tag, requeue=False)
        else:
            channel.basic_ack(method.delivery_tag)
        if len(seen) == 21:
            break
    channel.cancel()
    expect("each delivered", sorted(number for number, _ in seen),
           sorted(list(range(20)) + [0]))
    expect("redelivered", [number for number, again in seen if again], [0])
    expect("empty", channel.queue_declare("pika", durable=True).method.message_count, 0)
    channel.close()


def server_named_and_exclusive(connection):
    channel = connection.channel()
    name = channel.queue_declare("", exclusive=True).method.queue
    assert name.startswith("amq.gen-"), name
    channel.exchange_declare("fan", "fanout", auto_delete=True)
    channel.queue_bind(name, "fan")
    channel.basic_publish("fan", "", b"all")
    body = None
    while body is None:
        body = channel.basic_get(name, auto_ack=True)[2]
    expect("fanout", body, b"all")
    other = connect()
    refused("exclusive", other, 405, lambda ch: ch.queue_declare(name, passive=True))
    other.close()
    channel.close()


def errors(connection):
    refused("missing queue", connection, 404, lambda ch: ch.queue_declare("none", passive=True))
    refused("missing exchange", connection, 404,
            lambda ch: ch.exchange_declare("none", passive=True))
    refused("other arguments", connection, 406, lambda ch: ch.queue_declare("pika"))
    refused("reserved name", connection, 403, lambda ch: ch.exchange_declare("amq.x"))
    refused("unknown argument", connection, 406, lambda ch: ch.queue_declare(
        "q2", arguments={"x-message-ttl": "not a number"}))
    channel = connection.channel()
    expect("deleted", channel.queue_delete("pika").method.NAME, "Queue.DeleteOk")
    channel.exchange_delete("events")
    channel.close()


def main():
    connection = connect()
    publish_and_consume(connection)
    consume_with_prefetch(connection)
    server_named_and_exclusive(connection)
    errors(connection)
    connection.close()
    try:
        pika.BlockingConnection(pika.ConnectionParameters(
            "127.0.0.1", int(os.environ["AMQP_PORT"]), "/",
            pika.PlainCredentials("guest", "wrong")))
        raise AssertionError("a wrong password logs in")
    except pika.exceptions.ProbableAuthenticationError:
        print("ok wrong password")
    print("done")


main()
