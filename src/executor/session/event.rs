//! Events that change a session's state, and how soon each is saved. Pure.

use std::collections::BTreeMap;

use crate::base::node::NodeId;
use crate::protocol::keys::SessionPlace;
use crate::protocol::mailbox::{Order, Report};
use crate::protocol::project::Selection;
use crate::session::pool_match::WarmPools;
use crate::session::record::{LostResults, Queued};
use crate::session::requested_job::RequestedJob;
use crate::session::stamp::Stamp;

/// Event in the life of a session.
#[derive(Debug, Clone, Copy)]
pub enum SessionEvent<'a> {
    /// The session's objects are stored there from now on, and its messages sealed.
    PlaceTaken(&'a SessionPlace),
    /// The agent's files are in the bucket under this prefix.
    AgentDelivered(&'a str),
    /// The project's packs have this scope.
    ScopeFound(&'a str),
    /// The warm pools of the project before the training job is requested.
    PoolsNoted(&'a WarmPools),
    /// The training job is about to be requested; `created` is in seconds since 1970.
    JobRequested {
        request: &'a RequestedJob,
        instance_type: &'a str,
        types_left: &'a [String],
        at: &'a Stamp,
        created: u64,
    },
    /// `CreateTrainingJob` has answered with the ARN.
    JobCreated(&'a str),
    /// The instance type was refused: its name with the reason, and its name alone when it may be granted later.
    TypeRefused {
        tried: &'a str,
        waiting: Option<&'a str>,
    },
    /// SageMaker selected this type of the preferred ones.
    TypeSelected(&'a str),
    /// The request created no training job.
    JobRefused,
    /// The request may have created a training job.
    JobMayExist(&'a Stamp),
    /// The training job ended before its container ran, without capacity: the instance type with the reason.
    CapacityLacked(&'a str),
    /// The same by an internal error of SageMaker: the type is requested once more.
    InternalErrorMet(&'a str),
    /// The session's next training job starts a new container.
    JobReplaced,
    /// The training jobs have no network, so each container stage has one of its own.
    Isolated,
    /// A stage with a training job of its own begins; that of the stage before has ended.
    StageEntered,
    /// No training job was granted, and the job waits for one of these types.
    Queued(&'a Queued),
    /// Every agent ended with the training job.
    AgentsEnded,
    /// The project is about to be sent.
    ProjectSending(&'a Selection),
    ProjectSent,
    /// A script is about to be ordered; `script` is its hash.
    RunBegun {
        stage: &'a str,
        script: &'a str,
    },
    /// The current script is about to be ordered again: an interruption of the instance has ended it, or taken its files.
    RunRepeated,
    /// Another process follows the current script from its beginning: its reports are read again.
    RunTakenOver,
    /// The current script's exit code is known.
    RunEnded(i32),
    /// A script before `after_script` did not end by itself: its exit code, where the training job tells it, and the reason.
    ScriptCut {
        code: Option<i32>,
        why: &'a str,
    },
    /// The current script needs no further work.
    RunOver,
    /// The orders up to this number are in the store.
    OrdersFound(u32),
    /// The order is in the store under this number.
    OrderStored {
        number: u32,
        order: &'a Order,
    },
    /// The next report of a node was read; `None`: it cannot be decoded.
    Reported {
        node: NodeId,
        report: Option<&'a Report>,
    },
    /// The node's receipt of the project was printed.
    ReceiptTold(NodeId),
    /// The events of the log are known up to these times, by stream.
    LogRead(&'a BTreeMap<String, u64>),
    /// These log events of other writers were printed last, and this many bytes in all.
    OthersShown {
        events: &'a [String],
        bytes: u64,
    },
    /// No script has begun and none will: no stage waits for the training job.
    GivenUp,
    /// The reason of the training job's loss was printed.
    LossTold,
    ResultsLost(&'a LostResults),
    /// These are in the project directory.
    ResultsReceived {
        files: u64,
        bytes: u64,
    },
    /// The results need no further wait.
    ResultsSettled,
    /// SageMaker has uploaded the model, and nothing of it is left to do.
    ModelSettled,
    /// `cleanup` has finished all but waiting for the training job's end.
    Leaving(&'a Stamp),
}

/// How soon the record on disk must contain an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saved {
    /// With the next saved event: it can be read again from its source.
    Later,
    Now,
    /// Now and durably, because it tells that a training job may exist.
    ForGood,
}

impl SessionEvent<'_> {
    pub fn saved(&self) -> Saved {
        match self {
            Self::AgentDelivered(_)
            | Self::ScopeFound(_)
            | Self::PoolsNoted(_)
            | Self::TypeRefused { .. }
            | Self::TypeSelected(_)
            | Self::InternalErrorMet(_)
            | Self::JobReplaced
            | Self::AgentsEnded
            | Self::ResultsReceived { .. }
            | Self::Reported { .. } => Saved::Later,
            Self::CapacityLacked(_)
            | Self::Isolated
            | Self::StageEntered
            | Self::Queued(_)
            | Self::ProjectSending(_)
            | Self::ProjectSent
            | Self::RunBegun { .. }
            | Self::PlaceTaken(_)
            | Self::RunRepeated
            | Self::RunTakenOver
            | Self::RunEnded(_)
            | Self::ScriptCut { .. }
            | Self::RunOver
            | Self::OrdersFound(_)
            | Self::OrderStored { .. }
            | Self::ReceiptTold(_)
            | Self::LogRead(_)
            | Self::OthersShown { .. }
            | Self::GivenUp
            | Self::LossTold
            | Self::ResultsLost(_)
            | Self::ResultsSettled
            | Self::ModelSettled => Saved::Now,
            Self::JobRequested { .. }
            | Self::JobCreated(_)
            | Self::JobRefused
            | Self::JobMayExist(_)
            | Self::Leaving(_) => Saved::ForGood,
        }
    }
}
