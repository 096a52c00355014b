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
        is_blocked: false,
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

#[cfg(test)]
mod tests {
    use super::super::codec::{BODY, HEARTBEAT};
    use super::super::handshake::PROTOCOL_HEADER;
    use super::*;
    use crate::Config;
    use annals_core::system::{SystemClock, SystemDisk, SystemRandom};
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, DuplexStream};
    use tokio::time::Instant;

    /// A connection over a pipe, in time that passes only while all wait for it.
    struct Pipe {
        stream: DuplexStream,
        _shutdown: watch::Sender<bool>,
        _directory: tempfile::TempDir,
    }

    fn serve_pipe() -> Pipe {
        let directory = tempfile::tempdir().expect("a directory");
        let broker = Broker::open(
            Config::new(directory.path()),
            Arc::new(SystemDisk),
            Arc::new(SystemClock),
            Arc::new(SystemRandom),
        );
        let (down, shutdown) = watch::channel(false);
        let serving = Serving {
            broker: broker.expect("opens"),
            config: Arc::new(AmqpConfig::default()),
            shutdown,
            number: 1,
            from_loopback: true,
        };
        let (stream, served) = tokio::io::duplex(64 << 10);
        let (reader, writer) = tokio::io::split(served);
        tokio::spawn(serve_connection(reader, writer, serving));
        Pipe {
            stream,
            _shutdown: down,
            _directory: directory,
        }
    }

    impl Pipe {
        async fn open(&mut self, heartbeat: u16) {
            let start_ok = connection::StartOk {
                mechanism: "PLAIN".into(),
                response: "\0guest\0guest".into(),
                ..Default::default()
            };
            let tune_ok = connection::TuneOk {
                channel_max: 0,
                frame_max: 0,
                heartbeat,
            };
            let open = connection::Open {
                virtual_host: "/".into(),
            };
            let mut said = PROTOCOL_HEADER.to_vec();
            for method in [
                connection::AMQPMethod::StartOk(start_ok),
                connection::AMQPMethod::TuneOk(tune_ok),
                connection::AMQPMethod::Open(open),
            ] {
                said.extend(encode(0, AMQPClass::Connection(method)));
            }
            self.stream.write_all(&said).await.expect("writes");
            for _ in ["start", "tune", "open-ok"] {
                assert_eq!(self.next().await, Some(METHOD));
            }
        }

        /// The next frame's type; `None` at the end.
        async fn next(&mut self) -> Option<u8> {
            let mut prefix = [0; 7];
            self.stream.read_exact(&mut prefix).await.ok()?;
            let size = u32::from_be_bytes([prefix[3], prefix[4], prefix[5], prefix[6]]);
            let mut rest = vec![0; size as usize + 1];
            self.stream
                .read_exact(&mut rest)
                .await
                .expect("a whole frame");
            Some(prefix[0])
        }
    }

    const BEAT: [u8; 8] = [HEARTBEAT, 0, 0, 0, 0, 0, 0, 0xCE];

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_sent_heartbeats_and_left_after_two_of_its_own_are_missed() {
        let mut pipe = serve_pipe();
        pipe.open(10).await;
        let opened = Instant::now();
        let mut beats = 0;
        while let Some(kind) = pipe.next().await {
            assert_eq!(kind, HEARTBEAT);
            beats += 1;
        }
        assert_eq!(opened.elapsed().as_secs(), 20);
        assert!((3..=4).contains(&beats), "{beats} in twenty seconds");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_heartbeats_stays() {
        let mut pipe = serve_pipe();
        pipe.open(10).await;
        for _ in 0..30 {
            tokio::time::advance(Duration::from_secs(10)).await;
            pipe.stream.write_all(&BEAT).await.expect("still open");
            assert_eq!(pipe.next().await, Some(HEARTBEAT));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_heartbeats_silence_lasts_as_long_as_it_likes() {
        let mut pipe = serve_pipe();
        pipe.open(0).await;
        tokio::time::sleep(Duration::from_secs(100_000)).await;
        // A body frame out of place is answered: the connection was open all along.
        let out_of_place = [BODY, 0, 1, 0, 0, 0, 0, 0xCE];
        pipe.stream
            .write_all(&out_of_place)
            .await
            .expect("still open");
        assert_eq!(pipe.next().await, Some(METHOD));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_left_when_the_handshake_is_overdue() {
        let mut pipe = serve_pipe();
        pipe.stream
            .write_all(&PROTOCOL_HEADER)
            .await
            .expect("writes");
        let begun = Instant::now();
        assert_eq!(pipe.next().await, Some(METHOD));
        assert_eq!(pipe.next().await, None);
        assert_eq!(begun.elapsed(), AmqpConfig::default().handshake_timeout);
    }
}
