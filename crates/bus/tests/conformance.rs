//! Every bus passes the suite: in memory, in process, and over TCP to the embedded broker.

use annals_bus::conformance::{Backend, run_all};
use annals_bus::{Bus, MemoryBus};
use async_trait::async_trait;
use std::sync::Arc;

#[derive(Debug)]
struct Memory(MemoryBus);

#[async_trait]
impl Backend for Memory {
    async fn connect(&self) -> Arc<dyn Bus> {
        Arc::new(self.0.connect())
    }
}

// Time is paused: a property that waits for ever fails at once.
#[tokio::test(start_paused = true)]
async fn the_bus_in_memory_conforms() {
    run_all(&|| Box::pin(async { Arc::new(Memory(MemoryBus::new())) as _ })).await;
}

#[cfg(feature = "embedded")]
mod embedded {
    use super::*;
    use annals_broker::{Broker, Config};
    use annals_bus::LocalBus;
    use annals_core::system::{SystemClock, SystemDisk, SystemRandom};
    use parking_lot::Mutex;
    use std::path::Path;
    use tempfile::TempDir;

    /// A broker on a directory of its own, which outlives it.
    #[derive(Debug)]
    struct Local {
        directory: TempDir,
        broker: Mutex<Broker>,
    }

    fn open(directory: &Path) -> Broker {
        let disk = Arc::new(SystemDisk);
        let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
        let broker = Broker::open(Config::new(directory), disk, clock, random);
        broker.expect("the broker opens")
    }

    impl Local {
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let broker = Mutex::new(open(directory.path()));
            Self { directory, broker }
        }

        async fn reopen(&self) {
            let broker = self.broker.lock().clone();
            broker.close().await.expect("the broker closes");
            *self.broker.lock() = open(self.directory.path());
        }
    }

    #[async_trait]
    impl Backend for Local {
        async fn connect(&self) -> Arc<dyn Bus> {
            Arc::new(LocalBus::new(&self.broker.lock()))
        }

        async fn restart(&self) -> bool {
            self.reopen().await;
            true
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_bus_in_process_conforms() {
        run_all(&|| Box::pin(async { Arc::new(Local::new()) as _ })).await;
    }

    #[cfg(feature = "amqp")]
    mod over_tcp {
        use super::*;
        use annals_broker::amqp::{AmqpConfig, serve};
        use annals_bus::{AmqpBus, AmqpOptions};
        use tokio::net::TcpListener;
        use tokio::sync::oneshot;
        use tokio::task::JoinHandle;

        /// A broker behind a port.
        #[derive(Debug)]
        struct Tcp {
            local: Local,
            serving: tokio::sync::Mutex<Serving>,
        }

        #[derive(Debug)]
        struct Serving {
            uri: String,
            shutdown: oneshot::Sender<()>,
            ended: JoinHandle<std::io::Result<()>>,
        }

        async fn start(broker: Broker) -> Serving {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let port = listener.local_addr().expect("an address").port();
            let (shutdown, stopped) = oneshot::channel::<()>();
            let until = async { drop(stopped.await) };
            let ended = tokio::spawn(serve(listener, broker, AmqpConfig::default(), until));
            Serving {
                uri: format!("amqp://guest:guest@127.0.0.1:{port}/%2f"),
                shutdown,
                ended,
            }
        }

        impl Tcp {
            async fn new() -> Self {
                let local = Local::new();
                let broker = local.broker.lock().clone();
                Self {
                    serving: tokio::sync::Mutex::new(start(broker).await),
                    local,
                }
            }
        }

        #[async_trait]
        impl Backend for Tcp {
            async fn connect(&self) -> Arc<dyn Bus> {
                let uri = self.serving.lock().await.uri.clone();
                let bus = AmqpBus::connect(&uri, AmqpOptions::default()).await;
                Arc::new(bus.expect("the port answers"))
            }

            async fn restart(&self) -> bool {
                let mut serving = self.serving.lock().await;
                self.local.reopen().await;
                let broker = self.local.broker.lock().clone();
                let old = std::mem::replace(&mut *serving, start(broker).await);
                drop(old.shutdown);
                old.ended.await.expect("no panic").expect("served");
                true
            }
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn the_bus_over_tcp_conforms() {
            run_all(&|| Box::pin(async { Arc::new(Tcp::new().await) as _ })).await;
        }
    }
}
