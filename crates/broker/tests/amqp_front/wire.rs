//! What the broker answers to bytes that no client library sends. Whatever one connection does,
//! another goes on: each test ends by asking it.

use super::peer::{self, HEADER, Peer, declare, frame, header, method, publish_method};
use super::server::Server;
use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::{AMQPClass, basic, channel, connection, queue, tx};

/// A connection that must not be harmed by others.
struct Bystander(Peer);

impl Bystander {
    async fn of(server: &Server) -> Self {
        let mut peer = Peer::with_channel(server.address).await;
        peer.queue(1, declare("bystander")).await;
        peer.next().await.expect("queue.declare-ok");
        peer.confirm_select(1).await;
        Self(peer)
    }

    /// A publish on it is confirmed still.
    async fn serves_still(mut self) {
        self.0.publish(1, "bystander", b"well").await;
        let ack = basic::AMQPMethod::Ack(basic::Ack {
            delivery_tag: 1,
            multiple: false,
        });
        let answer = self.0.next().await;
        assert_eq!(answer, Some(AMQPFrame::Method(1, AMQPClass::Basic(ack))));
    }
}

#[tokio::test]
async fn another_protocol_is_told_ours_and_closed() {
    let server = Server::start().await;
    let bystander = Bystander::of(&server).await;
    for greeting in [
        &b"GET / HT"[..],
        b"AMQP\0\x01\0\0",
        b"AMQP\x01\x01\0\x09",
        &[0; 8],
    ] {
        let mut peer = Peer::connect(server.address).await;
        peer.send(greeting).await;
        let mut answer = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut peer.stream, &mut answer)
            .await
            .expect("readable");
        assert_eq!(answer, HEADER);
    }
    bystander.serves_still().await;
}

#[tokio::test]
async fn a_handshake_byte_by_byte_succeeds() {
    let server = Server::start().await;
    let mut peer = Peer::connect(server.address).await;
    let mut bytes = HEADER.to_vec();
    for said in [
        peer::start_ok("guest"),
        peer::tune_ok(0, 0),
        peer::open("/"),
    ] {
        bytes.extend(method(0, AMQPClass::Connection(said)));
    }
    peer.stream.set_nodelay(true).expect("a socket");
    for byte in bytes {
        peer.send(&[byte]).await;
    }
    for _ in ["start", "tune"] {
        peer.next().await.expect("a frame");
    }
    let expected = connection::AMQPMethod::OpenOk(connection::OpenOk {});
    assert_eq!(
        peer.next().await,
        Some(AMQPFrame::Method(0, AMQPClass::Connection(expected)))
    );
}

#[tokio::test]
async fn logins_vhosts_and_limits_that_are_not_allowed_are_refused_by_code() {
    let server = Server::start().await;
    let bystander = Bystander::of(&server).await;
    let refused = async |said: Vec<connection::AMQPMethod>| {
        let mut peer = Peer::connect(server.address).await;
        peer.send(HEADER).await;
        peer.next().await.expect("connection.start");
        let (last, before) = said.split_last().expect("something said");
        for method in before {
            peer.connection(method.clone()).await;
            if let connection::AMQPMethod::StartOk(_) = method {
                peer.next().await.expect("connection.tune");
            }
        }
        peer.connection(last.clone()).await;
        let close = peer.expect_close().await;
        (
            close.reply_code,
            close.reply_text.to_string(),
            (close.class_id, close.method_id),
        )
    };
    let login = refused(vec![peer::start_ok("wrong")]).await;
    assert_eq!((login.0, login.2), (403, (0, 0)));
    assert!(
        login.1.starts_with("ACCESS_REFUSED - Login was refused"),
        "{}",
        login.1
    );

    let good = || peer::start_ok("guest");
    let vhost = refused(vec![good(), peer::tune_ok(0, 0), peer::open("other")]).await;
    assert_eq!(
        vhost,
        (
            530,
            "NOT_ALLOWED - vhost other not found".to_owned(),
            (10, 40)
        )
    );

    let frame_max = refused(vec![good(), peer::tune_ok(0, 1 << 30)]).await;
    assert_eq!((frame_max.0, frame_max.2), (530, (10, 31)));
    let channel_max = refused(vec![good(), peer::tune_ok(3000, 0)]).await;
    assert_eq!((channel_max.0, channel_max.2), (530, (10, 31)));
    let order = refused(vec![good(), peer::open("/")]).await;
    assert_eq!(order.0, 504);
    bystander.serves_still().await;
}

#[tokio::test]
async fn a_login_refused_to_a_client_that_expects_no_close_ends_without_one() {
    let server = Server::start().await;
    let mut peer = Peer::connect(server.address).await;
    peer.send(HEADER).await;
    peer.next().await.expect("connection.start");
    let connection::AMQPMethod::StartOk(mut start_ok) = peer::start_ok("wrong") else {
        unreachable!("made as start-ok");
    };
    start_ok.client_properties = Default::default();
    peer.connection(connection::AMQPMethod::StartOk(start_ok))
        .await;
    assert_eq!(peer.next().await, None);
}

#[tokio::test]
async fn frames_that_are_not_amqp_close_their_connection_alone() {
    let server = Server::start().await;
    let bystander = Bystander::of(&server).await;
    let code = async |bytes: &[u8]| {
        let mut peer = Peer::with_channel(server.address).await;
        peer.send(bytes).await;
        peer.expect_close().await.reply_code
    };
    let publish = || method(1, publish_method("", "bystander", false));
    let mut wrong_end = frame(1, 1, &[0, 20, 0, 10, 0]);
    *wrong_end.last_mut().expect("a frame") = 0;
    // Malformed or oversized: 501.
    assert_eq!(code(&frame(9, 1, b"x")).await, 501);
    assert_eq!(code(b"GET / HTTP/1.1\r\n\r\n").await, 501);
    assert_eq!(code(&wrong_end).await, 501);
    assert_eq!(code(&[3, 0, 1, 0x7f, 0xff, 0xff, 0xff]).await, 501);
    assert_eq!(code(&frame(3, 1, &vec![0; 131_072])).await, 501);
    assert_eq!(code(&frame(1, 1, &[0, 60])).await, 501);
    assert_eq!(
        code(&frame(1, 1, &[0, 60, 0, 40, 0, 0, 200, b'x'])).await,
        501
    );
    assert_eq!(
        code(&frame(1, 1, &[0, 50, 0, 10, 0, 0, 1, 0xff, 0, 0, 0, 0, 0])).await,
        501
    );
    assert_eq!(
        code(&[publish(), header(1, 2), frame(3, 1, b"abc")].concat()).await,
        501
    );
    assert_eq!(
        code(&[publish(), frame(2, 1, b"short")].concat()).await,
        501
    );
    // Unknown, or not for the broker: 503.
    assert_eq!(code(&frame(1, 1, &[0, 99, 0, 10])).await, 503);
    assert_eq!(code(&frame(1, 1, &[0, 60, 0, 60])).await, 503);
    // Out of place: 504, 505.
    assert_eq!(
        code(&frame(1, 0, &[0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 1, 0])).await,
        504
    );
    assert_eq!(code(&frame(1, 2, &[0, 85, 0, 10, 0])).await, 504);
    assert_eq!(code(&frame(1, 1, &[0, 20, 0, 10, 0])).await, 504);
    assert_eq!(code(&header(1, 1)).await, 505);
    assert_eq!(code(&header(2, 1)).await, 505);
    assert_eq!(code(&header(0, 1)).await, 505);
    assert_eq!(code(&frame(8, 1, b"")).await, 505);
    assert_eq!(code(&[publish(), publish()].concat()).await, 505);
    assert_eq!(
        code(&[publish(), header(1, 2), header(1, 2)].concat()).await,
        505
    );
    // More than was negotiated: 530.
    assert_eq!(code(&frame(1, 2048, &[0, 20, 0, 10, 0])).await, 530);
    bystander.serves_still().await;
}

#[tokio::test]
async fn what_is_not_served_is_refused_by_name() {
    let server = Server::start().await;
    let bystander = Bystander::of(&server).await;
    let close = async |class: AMQPClass| {
        let mut peer = Peer::with_channel(server.address).await;
        peer.method(1, class).await;
        let close = peer.expect_close().await;
        (
            close.reply_code,
            close.reply_text.to_string(),
            (close.class_id, close.method_id),
        )
    };
    let (code, text, method) = close(AMQPClass::Tx(tx::AMQPMethod::Select(tx::Select {}))).await;
    assert_eq!((code, method), (540, (90, 10)), "{text}");
    let (code, text, method) = close(AMQPClass::Basic(basic::AMQPMethod::Publish(
        basic::Publish {
            immediate: true,
            ..basic::Publish::default()
        },
    )))
    .await;
    assert_eq!((code, method), (540, (60, 40)));
    assert_eq!(text, "NOT_IMPLEMENTED - immediate=true");
    let flow = channel::AMQPMethod::Flow(channel::Flow { active: false });
    let (code, text, method) = close(AMQPClass::Channel(flow)).await;
    assert_eq!((code, method), (540, (20, 20)));
    assert_eq!(text, "NOT_IMPLEMENTED - active=false");
    let qos = basic::AMQPMethod::Qos(basic::Qos {
        prefetch_count: 1,
        global: true,
    });
    assert_eq!(close(AMQPClass::Basic(qos)).await.0, 540);
    let recover = basic::AMQPMethod::Recover(basic::Recover { requeue: true });
    assert_eq!(close(AMQPClass::Basic(recover)).await.0, 540);
    bystander.serves_still().await;
}

#[tokio::test]
async fn a_soft_error_closes_its_channel_and_the_number_can_be_used_again() {
    let server = Server::start().await;
    let mut peer = Peer::with_channel(server.address).await;
    peer.open_channel(2).await;

    let passive = |name: &str| {
        queue::AMQPMethod::Declare(queue::Declare {
            queue: name.into(),
            passive: true,
            ..queue::Declare::default()
        })
    };
    peer.queue(1, passive("missing")).await;
    let close = peer.expect_channel_close(1).await;
    assert_eq!(
        (close.reply_code, close.class_id, close.method_id),
        (404, 50, 10)
    );
    assert_eq!(
        close.reply_text.as_str(),
        "NOT_FOUND - no queue 'missing' in vhost '/'"
    );

    peer.open_channel(1).await;
    peer.send(&peer::publish(1, "missing", "k", false, b"x"))
        .await;
    // What follows on the channel before the close is answered is passed over.
    peer.send(&peer::publish(1, "missing", "k", false, b"y"))
        .await;
    let close = peer.expect_channel_close(1).await;
    assert_eq!(
        (close.reply_code, close.class_id, close.method_id),
        (404, 60, 40)
    );
    assert_eq!(
        close.reply_text.as_str(),
        "NOT_FOUND - no exchange 'missing' in vhost '/'"
    );

    peer.open_channel(1).await;
    let ack = basic::AMQPMethod::Ack(basic::Ack {
        delivery_tag: 99,
        multiple: false,
    });
    peer.basic(1, ack).await;
    let close = peer.expect_channel_close(1).await;
    assert_eq!(
        (close.reply_code, close.class_id, close.method_id),
        (406, 60, 80)
    );
    assert_eq!(
        close.reply_text.as_str(),
        "PRECONDITION_FAILED - unknown delivery tag 99"
    );

    peer.open_channel(1).await;
    // The other channel never noticed.
    peer.queue(2, declare("there")).await;
    assert!(matches!(
        peer.next().await,
        Some(AMQPFrame::Method(
            2,
            AMQPClass::Queue(queue::AMQPMethod::DeclareOk(_))
        ))
    ));
}

#[tokio::test]
async fn a_message_over_the_bound_is_refused_before_its_body_is_held() {
    let server = Server::start_with(|_, amqp| amqp.message_bytes_max = 1000).await;
    let mut peer = Peer::with_channel(server.address).await;
    peer.send(&method(1, publish_method("", "q", false))).await;
    peer.send(&header(1, 1001)).await;
    let close = peer.expect_channel_close(1).await;
    assert_eq!(
        (close.reply_code, close.class_id, close.method_id),
        (406, 60, 40)
    );
    assert!(
        close
            .reply_text
            .as_str()
            .contains("larger than configured max size 1000")
    );
}

#[tokio::test]
async fn bytes_of_messages_that_never_end_are_bounded() {
    let server = Server::start_with(|_, amqp| amqp.unfinished_bytes_max = 100_000).await;
    let bystander = Bystander::of(&server).await;
    let mut peer = Peer::open(server.address).await;
    for number in 1..=3 {
        peer.open_channel(number).await;
        peer.send(&method(number, publish_method("", "q", false)))
            .await;
        peer.send(&header(number, 1_000_000)).await;
        peer.send(&frame(3, number, &[0; 40_000])).await;
    }
    assert_eq!(peer.expect_close().await.reply_code, 506);
    bystander.serves_still().await;
}

#[tokio::test]
async fn what_comes_before_a_close_in_one_packet_counts() {
    let server = Server::start().await;
    let mut peer = Peer::with_channel(server.address).await;
    peer.queue(1, declare("q")).await;
    peer.next().await.expect("queue.declare-ok");
    let mut packet = peer::publish(1, "", "q", false, b"last words");
    let close = connection::AMQPMethod::Close(connection::Close {
        reply_code: 200,
        reply_text: "".into(),
        class_id: 0,
        method_id: 0,
    });
    packet.extend(method(0, AMQPClass::Connection(close)));
    peer.send(&packet).await;
    peer.next().await.expect("connection.close-ok");
    let mut other = Peer::with_channel(server.address).await;
    other.queue(1, declare("q")).await;
    let Some(AMQPFrame::Method(1, AMQPClass::Queue(queue::AMQPMethod::DeclareOk(ok)))) =
        other.next().await
    else {
        panic!("no queue.declare-ok");
    };
    assert_eq!(ok.message_count, 1);
}

#[tokio::test]
async fn a_consumer_tag_is_used_once_per_channel() {
    let server = Server::start().await;
    let mut peer = Peer::with_channel(server.address).await;
    peer.queue(1, declare("q")).await;
    peer.next().await.expect("queue.declare-ok");
    let consume = basic::AMQPMethod::Consume(basic::Consume {
        queue: "q".into(),
        consumer_tag: "c".into(),
        ..basic::Consume::default()
    });
    peer.basic(1, consume.clone()).await;
    peer.next().await.expect("basic.consume-ok");
    peer.basic(1, consume).await;
    let close = peer.expect_close().await;
    assert_eq!(
        (close.reply_code, close.class_id, close.method_id),
        (530, 60, 20)
    );
    assert_eq!(
        close.reply_text.as_str(),
        "NOT_ALLOWED - attempt to reuse consumer tag 'c'"
    );
}

#[tokio::test]
async fn an_empty_queue_name_is_that_of_the_queue_declared_last() {
    let server = Server::start().await;
    let mut peer = Peer::with_channel(server.address).await;
    let bind = queue::AMQPMethod::Bind(queue::Bind {
        exchange: "amq.direct".into(),
        ..queue::Bind::default()
    });
    peer.queue(1, bind.clone()).await;
    let close = peer.expect_channel_close(1).await;
    assert_eq!(
        close.reply_text.as_str(),
        "NOT_FOUND - no previously declared queue"
    );

    peer.open_channel(1).await;
    peer.queue(1, declare("last")).await;
    peer.next().await.expect("queue.declare-ok");
    peer.queue(1, bind).await;
    let bound = queue::AMQPMethod::BindOk(queue::BindOk {});
    assert_eq!(
        peer.next().await,
        Some(AMQPFrame::Method(1, AMQPClass::Queue(bound)))
    );
    // Bound with its own name as the key.
    peer.confirm_select(1).await;
    peer.send(&peer::publish(1, "amq.direct", "last", true, b"x"))
        .await;
    let ack = basic::AMQPMethod::Ack(basic::Ack {
        delivery_tag: 1,
        multiple: false,
    });
    assert_eq!(
        peer.next().await,
        Some(AMQPFrame::Method(1, AMQPClass::Basic(ack)))
    );
}

#[tokio::test]
async fn nowait_is_not_answered() {
    let server = Server::start().await;
    let mut peer = Peer::with_channel(server.address).await;
    let nowait = queue::AMQPMethod::Declare(queue::Declare {
        queue: "quiet".into(),
        nowait: true,
        ..queue::Declare::default()
    });
    peer.queue(1, nowait).await;
    let consume = basic::AMQPMethod::Consume(basic::Consume {
        queue: "quiet".into(),
        consumer_tag: "c".into(),
        no_ack: true,
        nowait: true,
        ..basic::Consume::default()
    });
    peer.basic(1, consume).await;
    peer.publish(1, "quiet", b"heard").await;
    assert!(matches!(
        peer.next().await,
        Some(AMQPFrame::Method(
            1,
            AMQPClass::Basic(basic::AMQPMethod::Deliver(_))
        ))
    ));
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_at_once() {
    let server = Server::start_with(|_, amqp| amqp.connections_max = 1).await;
    let first = Bystander::of(&server).await;
    let mut second = Peer::connect(server.address).await;
    assert_eq!(second.next().await, None);
    first.serves_still().await;
}

#[tokio::test]
async fn a_shutdown_is_told_to_every_connection() {
    let server = Server::start().await;
    let mut peers = [
        Peer::with_channel(server.address).await,
        Peer::open(server.address).await,
    ];
    let stopped = tokio::spawn(server.stop());
    for peer in &mut peers {
        let close = peer.expect_close().await;
        assert_eq!(close.reply_code, 320);
        assert!(close.reply_text.as_str().starts_with("CONNECTION_FORCED"));
    }
    stopped.await.expect("stops");
}

#[tokio::test]
async fn the_client_closes_channel_and_connection_in_its_own_words() {
    let server = Server::start().await;
    let mut peer = Peer::with_channel(server.address).await;
    peer.confirm_select(1).await;
    peer.publish(1, "nowhere", b"x").await;
    peer.channel(1, channel::AMQPMethod::Close(channel::Close::default()))
        .await;
    let mut frames = Vec::new();
    while !matches!(
        frames.last(),
        Some(AMQPFrame::Method(1, AMQPClass::Channel(_)))
    ) {
        frames.push(peer.next().await.expect("channel.close-ok"));
    }
    let ok = channel::AMQPMethod::CloseOk(channel::CloseOk {});
    assert_eq!(
        frames.last(),
        Some(&AMQPFrame::Method(1, AMQPClass::Channel(ok)))
    );
    peer.connection(connection::AMQPMethod::Close(connection::Close::default()))
        .await;
    let ok = connection::AMQPMethod::CloseOk(connection::CloseOk {});
    assert_eq!(
        peer.next().await,
        Some(AMQPFrame::Method(0, AMQPClass::Connection(ok)))
    );
    assert_eq!(peer.next().await, None);
}
