//! One connection, made when it is needed, and again after it was lost.

use super::AmqpOptions;
use crate::{Error, ErrorKind, Result, reply};
use lapin::{Channel, Connection, ConnectionProperties};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Link {
    uri: Uri,
    name: String,
    timeout: Duration,
    closed: AtomicBool,
    connection: tokio::sync::Mutex<Option<Connection>>,
}

/// Shown without what is in it: a password.
struct Uri(String);

impl Link {
    pub(super) fn new(uri: &str, what: &str, options: &AmqpOptions) -> Self {
        Self {
            uri: Uri(uri.to_owned()),
            name: format!("{} ({what})", options.name),
            timeout: options.connect_timeout,
            closed: AtomicBool::new(false),
            connection: tokio::sync::Mutex::new(None),
        }
    }

    /// Connects, if it is not connected.
    pub(super) async fn open(&self) -> Result<()> {
        self.channel().await.map(drop)
    }

    /// A new channel.
    pub(super) async fn channel(&self) -> Result<Channel> {
        let mut connection = self.connection.lock().await;
        if self.is_closed() {
            return Err(Error::new(ErrorKind::Closed, "the bus is closed"));
        }
        if let Some(connected) = connection.as_ref().filter(|c| c.status().connected()) {
            match connected.create_channel().await {
                Err(error) if error.is_io_error() => {}
                channel => return channel.map_err(failed),
            }
        }
        let connected = self.connect().await?;
        let connected = connection.insert(connected);
        connected.create_channel().await.map_err(failed)
    }

    /// Closes for good.
    pub(super) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let connection = self.connection.lock().await.take();
        if let Some(connection) = connection
            && let Err(error) = connection.close(200, "OK".into()).await
        {
            tracing::debug!(%error, "closing a connection");
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    async fn connect(&self) -> Result<Connection> {
        let properties =
            ConnectionProperties::default().with_connection_name(self.name.as_str().into());
        let connecting = Connection::connect(&self.uri.0, properties);
        match tokio::time::timeout(self.timeout, connecting).await {
            Ok(connected) => connected.map_err(|e| failed(e).context("cannot connect")),
            Err(_) => Err(Error::new(
                ErrorKind::Unavailable,
                format!("cannot connect within {:?}", self.timeout),
            )),
        }
    }
}

impl std::fmt::Debug for Uri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(uri)")
    }
}

/// What an error of the client means to us.
pub(super) fn failed(error: lapin::Error) -> Error {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(refusal) => {
            let text = refusal.get_message().to_string();
            reply::error(refusal.get_id(), text)
        }
        _ => Error::new(ErrorKind::Unavailable, "the connection failed").caused_by(error),
    }
}
