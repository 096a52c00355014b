//! From the protocol header to connection.open-ok: who it is, and what both sides can do.

use super::codec::{Frames, HEARTBEAT, METHOD};
use super::config::AmqpConfig;
use super::fault::Fault;
use super::intake::Intake;
use super::method::{Method, decode};
use super::output::{encode, short};
use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::connection::{self, AMQPMethod};
use amq_protocol::types::{AMQPValue, FieldTable};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// The only protocol header taken, and the answer to any other.
pub(crate) const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\0\0\x09\x01";
/// Longest frame before the client has proved who it is.
const FRAME_MAX_BEFORE: usize = 16 << 10;
/// Least frame_max a client may ask for (AMQP 0-9-1, section 4.2.3 and RabbitMQ's reading of it).
const FRAME_MIN: u32 = 4096;

/// What both sides agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) user: String,
    pub(crate) channel_max: u16,
    pub(crate) frame_max: usize,
    pub(crate) heartbeat: Option<Duration>,
    /// The client wants to be told connection.blocked.
    pub(crate) tell_blocked: bool,
    /// The client wants to be told basic.cancel.
    pub(crate) tell_cancelled: bool,
}

/// How a handshake ends before a connection is open.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Nothing more to say.
    Gone,
    /// Say why, then close.
    Fault(Fault),
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Opens a connection.
pub(crate) async fn handshake<R, W>(
    intake: &mut Intake<R>,
    writer: &mut W,
    config: &AmqpConfig,
    from_loopback: bool,
) -> Result<Agreed, Ended>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let header = intake.take_exact().await?.ok_or(Ended::Gone)?;
    if header != PROTOCOL_HEADER {
        writer.write_all(&PROTOCOL_HEADER).await?;
        writer.flush().await?;
        return Err(Ended::Gone);
    }
    intake.set_frame_max(FRAME_MAX_BEFORE);
    send(writer, AMQPMethod::Start(start())).await?;
    let start_ok = match receive(intake).await? {
        AMQPMethod::StartOk(start_ok) => start_ok,
        other => return Err(out_of_order(&other, "starting")),
    };
    let user = log_in(&start_ok, config, from_loopback)?;
    send(writer, AMQPMethod::Tune(tune(config))).await?;
    let tune_ok = match receive(intake).await? {
        AMQPMethod::TuneOk(tune_ok) => tune_ok,
        other => return Err(out_of_order(&other, "tuning")),
    };
    let agreed = agree(config, user, &start_ok.client_properties, &tune_ok)?;
    intake.set_frame_max(agreed.frame_max);
    let open = match receive(intake).await? {
        AMQPMethod::Open(open) => open,
        other => return Err(out_of_order(&other, "opening")),
    };
    let vhost = open.virtual_host.as_str();
    if vhost != "/" {
        let fault = Fault::new(530, format_args!("vhost {vhost} not found")).on((10, 40));
        return Err(fault.into());
    }
    send(writer, AMQPMethod::OpenOk(connection::OpenOk {})).await?;
    Ok(agreed)
}

async fn send<W: AsyncWrite + Unpin>(writer: &mut W, method: AMQPMethod) -> io::Result<()> {
    writer
        .write_all(&encode(0, AMQPClass::Connection(method)))
        .await?;
    writer.flush().await
}

/// The next method of channel 0.
async fn receive<R: AsyncRead + Unpin>(intake: &mut Intake<R>) -> Result<AMQPMethod, Ended> {
    loop {
        while let Some(bytes) = intake.take_frame()? {
            let Some(frame) = Frames::new(&bytes).next() else {
                continue;
            };
            match (frame.kind, frame.channel) {
                (HEARTBEAT, 0) => continue,
                (METHOD, 0) => {}
                (kind, channel) => {
                    let detail =
                        format_args!("type {kind} (channel {channel}) before connection.open");
                    return Err(Fault::unexpected_frame(detail).into());
                }
            }
            return match decode(frame.payload)? {
                Method::Other(other) => match other.class {
                    AMQPClass::Connection(method) => Ok(method),
                    _ => Err(Fault::new(504, "unexpected method before connection.open")
                        .on(other.id)
                        .into()),
                },
                _ => Err(Fault::new(504, "unexpected method before connection.open").into()),
            };
        }
        if !intake.fill().await? {
            return Err(Ended::Gone);
        }
    }
}

fn out_of_order(method: &AMQPMethod, state: &str) -> Ended {
    if let AMQPMethod::Close(_) = method {
        return Ended::Gone;
    }
    let id = AMQPClass::Connection(method.clone());
    let id = (id.get_amqp_class_id(), id.get_amqp_method_id());
    let detail = format_args!("unexpected method in connection state {state}");
    Fault::new(504, detail).on(id).into()
}

fn log_in(
    start_ok: &connection::StartOk,
    config: &AmqpConfig,
    from_loopback: bool,
) -> Result<String, Ended> {
    let mechanism = start_ok.mechanism.as_str();
    if mechanism != "PLAIN" {
        let detail = format_args!("{mechanism} authentication mechanism is not supported");
        return Err(Fault::new(503, detail).on((10, 11)).into());
    }
    match config.log_in(start_ok.response.as_bytes(), from_loopback) {
        Some(user) => Ok(user.name.clone()),
        // Only a client that announces it expects a close here; others see the socket close.
        None if capable(&start_ok.client_properties, "authentication_failure_close") => {
            Err(Fault::new(
                403,
                "Login was refused using authentication mechanism PLAIN. \
                 For details see the broker logfile.",
            )
            .into())
        }
        None => Err(Ended::Gone),
    }
}

fn agree(
    config: &AmqpConfig,
    user: String,
    client: &FieldTable,
    tune_ok: &connection::TuneOk,
) -> Result<Agreed, Fault> {
    let refused = |name: &str, asked: u32, bound: &str, limit: u32| {
        let detail = format!("negotiated {name} = {asked} is {bound} value ({limit})");
        Err(Fault::new(530, detail).on((10, 31)))
    };
    // 0 stands for no limit of the client's.
    let channel_max = match tune_ok.channel_max {
        0 => config.channel_max,
        asked if asked > config.channel_max => {
            let limit = config.channel_max.into();
            return refused(
                "channel_max",
                asked.into(),
                "higher than the maximum allowed",
                limit,
            );
        }
        asked => asked,
    };
    let frame_max = match tune_ok.frame_max {
        0 => config.frame_max,
        asked if asked < FRAME_MIN => {
            return refused(
                "frame_max",
                asked,
                "lower than the minimum allowed",
                FRAME_MIN,
            );
        }
        asked if asked > config.frame_max => {
            return refused(
                "frame_max",
                asked,
                "higher than the maximum allowed",
                config.frame_max,
            );
        }
        asked => asked,
    };
    Ok(Agreed {
        user,
        channel_max,
        frame_max: frame_max as usize,
        heartbeat: (tune_ok.heartbeat > 0).then(|| Duration::from_secs(tune_ok.heartbeat.into())),
        tell_blocked: capable(client, "connection.blocked"),
        tell_cancelled: capable(client, "consumer_cancel_notify"),
    })
}

fn capable(client: &FieldTable, name: &str) -> bool {
    match client.inner().get("capabilities") {
        Some(AMQPValue::FieldTable(capabilities)) => {
            capabilities.inner().get(name) == Some(&AMQPValue::Boolean(true))
        }
        _ => false,
    }
}

fn start() -> connection::Start {
    connection::Start {
        version_major: 0,
        version_minor: 9,
        server_properties: server_properties(),
        mechanisms: "PLAIN".into(),
        locales: "en_US".into(),
    }
}

fn tune(config: &AmqpConfig) -> connection::Tune {
    connection::Tune {
        channel_max: config.channel_max,
        frame_max: config.frame_max,
        heartbeat: config.heartbeat,
    }
}

fn server_properties() -> FieldTable {
    let mut capabilities = FieldTable::default();
    for (name, can) in [
        ("publisher_confirms", true),
        ("exchange_exchange_bindings", true),
        ("basic.nack", true),
        ("consumer_cancel_notify", true),
        ("connection.blocked", true),
        ("authentication_failure_close", true),
        ("per_consumer_qos", true),
        ("direct_reply_to", false),
    ] {
        capabilities.insert(short(name), AMQPValue::Boolean(can));
    }
    let mut properties = FieldTable::default();
    properties.insert(short("capabilities"), AMQPValue::FieldTable(capabilities));
    for (name, value) in [
        ("product", "annals"),
        ("version", env!("CARGO_PKG_VERSION")),
        ("platform", "Rust"),
    ] {
        properties.insert(short(name), AMQPValue::LongString(value.into()));
    }
    properties
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_the_smaller_ones_and_never_beyond_the_brokers() {
        let config = AmqpConfig::default();
        let agreed = |channel_max, frame_max, heartbeat| {
            let tune_ok = connection::TuneOk {
                channel_max,
                frame_max,
                heartbeat,
            };
            agree(
                &config,
                "guest".to_owned(),
                &FieldTable::default(),
                &tune_ok,
            )
        };
        let lower = agreed(10, 8192, 5).expect("within");
        assert_eq!((lower.channel_max, lower.frame_max), (10, 8192));
        assert_eq!(lower.heartbeat, Some(Duration::from_secs(5)));
        let unlimited = agreed(0, 0, 0).expect("within");
        assert_eq!(
            (unlimited.channel_max, unlimited.frame_max),
            (2047, 131_072)
        );
        assert_eq!(unlimited.heartbeat, None);
        for refused in [
            agreed(2048, 0, 0),
            agreed(0, 4095, 0),
            agreed(0, 131_073, 0),
        ] {
            assert_eq!(refused.expect_err("refused").code, 530);
        }
    }
}
