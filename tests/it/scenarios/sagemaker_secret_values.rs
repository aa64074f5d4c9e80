//! Secrets of AWS Secrets Manager in jobs: who gets one, which value, and what is told of one that cannot be had.

use serde_json::json;

use super::sagemaker_secrets::GRANT;
use crate::support::driver::{Driver, sagemaker_isolated, sagemaker_with};
use crate::support::job::Job;
use crate::support::outcome::Outcome;
use crate::support::scenario::{Scenario, With, play};
use crate::support::world::{Settings, World};

const FIRST: &str = "first-value-0123456789";
const SECOND: &str = "second-value-0123456789";

fn put(world: &World, operation: &str, name: &str, password: &str) {
    let member = if operation == "CreateSecret" { "Name" } else { "SecretId" };
    let text = json!({"user": "ci", "password": password}).to_string();
    let emulator = world.emulator.as_ref().unwrap();
    emulator.call(&format!("secretsmanager.{operation}"), &json!({member: name, "SecretString": text}));
}

/// Says the value backwards, which nothing masks.
fn job() -> Job {
    Job::new().script(["echo \"db <$DB> $(printf %s \"$DB\" | rev)\""])
}

fn backwards(text: &str) -> String {
    text.chars().rev().collect()
}

fn jobs(world: &World) -> Vec<Outcome> {
    put(world, "CreateSecret", "ci/db", FIRST);
    put(world, "CreateSecret", "other/db", FIRST);
    let first = world.run(&job().set("SAGEMAKER_SECRET_DB", "ci/db#password"));
    put(world, "PutSecretValue", "ci/db", SECOND);
    let previous = "ci/db?version_stage=AWSPREVIOUS#password";
    let second = world.run(&job().set("SAGEMAKER_SECRET_DB", "ci/db#password").set("SAGEMAKER_SECRET_OLD", previous));
    vec![first, second]
}

fn have_the_value_of_their_time(world: &World, outcomes: &[Outcome]) {
    let [first, second] = outcomes else { panic!("two jobs") };
    for (outcome, value) in [(first, FIRST), (second, SECOND)] {
        outcome.succeeded().shows("Secrets for the script: DB (ci/db)");
        outcome.shows(&format!("db <[MASKED]> {}", backwards(value))).hides(FIRST).hides(SECOND);
    }
    let emulator = world.emulator.as_ref().unwrap();
    // `prepare` and one container stage; two labels in the second job.
    assert_eq!(emulator.requests("GetSecretValue"), 2 + 4);
    let described = json!(emulator.jobs()).to_string();
    assert!(!described.contains(FIRST) && !described.contains(SECOND), "{described}");
}

fn values(driver: Driver) {
    let row = Scenario {
        name: "the_values_of_secrets",
        needs: &["rev"],
        settings: Settings::default,
        play: jobs,
        expect: have_the_value_of_their_time,
    };
    play(&row, With::RunnerDouble, driver);
}

#[test]
fn a_job_gets_the_value_that_its_secret_has_when_it_runs() {
    values(sagemaker_with(&[], GRANT));
}

#[test]
fn a_job_without_network_gets_it_too() {
    let mut driver = sagemaker_isolated();
    driver.operator_config.push_str(GRANT);
    values(driver);
}

/// Each job ends before a training job is created. The host's role may read `ci/*` alone.
#[test]
fn a_secret_that_cannot_be_had_ends_the_job_before_an_instance_is_paid_for() {
    let row = Scenario {
        name: "secrets_that_cannot_be_had",
        needs: &[],
        settings: Settings::default,
        play: |world| {
            put(world, "CreateSecret", "ci/db", FIRST);
            put(world, "CreateSecret", "other/db", FIRST);
            let of = |text: &str| job().set("SAGEMAKER_SECRET_DB", text);
            vec![
                world.run(&of("other/db#password")),
                world.run(&of("ci/db#password").unprotected()),
                world.run(&of("ci/db#passwort")),
                world.run(&of("ci/absent")),
            ]
        },
        expect: |world, outcomes| {
            let told: [&[&str]; 4] = [
                &["`other/db`, which the operator's file grants to no job", "`secrets.allow`"],
                &["(not protected)", "`match.protected`"],
                &["has no field `passwort`: it has `password`, `user`", "`SAGEMAKER_SECRET_DB`"],
                &["there is no secret `ci/absent`"],
            ];
            for (outcome, told) in outcomes.iter().zip(told) {
                outcome.failed("script_failure", Some(1)).hides(FIRST);
                for text in told {
                    outcome.shows(text);
                }
            }
            let emulator = world.emulator.as_ref().unwrap();
            assert_eq!((emulator.jobs().len(), emulator.requests("GetSecretValue")), (0, 2));
        },
    };
    play(&row, With::RunnerDouble, sagemaker_with(&[], GRANT));
}
