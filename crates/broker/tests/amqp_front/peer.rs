//! A client that says exactly the bytes it is told to.

use amq_protocol::frame::{AMQPFrame, gen_frame, parse_frame};
use amq_protocol::protocol::{AMQPClass, basic, channel, confirm, connection, queue};
use amq_protocol::types::{AMQPValue, FieldTable};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) const HEADER: &[u8] = b"AMQP\0\0\x09\x01";

pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

impl Peer {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self {
            stream: TcpStream::connect(address).await.expect("connects"),
            buffer: Vec::new(),
        }
    }

    /// Up to connection.open-ok, without heartbeats.
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self::open_with(address, 131_072).await
    }

    pub(crate) async fn open_with(address: SocketAddr, frame_max: u32) -> Self {
        let mut peer = Self::connect(address).await;
        peer.send(HEADER).await;
        peer.next().await.expect("connection.start");
        peer.connection(start_ok("guest")).await;
        peer.next().await.expect("connection.tune");
        peer.connection(tune_ok(2047, frame_max)).await;
        peer.connection(open("/")).await;
        let opened = peer.next().await.expect("connection.open-ok");
        let expected = connection::AMQPMethod::OpenOk(connection::OpenOk {});
        assert_eq!(
            opened,
            AMQPFrame::Method(0, AMQPClass::Connection(expected))
        );
        peer
    }

    /// As `open`, with channel 1 open.
    pub(crate) async fn with_channel(address: SocketAddr) -> Self {
        let mut peer = Self::open(address).await;
        peer.open_channel(1).await;
        peer
    }

    pub(crate) async fn open_channel(&mut self, number: u16) {
        self.channel(number, channel::AMQPMethod::Open(channel::Open {}))
            .await;
        let expected = channel::AMQPMethod::OpenOk(channel::OpenOk {});
        assert_eq!(
            self.next().await,
            Some(AMQPFrame::Method(number, AMQPClass::Channel(expected)))
        );
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("writes");
    }

    pub(crate) async fn method(&mut self, channel: u16, class: AMQPClass) {
        self.send(&method(channel, class)).await;
    }

    pub(crate) async fn connection(&mut self, method: connection::AMQPMethod) {
        self.method(0, AMQPClass::Connection(method)).await;
    }

    pub(crate) async fn channel(&mut self, number: u16, method: channel::AMQPMethod) {
        self.method(number, AMQPClass::Channel(method)).await;
    }

    pub(crate) async fn basic(&mut self, number: u16, method: basic::AMQPMethod) {
        self.method(number, AMQPClass::Basic(method)).await;
    }

    pub(crate) async fn queue(&mut self, number: u16, method: queue::AMQPMethod) {
        self.method(number, AMQPClass::Queue(method)).await;
    }

    pub(crate) async fn confirm_select(&mut self, number: u16) {
        let select = confirm::AMQPMethod::Select(confirm::Select { nowait: false });
        self.method(number, AMQPClass::Confirm(select)).await;
        let expected = confirm::AMQPMethod::SelectOk(confirm::SelectOk {});
        assert_eq!(
            self.next().await,
            Some(AMQPFrame::Method(number, AMQPClass::Confirm(expected)))
        );
    }

    /// Publishes to a queue through the default exchange.
    pub(crate) async fn publish(&mut self, number: u16, routing_key: &str, body: &[u8]) {
        self.send(&publish(number, "", routing_key, false, body))
            .await;
    }

    /// The next frame; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<AMQPFrame> {
        loop {
            if let Ok((rest, frame)) = parse_frame(self.buffer.as_slice()) {
                let taken = self.buffer.len() - rest.len();
                self.buffer.drain(..taken);
                return Some(frame);
            }
            let read = self.stream.read_buf(&mut self.buffer).await.unwrap_or(0);
            if read == 0 {
                assert!(self.buffer.is_empty(), "ends within a frame");
                return None;
            }
        }
    }

    /// The next frame, which must be connection.close; answers it and waits for the end.
    #[track_caller]
    pub(crate) fn expect_close(&mut self) -> impl Future<Output = connection::Close> {
        let caller = std::panic::Location::caller();
        async move {
            let close = match self.next().await {
                Some(AMQPFrame::Method(
                    0,
                    AMQPClass::Connection(connection::AMQPMethod::Close(close)),
                )) => close,
                other => panic!("{caller}: not connection.close: {other:?}"),
            };
            // The broker may stop listening once the close is on its way.
            let ok = connection::AMQPMethod::CloseOk(connection::CloseOk {});
            let _ = self
                .stream
                .write_all(&method(0, AMQPClass::Connection(ok)))
                .await;
            assert_eq!(self.next().await, None, "{caller}: the connection ends");
            close
        }
    }

    /// The next frame, which must be channel.close; answers it.
    #[track_caller]
    pub(crate) fn expect_channel_close(
        &mut self,
        number: u16,
    ) -> impl Future<Output = channel::Close> {
        let caller = std::panic::Location::caller();
        async move {
            let close = match self.next().await {
                Some(AMQPFrame::Method(
                    at,
                    AMQPClass::Channel(channel::AMQPMethod::Close(close)),
                )) if at == number => close,
                other => panic!("{caller}: not channel.close: {other:?}"),
            };
            let ok = channel::AMQPMethod::CloseOk(channel::CloseOk {});
            self.channel(number, ok).await;
            close
        }
    }
}

pub(crate) fn start_ok(password: &str) -> connection::AMQPMethod {
    let mut capabilities = FieldTable::default();
    for name in [
        "authentication_failure_close",
        "connection.blocked",
        "consumer_cancel_notify",
    ] {
        capabilities.insert(name.into(), AMQPValue::Boolean(true));
    }
    let mut client_properties = FieldTable::default();
    client_properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
    connection::AMQPMethod::StartOk(connection::StartOk {
        client_properties,
        mechanism: "PLAIN".into(),
        response: format!("\0guest\0{password}").as_str().into(),
        locale: "en_US".into(),
    })
}

pub(crate) fn tune_ok(channel_max: u16, frame_max: u32) -> connection::AMQPMethod {
    connection::AMQPMethod::TuneOk(connection::TuneOk {
        channel_max,
        frame_max,
        heartbeat: 0,
    })
}

pub(crate) fn open(vhost: &str) -> connection::AMQPMethod {
    connection::AMQPMethod::Open(connection::Open {
        virtual_host: vhost.into(),
    })
}

pub(crate) fn method(channel: u16, class: AMQPClass) -> Vec<u8> {
    encode(&AMQPFrame::Method(channel, class))
}

pub(crate) fn encode(frame: &AMQPFrame) -> Vec<u8> {
    gen_frame(frame)(Vec::new().into())
        .expect("encodes")
        .into_inner()
        .0
}

pub(crate) fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend(channel.to_be_bytes());
    out.extend((payload.len() as u32).to_be_bytes());
    out.extend(payload);
    out.push(0xCE);
    out
}

pub(crate) fn publish_method(exchange: &str, routing_key: &str, mandatory: bool) -> AMQPClass {
    AMQPClass::Basic(basic::AMQPMethod::Publish(basic::Publish {
        exchange: exchange.into(),
        routing_key: routing_key.into(),
        mandatory,
        immediate: false,
    }))
}

/// A content header frame without properties.
pub(crate) fn header(channel: u16, size: u64) -> Vec<u8> {
    let mut payload = vec![0, 60, 0, 0];
    payload.extend(size.to_be_bytes());
    payload.extend([0, 0]);
    frame(2, channel, &payload)
}

/// basic.publish with its content, persistent not asked, the body in frames of 100,000 bytes.
pub(crate) fn publish(
    channel: u16,
    exchange: &str,
    routing_key: &str,
    mandatory: bool,
    body: &[u8],
) -> Vec<u8> {
    let mut out = method(channel, publish_method(exchange, routing_key, mandatory));
    out.extend(header(channel, body.len() as u64));
    for part in body.chunks(100_000) {
        out.extend(frame(3, channel, part));
    }
    out
}

pub(crate) fn declare(name: &str) -> queue::AMQPMethod {
    queue::AMQPMethod::Declare(queue::Declare {
        queue: name.into(),
        durable: true,
        ..queue::Declare::default()
    })
}
