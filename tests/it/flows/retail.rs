//! The demonstration `retail`: images that are built and scanned, a model that passes the gate and serves, a worse one that stops at the gate,
//! two that no metric sees, which are rolled back while clients ask, and an image that stops at its scan.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::event::{Event, MAIN_PROJECT};
use super::example::{changed, project};
use super::pipeline::Pipeline;
use super::schedule::JobState;
use super::site::{Project, ProjectVariable, Site};
use super::training::commit;
use super::{play_named, show};
use crate::conformance::skipped;
use crate::scenarios::sagemaker_registered::with_scikit_learn;
use crate::support::images::{create_repository, missing_builder, push_python_base};
use crate::support::job::Variable;
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

/// The project in its GitLab, whose images its pipelines build.
struct Shop<'a> {
    site: &'a Site,
    variables: Vec<ProjectVariable>,
}

impl<'a> Shop<'a> {
    fn new(site: &'a Site) -> Self {
        Self { site, variables: variables_for_builds(site, NAME, &["training", "serving"]) }
    }

    fn pipeline(&self, event: &Event, sha: &str) -> Pipeline<'_> {
        let Site { repository, environments, .. } = self.site;
        let project = Project { name: MAIN_PROJECT, repository, variables: &self.variables, environments };
        self.site.pipeline_of(project, event, sha)
    }
}

/// Makes the repositories and the base of the images that pipelines build for these uses; the project's variables with it. A variable of the
/// project would win over what a job builds.
pub(super) fn variables_for_builds(site: &Site, name: &str, uses: &[&str]) -> Vec<ProjectVariable> {
    let python = with_scikit_learn().expect("the site has it");
    let folder = tempfile::tempdir().unwrap();
    let base = (site.of_region)(&push_python_base(site.emulator(), folder.path(), &python));
    let mut variables = site.variables.clone();
    for use_of in uses {
        create_repository(site.emulator(), &format!("{name}-{use_of}"), "IMMUTABLE");
        variables.retain(|known| known.variable.key != format!("{}_IMAGE", use_of.to_uppercase()));
    }
    variables.push(ProjectVariable { variable: Variable::new("BASE_IMAGE", &base), scope: "*" });
    variables
}

/// The first version is released; then each of the other three leaves it in service.
fn whole(site: &Site) {
    let shop = Shop::new(site);
    let files = project("retail", NAME);
    let first = released(&shop, &files);
    let serving = configuration(site);
    let mut rows = vec![
        ["first version".to_owned(), format!("{first}, released, serves {ENDPOINT} as {serving}")],
        ["worse version".to_owned(), worse(&shop, &files)],
    ];
    for (name, (from, to, _), code) in [("answers with 500", CHANGES[2], 20), ("answers wrongly", CHANGES[3], 21)] {
        let change = changed(&files, SCRIPT, from, to);
        rows.push([format!("version that {name}"), broken(&shop, &change, code)]);
        assert_eq!(configuration(site), serving);
    }
    rows.push(["image with a vulnerability".to_owned(), vulnerable(&shop)]);
    for use_of in ["training", "serving"] {
        let images = crate::support::images::images(site.emulator(), &format!("{NAME}-{use_of}"));
        let digests: std::collections::BTreeSet<_> =
            images.iter().filter_map(|image| image.split(' ').next()).collect();
        assert_eq!(digests.len(), 1, "it is built once: {images:?}");
        rows.push([
            format!("{use_of} image"),
            format!("{} of {} pipelines", digests.iter().next().unwrap(), images.len() - 1),
        ]);
    }
    rows.push(["endpoint".to_owned(), format!("{ENDPOINT} serves {serving}")]);
    assert_eq!((site.api.files().len(), site.api.releases().len()), (1, 1));
    show::table("what exists", &rows);
}

/// Trains, releases and deploys the first version: the name of its package.
fn released(shop: &Shop<'_>, files: &[(String, String)]) -> String {
    let site = shop.site;
    let sha = commit(site, "main", files);
    let mut pipeline = shop.pipeline(&Event::Push { branch: "main" }, &sha);
    pipeline.run();
    show::pipeline(&pipeline);
    assert_eq!(pipeline.in_state(JobState::Failed), Vec::<&str>::new(), "{}", pipeline.told());
    let [training, serving] = ["training", "serving"].map(|use_of| {
        let scan = &pipeline.job(&format!("{use_of}-image-scan")).outcome;
        scan.shows(if use_of == "serving" { "accepted  CVE-2026-0001" } else { "findings  none" });
        pipeline.job(&format!("{use_of}-image-build")).variable("IMAGE_URI").to_owned()
    });
    let trained =
        site.emulator().jobs().pop().expect("a training job")["AlgorithmSpecification"]["TrainingImage"].take();
    assert_eq!(trained, training.as_str());
    let metrics: Value = serde_json::from_slice(&pipeline.job("train").file("metrics.json")).unwrap();
    assert!(metrics["accuracy"].as_f64() >= Some(0.8) && metrics["f1"].as_f64() >= Some(0.7), "{metrics}");
    assert_eq!(site.endpoints(), [ENDPOINT]);
    answers_as_before(site);
    let version = pipeline.job("stable-register").variable("IMAGE").to_owned();
    assert_eq!(version, serving);
    let package = pipeline.job("stable-package").package();
    assert!(contains(&package, "data/customers.csv"), "the package has the data");
    pipeline.job("stable-package").variable("PACKAGE_NAME").to_owned()
}

/// A merge request changes one number for the worse, and stops at the gate.
fn worse(shop: &Shop<'_>, files: &[(String, String)]) -> String {
    let site = shop.site;
    site.api.merge_request(12);
    let (from, to, _) = CHANGES[1];
    let sha = commit(site, "worse", &changed(files, SCRIPT, from, to));
    let request = Event::MergeRequest { number: 12, branch: "worse", title: "Make the model simpler" };
    let mut pipeline = shop.pipeline(&request, &sha);
    pipeline.run();
    show::pipeline(&pipeline);
    assert_eq!(pipeline.in_state(JobState::Failed), ["gate"], "{}", pipeline.told());
    pipeline.job("training-image-build").outcome.shows("nothing is built");
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
fn broken(shop: &Shop<'_>, change: &[(String, String)], code: i64) -> String {
    let site = shop.site;
    let known = site.versions(NAME).len();
    let sha = commit(site, "main", change);
    let mut pipeline = shop.pipeline(&Event::Push { branch: "main" }, &sha);
    let answers = while_asked(site, ENDPOINT, || {
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

/// A merge request no longer accepts a vulnerability, and stops at the scan.
fn vulnerable(shop: &Shop<'_>) -> String {
    let site = shop.site;
    let sha = commit(site, "strict", &[("accepted.json".to_owned(), "{\"accepted\": []}\n".to_owned())]);
    let request = Event::MergeRequest { number: 13, branch: "strict", title: "Accept nothing" };
    let mut pipeline = shop.pipeline(&request, &sha);
    pipeline.run();
    show::pipeline(&pipeline);
    assert_eq!(pipeline.in_state(JobState::Failed), ["serving-image-scan"], "{}", pipeline.told());
    pipeline.job("serving-image-scan").outcome.failed("script_failure", Some(10)).shows("CVE-2026-0001");
    assert_eq!(pipeline.schedule.state("candidate-package"), JobState::Skipped, "{}", pipeline.told());
    "stopped at its scan, exit code 10".to_owned()
}

#[track_caller]
fn stopped_before_release(pipeline: &Pipeline<'_>) {
    for job in ["staging-test", "stable-release", "production-plan", "production-deploy"] {
        assert_eq!(pipeline.schedule.state(job), JobState::Skipped, "{}", pipeline.told());
    }
}

/// Answers that clients got.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) right: usize,
    pub(super) other: usize,
}

/// Lets clients ask an endpoint about [`CUSTOMERS`] until the work is done.
pub(super) fn while_asked(site: &Site, endpoint: &str, work: impl FnOnce()) -> Answers {
    let over = AtomicBool::new(false);
    let emulator = site.emulator();
    let ask = || {
        let mut answers = Answers::default();
        let mut customers = CUSTOMERS.iter().cycle();
        while !over.load(Ordering::Relaxed) {
            let (customer, class) = customers.next().expect("a cycle has no end");
            let (status, body) = emulator.invoke(endpoint, "text/csv", customer);
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
    if let Some(missing) = missing_builder() {
        return skipped("retail_demonstration", missing);
    }
    play_named("retail_demonstration", NAME, whole);
}
