//! The demonstration `govcloud`: raw data of a landing zone become a model in service, in AWS `GovCloud`. Images are built and scanned, develop goes
//! to staging, main to staging and production, blue/green while clients ask; and no request names another partition or region.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::event::{Event, MAIN_PROJECT};
use super::example::{changed, made};
use super::pipeline::Pipeline;
use super::retail::{variables_for_builds, while_asked};
use super::schedule::JobState;
use super::site::{
    Elsewhere, LIFECYCLE_ROLE, PRODUCTION_ROLE, Project, ProjectVariable, STAGING_ROLE, Site, files_below,
};
use super::training::commit;
use super::{play_in, show};
use crate::conformance::{shown, skipped};
use crate::scenarios::sagemaker_registered::with_scikit_learn;
use crate::support::driver::ALLOW_ALL;
use crate::support::emulator::BUCKET;
use crate::support::gitlab_api::PROJECT_PATH;
use crate::support::iam::{HOST_ROLE, TRAINING_ROLE};
use crate::support::images::missing_builder;
use crate::support::job::Variable;
use crate::support::partition::{REGION, assert_own_names, of_region};

/// The name of the project, of its group of models, and the begin of its endpoints' names.
const NAME: &str = "churn";
const STAGING: &str = "churn-staging";
const PRODUCTION: &str = "churn-production";
const SCRIPT: &str = "training_script.py";
const ACCOUNT: Elsewhere = Elsewhere { of_region, operator_file, wait_scale: "0.1" };
/// The secret that the job `process` gets a field of.
const SECRET: &str = "churn/pseudonyms";
const KEY: &str = "key-of-pseudonyms-0123456789";
/// A customer whose row is complete.
const CUSTOMER: &str = "C00001";

/// The operator's file with the grants of the example's README in the place of those that allow everything.
fn operator_file(usual: &str) -> String {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples/govcloud/README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let granted = readme.split_once("```toml\n").expect("the README has grants").1.split_once("```").unwrap().0;
    let granted = granted.replace("example-landing-zone", BUCKET).replace("ml/churn", PROJECT_PATH);
    let rest = usual.strip_prefix(ALLOW_ALL).expect("the usual file begins with its rules");
    format!("{rest}\n{granted}")
}

/// The project in its GitLab, and its landing zone.
struct Churn<'a> {
    site: &'a Site,
    files: Vec<(String, String)>,
    variables: Vec<ProjectVariable>,
    /// The pseudonym of [`CUSTOMER`].
    pseudonym: String,
}

impl<'a> Churn<'a> {
    fn new(site: &'a Site) -> Self {
        let folder = made("govcloud");
        let project = folder.path().join(NAME);
        let python = with_scikit_learn().expect("the site has it");
        let run = |arguments: &[&str]| {
            let mut program = Command::new(&python);
            program.args(arguments).current_dir(folder.path()).env_clear().env("PYTHONDONTWRITEBYTECODE", "1");
            let ended = program.env("PYTHONPATH", &project).output().unwrap();
            assert!(ended.status.success(), "{}", shown(&ended));
            String::from_utf8(ended.stdout).unwrap().trim().to_owned()
        };
        run(&["churn/data/make_input_data.py"]);
        let raw = std::fs::read(folder.path().join("input_data.csv")).unwrap();
        site.emulator().put_object("raw/input_data.csv", &raw);
        let text = json!({"key": KEY}).to_string();
        site.emulator().call("secretsmanager.CreateSecret", &json!({"Name": SECRET, "SecretString": text}));
        let pseudonym = run(&["-c", "import process, sys; print(process.pseudonym(*sys.argv[1:]))", KEY, CUSTOMER]);
        let mut variables = variables_for_builds(site, NAME, &["training"]);
        variables.push(ProjectVariable { variable: Variable::new("DATA_BUCKET", BUCKET), scope: "*" });
        Self { site, files: files_below(&project, ""), variables, pseudonym }
    }

    fn pushed(&self, branch: &'static str, sha: &str) -> Pipeline<'_> {
        let Site { repository, environments, .. } = self.site;
        let project = Project { name: MAIN_PROJECT, repository, variables: &self.variables, environments };
        self.site.pipeline_of(project, &Event::Push { branch }, sha)
    }

    /// Runs a pipeline whose images are built, or found again, and scanned, and that deploys to staging; where the endpoint serves already,
    /// while clients ask it.
    fn to_staging(&self, pipeline: &mut Pipeline<'_>, is_served: bool) -> String {
        let answers = is_served.then(|| {
            while_asked(self.site, STAGING, || {
                pipeline.run();
            })
        });
        pipeline.run();
        show::pipeline(pipeline);
        assert_eq!(pipeline.in_state(JobState::Failed), Vec::<&str>::new(), "{}", pipeline.told());
        assert!(answers.as_ref().is_none_or(|answers| answers.right > 0 && answers.other == 0), "{answers:?}");
        for job in ["training-image-scan", "process", "train", "staging-deploy", "staging-test"] {
            assert_eq!(pipeline.schedule.state(job), JobState::Success, "{job}: {}", pipeline.told());
        }
        let image = image_of(pipeline);
        let registry = format!("000000000000.dkr.ecr.{REGION}.amazonaws.com/{NAME}-training@sha256:");
        assert!(image.starts_with(&registry), "{image}");
        pipeline.job("training-image-scan").outcome.shows("findings  none");
        let process = pipeline.job("process");
        process.outcome.shows("468 of 480 customers are complete").hides(KEY);
        let place = process.variable("SAGEMAKER_MODEL_URI").to_owned();
        self.assert_processed(&place);
        pipeline.job("train").outcome.shows(&format!("{place}/ (FastFile mode)")).shows("Trained on 351 customers");
        place
    }

    /// The processed data are where the job said, without the customers' numbers.
    fn assert_processed(&self, place: &str) {
        let key = place.strip_prefix(&format!("s3://{BUCKET}/")).unwrap_or_else(|| panic!("{place}"));
        assert!(key.starts_with("processed/"), "{place}");
        let processed = self.site.emulator().get_object(&format!("{key}/customers.csv")).expect("the job wrote it");
        assert!(processed.contains(&format!("\n{},", self.pseudonym)), "{processed:.400}");
        assert!(!processed.contains(CUSTOMER) && processed.lines().count() == 469, "{processed:.400}");
    }
}

/// Somebody else approves the version of a pipeline of main, and who pushed deploys it.
fn to_production(pipeline: &mut Pipeline<'_>) {
    assert_eq!(pipeline.schedule.state("stable-release"), JobState::Success, "{}", pipeline.told());
    assert_eq!(pipeline.schedule.state("production-plan"), JobState::Warning, "not approved: {}", pipeline.told());
    pipeline.by("2").play("stable-approve", &[("REASON", "good on staging")]);
    pipeline.by("1").play("production-deploy", &[]);
    show::pipeline(pipeline);
    assert_eq!(pipeline.in_state(JobState::Failed), Vec::<&str>::new(), "{}", pipeline.told());
    assert_eq!(pipeline.schedule.state("production-test"), JobState::Success, "{}", pipeline.told());
    let deployed = pipeline.job("production-deploy");
    for name in ["PACKAGE_SHA256", "MODEL_PACKAGE_ARN"] {
        assert_eq!(deployed.variable(name), pipeline.job("staging-deploy").variable(name), "{name}");
    }
    assert!(deployed.variable("MODEL_PACKAGE_ARN").starts_with(&format!("arn:aws-us-gov:sagemaker:{REGION}:")));
}

fn whole(site: &Site) {
    let churn = Churn::new(site);
    commit(site, "main", &churn.files);
    let with =
        |number: &str| changed(&churn.files, SCRIPT, "REGULARIZATION = 1.0", &format!("REGULARIZATION = {number}"));
    let mut candidate = churn.pushed("develop", &commit(site, "develop", &with("0.8")));
    let first = churn.to_staging(&mut candidate, false);
    assert_eq!(site.endpoints(), [STAGING]);

    let mut stable = churn.pushed("main", &site.repository.merge("develop", "main"));
    let second = churn.to_staging(&mut stable, true);
    assert_ne!(first, second, "each pipeline has a place of its own");
    to_production(&mut stable);

    stable.job("training-image-build").outcome.shows("nothing is built");
    let version = stable.job("production-deploy").variable("MODEL_PACKAGE_ARN").to_owned();

    let kept = site.world.proxy.as_ref().expect("the requests are kept").kept();
    assert_eq!(canaries(&kept), 1, "that of staging");
    assert_own_names(&kept, |_| false);
    for role in [HOST_ROLE, TRAINING_ROLE, LIFECYCLE_ROLE, STAGING_ROLE, PRODUCTION_ROLE] {
        let decided = site.emulator().decided_of(&format!("arn:aws-us-gov:iam::000000000000:role/{role}"));
        assert_eq!(decided["denied"], json!({}), "{role}: {decided}");
    }
    show::table(
        "what exists",
        &[
            ["landing zone".to_owned(), format!("s3://{BUCKET}/raw/input_data.csv, processed as {second}")],
            ["image".to_owned(), image_of(&stable)],
            ["releases".to_owned(), site.api.releases().len().to_string()],
            ["endpoints".to_owned(), format!("{}; {PRODUCTION} serves {version}", site.endpoints().join(", "))],
            ["requests to AWS".to_owned(), format!("{}, all of {REGION} in aws-us-gov", kept.len())],
        ],
    );
}

fn image_of(pipeline: &Pipeline<'_>) -> String {
    pipeline.job("training-image-build").variable("IMAGE_URI").to_owned()
}

/// The number of `UpdateEndpoint` with a canary.
fn canaries(requests: &[Vec<u8>]) -> usize {
    let texts = requests.iter().map(|request| String::from_utf8_lossy(request));
    let updates = texts.filter(|text| text.contains("SageMaker.UpdateEndpoint\r\n"));
    let policies = updates.map(|text| {
        let (_, body) = text.split_once("\r\n\r\n").expect("a request has a body");
        let body: Value = serde_json::from_str(body).expect("the body is JSON");
        body["DeploymentConfig"]["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]["Type"] == "CANARY"
    });
    policies.filter(|is_canary| *is_canary).count()
}

#[test]
#[ignore = "takes a minute of the machine: `.ci/demo govcloud` runs it"]
fn govcloud_demonstration() {
    if let Some(missing) = missing_builder() {
        return skipped("govcloud_demonstration", missing);
    }
    play_in("govcloud_demonstration", NAME, &ACCOUNT, whole);
}
