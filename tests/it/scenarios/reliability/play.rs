//! Plays one job under a fault, from `config` to `cleanup`, as GitLab Runner calls the stages, and judges it.

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::table::{Act, Expected, Moment};
use crate::scenarios::sagemaker_desk::{Desk, Ended, Running, TOKEN};
use crate::scenarios::sagemaker_kills::judge::{Fate, Piece, Results, Script, judge};
use crate::scenarios::sagemaker_kills::notes::Notes;
use crate::scenarios::sagemaker_power::allowing;
use crate::support::driver::sagemaker_with;
use crate::support::job::{Artifacts, Job};
use crate::support::waiting::poll;

/// Nothing here takes so long: a call that gets no answer is given up after three minutes.
const PATIENCE: Duration = Duration::from_mins(6);

/// The end of a job: the error that it told, or how exact it was.
pub(super) struct Played {
    pub(super) told: String,
    pub(super) took: Duration,
}

/// A desk whose emulator the faults hit, for several jobs.
pub(super) struct Bench {
    desk: Desk,
    notes: Rc<Notes>,
    pub(super) jobs: u64,
    made_for: (&'static [&'static str], &'static str),
}

fn job() -> Job {
    Job::new().script(["true"]).after_script(["true"]).artifacts(Artifacts::paths(["out/*"]).when("always"))
}

impl Bench {
    /// `emulator`: its arguments; `tail`: lines of the operator's file, from within `[limits]`.
    pub(super) fn new(emulator: &'static [&'static str], tail: &'static str) -> Self {
        let arguments = [&["--log-delay", "500ms"], emulator].concat();
        let driver = allowing(sagemaker_with(&arguments, tail));
        let desk = Desk::of(&driver, &std::env::temp_dir(), &job());
        Self { desk, notes: Rc::new(Notes::start()), jobs: 0, made_for: (emulator, tail) }
    }

    pub(super) fn serves(&self, emulator: &[&str], tail: &str) -> bool {
        self.made_for == (emulator, tail)
    }

    /// Plays one job and judges it; panics when it is not as expected.
    pub(super) fn play(&mut self, expected: Expected, act: Act) -> Played {
        self.jobs += 1;
        let began = Instant::now();
        let id = 7000 + self.jobs;
        let payload = self.desk.root().join(format!("response-{id}.json"));
        std::fs::write(&payload, job().payload(id, TOKEN, "http://gitlab.example.com").to_string()).unwrap();
        let variables = self.desk.env.len();
        self.desk.env.push(("JOB_RESPONSE_FILE".to_owned(), payload.to_string_lossy().into_owned()));
        let (main, after) = (Script::main(id, 0, &self.notes), Script::after(id, &self.notes));
        let mut play = Play { desk: &mut self.desk, act, main, after, stages: Vec::new() };
        play.stages();
        let Play { main, after, stages, .. } = play;
        self.desk.env.truncate(variables);
        let told = judged(expected, &main, &after, &stages, &self.desk.project());
        self.desk.is_left_clean();
        Played { told, took: began.elapsed() }
    }
}

struct Play<'b> {
    desk: &'b mut Desk,
    act: Act,
    main: Script,
    after: Script,
    stages: Vec<(&'static str, Ended)>,
}

impl Play<'_> {
    /// The stages in the runner's order; all faults end before `cleanup`.
    fn stages(&mut self) {
        let _ = std::fs::remove_dir_all(self.desk.project());
        (self.act)(self.desk, Moment::Variables);
        self.desk.config().passed();
        (self.act)(self.desk, Moment::Begin);
        let prepared = self.desk.start(&["prepare"]);
        if self.ended("prepare", prepared) {
            (self.act)(self.desk, Moment::Prepared);
            let project = self.desk.project();
            let sources = format!(
                "set -e; mkdir -p '{0}/input' '{0}/out'; cd '{0}'; echo arrived >input/text; seq 1 50000 >input/numbers",
                project.display()
            );
            let stage = self.desk.start_run("get_sources", &sources);
            self.ended("get_sources", stage);
            let mut run = self.desk.start_run("build_script", &self.main.text());
            if until(&mut run, "line 3 ") {
                (self.act)(self.desk, Moment::Script);
            }
            let has_passed = self.ended("build_script", run);
            let stage = self.desk.start_run("after_script", &self.after.text());
            self.ended("after_script", stage);
            let upload = if has_passed { "upload_artifacts_on_success" } else { "upload_artifacts_on_failure" };
            let stage = self.desk.start_run(upload, "true");
            self.ended(upload, stage);
            let stage = self.desk.start_run("cleanup_file_variables", "true");
            self.ended("cleanup_file_variables", stage);
        }
        self.desk.emulator.set_faults(&json!({}));
        self.desk.cleanup().passed();
    }

    /// Waits for a stage's end; `true` when it passed.
    fn ended(&mut self, stage: &'static str, running: Running) -> bool {
        let ended = running.end_within(PATIENCE);
        println!("  {stage}: {:?}", ended.code);
        ended.stderr.lines().for_each(|line| println!("    {line}"));
        let has_passed = ended.code == Some(0);
        self.stages.push((stage, ended));
        has_passed
    }
}

/// Waits until stdout has the text; `false` when the stage ends before.
fn until(run: &mut Running, text: &str) -> bool {
    let shown = poll(PATIENCE, || if run.out().contains(text) { Some(true) } else { run.has_ended().then_some(false) });
    shown.expect("the stage shows the text or ends")
}

/// Judges a job; returns its one error, or `exact`.
fn judged(
    expected: Expected,
    main: &Script,
    after: &Script,
    stages: &[(&'static str, Ended)],
    project: &Path,
) -> String {
    let errors: Vec<&str> = stages
        .iter()
        .flat_map(|(_, ended)| ended.stderr.lines())
        .filter_map(|line| line.trim_start().strip_prefix("error: "))
        .collect();
    let pieces: Vec<Piece> =
        stages.iter().map(|(_, ended)| Piece { bytes: ended.stdout.clone(), killed: false }).collect();
    match expected {
        Expected::Exact => {
            let failed: Vec<_> =
                stages.iter().filter(|(_, ended)| ended.code != Some(0)).map(|(name, _)| name).collect();
            assert!(failed.is_empty() && errors.is_empty(), "{failed:?} failed: {errors:?}");
            judge(&[(main, Fate::Whole), (after, Fate::Whole)], &pieces, Results::All, project);
            "exact".to_owned()
        }
        Expected::Again => {
            let failed: Vec<_> =
                stages.iter().filter(|(_, ended)| ended.code != Some(0)).map(|(name, _)| name).collect();
            assert!(failed.is_empty() && errors.is_empty(), "{failed:?} failed: {errors:?}");
            let printed: Vec<u8> = pieces.iter().flat_map(|piece| piece.bytes.iter().copied()).collect();
            assert!(main.ends_with_whole_run(&printed, after), "the last run's output is not whole");
            assert_eq!(main.begun(), 2, "runs of the script");
            "exact, in a second run".to_owned()
        }
        Expected::Fails { code, words } => {
            assert_eq!(errors.len(), 1, "one cause, told once: {errors:?}");
            assert!(errors[0].contains(words), "{:?} lacks {words:?}", errors[0]);
            let failed: Vec<_> = stages.iter().filter(|(_, ended)| ended.code != Some(0)).collect();
            let [(stage, ended)] = failed[..] else { panic!("not one stage failed: {failed:?}") };
            assert_eq!(ended.code, Some(code), "{stage} has the wrong class of failure");
            let printed: Vec<u8> = pieces.iter().flat_map(|piece| piece.bytes.iter().copied()).collect();
            assert!(main.is_begin(&printed), "the output is no beginning of the script's:\n{}", errors[0]);
            assert!(main.begun() <= 1, "the script was begun twice");
            errors[0].to_owned()
        }
    }
}
