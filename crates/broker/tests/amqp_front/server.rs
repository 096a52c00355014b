//! A broker with its TCP front, in this process, on a directory that goes with it.

use annals_broker::amqp::{AmqpConfig, serve};
use annals_broker::{Broker, Config};
use annals_core::system::{SystemClock, SystemDisk, SystemRandom};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) broker: Broker,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_, _| {}).await
    }

    pub(crate) async fn start_with(settle: impl FnOnce(&mut Config, &mut AmqpConfig)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut config = Config::new(directory.path());
        let mut amqp = AmqpConfig::default();
        settle(&mut config, &mut amqp);
        let broker = Broker::open(
            config,
            Arc::new(SystemDisk),
            Arc::new(SystemClock),
            Arc::new(SystemRandom),
        )
        .expect("opens");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = oneshot::channel();
        let serving = broker.clone();
        let served = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            serve(listener, serving, amqp, shutdown)
                .await
                .expect("serves");
        });
        Self {
            address,
            broker,
            stop: Some(stop),
            served,
            _directory: directory,
        }
    }

    pub(crate) fn uri(&self) -> String {
        format!("amqp://guest:guest@{}/%2f", self.address)
    }

    /// Asks it to stop; done when all connections are closed.
    pub(crate) async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).expect("still serving");
        }
        self.served.await.expect("no panic");
        self.broker.close().await.expect("closes");
    }
}
