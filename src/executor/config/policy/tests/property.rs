//! No combination of variables and payload yields a request outside the job's rule. The judge here reads the rule by itself.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::super::*;
use crate::config::rules::{Allowance, Choice, ImageTags, JobMatch, PolicyRule};

const TYPES: [&str; 4] = ["ml.m5.large", "ml.m5.xlarge", "ml.g5.xlarge", "ml.p5.48xlarge"];
const ROLES: [&str; 3] =
    ["arn:aws:iam::123456789012:role/a", "arn:aws:iam::123456789012:role/b", "arn:aws:iam::123456789012:role/c"];
const IMAGES: [&str; 4] = [
    "r.example/a:1",
    "r.example/b:1",
    "r.example/a@sha256:0000000000000000000000000000000000000000000000000000000000000000",
    "q.example/a",
];
const PROJECTS: [&str; 4] = ["ml/churn", "ml/deep/er", "web/site", ""];
const REFS: [&str; 4] = ["main", "feature/x", "refs/merge-requests/3/head", ""];
const NAMES: [&str; 5] = ["HF_HOME", "NCCL_DEBUG", "LD_PRELOAD", "AWS_PROFILE", "PATH"];

const PLANS: [&str; 2] = [
    "arn:aws:sagemaker:us-east-1:123456789012:training-plan/may",
    "arn:aws:sagemaker:us-east-1:123456789012:training-plan/june",
];
const INPUTS: [&str; 5] = [
    "s3://data/churn",
    "s3://data/churn-secret",
    "s3://data/other/x",
    "s3://data/other",
    "efs://fs-01234567/a?access=rw",
];

fn choice() -> impl Strategy<Value = Option<Choice>> {
    prop::option::of(select(vec![Choice::Allow, Choice::Only, Choice::Refuse]))
}

fn list(of: &'static [&'static str]) -> impl Strategy<Value = Option<Vec<String>>> {
    let some = subsequence(of.to_vec(), 1..=of.len()).prop_map(|list| list.into_iter().map(str::to_owned).collect());
    prop::option::of(some)
}

prop_compose! {
    fn allowance()(
        instance_types in list(&["ml.m5.large", "ml.g5.xlarge", "ml.p5.48xlarge"]),
        counts in (prop::option::of(1..5_u32), prop::option::of(1..200_u32), prop::option::of(1..10_000_u64)),
        roles in list(&ROLES), images in list(&["r.example/a", "r.example/b:1", "q.example/**"]),
        image_tags in prop::option::of(select(vec![ImageTags::Allow, ImageTags::Warn, ImageTags::Refuse])),
        environment in list(&["HF_HOME", "NCCL_DEBUG", "LD_PRELOAD"]),
        regions in list(&["eu-west-1", "us-east-1"]), max_cost in prop::option::of(0.1..100.0_f64),
        has_network in any::<bool>(), choices in (choice(), choice(), choice()),
        wishes in (prop::option::of(0..5_u32), prop::option::of(0..3600_u64), prop::option::of(0..9000_u64)),
        inputs in list(&["s3://data/churn", "s3://data/other/**", "efs://fs-01234567/*"]),
        model_outputs in list(&["s3://models/*"]), training_plans in list(&PLANS[..1]),
    ) -> Allowance {
        let (max_instance_count, max_volume_size_gb, max_runtime_seconds) = counts;
        Allowance {
            instance_types, max_instance_count, max_volume_size_gb, max_runtime_seconds, roles, images, image_tags,
            environment, regions, max_cost, max_jobs: None,
            subnets: has_network.then(|| vec!["subnet-1".to_owned()]),
            security_group_ids: has_network.then(|| vec!["sg-1".to_owned()]),
            spot: choices.0, checkpoints: choices.1, network_isolation: choices.2, max_retries: wishes.0, max_keep_alive_seconds: wishes.1,
            max_queue_timeout_seconds: wishes.2, max_pending_seconds: wishes.2, inputs, model_outputs, training_plans,
            remote_debug: choices.2, max_keep_on_failure_seconds: wishes.1,
        }
    }
}

prop_compose! {
    fn rule()(
        projects in list(&["ml/churn", "ml/**", "**"]), refs in list(&["main", "feature/*"]),
        protected in any::<Option<bool>>(), fork in any::<Option<bool>>(), allow in allowance(),
    ) -> PolicyRule {
        let (projects, refs) = (projects.unwrap_or_default(), refs.unwrap_or_default());
        PolicyRule { name: String::new(), jobs: JobMatch { projects, refs, protected, fork, ..JobMatch::default() }, allow }
    }
}

fn rules() -> impl Strategy<Value = Vec<PolicyRule>> {
    prop::collection::vec(rule(), 0..4).prop_map(|mut rules| {
        rules.iter_mut().enumerate().for_each(|(index, rule)| rule.name = format!("rule {index}"));
        rules
    })
}

prop_compose! {
    fn wishes()(
        instance_types in subsequence(TYPES.to_vec(), 0..=2), instance_count in prop::option::of(0..150_u32),
        volume_size_gb in prop::option::of(0..20_000_u32), runtime in prop::option::of(0..100_000_u64),
        role in prop::option::of(select(ROLES.to_vec())), names in subsequence(NAMES.to_vec(), 0..=3),
        switches in any::<(Option<bool>, Option<bool>, Option<bool>)>(), retries in prop::option::of(0..40_u32),
        times in (prop::option::of(0..5000_u64), prop::option::of(0..700_000_u64), prop::option::of(0..200_000_u64)),
        plan in prop::option::of(select(PLANS.to_vec())), inputs in subsequence(INPUTS.to_vec(), 0..=2),
        output in prop::option::of(select(vec!["s3://models/a", "s3://elsewhere"])),
    ) -> JobVariables {
        let time = |seconds: Option<u64>| seconds.map(std::time::Duration::from_secs);
        JobVariables {
            instance_types: instance_types.into_iter().map(str::to_owned).collect(), instance_count, volume_size_gb,
            max_runtime: runtime.map(std::time::Duration::from_secs), role_arn: role.map(str::to_owned),
            environment: names.into_iter().map(|name| (name.to_owned(), "x".to_owned())).collect(),
            spot: switches.0, checkpoints: switches.1, network_isolation: switches.2, retries, keep_alive: time(times.0), queue_timeout: time(times.1), max_pending: time(times.1),
            spot_max_wait: time(times.2), training_plan: plan.map(str::to_owned),
            inputs: inputs.into_iter().enumerate().map(|(at, uri)| (format!("I{at}"), uri.to_owned())).collect(),
            model_output: output.map(str::to_owned), remote_debug: switches.2, keep_on_failure: time(times.0),
            ..JobVariables::default()
        }
    }
}

prop_compose! {
    fn job()(
        project in select(PROJECTS.to_vec()), git_ref in select(REFS.to_vec()), protected in any::<Option<bool>>(),
        image in select(IMAGES.to_vec()), timeout in select(vec![0, 60, 100_000]), sources in subsequence(vec!["2", "9"], 0..=2),
    ) -> JobContext {
        let variables: Vec<_> = sources.iter().map(|id| serde_json::json!({"key": "CI_MERGE_REQUEST_SOURCE_PROJECT_ID", "value": id})).collect();
        serde_json::from_value(serde_json::json!({
            "id": 1, "job_info": {"project_id": 2, "project_full_path": project}, "image": {"name": image},
            "git_info": {"ref": git_ref, "protected": protected}, "runner_info": {"timeout": timeout}, "variables": variables,
        })).unwrap()
    }
}

/// Reads a rule's conditions without the code under test.
fn is_for(rule: &PolicyRule, job: &JobContext) -> bool {
    let (path, name) = (job.job_info.project_full_path.as_str(), job.git_info.git_ref.as_str());
    let project = rule.jobs.projects.is_empty()
        || rule.jobs.projects.iter().any(|pattern| match pattern.as_str() {
            "ml/**" => path.starts_with("ml/"),
            "**" => !path.is_empty(),
            exact => exact == path,
        });
    let named = rule.jobs.refs.is_empty()
        || rule.jobs.refs.iter().any(|pattern| pattern == name || pattern == "feature/*" && name == "feature/x");
    let sources: Vec<_> = job.variables.iter().map(|variable| variable.value.as_str()).collect();
    let fork = name.starts_with("refs/merge-requests/") && (sources.is_empty() || sources.contains(&"9"));
    project
        && named
        && rule.jobs.protected.is_none_or(|wanted| wanted == (job.git_info.protected == Some(true)))
        && rule.jobs.fork.is_none_or(|wanted| wanted == fork)
}

fn judge(decision: &Decision, allow: &Allowance, settings: &Settings) {
    let one = |value: &str, list: &Option<Vec<String>>, default: &str| match list {
        Some(list) => list.iter().any(|entry| entry == value),
        None => value == default,
    };
    for name in &decision.instance_types {
        assert!(one(name, &allow.instance_types, "ml.m5.large"), "{decision:?}");
    }
    assert!((1..=allow.max_instance_count.unwrap_or(2)).contains(&decision.instance_count), "{decision:?}");
    assert!((1..=allow.max_volume_size_gb.unwrap_or(50)).contains(&decision.volume_size_gb), "{decision:?}");
    assert!((1..=allow.max_runtime_seconds.unwrap_or(86_400)).contains(&decision.max_runtime), "{decision:?}");
    assert!(one(&decision.role_arn, &allow.roles, ROLES[0]), "{decision:?}");
    if let Some(images) = &allow.images {
        let is_in = |pattern: &String| match pattern.as_str() {
            "q.example/**" => decision.image.starts_with("q.example/"),
            "r.example/a" => decision.image.starts_with("r.example/a:") || decision.image.starts_with("r.example/a@"),
            exact => exact == decision.image,
        };
        assert!(images.iter().any(is_in), "{decision:?}");
    }
    assert!(allow.image_tags != Some(ImageTags::Refuse) || decision.image.contains("@sha256:"), "{decision:?}");
    for name in decision.environment.keys() {
        assert!(!name.starts_with("LD_") && !name.starts_with("AWS_"), "{decision:?}");
        assert!(allow.environment.as_ref().is_none_or(|names| names.contains(name)), "{decision:?}");
    }
    assert!(allow.regions.as_ref().is_none_or(|regions| regions.contains(settings.aws.region.as_ref().unwrap())));
    assert_eq!(decision.network.is_some(), allow.subnets.is_some());
    judge_wishes(decision, allow);
    if let Some(most) = allow.max_cost {
        for name in &decision.instance_types {
            let seconds = decision.max_runtime + decision.capacity.keep_alive;
            let hours = f64::from(u32::try_from(seconds).unwrap()) / 3600.0;
            assert!(settings.prices[name] * f64::from(decision.instance_count) * hours <= most + 1e-9, "{decision:?}");
        }
    }
}

fn judge_wishes(decision: &Decision, allow: &Allowance) {
    let (capacity, data) = (&decision.capacity, &decision.data);
    let fits = |choice: Option<Choice>, has: bool| match choice {
        Some(Choice::Allow) => true,
        Some(Choice::Only) => has,
        Some(Choice::Refuse) | None => !has,
    };
    assert!(fits(allow.spot, capacity.spot_max_wait.is_some()), "{decision:?}");
    assert!(fits(allow.checkpoints, data.checkpoints_ref.is_some()), "{decision:?}");
    assert!(capacity.retries <= allow.max_retries.unwrap_or(0), "{decision:?}");
    assert!(capacity.keep_alive <= allow.max_keep_alive_seconds.unwrap_or(0), "{decision:?}");
    assert!(fits(allow.remote_debug, decision.debug.remote), "{decision:?}");
    assert!(decision.debug.keep_on_failure <= allow.max_keep_on_failure_seconds.unwrap_or(0), "{decision:?}");
    assert!(capacity.queue_timeout <= allow.max_queue_timeout_seconds.unwrap_or(3600), "{decision:?}");
    if let Some(wait) = capacity.spot_max_wait {
        assert!(wait >= decision.max_runtime, "{decision:?}");
        assert!(capacity.keep_alive == 0 && capacity.training_plan.is_none(), "{decision:?}");
    }
    assert!(
        capacity.training_plan.is_none()
            || allow.training_plans.is_some() && capacity.training_plan.as_deref() == Some(PLANS[0])
    );
    assert!(
        data.model_output.is_none()
            || allow.model_outputs.is_some()
                && data.model_output.as_ref().is_some_and(|output| output.folder == "s3://models/a/")
    );
    for input in &data.inputs {
        let read = format!("{:?}", input.channel.source);
        let is_in = |pattern: &String| match pattern.as_str() {
            "s3://data/churn" => read.contains("\"s3://data/churn/\""),
            "s3://data/other/**" => read.contains("\"s3://data/other/"),
            _ => read.contains("fs-01234567"),
        };
        assert!(allow.inputs.iter().flatten().any(is_in), "{decision:?}");
        assert!(!read.contains("fs-") || decision.network.is_some(), "{decision:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::config::env::short_or_long(2_000, 5_000)))]

    #[test]
    fn no_request_lies_outside_the_rule_of_its_job(rules in rules(), wishes in wishes(), job in job()) {
        let text = format!("[storage]\nbucket = \"b\"\n[aws]\nregion = \"eu-west-1\"\n[job]\nrole_arn = \"{}\"\ninstance_count = 2\n\
                            [prices]\n\"ml.m5.large\" = 0.1\n\"ml.g5.xlarge\" = 1.5\n", ROLES[0]);
        let settings = Settings { rules, ..toml::from_str(&text).unwrap() };
        if let Ok(decision) = decide(&job, &wishes, &settings) {
            if let Some(rule) = settings.rules.iter().find(|rule| is_for(rule, &job)) {
                prop_assert_eq!(decision.rule.as_ref(), Some(&rule.name));
                judge(&decision, &rule.allow, &settings);
            } else {
                prop_assert!(settings.rules.is_empty(), "{:?}", decision);
                judge(&decision, &Allowance::default(), &settings);
            }
        }
    }
}
