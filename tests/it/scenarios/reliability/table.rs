//! The table of faults: when each hits a job, and what must come of it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::scenarios::sagemaker_desk::{BUILD_FAILURE, Desk, SYSTEM_FAILURE};
use crate::support::waiting::poll;

/// A moment of a job at which a row may act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// Before `config`: the job's variables are set here.
    Variables,
    /// Before `prepare`.
    Begin,
    /// After `prepare`.
    Prepared,
    /// The script has printed its first lines.
    Script,
}

pub(super) type Act = fn(&mut Desk, Moment);

/// The end that a job must come to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expected {
    /// Trace, files and exit codes are those of an undisturbed job; the script ran once.
    Exact,
    /// As [`Exact`](Self::Exact), in a second run of the script, in the same trace.
    Again,
    /// One stage fails with this code, and the job has one error, with these words.
    Fails { code: i32, words: &'static str },
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact => f.write_str("succeeds exactly"),
            Self::Again => f.write_str("the script runs again, and succeeds exactly"),
            Self::Fails { code: BUILD_FAILURE, .. } => f.write_str("fails once, as the job's failure"),
            Self::Fails { .. } => f.write_str("fails once, as the system's failure"),
        }
    }
}

/// How a row is shown.
#[derive(Debug, Clone, Copy)]
pub(super) enum How {
    /// A job on the emulator.
    Played {
        in_suite: bool,
        /// Arguments of the emulator.
        emulator: &'static [&'static str],
        /// Lines of the operator's file, from within `[limits]`.
        tail: &'static str,
        act: Act,
    },
    /// A test of its own: in virtual time, or of a row elsewhere.
    Test { name: &'static str, file: &'static str },
}

/// One row of the table.
#[derive(Debug)]
pub(super) struct FaultRow {
    /// As in `docs/RELIABILITY.md`.
    pub(super) fault: &'static str,
    pub(super) expected: Expected,
    pub(super) how: How,
}

const fn system(words: &'static str) -> Expected {
    Expected::Fails { code: SYSTEM_FAILURE, words }
}

const fn build(words: &'static str) -> Expected {
    Expected::Fails { code: BUILD_FAILURE, words }
}

const fn row(fault: &'static str, expected: Expected, how: How) -> FaultRow {
    FaultRow { fault, expected, how }
}

/// A row of the ordinary suite.
const fn in_suite(act: Act) -> How {
    How::Played { in_suite: true, emulator: &[], tail: "", act }
}

/// A row of the long form alone.
const fn long(act: Act) -> How {
    How::Played { in_suite: false, emulator: &[], tail: "", act }
}

const fn test(name: &'static str, file: &'static str) -> How {
    How::Test { name, file }
}

/// Operations of driver and agent.
const OPERATIONS: [&str; 14] = [
    "AssumeRole",
    "CreateTrainingJob",
    "DeleteObjects",
    "DescribeLogStreams",
    "DescribeTrainingJob",
    "FilterLogEvents",
    "GetBucketLifecycleConfiguration",
    "GetLogEvents",
    "GetObject",
    "HeadObject",
    "ListObjectsV2",
    "ListTags",
    "PutObject",
    "StopTrainingJob",
];
/// Those of S3.
const OF_S3: [&str; 6] =
    ["DeleteObjects", "GetBucketLifecycleConfiguration", "GetObject", "HeadObject", "ListObjectsV2", "PutObject"];

/// The shortest lease that an operator can set.
const SHORT_LEASE: &str = "lease_seconds = 60";
const CLOUDWATCH_ALONE: &str = "[trace]\nlive_copy = false";

/// Sets the plan before `prepare`.
fn from_the_begin(desk: &Desk, at: Moment, plan: &Value) {
    if at == Moment::Begin {
        desk.emulator.set_faults(plan);
    }
}

/// Sets the plan while the script runs.
fn in_the_script(desk: &Desk, at: Moment, plan: &Value) {
    if at == Moment::Script {
        desk.emulator.set_faults(plan);
    }
}

/// A rule for every operation.
fn rules(operations: &[&str], with: &Value) -> Vec<Value> {
    let rule = |operation: &&str| {
        let mut rule = with.clone();
        rule["operation"] = json!(operation);
        rule
    };
    operations.iter().map(rule).collect()
}

fn throttled(share: u64) -> Value {
    let slow =
        json!({"share": share, "error": "SlowDown", "message": "Please reduce your request rate.", "status": 503});
    let mut calls = rules(&OF_S3, &slow);
    let others: Vec<&str> = OPERATIONS.into_iter().filter(|operation| !OF_S3.contains(operation)).collect();
    calls.extend(rules(
        &others,
        &json!({"share": share, "error": "ThrottlingException", "message": "Rate exceeded", "status": 400}),
    ));
    json!({ "calls": calls })
}

/// The replies of calls `first`, `first + 3`, `first + 6` and so on are lost.
fn every_third_reply_lost(first: u64) -> Value {
    let rule = |number: u64| json!({"operation": "*", "from": first + 3 * number, "count": 1, "drop": "after"});
    json!({"calls": (0..400).map(rule).collect::<Vec<_>>()})
}

/// The name of the training job that lives.
fn living(desk: &Desk) -> String {
    let jobs = desk.emulator.live_jobs();
    jobs.first().and_then(|job| job.split('"').nth(1)).expect("a training job lives").to_owned()
}

/// `DeleteTrainingJob`, as soon as the job has ended.
fn delete(desk: &Desk, job: &str) {
    let has_ended = poll(Duration::from_mins(1), || desk.emulator.live_jobs().is_empty().then_some(()));
    assert!(has_ended.is_some(), "{job} does not end");
    desk.emulator.call("SageMaker.DeleteTrainingJob", &json!({"TrainingJobName": job}));
}

fn spot(desk: &mut Desk) {
    desk.set("SAGEMAKER_SPOT", "true");
}

pub(super) const TABLE: &[FaultRow] = &[
    row(
        "30 % of all calls are throttled",
        Expected::Exact,
        in_suite(|desk, at| from_the_begin(desk, at, &throttled(300))),
    ),
    row(
        "20 % of all calls get status 500",
        Expected::Exact,
        long(|desk, at| {
            let plan = json!({"calls": [{"operation": "*", "share": 200, "error": "InternalError", "status": 500}]});
            from_the_begin(desk, at, &plan);
        }),
    ),
    row(
        "20 % of all calls get status 503",
        Expected::Exact,
        long(|desk, at| {
            let plan =
                json!({"calls": [{"operation": "*", "share": 200, "error": "ServiceUnavailable", "status": 503}]});
            from_the_begin(desk, at, &plan);
        }),
    ),
    row(
        "calls get no answer within their time limit of a minute",
        Expected::Exact,
        long(|desk, at| {
            let slow = json!({"count": 1, "delay_ms": 70_000});
            from_the_begin(desk, at, &json!({"calls": rules(&["CreateTrainingJob", "DescribeTrainingJob"], &slow)}));
            in_the_script(desk, at, &json!({"calls": rules(&OF_S3, &slow)}));
        }),
    ),
    row(
        "20 % of all connections are closed before the call",
        Expected::Exact,
        long(|desk, at| {
            from_the_begin(desk, at, &json!({"calls": [{"operation": "*", "share": 200, "drop": "before"}]}));
        }),
    ),
    row(
        "20 % of all connections are reset before the call, 10 % after it",
        Expected::Exact,
        long(|desk, at| {
            let reset = |share: u64, drop: &str| json!({"operation": "*", "share": share, "drop": drop, "reset": true});
            from_the_begin(desk, at, &json!({"calls": [reset(200, "before"), reset(125, "after")]}));
        }),
    ),
    row(
        "20 % of the objects that are read are reset in mid body",
        Expected::Exact,
        long(|desk, at| {
            let reset = json!({"operation": "GetObject", "share": 200, "drop": "within", "reset": true});
            from_the_begin(desk, at, &json!({"calls": [reset]}));
        }),
    ),
    row(
        "the first reply of each operation is lost after its success",
        Expected::Exact,
        in_suite(|desk, at| {
            let lost = json!({"count": 1, "drop": "after"});
            from_the_begin(desk, at, &json!({"calls": rules(&OPERATIONS, &lost)}));
        }),
    ),
    row(
        "the replies of calls 1, 4, 7 ... are lost after their success",
        Expected::Exact,
        long(|desk, at| from_the_begin(desk, at, &every_third_reply_lost(1))),
    ),
    row(
        "the replies of calls 2, 5, 8 ... are lost after their success",
        Expected::Exact,
        long(|desk, at| from_the_begin(desk, at, &every_third_reply_lost(2))),
    ),
    row(
        "the replies of calls 3, 6, 9 ... are lost after their success",
        Expected::Exact,
        long(|desk, at| from_the_begin(desk, at, &every_third_reply_lost(3))),
    ),
    row(
        "30 % of the objects that are read break off in mid body",
        Expected::Exact,
        in_suite(|desk, at| {
            from_the_begin(desk, at, &json!({"calls": [{"operation": "GetObject", "share": 300, "drop": "within"}]}));
        }),
    ),
    row(
        "log events come late",
        Expected::Exact,
        How::Played {
            in_suite: false,
            emulator: &[],
            tail: CLOUDWATCH_ALONE,
            act: |desk, at| from_the_begin(desk, at, &json!({"logs": {"late": 500, "late_ms": 4000}})),
        },
    ),
    row(
        "20 % of the log events never come",
        Expected::Exact,
        How::Played {
            in_suite: false,
            emulator: &[],
            tail: CLOUDWATCH_ALONE,
            act: |desk, at| from_the_begin(desk, at, &json!({"logs": {"lost": 200}})),
        },
    ),
    row(
        "half of the log events come twice, half of the batches in reverse order",
        Expected::Exact,
        How::Played {
            in_suite: false,
            emulator: &[],
            tail: CLOUDWATCH_ALONE,
            act: |desk, at| from_the_begin(desk, at, &json!({"logs": {"doubled": 500, "shuffled": 500}})),
        },
    ),
    row(
        "the log cannot be read at all",
        Expected::Exact,
        long(|desk, at| {
            let fault = json!({"error": "ServiceUnavailable", "status": 503});
            let operations = ["DescribeLogStreams", "FilterLogEvents", "GetLogEvents"];
            from_the_begin(desk, at, &json!({"calls": rules(&operations, &fault)}));
        }),
    ),
    row(
        "20 answers about the training job are out of date",
        Expected::Exact,
        long(|desk, at| {
            let stale = json!({"operation": "DescribeTrainingJob", "from": 2, "count": 20, "stale": true});
            from_the_begin(desk, at, &json!({"calls": [stale]}));
        }),
    ),
    row(
        "a new training job is not shown for 8 seconds",
        Expected::Exact,
        long(|desk, at| from_the_begin(desk, at, &json!({"hidden_ms": 8000}))),
    ),
    row(
        "CreateTrainingJob takes effect 6 seconds late",
        Expected::Exact,
        long(|desk, at| {
            let late = json!({"operation": "CreateTrainingJob", "count": 1, "delay_ms": 6000, "accepted": true});
            from_the_begin(desk, at, &json!({"calls": [late]}));
        }),
    ),
    row(
        "the clocks of host and container are ten minutes slow",
        Expected::Exact,
        in_suite(|desk, at| from_the_begin(desk, at, &json!({"clock_ms": 600_000}))),
    ),
    row(
        "the clocks of host and container are ten minutes fast",
        Expected::Exact,
        long(|desk, at| from_the_begin(desk, at, &json!({"clock_ms": -600_000}))),
    ),
    row(
        "the clocks jump back by ten minutes while the script runs",
        Expected::Exact,
        long(|desk, at| in_the_script(desk, at, &json!({"clock_ms": 600_000}))),
    ),
    row(
        "the clocks jump forward by ten minutes while the script runs",
        Expected::Exact,
        long(|desk, at| in_the_script(desk, at, &json!({"clock_ms": -600_000}))),
    ),
    row(
        "the instance type has no capacity",
        system("CapacityError"),
        long(|desk, at| from_the_begin(desk, at, &json!({"jobs": [{"trouble": "capacity"}]}))),
    ),
    row(
        "the spot instance is taken away while the script runs",
        Expected::Again,
        long(|desk, at| match at {
            Moment::Variables => spot(desk),
            Moment::Script => desk.emulator.interrupt(),
            Moment::Begin | Moment::Prepared => {}
        }),
    ),
    row(
        "the instance is lost while the script runs",
        system("InternalServerError"),
        long(|desk, at| {
            if at == Moment::Script {
                desk.emulator.strike("host-failure");
            }
        }),
    ),
    row(
        "the container is killed for want of memory",
        build("killed with SIGKILL (137)"),
        in_suite(|desk, at| {
            if at == Moment::Script {
                desk.emulator.strike("kill");
            }
        }),
    ),
    row(
        "the image cannot be pulled",
        build("`image:`"),
        How::Played { in_suite: false, emulator: &["--strict-images"], tail: "", act: |_, _| {} },
    ),
    row(
        "somebody stops the training job",
        system("stopped from outside"),
        long(|desk, at| {
            if at == Moment::Script {
                desk.emulator.stop_job(&living(desk));
            }
        }),
    ),
    row(
        "somebody stops the training job and deletes it",
        system("the training job no longer exists"),
        long(|desk, at| {
            if at == Moment::Script {
                let job = living(desk);
                desk.emulator.stop_job(&job);
                delete(desk, &job);
            }
        }),
    ),
    row(
        "the executor's files for the container vanish from the bucket before it starts",
        system("the executor's objects in the bucket were gone"),
        How::Played {
            in_suite: false,
            emulator: &["--downloading-delay", "1s", "--starting-delay", "5s"],
            tail: "",
            act: |desk, at| {
                if at == Moment::Prepared {
                    desk.emulator.expire("sagemaker-executor/agents/");
                }
            },
        },
    ),
    row(
        "all objects vanish from the bucket while the script runs",
        Expected::Exact,
        long(|desk, at| {
            if at == Moment::Script {
                desk.emulator.expire("");
            }
        }),
    ),
    row(
        "60 calls to S3 in a row are lost while the script runs",
        Expected::Exact,
        long(|desk, at| {
            in_the_script(
                desk,
                at,
                &json!({"calls": [{"operation": "*", "path": "/ci-bucket", "count": 60, "drop": "before"}]}),
            );
        }),
    ),
    row(
        "S3 cannot be reached for longer than the lease, while the log can be read",
        system("the bucket could not be reached for 1m"),
        How::Played {
            in_suite: false,
            emulator: &[],
            tail: SHORT_LEASE,
            act: |desk, at| {
                let away = json!({"calls": [{"operation": "*", "path": "/ci-bucket", "drop": "before"}]});
                in_the_script(desk, at, &away);
            },
        },
    ),
    row(
        "S3 refuses the credentials of host and container for longer than the lease",
        system("AWS has refused the credentials of the runner host for 1m"),
        How::Played {
            in_suite: false,
            emulator: &[],
            tail: SHORT_LEASE,
            act: |desk, at| {
                let expired =
                    json!({"error": "ExpiredToken", "message": "The provided token has expired.", "status": 400});
                in_the_script(desk, at, &json!({"calls": rules(&OF_S3, &expired)}));
            },
        },
    ),
    row(
        "the role of the training job may not write its reports",
        system("the credentials in use need `s3:PutObject`"),
        long(|desk, at| {
            let denied = json!({"operation": "PutObject", "path": "/reports/", "error": "AccessDenied", "status": 403});
            from_the_begin(desk, at, &json!({"calls": [denied]}));
        }),
    ),
    row(
        "S3 cannot be reached for 10 minutes",
        Expected::Exact,
        test("an_outage_shorter_than_the_lease_loses_nothing", "src/executor/stages/tests/simulation/single.rs"),
    ),
    row(
        "S3 cannot be reached for 20 minutes",
        system("the bucket could not be reached for 15m"),
        test("an_outage_longer_than_the_lease_ends_the_job_once", "src/executor/stages/tests/simulation/single.rs"),
    ),
];
