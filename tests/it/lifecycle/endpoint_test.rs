//! `endpoint test`: a container of the emulator serves, and the program asks it as a CI job does.

use std::path::Path;
use std::time::Duration;

use regex::Regex;
use serde_json::{Value, json};

use super::{Ended, run};
use crate::conformance::{can_run_containers, skipped};
use crate::support::emulator::{BUCKET, Emulator};
use crate::support::serving::serving_image;
use crate::support::snapshot::assert_snapshot;
use crate::support::waiting::{find_program, poll};

/// Adds the numbers of each row, and fails for rows that begin with 500.
const HANDLER: &str = r#"
import json

def model_fn(folder):
    return None

def input_fn(body, content_type):
    if content_type == "application/octet-stream":
        return [list(body)]
    return [[float(value) for value in line.split(",")] for line in body.decode().splitlines()]

def predict_fn(rows, model):
    if rows[0][0] == 500:
        raise RuntimeError("out of order")
    return [sum(row) for row in rows]

def output_fn(prediction):
    return json.dumps({"predictions": prediction}).encode(), "application/json"
"#;

const SAMPLES: &str = r#"{"name": "two", "content_type": "text/csv", "body": "1,2", "expect": {"content_type": "application/json", "json": [{"path": "$.predictions[0]", "near": 3, "tolerance": 0.01}]}}
{"name": "no numbers", "content_type": "text/csv", "body": "a,b", "expect": {"status": 400, "contains": "could not convert"}}
"#;
const WRONG: &str = r#"[{"name": "four", "content_type": "text/csv", "body": "2,2", "expect": {"equals": {"predictions": [5]}}},
 {"name": "broken", "content_type": "text/csv", "body": "500"}]"#;

/// The shipped policy, for the emulator's account and bucket, and a role for the containers.
fn account() -> Value {
    let policy = include_str!("../../../runner-config/iam/lifecycle/endpoint-test.json");
    let policy = policy.replace("eu-west-1:123456789012", "us-east-1:000000000000").replace("example-models", BUCKET);
    let objects = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": format!("arn:aws:s3:::{BUCKET}/*")}]});
    let role = |(name, principal, policy): (&str, Value, Value)| {
        json!({
            "RoleName": name,
            "RoleId": format!("AROA{}", name.to_uppercase().replace('-', "")),
            "Arn": format!("arn:aws:iam::000000000000:role/{name}"),
            "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [
                {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}]},
            "RolePolicyList": [{"PolicyName": name, "PolicyDocument": policy}],
        })
    };
    let roles = [
        ("endpoint-test", json!({"AWS": "000000000000"}), serde_json::from_str(&policy).unwrap()),
        ("serving", json!({"Service": "sagemaker.amazonaws.com"}), objects),
    ];
    json!({ "RoleDetailList": roles.map(role) })
}

struct Desk {
    /// Ends before its folder goes.
    emulator: Emulator,
    folder: tempfile::TempDir,
}

impl Desk {
    /// `None` where no container runs.
    fn new() -> Option<Self> {
        let Some(python) = find_program("python3").filter(|_| can_run_containers()) else {
            skipped("endpoint test", "bubblewrap cannot create a container here, or there is no python3");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let image = serving_image(&file("image"), "serving", &python, HANDLER);
        std::fs::write(file("account.json"), account().to_string()).unwrap();
        let iam = ["--iam".to_owned(), file("account.json").display().to_string()];
        let mut emulator = Emulator::start(&file("data"), &[&["--image".to_owned(), image][..], &iam].concat());
        emulator.call_driver_as("role/endpoint-test");
        std::fs::write(file("good.jsonl"), SAMPLES).unwrap();
        std::fs::write(file("rows.csv"), "a,expect:$.predictions[0],b\n1,3,2\n2,6.0,4\n").unwrap();
        std::fs::write(file("bytes.bin"), [1, 2]).unwrap();
        std::fs::write(file("bytes.bin.expect.json"), r#"{"expect": {"equals": {"predictions": [3]}}}"#).unwrap();
        std::fs::write(file("wrong.json"), WRONG).unwrap();
        Some(Self { emulator, folder })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Creates an endpoint, and waits until it is in service.
    fn serve(&self, name: &str, more: &Value) {
        let call = |operation: &str, body: &Value| self.emulator.call(&format!("SageMaker.{operation}"), body);
        let role = "arn:aws:iam::000000000000:role/serving";
        call(
            "CreateModel",
            &json!({"ModelName": name, "PrimaryContainer": {"Image": "serving"}, "ExecutionRoleArn": role}),
        );
        let variant = json!({"VariantName": "AllTraffic", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1});
        let mut config = json!({"EndpointConfigName": name, "ProductionVariants": [variant]});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        call("CreateEndpointConfig", &config);
        call("CreateEndpoint", &json!({"EndpointName": name, "EndpointConfigName": name}));
        let in_service = poll(Duration::from_mins(1), || {
            let found = call("DescribeEndpoint", &json!({"EndpointName": name}));
            (found["EndpointStatus"] == "InService").then_some(())
        });
        assert!(in_service.is_some(), "{name} is not in service");
    }

    fn test(&self, endpoint: &str, arguments: &[&str]) -> Ended {
        let manifest = json!({
            "endpoint": {
                "name": endpoint,
                "instances": {"type": "ml.m5.large"},
                "test": {"samples": ["good.jsonl", "rows.csv", "bytes.bin"], "max_p95_ms": 30_000},
            },
            "environments": {"prod": {"region": "us-east-1", "account": "000000000000", "bucket": BUCKET}},
        });
        std::fs::write(self.path().join("manifest.json"), manifest.to_string()).unwrap();
        let mut variables = self.emulator.environment();
        variables.push(("CI_ENVIRONMENT_NAME".to_owned(), "prod".to_owned()));
        let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let url = ["--endpoint-url", self.emulator.endpoint.as_str()];
        run(self.path(), &variables, &[&["endpoint", "test"], arguments, &url].concat())
    }
}

/// Without what was measured, and without the widths of columns, which follow from it.
fn without_times(text: &str) -> String {
    let text = Regex::new(r"[\d.]+ (ms|answers)").unwrap().replace_all(text, "N $1").into_owned();
    let text = Regex::new(r"(p95 <= N ms) +[\d.]+ ").unwrap().replace_all(&text, "$1 N ").into_owned();
    Regex::new(r" {2,}").unwrap().replace_all(&text, "  ").into_owned()
}

#[test]
fn an_endpoint_is_judged_by_its_answers() {
    let Some(desk) = Desk::new() else { return };
    desk.serve("sums", &json!({}));
    let reports = ["--junit", "test.xml", "--openmetrics", "test.txt", "--dotenv", "test.env"];
    let good = desk.test("sums", &[&["--requests", "20", "--concurrency", "2"], &reports[..]].concat());
    assert_eq!(good.code, 0, "{}{}", good.stdout, good.stderr);
    let read = |name: &str| std::fs::read_to_string(desk.path().join(name)).unwrap();
    assert!(read("test.env").ends_with("\nENDPOINT_TEST_RESULT=passed\n"), "{}", read("test.env"));
    assert_eq!(read("test.xml").matches("<testcase").count(), 7);
    assert!(read("test.txt").starts_with("# TYPE endpoint_test_passed gauge\nendpoint_test_passed 1\n"));

    let wrong = desk.test("sums", &["--samples", "wrong.json", "--max-error-rate", "0.5"]);
    assert_eq!(wrong.code, 10, "{}{}", wrong.stdout, wrong.stderr);
    let none = desk.test("sums", &["--samples", "image/usr"]);
    assert_eq!(none.code, 1, "{}", none.stderr);
    let absent = desk.test("none", &["--output", "json"]);
    assert_eq!((absent.code, absent.stdout.as_str()), (1, ""), "{}", absent.stderr);
    let shown = [good, wrong, none, absent].map(|ended| format!("{}{}", ended.stdout, ended.stderr));
    assert_snapshot("endpoint_test", &without_times(&shown.join("\n")));
    let own = desk.test("sums", &["--configuration", "sums"]);
    assert_eq!(own.code, 0, "{}", own.stderr);
    let other = desk.test("sums", &["--configuration", "sums-2"]);
    assert_eq!(other.code, 1, "{}", other.stderr);
    assert!(other.stderr.contains("the endpoint sums has sums, and not sums-2 alone"), "{}", other.stderr);

    let place = |folder: &str| format!("s3://{BUCKET}/{folder}");
    let output =
        json!({"S3OutputPath": place("asynchronous/answers"), "S3FailurePath": place("asynchronous/failures")});
    desk.serve("later", &json!({"AsyncInferenceConfig": {"OutputConfig": output}}));
    let later = desk.test("later", &["--output", "json", "--samples", "rows.csv", "wrong.json"]);
    assert_eq!(later.code, 10, "{}", later.stderr);
    let json: Value = serde_json::from_str(&later.stdout).unwrap();
    let results: Vec<_> = json["samples"].as_array().unwrap().iter().map(|sample| &sample["result"]).collect();
    assert_eq!(results, ["passed", "passed", "failed", "failed"]);
    assert!(json["samples"][3]["reason"].as_str().unwrap().contains("out of order"), "{json}");
    // It has a rule about the content type.
    let refused = desk.test("later", &["--samples", "good.jsonl"]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("the sample `two` has the rule `expect.content_type`"), "{}", refused.stderr);
    assert_eq!(desk.emulator.objects(), [""; 0]);
    assert_eq!(desk.emulator.decided("endpoint-test")["denied"], json!({}));
}
