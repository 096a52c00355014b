//! lapin, the Rust client of RabbitMQ, against the front.

use super::server::Server;
use futures::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions,
    BasicPublishOptions, BasicQosOptions, BasicRejectOptions, ConfirmSelectOptions,
    ExchangeBindOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, ExchangeUnbindOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer,
    ExchangeKind,
};

pub(crate) async fn connect(server: &Server) -> Connection {
    Connection::connect(&server.uri(), ConnectionProperties::default())
        .await
        .expect("connects")
}

pub(crate) async fn channel_with_confirms(connection: &Connection) -> Channel {
    let channel = connection.create_channel().await.expect("opens");
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .expect("confirms");
    channel
}

pub(crate) async fn declare(channel: &Channel, name: &str) -> lapin::Queue {
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(name.into(), options, FieldTable::default())
        .await
        .expect("declares")
}

async fn publish(channel: &Channel, exchange: &str, key: &str, body: &[u8]) -> Confirmation {
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_message_id("id-1".into());
    channel
        .basic_publish(exchange.into(), key.into(), options, body, properties)
        .await
        .expect("sends")
        .await
        .expect("an answer")
}

async fn consume(channel: &Channel, queue: &str) -> Consumer {
    channel
        .basic_consume(
            queue.into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await
        .expect("consumes")
}

fn code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

#[tokio::test]
async fn publishes_are_confirmed_returned_and_delivered_as_they_were() {
    let server = Server::start().await;
    let connection = connect(&server).await;
    let channel = channel_with_confirms(&connection).await;
    let durable = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    channel
        .exchange_declare(
            "events".into(),
            ExchangeKind::Topic,
            durable,
            FieldTable::default(),
        )
        .await
        .expect("declares");
    declare(&channel, "q").await;
    channel
        .queue_bind(
            "q".into(),
            "events".into(),
            "vcs.#".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .expect("binds");

    let unroutable = publish(&channel, "events", "other", b"lost?").await;
    assert!(unroutable.is_ack());
    let returned = unroutable.take_message().expect("returned");
    assert_eq!(
        (returned.reply_code, returned.reply_text.as_str()),
        (312, "NO_ROUTE")
    );
    assert_eq!(returned.delivery.data, b"lost?");

    let body: Vec<u8> = (0..500_000_u32).map(|i| (i % 251) as u8).collect();
    for size in [0, 1, 300, 131_064, 131_065, 500_000] {
        let confirmation = publish(&channel, "events", "vcs.v1.TagCreated", &body[..size]).await;
        assert_eq!(confirmation, Confirmation::Ack(None));
    }
    let mut consumer = consume(&channel, "q").await;
    for size in [0, 1, 300, 131_064, 131_065, 500_000] {
        let delivery = consumer.next().await.expect("open").expect("a delivery");
        assert!(delivery.data == body[..size], "a body of {size}");
        assert_eq!(delivery.exchange.as_str(), "events");
        assert_eq!(delivery.routing_key.as_str(), "vcs.v1.TagCreated");
        assert!(!delivery.redelivered);
        let id = delivery.properties.message_id().as_ref();
        assert_eq!(id.map(|id| id.as_str()), Some("id-1"));
        assert_eq!(*delivery.properties.delivery_mode(), Some(2));
        delivery
            .ack(BasicAckOptions::default())
            .await
            .expect("acks");
    }
    connection.close(200, "bye".into()).await.expect("closes");
    server.stop().await;
}

#[tokio::test]
async fn a_window_of_publishes_is_confirmed_each_once() {
    let server = Server::start().await;
    let connection = connect(&server).await;
    let channel = channel_with_confirms(&connection).await;
    declare(&channel, "q").await;
    let mut waiting = Vec::new();
    for number in 0..5000_u32 {
        let confirm = channel
            .basic_publish(
                "".into(),
                "q".into(),
                BasicPublishOptions::default(),
                &number.to_be_bytes(),
                BasicProperties::default().with_delivery_mode(2),
            )
            .await
            .expect("sends");
        waiting.push(confirm);
    }
    for confirm in waiting {
        assert_eq!(confirm.await.expect("an answer"), Confirmation::Ack(None));
    }
    let mut consumer = consume(&channel, "q").await;
    for number in 0..5000_u32 {
        let delivery = consumer.next().await.expect("open").expect("a delivery");
        assert_eq!(delivery.data, number.to_be_bytes());
        if number % 100 == 99 {
            delivery
                .ack(BasicAckOptions { multiple: true })
                .await
                .expect("acks");
        }
    }
    let left = declare(&channel, "q").await;
    assert_eq!(left.message_count(), 0);
}

#[tokio::test]
async fn prefetch_bounds_what_is_unsettled_and_requeued_deliveries_say_so() {
    let server = Server::start().await;
    let connection = connect(&server).await;
    let channel = channel_with_confirms(&connection).await;
    declare(&channel, "q").await;
    for number in 0..10_u8 {
        publish(&channel, "", "q", &[number]).await;
    }
    channel
        .basic_qos(3, BasicQosOptions::default())
        .await
        .expect("qos");
    let mut consumer = consume(&channel, "q").await;
    let mut held = Vec::new();
    for number in 0..3_u8 {
        let delivery = consumer.next().await.expect("open").expect("a delivery");
        assert_eq!(
            (delivery.data.as_slice(), delivery.redelivered),
            (&[number][..], false)
        );
        held.push(delivery);
    }
    // Three are out: the queue keeps the rest, and says so.
    let other = connection.create_channel().await.expect("opens");
    assert_eq!(declare(&other, "q").await.message_count(), 7);

    let mut held = held.into_iter();
    let (first, second, third) = (held.next(), held.next(), held.next());
    let nack = BasicNackOptions {
        requeue: true,
        ..BasicNackOptions::default()
    };
    first.expect("held").nack(nack).await.expect("nacks");
    let again = consumer.next().await.expect("open").expect("a delivery");
    assert_eq!((again.data.as_slice(), again.redelivered), (&[0][..], true));
    let reject = BasicRejectOptions { requeue: false };
    second.expect("held").reject(reject).await.expect("rejects");
    let fourth = consumer.next().await.expect("open").expect("a delivery");
    assert_eq!(
        (fourth.data.as_slice(), fourth.redelivered),
        (&[3][..], false)
    );
    third
        .expect("held")
        .ack(BasicAckOptions::default())
        .await
        .expect("acks");

    // Closing the channel gives back what it holds.
    channel.close(200, "bye".into()).await.expect("closes");
    let queue = declare(&other, "q").await;
    assert_eq!((queue.message_count(), queue.consumer_count()), (8, 0));
    let mut consumer = consume(&other, "q").await;
    let back = consumer.next().await.expect("open").expect("a delivery");
    assert_eq!((back.data.as_slice(), back.redelivered), (&[0][..], true));
}

#[tokio::test]
async fn errors_carry_rabbitmqs_codes_and_spare_the_connection() {
    let server = Server::start().await;
    let connection = connect(&server).await;

    let channel = connection.create_channel().await.expect("opens");
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let missing = channel
        .queue_declare("missing".into(), passive, FieldTable::default())
        .await;
    assert_eq!(code(&missing.expect_err("refused")), Some(404));

    let channel = connection.create_channel().await.expect("opens");
    declare(&channel, "q").await;
    let found = channel
        .queue_declare("q".into(), passive, FieldTable::default())
        .await;
    assert_eq!(found.expect("there").name().as_str(), "q");
    let other = channel
        .queue_declare(
            "q".into(),
            QueueDeclareOptions::default(),
            FieldTable::default(),
        )
        .await;
    assert_eq!(code(&other.expect_err("refused")), Some(406));

    let channel = connection.create_channel().await.expect("opens");
    let durable = ExchangeDeclareOptions::default();
    channel
        .exchange_declare(
            "x".into(),
            ExchangeKind::Direct,
            durable,
            FieldTable::default(),
        )
        .await
        .expect("declares");
    let other = channel
        .exchange_declare(
            "x".into(),
            ExchangeKind::Fanout,
            durable,
            FieldTable::default(),
        )
        .await;
    assert_eq!(code(&other.expect_err("refused")), Some(406));

    let channel = connection.create_channel().await.expect("opens");
    let reserved = channel
        .exchange_declare(
            "amq.mine".into(),
            ExchangeKind::Direct,
            durable,
            FieldTable::default(),
        )
        .await;
    assert_eq!(code(&reserved.expect_err("refused")), Some(403));

    let exclusive = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let channel = connection.create_channel().await.expect("opens");
    channel
        .queue_declare("mine".into(), exclusive, FieldTable::default())
        .await
        .expect("declares");
    let stranger = connect(&server).await;
    let theirs = stranger.create_channel().await.expect("opens");
    let locked = theirs
        .queue_declare("mine".into(), exclusive, FieldTable::default())
        .await;
    assert_eq!(code(&locked.expect_err("refused")), Some(405));

    let channel = connection.create_channel().await.expect("opens");
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare("quorum".into(), durable, arguments)
        .await
        .expect("accepted");
    assert!(connection.status().connected());
}

#[tokio::test]
async fn topology_is_made_and_unmade() {
    let server = Server::start().await;
    let connection = connect(&server).await;
    let channel = channel_with_confirms(&connection).await;
    for name in ["from", "to"] {
        channel
            .exchange_declare(
                name.into(),
                ExchangeKind::Topic,
                ExchangeDeclareOptions::default(),
                FieldTable::default(),
            )
            .await
            .expect("declares");
    }
    let named = channel
        .queue_declare(
            "".into(),
            QueueDeclareOptions::default(),
            FieldTable::default(),
        )
        .await
        .expect("declares");
    let name = named.name().clone();
    assert!(name.as_str().starts_with("amq.gen-"), "{name}");
    channel
        .exchange_bind(
            "to".into(),
            "from".into(),
            "a.*".into(),
            ExchangeBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .expect("binds");
    channel
        .queue_bind(
            name.clone(),
            "to".into(),
            "#".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .expect("binds");
    assert_eq!(
        publish(&channel, "from", "a.b", b"1").await,
        Confirmation::Ack(None)
    );
    let got = channel
        .basic_get(name.clone(), BasicGetOptions { no_ack: true })
        .await
        .expect("gets")
        .expect("a message");
    assert_eq!(
        (got.delivery.data.as_slice(), got.message_count),
        (&b"1"[..], 0)
    );
    let none = channel
        .basic_get(name.clone(), BasicGetOptions::default())
        .await;
    assert!(none.expect("gets").is_none());

    channel
        .exchange_unbind(
            "to".into(),
            "from".into(),
            "a.*".into(),
            ExchangeUnbindOptions::default(),
            FieldTable::default(),
        )
        .await
        .expect("unbinds");
    assert!(
        publish(&channel, "from", "a.b", b"2")
            .await
            .take_message()
            .is_some()
    );
    publish(&channel, "to", "a.b", b"3").await;
    let purged = channel
        .queue_purge(name.clone(), QueuePurgeOptions::default())
        .await;
    assert_eq!(purged.expect("purges"), 1);
    channel
        .queue_unbind(name.clone(), "to".into(), "#".into(), FieldTable::default())
        .await
        .expect("unbinds");
    publish(&channel, "", name.as_str(), b"4").await;
    let deleted = channel
        .queue_delete(name, QueueDeleteOptions::default())
        .await;
    assert_eq!(deleted.expect("deletes"), 1);
    for name in ["from", "to"] {
        channel
            .exchange_delete(name.into(), ExchangeDeleteOptions::default())
            .await
            .expect("deletes");
    }
}

#[tokio::test]
async fn a_consumer_ends_when_it_is_cancelled_or_its_queue_is_deleted() {
    let server = Server::start().await;
    let connection = connect(&server).await;
    let channel = channel_with_confirms(&connection).await;
    declare(&channel, "q").await;
    let mut first = consume(&channel, "q").await;
    let tag = first.tag();
    channel
        .basic_cancel(tag, BasicCancelOptions::default())
        .await
        .expect("cancels");
    assert!(first.next().await.is_none());

    let mut second = consume(&channel, "q").await;
    let other = connection.create_channel().await.expect("opens");
    other
        .queue_delete("q".into(), QueueDeleteOptions::default())
        .await
        .expect("deletes");
    assert!(second.next().await.is_none());
    assert!(channel.status().connected());
}

#[tokio::test]
async fn many_connections_publish_and_consume_side_by_side() {
    let server = Server::start().await;
    let setup = connect(&server).await;
    let channel = setup.create_channel().await.expect("opens");
    declare(&channel, "q").await;
    let mut publishers = Vec::new();
    for _ in 0..4 {
        let connection = connect(&server).await;
        publishers.push(tokio::spawn(async move {
            let channel = channel_with_confirms(&connection).await;
            for number in 0..200_u32 {
                let confirmation = publish(&channel, "", "q", &number.to_be_bytes()).await;
                assert_eq!(confirmation, Confirmation::Ack(None));
            }
        }));
    }
    let mut consumer = consume(&channel, "q").await;
    let mut sum = 0;
    for _ in 0..800 {
        let delivery = consumer.next().await.expect("open").expect("a delivery");
        sum += u32::from_be_bytes(delivery.data.as_slice().try_into().expect("four bytes"));
        delivery
            .ack(BasicAckOptions::default())
            .await
            .expect("acks");
    }
    assert_eq!(sum, 4 * (0..200).sum::<u32>());
    for publisher in publishers {
        publisher.await.expect("no panic");
    }
}
