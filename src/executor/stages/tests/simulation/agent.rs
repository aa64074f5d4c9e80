//! An agent without a container: takes orders, reports, writes its output in batches, and sends results. It stores its
//! objects directly, so that all calls of a port are the host's.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};

use super::plan::Plan;
use super::world::{Ended, LOOK, World};
use crate::base::node::NodeId;
use crate::cloud::JobStatus;
use crate::cloud::testing::Memory;
use crate::protocol::keys::SessionKeys;
use crate::protocol::mailbox::{self, ByeReason, ExitReport, Order, Report, RunOrder};
use crate::protocol::project::{Selection, Trees};
use crate::stages::tests::agent_keys;
use crate::trace::FrameEncoder;
use crate::workspace::{self, Snapshot};

/// Exit code of a script that was ended from outside.
const TERMINATED: i32 = 143;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Finish {
        collect: bool,
    },
    Stopped,
    LeaseExpired,
    /// The container is gone.
    Dead,
}

pub(super) struct Agent {
    world: Arc<World>,
    keys: SessionKeys,
    job: String,
    may_rerun: bool,
    node: NodeId,
    nodes: usize,
    pieces: Vec<(Duration, String)>,
    code: i32,
    trees: Trees,
    orders: u32,
    reports: u32,
    /// How often the container was started again.
    restarts: u32,
    /// The files of an earlier start's scripts are gone, and no script has begun since.
    has_lost_files: bool,
    selection: Option<Selection>,
    pending: VecDeque<(u32, RunOrder)>,
    seen: BTreeSet<u32>,
    canceled: BTreeSet<u32>,
    finish: Option<bool>,
    beat: (Option<u64>, Instant),
}

impl Agent {
    /// `None`: the session is closed, so a container that is started again finds no key.
    pub(super) fn new(world: &Arc<World>, job: &str, node: NodeId, plan: &Plan) -> Option<Self> {
        let keys = agent_keys(&world.memory, job)?;
        let project: PathBuf = world.container.join(job).join(node.to_string());
        let trees = Trees { tmp: project.with_extension("tmp"), project, host: None };
        Some(Self {
            world: world.clone(),
            keys,
            job: job.to_owned(),
            may_rerun: plan.may_rerun,
            node,
            nodes: plan.nodes,
            pieces: plan.pieces.clone(),
            // Only the last node may fail.
            code: if node.index() + 1 == plan.nodes { plan.code } else { 0 },
            trees,
            orders: 0,
            reports: 0,
            restarts: 0,
            has_lost_files: false,
            selection: None,
            pending: VecDeque::new(),
            seen: BTreeSet::new(),
            canceled: BTreeSet::new(),
            finish: None,
            beat: (None, Instant::now()),
        })
    }

    /// Returns `false` when the container fails.
    pub(super) async fn work(mut self) -> bool {
        drop(std::fs::remove_dir_all(&self.trees.project));
        std::fs::create_dir_all(&self.trees.project).unwrap();
        self.beat.1 = Instant::now();
        let after = self.read_reports();
        if after.is_none() || after > Some(0) && !self.may_rerun {
            let reason = "the container was started again after a script had begun".to_owned();
            self.report(&Report::Failed { order: "resume the session".to_owned(), reason, by_job: false });
            self.report(&Report::Bye { reason: ByeReason::Other });
            return false;
        }
        let after = after.unwrap_or_default();
        (self.has_lost_files, self.orders) = (after > 0, after);
        let nodes = (0..self.nodes).map(|index| NodeId::at(index).to_string()).collect();
        self.report(&Report::Ready { agent: "0".into(), nodes, restarts: self.restarts, after, checkpoints: None });
        let end = loop {
            self.take_orders();
            if (after == 0 || self.selection.is_some())
                && let Some((number, order)) = self.pending.pop_front()
            {
                if let Some(end) = self.run(number, order).await {
                    break end;
                }
            } else if let Some(end) = self.finish.map(|collect| End::Finish { collect }).or_else(|| self.is_over()) {
                break end;
            } else {
                sleep(LOOK).await;
            }
        };
        let (reason, collect) = match end {
            End::Finish { collect } => (ByeReason::Finished, collect),
            End::Stopped => (ByeReason::Stopped, true),
            End::LeaseExpired => (ByeReason::LeaseExpired, true),
            End::Dead => return true,
        };
        if collect && self.node == NodeId::LEADER && !self.has_lost_files && !self.collect().await {
            return true;
        }
        self.report(&Report::Bye { reason });
        true
    }

    /// Reads the reports of earlier starts; returns the number of the last order that was carried out. `None`: it is not known.
    fn read_reports(&mut self) -> Option<u32> {
        let mut last = Some(0);
        loop {
            let number = self.reports + 1;
            let Some(body) = self.world.memory.objects.contents(&self.keys.report(self.node, number)) else {
                return last;
            };
            match mailbox::decode_report(&self.keys, self.node, number, &body).unwrap() {
                Report::Ready { .. } => self.restarts += 1,
                Report::Started { order, .. } => last = Some(order),
                Report::Failed { .. } if last == Some(0) => last = None,
                _ => {}
            }
            self.reports = number;
        }
    }

    fn report(&mut self, report: &Report) {
        self.reports += 1;
        self.world.reported();
        let key = self.keys.report(self.node, self.reports);
        self.world.note(&format!("{} reports {report:?}", self.node));
        self.world.store(&self.job, &key, mailbox::encode_report(&self.keys, self.node, self.reports, report));
    }

    fn take_orders(&mut self) {
        while let Some(body) = self.world.memory.objects.contents(&self.keys.order(self.orders + 1)) {
            self.orders += 1;
            match mailbox::decode_order(&self.keys, self.orders, &body).unwrap() {
                Order::Workspace(order) => {
                    if self.selection.replace(order.selection).is_none() {
                        self.report(&Report::Received { summary: "all".into() });
                    }
                }
                Order::Run(order) if self.seen.insert(order.run) => self.pending.push_back((self.orders, order)),
                Order::Run(_) => {}
                Order::Cancel { run } => drop(self.canceled.insert(run)),
                Order::Finish { collect: true } if self.has_lost_files && self.seen.is_empty() => {}
                Order::Finish { collect } => self.finish = Some(collect),
            }
        }
    }

    /// Returns why the agent must leave, if it must.
    fn is_over(&mut self) -> Option<End> {
        match self.world.status(&self.job) {
            Some(JobStatus::InProgress) if self.world.is_interrupted() => return Some(End::Stopped),
            Some(JobStatus::InProgress) => {}
            Some(JobStatus::Stopping) => return Some(End::Stopped),
            _ => return Some(End::Dead),
        }
        let lease = self.world.memory.objects.contents(&self.keys.lease());
        let beat = lease.and_then(|lease| mailbox::decode_lease(&self.keys, &lease));
        if beat != self.beat.0 {
            self.beat = (beat, Instant::now());
        }
        (self.beat.1.elapsed() >= self.world.lease).then_some(End::LeaseExpired)
    }

    /// Runs a script to its end; `Some` when the agent must leave as well.
    async fn run(&mut self, number: u32, order: RunOrder) -> Option<End> {
        let (run, node) = (order.run, self.node);
        let nothing = ExitReport {
            has_model: false,
            code: TERMINATED,
            bytes: 0,
            hash: String::new(),
            canceled: true,
            at: 0,
            ran: None,
            copy: Some(0),
        };
        if self.canceled.contains(&run) || self.is_over() == Some(End::Stopped) {
            self.report(&Report::Exited { run, exit: nothing });
            return None;
        }
        let Some(script) = self.world.memory.objects.contents(&self.keys.script(run)) else {
            let reason = "the script is not in the store".to_owned();
            self.report(&Report::Failed { order: format!("start {}", order.stage), reason, by_job: false });
            return None;
        };
        let is_after_script = order.stage == "after_script";
        {
            let mut ledger = self.world.ledger();
            *ledger.begun.entry((node, script)).or_default() += 1;
            ledger.runs.entry((run, node)).or_default().is_after_script = is_after_script;
        }
        self.report(&Report::Started { run, order: number });
        self.has_lost_files = false;
        let pieces =
            if is_after_script { vec![(Duration::from_secs(1), "after\n".to_owned())] } else { self.pieces.clone() };
        let (mut encoder, mut batch, mut end) = (FrameEncoder::new(run, self.keys.seal().of_node(node)), 0, None);
        for (number, (pause, piece)) in pieces.into_iter().enumerate() {
            end = self.wait(run, pause).await;
            if end == Some(End::Dead) {
                return end;
            }
            if end.is_some() || self.canceled.contains(&run) {
                break;
            }
            let piece = if number == 0 { format!("run {run} {piece}") } else { piece };
            self.write(run, &mut batch, &mut encoder, piece.as_bytes());
        }
        let canceled = end.is_some() || self.canceled.contains(&run);
        let code = match (canceled, is_after_script) {
            (true, _) => TERMINATED,
            (false, true) => 0,
            (false, false) => self.code,
        };
        if !is_after_script {
            self.leave_files();
        }
        let mut lines = Vec::new();
        encoder.end(code, &mut lines);
        self.world.store(&self.job, &self.keys.trace(node, run, batch), lines);
        let ended = Ended { code, canceled };
        self.world.ledger().runs.entry((run, node)).or_default().ended = Some(ended);
        sleep(LOOK / 5).await;
        if self.is_over() == Some(End::Dead) {
            return Some(End::Dead);
        }
        let (bytes, hash) = (encoder.bytes(), encoder.hash());
        let exit = ExitReport {
            has_model: false,
            code,
            bytes,
            hash,
            canceled,
            at: u64::from(run),
            ran: None,
            copy: Some(batch + 1),
        };
        self.report(&Report::Exited { run, exit });
        end
    }

    /// Waits while the script runs.
    async fn wait(&mut self, run: u32, pause: Duration) -> Option<End> {
        let until = Instant::now() + pause;
        loop {
            self.take_orders();
            let end = self.is_over();
            if end.is_some() || self.canceled.contains(&run) || Instant::now() >= until {
                return end;
            }
            sleep(LOOK.min(until - Instant::now())).await;
        }
    }

    fn write(&self, run: u32, batch: &mut u32, encoder: &mut FrameEncoder, bytes: &[u8]) {
        let mut lines = Vec::new();
        encoder.encode(bytes, &mut lines);
        self.world.store(&self.job, &self.keys.trace(self.node, run, *batch), lines);
        *batch += 1;
        self.world.ledger().runs.entry((run, self.node)).or_default().bytes.extend_from_slice(bytes);
    }

    fn leave_files(&self) {
        let model = self.trees.project.join("model");
        std::fs::create_dir_all(&model).unwrap();
        for name in super::judge::RESULTS {
            std::fs::write(model.join(name), format!("{name} of the job\n").repeat(200)).unwrap();
        }
        let files = super::judge::RESULTS.iter().map(|name| model.join(name));
        age(files.chain([model.clone(), self.trees.project.clone()]));
    }

    /// Stores the packs, one after the other, then the manifest that names them. `false` when the container was killed
    /// meanwhile.
    async fn collect(&mut self) -> bool {
        if let Some(selection) = self.selection.clone() {
            let (scratch, route) = (Memory::new(), self.keys.results(NodeId::LEADER, self.restarts));
            let (objects, snapshot, progress) = (scratch.objects.clone(), Snapshot::default(), Arc::default());
            workspace::send_changes(&*objects, &route, &self.trees, &snapshot, &selection, &progress).await.unwrap();
            let (manifest, packs): (Vec<_>, Vec<_>) =
                objects.keys().into_iter().partition(|key| key.starts_with(&route.manifest));
            for key in packs.into_iter().chain(manifest) {
                sleep(LOOK / 2).await;
                if self.is_over() == Some(End::Dead) {
                    return false;
                }
                self.world.store(&self.job, &key, objects.contents(&key).unwrap());
            }
            self.report(&Report::Collected { summary: String::new(), restarts: self.restarts });
        }
        true
    }
}

/// Sets fixed file times: they are part of the results, and must not depend on the run.
pub(super) fn age(paths: impl IntoIterator<Item = PathBuf>) {
    let day = SystemTime::UNIX_EPOCH + Duration::from_hours(24 * 365 * 50);
    for path in paths {
        std::fs::File::open(path).unwrap().set_modified(day).unwrap();
    }
}
