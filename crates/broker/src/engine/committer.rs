//! The committer: a thread that writes and syncs one group while the engine makes the next, and
//! tells everybody of it.
//!
//! A small group is committed by the engine itself: handing it over would take longer than what
//! could be done meanwhile.

use crate::command::{Answer, Commands, Reply};
use crate::core::spec::Refusal;
use crate::log::Commit;
use crate::outbox::{Outbox, Taken};
use crate::session::SessionEvent;
use annals_core::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

/// What a group's commit lets out.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    pub(super) leading: Vec<(Reply, Result<Answer, Refusal>)>,
    pub(super) events: Vec<Events>,
    pub(super) replies: Vec<(Reply, Result<Answer, Refusal>)>,
}

/// What one session is told.
#[derive(Debug)]
pub(super) struct Events {
    pub(super) session: u64,
    pub(super) outbox: Arc<Outbox>,
    pub(super) events: Vec<SessionEvent>,
    pub(super) taken: Vec<Taken>,
}

/// A group on its way.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) commit: Commit,
    pub(super) outputs: Outputs,
}

/// What became of it.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) commit: Commit,
    /// What was not let out, because the commit failed.
    pub(super) kept: Outputs,
    /// Messages that had come when it was told of.
    pub(super) came: u64,
    /// Sessions that do not take their events.
    pub(super) over: Vec<u64>,
}

/// The thread, and whether it has a group.
#[derive(Debug)]
pub(super) struct Committer {
    jobs: Option<SyncSender<Job>>,
    done: Receiver<Done>,
    is_busy: bool,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    pub(super) fn start(commands: Arc<Commands>) -> Result<Self> {
        let (jobs, next) = sync_channel::<Job>(1);
        let (ready, done) = sync_channel(1);
        let named = std::thread::Builder::new().name("annals-committer".to_owned());
        let thread = named.spawn(move || {
            // However it ends, the engine is woken.
            let _wake = Wake(&commands);
            // Dropped before that.
            let ready = ready;
            for job in next {
                // An error says that the engine is gone.
                let _ = ready.send(job.run(&commands));
                commands.wake();
            }
        })?;
        Ok(Self {
            jobs: Some(jobs),
            done,
            is_busy: false,
            thread: Some(thread),
        })
    }

    /// Whether a group is on its way.
    pub(super) fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Commits a group; [`Committer::done`] has it back.
    pub(super) fn commit(&mut self, job: Job) -> Result<()> {
        assert!(!self.is_busy, "one group at a time");
        self.is_busy = true;
        let jobs = self.jobs.as_ref().expect("there until the end");
        jobs.send(job).map_err(|_| gone())
    }

    /// The group that was on its way, if it is done.
    pub(super) fn done(&mut self) -> Result<Option<Done>> {
        if !self.is_busy {
            return Ok(None);
        }
        match self.done.try_recv() {
            Ok(done) => {
                self.is_busy = false;
                Ok(Some(done))
            }
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(gone()),
        }
    }

    /// Waits for the group that is on its way, if there is one.
    pub(super) fn wait(&mut self) -> Result<Option<Done>> {
        if !self.is_busy {
            return Ok(None);
        }
        self.is_busy = false;
        self.done.recv().map(Some).map_err(|_| gone())
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Job {
    /// Commits, and tells everybody.
    pub(super) fn run(mut self, commands: &Commands) -> Done {
        let committed = self.commit.run();
        let came = commands.came();
        let over = if committed {
            self.outputs.let_out()
        } else {
            Vec::new()
        };
        Done {
            commit: self.commit,
            kept: self.outputs,
            came,
            over,
        }
    }
}

impl Outputs {
    pub(super) fn is_empty(&self) -> bool {
        self.leading.is_empty() && self.events.is_empty() && self.replies.is_empty()
    }

    /// Hands out the answers that deliveries follow, the events, and the other answers, so that
    /// what came before a request is known before its answer. Returns the sessions that let too
    /// many events lie.
    fn let_out(&mut self) -> Vec<u64> {
        // A client that is gone hears nothing.
        let give = |(reply, answer): (Reply, _)| drop(reply.send(answer));
        self.leading.drain(..).for_each(give);
        let mut over = Vec::new();
        for mut to in self.events.drain(..) {
            if !to.outbox.push(&mut to.events, &mut to.taken) {
                over.push(to.session);
            }
        }
        self.replies.drain(..).for_each(give);
        over
    }
}

struct Wake<'a>(&'a Commands);

impl Drop for Wake<'_> {
    fn drop(&mut self) {
        self.0.wake();
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Internal, "the committer ended before its group")
}
