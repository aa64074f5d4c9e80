//! The jobs of this host, from their notes and session records.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, SystemTime};

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::base::clock::Clock;
use crate::base::failure::Failure;
use crate::base::human::human_duration;
use crate::base::plain;
use crate::config::prices::Price;
use crate::config::settings::Settings;
use crate::session::SessionId;
use crate::session::job_note::{self, JobNote, JobNotes};
use crate::session::record::{Records, SessionRecord};
use crate::session::stamp::Stamp;

/// Longest text of a cell, in bytes.
const CELL: usize = 60;

/// All jobs that have not ended.
#[derive(Debug, Default, Serialize)]
pub(super) struct HostJobs {
    pub(super) jobs: Vec<JobRow>,
    /// Notes and records that cannot be used, each with the reason.
    pub(super) unreadable: Vec<String>,
}

/// One job. Times are seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct JobRow {
    pub(super) session: String,
    pub(super) job: u64,
    pub(super) job_name: String,
    pub(super) project: String,
    pub(super) git_ref: String,
    pub(super) pipeline: u64,
    /// The call of the runner: `run build_script`.
    pub(super) stage: String,
    /// The job's present work.
    pub(super) phase: String,
    pub(super) phase_seconds: Option<u64>,
    pub(super) elapsed_seconds: Option<u64>,
    pub(super) instances: String,
    pub(super) training_job: Option<String>,
    /// So far, of this job's instances, as its bill will count them. `None`: nothing is known of the price, or of spot instances.
    pub(super) cost: Option<f64>,
    pub(super) cost_words: String,
    pub(super) lease: Option<LeaseState>,
    pub(super) failure: Option<String>,
}

/// The sign of life by which the agents know that this host works.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct LeaseState {
    pub(super) renewed_seconds_ago: u64,
    pub(super) is_over: bool,
}

impl HostJobs {
    /// Reads all notes and records, and nothing else.
    pub(super) fn read(settings: &Settings, clock: &dyn Clock) -> anyhow::Result<Self> {
        let state_dir = &settings.runner.state_dir;
        check_access(state_dir)?;
        let (notes, records) = (JobNotes::at(state_dir), Records::at(state_dir));
        let mut ids: BTreeSet<SessionId> =
            notes.sessions().map_err(|error| unreadable(state_dir, error))?.into_iter().collect();
        ids.extend(records.sessions()?);
        let mut all = Self::default();
        for id in ids {
            let note = notes.load(&id).unwrap_or_else(|error| all.name(&error));
            let record = records.load(&id).unwrap_or_else(|error| all.name(&error));
            if note.is_some() || record.is_some() {
                all.jobs.push(row(settings, clock, &records, &id, &note.unwrap_or_default(), record.as_ref()));
            }
        }
        all.jobs.sort_by_key(|row| std::cmp::Reverse(row.elapsed_seconds));
        Ok(all)
    }

    fn name<T>(&mut self, error: &anyhow::Error) -> Option<T> {
        self.unreadable.push(plain::lines(&format!("{error:#}")).into_owned());
        None
    }

    /// The table for people.
    pub(super) fn text(&self) -> String {
        if self.jobs.is_empty() {
            return "No job runs on this host\n".to_owned();
        }
        let lines: Vec<_> = self.table().lines().map(|line| line.trim_end().to_owned()).collect();
        format!("{}\n", lines.join("\n"))
    }

    /// A row for each job, below a header.
    pub(super) fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["JOB", "PROJECT", "PHASE", "ELAPSED", "INSTANCES", "COST", "LEASE"]);
        for row in &self.jobs {
            table.add_row(row.cells());
        }
        table
    }
}

impl JobRow {
    fn cells(&self) -> [String; 7] {
        let or_dash = |text: String| if text.is_empty() { "–".to_owned() } else { plain::line(&text, CELL) };
        [
            if self.job == 0 { plain::line(&self.session, CELL) } else { self.job.to_string() },
            or_dash(self.project.clone()),
            or_dash(self.phase_words()),
            or_dash(self.elapsed_seconds.map(duration).unwrap_or_default()),
            or_dash(self.instances.clone()),
            or_dash(self.cost_words.clone()),
            or_dash(self.lease.as_ref().map(LeaseState::words).unwrap_or_default()),
        ]
    }

    pub(super) fn phase_words(&self) -> String {
        let since = self.phase_seconds.map(|seconds| format!(", {}", duration(seconds))).unwrap_or_default();
        format!("{}{since}", self.phase)
    }

    /// The number in GitLab, or the session.
    pub(super) fn is_exactly(&self, words: &str) -> bool {
        self.session == words || self.job != 0 && self.job.to_string() == words
    }

    pub(super) fn begins_with(&self, words: &str) -> bool {
        let job = self.job.to_string();
        !words.is_empty() && (self.session.starts_with(words) || self.job != 0 && job.starts_with(words))
    }
}

impl LeaseState {
    pub(super) fn words(&self) -> String {
        let ago = duration(self.renewed_seconds_ago);
        if self.is_over { format!("over, renewed {ago} ago") } else { format!("renewed {ago} ago") }
    }
}

fn duration(seconds: u64) -> String {
    human_duration(Duration::from_secs(seconds))
}

/// Tells another user than the runner's what to do.
fn check_access(state_dir: &Path) -> anyhow::Result<()> {
    for folder in [state_dir.to_owned(), JobNotes::folder(state_dir), state_dir.join("sessions")] {
        match std::fs::read_dir(&folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(unreadable(&folder, error)),
            _ => {}
        }
    }
    Ok(())
}

fn unreadable(folder: &Path, error: std::io::Error) -> anyhow::Error {
    let failure = Failure::system(format!("failed to read the jobs of this host in {}", folder.display()));
    let failure = if error.kind() == ErrorKind::PermissionDenied {
        failure.hint(
            "only the user that GitLab Runner runs as, and root, may read `runner.state_dir`: run \
             `sudo -u gitlab-runner sagemaker-executor status`, with that user's name",
        )
    } else {
        failure.hint("let `runner.state_dir` in the operator's file name the directory that the stages use")
    };
    failure.caused_by(error).into()
}

fn row(
    settings: &Settings,
    clock: &dyn Clock,
    records: &Records,
    id: &SessionId,
    note: &JobNote,
    record: Option<&SessionRecord>,
) -> JobRow {
    let (now, stamp) = (clock.now(), Stamp::of(clock));
    let since = |moment: u64| (moment > 0).then(|| job_note::since(moment, now).as_secs());
    let (phase, phase_seconds) = phase(note, record, records.is_closing(id), now, &stamp);
    let (cost, cost_words) = cost(settings, note, now);
    let lease = records.renewed(id).map(|at| at.age(&stamp));
    JobRow {
        session: id.to_string(),
        job: note.job_id,
        job_name: note.job_name.clone(),
        project: note.project.clone(),
        git_ref: note.git_ref.clone(),
        pipeline: note.pipeline_id,
        stage: note.stage.clone(),
        phase,
        phase_seconds,
        elapsed_seconds: since(note.begun).or_else(|| since(record?.created)),
        instances: instances(note, record),
        training_job: note.status.as_ref().map(|status| status.training_job.clone()),
        cost,
        cost_words,
        lease: lease.map(|age| LeaseState { renewed_seconds_ago: age.as_secs(), is_over: age > settings.lease() }),
        failure: note.failure.as_ref().map(|failure| format!("{} ({})", failure.stage, failure.reason.word())),
    }
}

/// The job's present work, and its duration so far.
fn phase(
    note: &JobNote,
    record: Option<&SessionRecord>,
    is_closing: bool,
    now: SystemTime,
    stamp: &Stamp,
) -> (String, Option<u64>) {
    let since_stage = (note.stage_begun > 0).then(|| job_note::since(note.stage_begun, now).as_secs());
    let of_stage = |words: &str| (words.to_owned(), since_stage);
    let Some(record) = record else {
        return if note.stage_over { of_stage("between two stages") } else { of_stage(&note.stage) };
    };
    if let Some(leaving) = &record.leaving {
        return ("ended; SageMaker ends its training job".to_owned(), Some(leaving.age(stamp).as_secs()));
    }
    if is_closing {
        return of_stage("being cleaned up");
    }
    if let Some(queued) = &record.queued {
        return (
            format!("waiting for the quota of {}", queued.types.join(", ")),
            Some(queued.since.age(stamp).as_secs()),
        );
    }
    let is_container = record.current.is_some() && !note.stage_over;
    // The agent is ready before SageMaker says so.
    let is_up = record.nodes.rows().any(|node| node.ready);
    let is_awaited = |phase: &str| phase != "training" && !(is_up && phase == "download");
    match (&note.status, &record.current) {
        (Some(status), Some(_)) if is_container && is_awaited(&status.phase) => {
            (status.phase.clone(), Some(job_note::since(status.since, now).as_secs()))
        }
        (_, Some(current)) if is_container => of_stage(&format!("script: {}", current.stage)),
        _ if note.stage_over => of_stage("between two stages"),
        _ => of_stage(&note.stage),
    }
}

fn instances(note: &JobNote, record: Option<&SessionRecord>) -> String {
    let one = |(name, count): &(String, u32)| if *count == 1 { name.clone() } else { format!("{count} x {name}") };
    match (&note.status, record) {
        (Some(status), _) if !status.instances.is_empty() => {
            let spot = if status.is_spot { ", spot" } else { "" };
            format!("{}{spot}", status.instances.iter().map(one).collect::<Vec<_>>().join(" and "))
        }
        (_, Some(record)) if !record.instance_type.is_empty() => {
            one(&(record.instance_type.clone(), u32::try_from(record.nodes.len()).unwrap_or(1).max(1)))
        }
        _ => String::new(),
    }
}

/// The cost so far: of the training job that runs by the time since its instances came up, of those before it by their bills.
fn cost(settings: &Settings, note: &JobNote, now: SystemTime) -> (Option<f64>, String) {
    let prices: &BTreeMap<String, f64> = &settings.prices;
    let current = note.status.as_ref();
    let is_current = |name: &String| current.is_some_and(|status| status.training_job == *name);
    let earlier = note.bills.iter().filter(|(name, bill)| !is_current(name) && bill.billable != Some(0));
    let mut total: Option<f64> = earlier.map(|(_, bill)| bill.cost).sum();
    let Some(status) = current else {
        return if note.bills.is_empty() {
            (None, String::new())
        } else {
            (total, total.map(amount).unwrap_or_default())
        };
    };
    let price = Price::of(&status.instances, prices);
    let running = match (status.billed_since, price) {
        (None, _) => Some(0.0),
        (Some(_), _) if status.is_spot => None,
        (Some(since), Some(price)) => Some(price.cost(job_note::since(since, now).as_secs())),
        (Some(_), None) => None,
    };
    total = total.zip(running).map(|(earlier, running)| earlier + running);
    let words = match (total, price) {
        (Some(cost), Some(price)) => format!("about {}", price.amount(cost)),
        (Some(cost), None) => amount(cost),
        (None, _) if status.is_spot => "known at its end".to_owned(),
        (None, _) => "price not known".to_owned(),
    };
    (total, words)
}

fn amount(cost: f64) -> String {
    format!("about {cost:.2}")
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::base::clock::HostClock;
    use crate::session::current_run::CurrentRun;
    use crate::session::job_note::{NotedBill, NotedStatus, seconds_of};
    use crate::session::record::Queued;

    fn settings(state_dir: &Path) -> Settings {
        let text = format!("[storage]\nbucket = \"b\"\n[job]\n[runner]\nstate_dir = \"{}\"\n", state_dir.display());
        toml::from_str(&text).unwrap()
    }

    fn status(phase: &str, billed_since: Option<u64>, is_spot: bool) -> NotedStatus {
        NotedStatus {
            training_job: "t".to_owned(),
            phase: phase.to_owned(),
            since: 900,
            billed_since,
            is_spot,
            instances: vec![("ml.m5.large".to_owned(), 2)],
        }
    }

    fn at(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(second)
    }

    #[test]
    fn the_phase_is_what_the_job_does_now() {
        let of = |note: &JobNote, record: Option<&SessionRecord>, is_closing| {
            phase(note, record, is_closing, at(1000), &Stamp::of_day(at(1000)))
        };
        let said = |words: &str, seconds| (words.to_owned(), Some(seconds));
        let mut note = JobNote { stage: "prepare".to_owned(), stage_begun: 960, ..JobNote::default() };
        let mut record = SessionRecord::default();
        assert_eq!(of(&note, None, false), said("prepare", 40));
        assert_eq!(of(&note, Some(&record), false), said("prepare", 40));
        record.queued = Some(Queued { types: vec!["ml.g5.xlarge".to_owned()], since: Stamp::of_day(at(700)) });
        assert_eq!(of(&note, Some(&record), false), said("waiting for the quota of ml.g5.xlarge", 300));
        record.queued = None;
        record.current = Some(CurrentRun { stage: "build_script".to_owned(), ..CurrentRun::default() });
        note.stage = "run build_script".to_owned();
        note.status = Some(status("download", None, false));
        assert_eq!(of(&note, Some(&record), false), said("download", 100));
        note.status = Some(status("training", None, false));
        assert_eq!(of(&note, Some(&record), false), said("script: build_script", 40));
        note.stage_over = true;
        assert_eq!(of(&note, Some(&record), false), said("between two stages", 40));
        assert_eq!(of(&note, Some(&record), true), said("being cleaned up", 40));
        record.leaving = Some(Stamp::of_day(at(995)));
        assert_eq!(of(&note, Some(&record), true).1, Some(5));
    }

    #[test]
    fn the_cost_is_that_of_the_instances_so_far() {
        let settings = settings(Path::new("/x"));
        let of = |note: &JobNote| cost(&settings, note, at(3600));
        let mut note = JobNote::default();
        assert_eq!(of(&note), (None, String::new()));
        note.status = Some(status("waiting for instances", None, false));
        assert_eq!(of(&note).0, Some(0.0));
        note.status = Some(status("training", Some(1800), false));
        let (value, words) = of(&note);
        assert!((value.unwrap() - 0.115).abs() < 1e-9 && words.starts_with("about $0.1"), "{value:?} {words}");
        let bill = NotedBill { billable: Some(3600), cost: Some(1.0), ..NotedBill::default() };
        note.bills.insert("earlier".to_owned(), bill.clone());
        note.bills.insert("t".to_owned(), bill);
        assert!((of(&note).0.unwrap() - 1.115).abs() < 1e-9, "the bill of the current job is told by its time");
        note.status = Some(status("training", Some(1800), true));
        assert_eq!(of(&note), (None, "known at its end".to_owned()));
    }

    #[test]
    fn a_host_is_read_without_a_trace() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(&dir.path().join("state"));
        assert_eq!(HostJobs::read(&settings, &HostClock).unwrap().text(), "No job runs on this host\n");
        assert!(!dir.path().join("state").exists());
        let (state_dir, now) = (&settings.runner.state_dir, seconds_of(HostClock.now()));
        let id = |number: u32| SessionId::parse(&format!("gitlab-231-{number}-abcdef12")).unwrap();
        let note = JobNote { job_id: 12, project: "g/\u{1b}[31mp".to_owned(), begun: now, ..JobNote::default() };
        JobNotes::at(state_dir).begin(&id(12), note);
        let records = Records::open(state_dir).unwrap();
        records.save(&id(13), &SessionRecord::default()).unwrap();
        std::fs::write(state_dir.join("sessions/gitlab-231-14-abcdef12.json"), "{").unwrap();
        let found = HostJobs::read(&settings, &HostClock).unwrap();
        assert_eq!(found.jobs.len(), 2);
        assert!(found.unreadable.len() == 1 && found.unreadable[0].contains("gitlab-231-14"), "{:?}", found.unreadable);
        let text = found.text();
        assert!(!text.contains('\u{1b}') && text.contains("12 ") && text.contains("gitlab-231-13-abcdef12"), "{text}");
        let row = found.jobs.iter().find(|row| row.job == 12).unwrap();
        assert!(row.is_exactly("12") && row.is_exactly("gitlab-231-12-abcdef12") && !row.is_exactly("1"));
        assert!(row.begins_with("1") && row.begins_with("gitlab-231-12") && !row.begins_with(""));
    }
}
