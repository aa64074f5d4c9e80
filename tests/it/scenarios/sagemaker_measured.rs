//! What a job's output shows of its metrics: lines in the log, files and the page that its artifacts name, definitions for SageMaker.

use serde_json::{Value, json};

use crate::support::driver::sagemaker;
use crate::support::job::{Artifacts, Job};
use crate::support::outcome::Outcome;
use crate::support::scenario::{Scenario, With, play};
use crate::support::world::{Settings, World};

const METRICS: &str = r"val/loss=loss=([-+.\w]+)
accuracy=accuracy: ([-+.\w]+)
bleu=bleu: ([-+.\w]+)";

fn run(world: &World) -> Vec<Outcome> {
    let script = [
        "for n in 9 5 3; do printf ' %s |##| loss=0.%s\\r' $n $n; done; echo; echo \"accuracy: 0.75 <b>\"; echo loss=9.5e-05; echo loss=nan",
        "# loss=7\n# loss=8\nexit 3",
    ];
    let files = ["sagemaker-metrics.txt", "sagemaker-metrics.json", "sagemaker-report.html"];
    vec![
        world.run(
            &Job::new()
                .set("SAGEMAKER_METRICS", METRICS)
                .set("FF_SCRIPT_SECTIONS", "true")
                .script(script)
                .after_script(["echo loss=0.1"])
                .artifacts(Artifacts::paths(files).when("always")),
        ),
        world.run(&Job::new().set("SAGEMAKER_METRICS", "loss=loss").script(["true"])),
    ]
}

fn expect(world: &World, outcomes: &[Outcome]) {
    outcomes[0]
        .failed("script_failure", Some(3))
        .shows("\nMetric val/loss █▅▃▁ first 0.9, last NaN, best 9.5e-5\n")
        .shows("the last value of `val/loss` is no finite number: NaN")
        .shows("\nMetric accuracy ▅ first 0.75, last 0.75, best 0.75\n")
        .shows("no line of the output had a value for `bleu`; compare the regular expressions in `SAGEMAKER_METRICS`");
    let files = outcomes[0].artifact("archive").files();
    let text = |name: &str| String::from_utf8(files[name].clone()).unwrap();
    let lines = text("sagemaker-metrics.txt");
    assert!(lines.contains("\nval_loss NaN\n") && lines.contains("\naccuracy 0.75\n"), "{lines}");
    let values: Value = serde_json::from_str(&text("sagemaker-metrics.json")).unwrap();
    assert_eq!(values["metrics"], json!({"accuracy": 0.75, "val/loss": "NaN"}));
    let page = text("sagemaker-report.html");
    assert!(page.contains("Exit code 3") && page.contains("val/loss") && page.contains("Billed "), "{page}");
    let job = &world.emulator.as_ref().unwrap().jobs()[0];
    let defined: Vec<_> = job["AlgorithmSpecification"]["MetricDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|metric| &metric["Name"])
        .collect();
    assert_eq!(defined, ["val/loss", "accuracy", "bleu"]);
    outcomes[1]
        .failed("script_failure", Some(1))
        .shows("`SAGEMAKER_METRICS` has a regular expression for `loss` with 0 groups; it needs one")
        .called("run build_script", 0);
}

#[test]
fn metrics_are_shown_kept_and_drawn() {
    let scenario = Scenario { name: "metrics", needs: &["unzip"], settings: Settings::default, play: run, expect };
    play(&scenario, With::RealRunner, sagemaker());
}
