//! The demonstration `retail`: a model that passes the gate and serves, a worse one that stops at the gate, and two that no metric sees,
//! which are rolled back while clients ask.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::event::Event;
use super::example::{changed, project};
use super::pipeline::Pipeline;
use super::schedule::JobState;
use super::site::Site;
use super::training::commit;
use super::{play_named, show};
use crate::support::waiting::{pause, poll};

/// The name of the project, of its group of models, and the begin of its endpoints' names.
const NAME: &str = "retail";
const ENDPOINT: &str = "retail-staging";
const SCRIPT: &str = "training_script.py";
/// A customer who stays, and one who leaves.
const CUSTOMERS: [(&str, &str); 2] = [("20,60,5,0,1", "stays"), ("2,15,110,3,0", "leaves")];
/// Changes of the script: what is replaced, by what, and the exit code of the gate. The first one changes nothing; the second makes a worse
/// model; the model of the third answers with errors for customers who leave, that of the last one answers wrongly.
pub(super) const CHANGES: [(&str, &str, i32); 4] = [
    ("REGULARIZATION = 1.0", "REGULARIZATION = 1.0", 0),
    ("REGULARIZATION = 1.0", "REGULARIZATION = 0.0001", 10),
    (CLASSES, r#"CLASSES = ["stays"]"#, 0),
    (CLASSES, r#"CLASSES = ["leaves", "stays"]"#, 0),
];
const CLASSES: &str = r#"CLASSES = ["stays", "leaves"]"#;
/// Clients at once, and the pause of each between two requests.
const CLIENTS: usize = 4;
const THINKS: Duration = Duration::from_millis(150);

/// The first version is released; then each of the other three leaves it in service.
fn whole(site: &Site) {
    let files = project("retail", NAME);
    let first = released(site, &files);
    let serving = configuration(site);
    let mut rows = vec![
        ["first version".to_owned(), format!("{first}, released, serves {ENDPOINT} as {serving}")],
        ["worse version".to_owned(), worse(site, &files)],
    ];
    for (name, (from, to, _), code) in [("answers with 500", CHANGES[2], 20), ("answers wrongly", CHANGES[3], 21)] {
        let change = changed(&files, SCRIPT, from, to);
        rows.push([format!("version that {name}"), broken(site, &change, code)]);
        assert_eq!(configuration(site), serving);
    }
    rows.push(["endpoint".to_owned(), format!("{ENDPOINT} serves {serving}")]);
    assert_eq!((site.api.files().len(), site.api.releases().len()), (1, 1));
    show::table("what exists", &rows);
}

/// Trains, releases and deploys the first version: the name of its package.
fn released(site: &Site, files: &[(String, String)]) -> String {
    let sha = commit(site, "main", files);
    let mut pipeline = site.pipeline(&Event::Push { branch: "main" }, &sha);
    pipeline.run();
    show::pipeline(&pipeline);
    assert_eq!(pipeline.in_state(JobState::Failed), Vec::<&str>::new(), "{}", pipeline.told());
    let metrics: Value = serde_json::from_slice(&pipeline.job("train").file("metrics.json")).unwrap();
    assert!(metrics["accuracy"].as_f64() >= Some(0.8) && metrics["f1"].as_f64() >= Some(0.7), "{metrics}");
    assert_eq!(site.endpoints(), [ENDPOINT]);
    answers_as_before(site);
    let package = pipeline.job("stable-package").package();
    assert!(contains(&package, "data/customers.csv"), "the package has the data");
    pipeline.job("stable-package").variable("PACKAGE_NAME").to_owned()
}

/// A merge request changes one number for the worse, and stops at the gate.
fn worse(site: &Site, files: &[(String, String)]) -> String {
    site.api.merge_request(12);
    let (from, to, _) = CHANGES[1];
    let sha = commit(site, "worse", &changed(files, SCRIPT, from, to));
    let request = Event::MergeRequest { number: 12, branch: "worse", title: "Make the model simpler" };
    let mut pipeline = site.pipeline(&request, &sha);
    pipeline.run();
    show::pipeline(&pipeline);
    assert_eq!(pipeline.in_state(JobState::Failed), ["gate"], "{}", pipeline.told());
    let gate = &pipeline.job("gate").outcome;
    gate.failed("script_failure", Some(10)).shows("accuracy").shows("f1");
    for job in ["candidate-package", "review-deploy", "review-test"] {
        assert_eq!(pipeline.schedule.state(job), JobState::Skipped, "{}", pipeline.told());
    }
    assert_eq!((site.versions(NAME).len(), site.endpoints().len()), (1, 1));
    let notes = site.api.notes(12);
    assert!(notes.len() == 1 && notes[0].body.contains("accuracy"), "{}", pipeline.job("report").outcome);
    "stopped at the gate, exit code 10".to_owned()
}

/// A commit to the main branch passes the gate, but its model answers with errors or wrongly: its deployment ends with this code, and the
/// old model answers again.
fn broken(site: &Site, change: &[(String, String)], code: i64) -> String {
    let known = site.versions(NAME).len();
    let sha = commit(site, "main", change);
    let mut pipeline = site.pipeline(&Event::Push { branch: "main" }, &sha);
    let answers = while_asked(site, || {
        pipeline.run();
    });
    show::pipeline(&pipeline);
    assert_eq!(pipeline.in_state(JobState::Failed), ["staging-deploy"], "{}", pipeline.told());
    pipeline.job("staging-deploy").outcome.failed("script_failure", Some(code));
    stopped_before_release(&pipeline);
    assert_eq!(site.versions(NAME).len(), known + 1, "it had passed the gate");
    assert!(answers.right > answers.other, "{answers:?}");
    answers_as_before(site);
    format!("rolled back, exit code {code}; clients got {} right answers and {} others", answers.right, answers.other)
}

#[track_caller]
fn stopped_before_release(pipeline: &Pipeline<'_>) {
    for job in ["staging-test", "stable-release", "production-plan", "production-deploy"] {
        assert_eq!(pipeline.schedule.state(job), JobState::Skipped, "{}", pipeline.told());
    }
}

/// Answers that clients got.
#[derive(Debug, Default)]
struct Answers {
    right: usize,
    other: usize,
}

/// Lets clients ask the endpoint until the work is done.
fn while_asked(site: &Site, work: impl FnOnce()) -> Answers {
    let over = AtomicBool::new(false);
    let emulator = site.emulator();
    let ask = || {
        let mut answers = Answers::default();
        let mut customers = CUSTOMERS.iter().cycle();
        while !over.load(Ordering::Relaxed) {
            let (customer, class) = customers.next().expect("a cycle has no end");
            let (status, body) = emulator.invoke(ENDPOINT, "text/csv", customer);
            if status == 200 && predicted(&body) == json!([class]) {
                answers.right += 1;
            } else {
                answers.other += 1;
            }
            pause(THINKS);
        }
        answers
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(ask)).collect();
        work();
        over.store(true, Ordering::Relaxed);
        let all = clients.into_iter().map(|client| client.join().unwrap());
        all.fold(Answers::default(), |sum, one| Answers { right: sum.right + one.right, other: sum.other + one.other })
    })
}

fn predicted(body: &str) -> Value {
    serde_json::from_str::<Value>(body).map(|mut answer| answer["predictions"].take()).unwrap_or_default()
}

/// The old model answers, for both kinds of customers.
#[track_caller]
fn answers_as_before(site: &Site) {
    for (customer, class) in CUSTOMERS {
        let (status, body) = site.emulator().invoke(ENDPOINT, "text/csv", customer);
        assert!(status == 200 && predicted(&body) == json!([class]), "{status} {body}");
    }
}

/// The configuration in service, when the endpoint is at rest.
#[track_caller]
fn configuration(site: &Site) -> String {
    let at_rest = || {
        let endpoint = site.emulator().call("SageMaker.DescribeEndpoint", &json!({"EndpointName": ENDPOINT}));
        (endpoint["EndpointStatus"] == "InService").then(|| endpoint["EndpointConfigName"].as_str().unwrap().to_owned())
    };
    poll(Duration::from_mins(1), at_rest).expect("the endpoint is in service")
}

/// `true` if a zip file has a file of this name: its directory has names as they are.
fn contains(package: &[u8], name: &str) -> bool {
    package.windows(name.len()).any(|window| window == name.as_bytes())
}

#[test]
#[ignore = "takes a minute of the machine: `.ci/demo retail` runs it"]
fn retail_demonstration() {
    play_named("retail_demonstration", NAME, whole);
}
