//! A connection's life: handshake, reader and writer side by side, last words.

use super::channel::Link;
use super::codec::METHOD;
use super::config::AmqpConfig;
use super::connection::{Connection, Stop};
use super::handshake::{Agreed, Ended, handshake};
use super::intake::Intake;
use super::output::encode;
use super::writer::{Reply, Writer, connection_close};
use crate::Broker;
use amq_protocol::protocol::{AMQPClass, connection};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Replies that may wait for the writer; then the reader waits.
const REPLIES_MAX: usize = 256;
/// connection.close-ok as a frame: the last a client sends.
const CLOSE_OK: [u8; 12] = [METHOD, 0, 0, 0, 0, 0, 4, 0, 10, 0, 51, super::codec::END];

/// What a connection is served with.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    pub(crate) broker: Broker,
    pub(crate) config: Arc<AmqpConfig>,
    /// Becomes true when the broker shuts down.
    pub(crate) shutdown: watch::Receiver<bool>,
    /// The connection's number in this process.
    pub(crate) number: u64,
    pub(crate) from_loopback: bool,
}

/// Serves one connection until it ends.
pub(crate) async fn serve_connection<R, W>(reader: R, mut writer: W, serving: Serving)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let config = &serving.config;
    let mut intake = Intake::new(reader, config.frame_max as usize);
    let opening = handshake(&mut intake, &mut writer, config, serving.from_loopback);
    match timeout(config.handshake_timeout, opening).await {
        Ok(Ok(agreed)) => {
            tracing::debug!(
                connection = serving.number,
                user = agreed.user,
                "connection open"
            );
            open(intake, writer, serving, agreed).await;
        }
        Ok(Err(Ended::Fault(fault))) => {
            tracing::debug!(
                connection = serving.number,
                reason = fault.text,
                "connection refused"
            );
            let farewell = async {
                // A peer that is gone cannot be told.
                let _ = writer.write_all(&connection_close(&fault)).await;
                let _ = writer.flush().await;
                let _ = intake.discard_until(&CLOSE_OK).await;
            };
            let _ = timeout(config.close_timeout, farewell).await;
        }
        Ok(Err(Ended::Gone)) | Err(_) => {
            tracing::debug!(
                connection = serving.number,
                "connection gone before it was open"
            );
        }
    }
}

async fn open<R, W>(intake: Intake<R>, writer: W, serving: Serving, agreed: Agreed)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let (session, events) = serving.broker.session();
    let (replies, waiting) = mpsc::channel(REPLIES_MAX);
    let (telling, notes) = mpsc::unbounded_channel();
    let writer = Writer {
        writer,
        events,
        log: serving.broker.reader(),
        replies: waiting,
        notes: telling,
        agreed: agreed.clone(),
    };
    let writing = AbortOnDrop(tokio::spawn(writer.run()));
    let link = Link {
        session,
        replies,
        user: agreed.user.clone(),
        connection: serving.number,
        config: Arc::clone(&serving.config),
    };
    let mut connection = Connection {
        intake,
        link,
        agreed,
        channels: Vec::new(),
        touched: Vec::new(),
        generations: 0,
        unfinished: 0,
        notes,
    };
    let stop = connection.run(serving.shutdown).await;
    end(connection, stop, writing).await;
    tracing::debug!(connection = serving.number, "connection closed");
}

struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Says the last words, and waits a bounded time for them to be heard.
async fn end<R, W>(
    connection: Connection<R>,
    stop: Stop,
    mut writing: AbortOnDrop<std::io::Result<W>>,
) where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let Connection {
        mut intake, link, ..
    } = connection;
    let close_timeout = link.config.close_timeout;
    let last = match &stop {
        Stop::Gone | Stop::ByWriter => None,
        Stop::ByClient => {
            let ok = connection::AMQPMethod::CloseOk(connection::CloseOk {});
            Some(encode(0, AMQPClass::Connection(ok)))
        }
        Stop::Fault(fault) => {
            tracing::debug!(connection = link.connection, reason = fault.text, "closing");
            Some(connection_close(fault))
        }
    };
    if let Stop::Gone = stop {
        return;
    }
    let farewell = async {
        if let Some(frame) = last {
            link.reply(Reply::Last(frame)).await;
        }
        let written = (&mut writing.0).await;
        drop(link);
        if !matches!(stop, Stop::ByClient) {
            // Reading on keeps the close from being overtaken by a reset.
            let _ = intake.discard_until(&CLOSE_OK).await;
        }
        if let Ok(Ok(mut writer)) = written {
            let _ = writer.shutdown().await;
        }
    };
    // Whoever does not answer in time is left.
    let _ = timeout(close_timeout, farewell).await;
}
