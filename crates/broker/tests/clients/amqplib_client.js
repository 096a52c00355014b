// Steps that an amqplib user expects to work, against AMQP_PORT on this machine.
// Prints "done" last; any other end is a failure. Needs CANONICAL_HEX, an event in canonical form.

"use strict";
const assert = require("assert");
const amqp = require("amqplib");

const url = `amqp://guest:guest@127.0.0.1:${process.env.AMQP_PORT}/?heartbeat=5`;
const canonical = Buffer.from(process.env.CANONICAL_HEX, "hex");
const structured = Buffer.from(JSON.stringify({
  specversion: "1.0", id: "j-1", source: "/vcs", type: "vcs.v1.TagCreated",
  time: "2026-01-01T00:00:00Z", datacontenttype: "application/json", data: { tag: "v1" },
}));
const events = [
  [canonical, { contentType: "application/cloudevents+protobuf", messageId: "id-1",
    type: "vcs.v1.TagCreated", appId: "vcs", persistent: true }],
  [structured, { contentType: "application/cloudevents+json", persistent: true }],
  [Buffer.from('{"tag":"v1"}'), { contentType: "application/json", persistent: true, headers: {
    cloudEvents_specversion: "1.0", cloudEvents_id: "b-1", cloudEvents_source: "/vcs",
    cloudEvents_type: "vcs.v1.TagCreated", cloudEvents_time: "2026-01-01T00:00:00Z",
    number: 7, flag: true, nested: { list: [1, "two"] } } }],
];

// Deliveries of a consumer, one at a time.
function deliveries() {
  const ready = [];
  const waiting = [];
  return {
    push(message) {
      const wake = waiting.shift();
      if (wake) wake(message); else ready.push(message);
    },
    next() {
      return ready.length ? Promise.resolve(ready.shift())
        : new Promise((wake) => waiting.push(wake));
    },
  };
}

async function refused(name, connection, code, step) {
  const channel = await connection.createChannel();
  channel.on("error", () => {});
  await assert.rejects(step(channel), (error) => {
    assert.ok(error.message.includes(String(code)), `${name}: ${error.message}`);
    return true;
  });
  console.log("ok", name);
}

async function publishAndConsume(connection) {
  const channel = await connection.createConfirmChannel();
  const returned = deliveries();
  channel.on("return", (message) => returned.push(message));
  await channel.assertExchange("events", "topic", { durable: true });
  await channel.assertQueue("amqplib", { durable: true });
  await channel.bindQueue("amqplib", "events", "vcs.#");
  for (const [body, options] of events) {
    channel.publish("events", "vcs.v1.TagCreated", body, { ...options, mandatory: true });
  }
  channel.publish("events", "nowhere", Buffer.from("x"), { mandatory: true });
  await channel.waitForConfirms();
  assert.strictEqual((await returned.next()).fields.replyCode, 312);

  await channel.prefetch(2);
  const inbox = deliveries();
  const { consumerTag } = await channel.consume("amqplib", inbox.push);
  assert.ok(consumerTag.startsWith("amq.ctag-"), consumerTag);
  for (const [body, options] of events) {
    const message = await inbox.next();
    assert.ok(message.content.equals(body));
    assert.strictEqual(message.properties.contentType, options.contentType);
    assert.deepStrictEqual(message.properties.headers, options.headers || {});
    channel.ack(message);
  }
  channel.sendToQueue("amqplib", Buffer.from("again"));
  const first = await inbox.next();
  assert.strictEqual(first.fields.redelivered, false);
  channel.nack(first, false, true);
  const second = await inbox.next();
  assert.strictEqual(second.fields.redelivered, true);
  channel.reject(second, false);
  await channel.cancel(consumerTag);
  assert.strictEqual((await channel.checkQueue("amqplib")).messageCount, 0);

  // A burst: many confirms, few frames.
  for (let number = 0; number < 2000; number += 1) {
    channel.sendToQueue("amqplib", Buffer.from(String(number)), { persistent: true });
  }
  await channel.waitForConfirms();
  assert.strictEqual((await channel.checkQueue("amqplib")).messageCount, 2000);
  assert.strictEqual((await channel.purgeQueue("amqplib")).messageCount, 2000);
  await channel.close();
  console.log("ok publish and consume");
}

async function cancelRaces(connection) {
  const channel = await connection.createChannel();
  const { queue } = await channel.assertQueue("", { exclusive: true });
  for (let round = 0; round < 30; round += 1) {
    for (let number = 0; number < 50; number += 1) {
      channel.sendToQueue(queue, Buffer.alloc(100));
    }
    // A delivery before consume-ok or after cancel-ok would be an error of the client's.
    const { consumerTag } = await channel.consume(queue, () => {}, { noAck: true });
    await channel.cancel(consumerTag);
  }
  const ended = deliveries();
  await channel.consume(queue, (message) => { if (message === null) ended.push(true); });
  await channel.deleteQueue(queue);
  await ended.next();
  await channel.close();
  console.log("ok cancel");
}

async function errors(connection) {
  await refused("missing queue", connection, 404, (ch) => ch.checkQueue("none"));
  await refused("missing exchange", connection, 404, (ch) => ch.checkExchange("none"));
  await refused("other arguments", connection, 406,
    (ch) => ch.assertQueue("amqplib", { durable: false }));
  await refused("reserved name", connection, 403, (ch) => ch.assertExchange("amq.x", "direct"));
  const channel = await connection.createChannel();
  await channel.deleteQueue("amqplib");
  await channel.deleteExchange("events");
  await channel.close();
}

async function main() {
  const connection = await amqp.connect(url);
  await publishAndConsume(connection);
  await cancelRaces(connection);
  await errors(connection);
  await connection.close();
  await assert.rejects(amqp.connect(url.replace("guest@", "wrong@")), /403/);
  console.log("done");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
