//! The door: accepts connections, bounds them, and ends them with the broker.

use super::config::AmqpConfig;
use super::serving::{Serving, serve_connection};
use crate::Broker;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Pause after a failed accept: out of file descriptors, mostly, and trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves AMQP 0-9-1 until `shutdown` is done, then closes all connections (320
/// CONNECTION_FORCED) and waits for them, each at most its close timeout.
pub async fn serve(
    listener: TcpListener,
    broker: Broker,
    config: AmqpConfig,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let (down, shutting_down) = watch::channel(false);
    let room = Arc::new(Semaphore::new(
        config.connections_max.min(Semaphore::MAX_PERMITS),
    ));
    let mut serving = Serving {
        broker,
        config: Arc::new(config),
        shutdown: shutting_down,
        number: 0,
        from_loopback: false,
    };
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let (stream, peer) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            tracing::warn!(%peer, "connection limit reached: connection closed");
            continue;
        };
        serving.number += 1;
        let serving = Serving {
            from_loopback: is_loopback(peer),
            ..serving.clone()
        };
        connections.spawn(async move {
            serve_stream(stream, serving).await;
            drop(permit);
        });
    }
    drop(listener);
    // Nobody listens if there is no connection.
    let _ = down.send(true);
    while connections.join_next().await.is_some() {}
    Ok(())
}

async fn serve_stream(stream: TcpStream, serving: Serving) {
    // Without it small frames wait for the peer's acknowledgement; the connection works regardless.
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    serve_connection(reader, writer, serving).await;
}

fn is_loopback(peer: SocketAddr) -> bool {
    peer.ip().to_canonical().is_loopback()
}
