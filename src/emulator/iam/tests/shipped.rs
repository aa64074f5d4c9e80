//! Questions to the policies in `runner-config/iam`: the adapter's calls are allowed, attacks are not.

use std::path::{Path, PathBuf};

use super::*;

/// Role, answer, action, resource as [`arn`] reads it, and keys of the request. A caller `role@session` has the tag of a session
/// of a creator, and of project 42.
const PLAIN: &str = "
    host yes sagemaker:CreateTrainingJob job:gitlab-7 {create}
    host yes sagemaker:AddTags job:gitlab-7 sagemaker:TaggingAction=CreateTrainingJob
    host yes iam:PassRole role:ci-training iam:PassedToService=sagemaker.amazonaws.com
    host yes sagemaker:DescribeTrainingJob job:gitlab-7
    host yes sagemaker:StopTrainingJob job:gitlab-7
    host yes s3:PutObject object:agents/a
    host yes s3:GetObject object:hosts/key
    host yes s3:DeleteObject object:sessions/{place}/x
    host yes s3:ListBucket bucket
    host yes logs:FilterLogEvents group:*
    host no sagemaker:CreateTrainingJob job:nightly {create}
    host no sagemaker:CreateTrainingJob job:gitlab-7 {create} sagemaker:InstanceTypes=ml.p5.48xlarge
    host no sagemaker:CreateTrainingJob job:gitlab-7 {create} sagemaker:InstanceTypes=
    host no sagemaker:CreateTrainingJob job:gitlab-7 {create} sagemaker:MaxRuntimeInSeconds=432000
    host no sagemaker:CreateTrainingJob job:gitlab-7 {create} sagemaker:VpcSubnets=subnet-1
    host no sagemaker:CreateTrainingJob job:gitlab-7 {create} sagemaker:KeepAlivePeriod=60
    host no sagemaker:AddTags job:gitlab-7
    host no sagemaker:StopTrainingJob job:nightly
    host no iam:PassRole role:admin iam:PassedToService=sagemaker.amazonaws.com
    host no iam:PassRole role:ci-training iam:PassedToService=ec2.amazonaws.com
    host no s3:DeleteObject object:hosts/key
    host no s3:PutBucketPolicy bucket
    host no s3:GetObject object:agents/a aws:SecureTransport=false
    job yes s3:GetObject object:agents/a
    job yes s3:GetObject object:projects/42/x
    job yes s3:PutObject object:sessions/{place}/x
    job yes s3:ListBucket bucket s3:prefix=sagemaker-executor/sessions/{place}/
    job yes logs:PutLogEvents stream:gitlab-7/algo-1
    job yes cloudwatch:PutMetricData * cloudwatch:namespace=/aws/sagemaker/TrainingJobs
    job yes s3:GetObject object:{checkpoints}/x
    job yes s3:PutObject object:{checkpoints}/x
    job yes s3:DeleteObject object:{checkpoints}/x
    job yes s3:ListBucket bucket s3:prefix=sagemaker-executor/{checkpoints}/
    job no s3:ListBucket bucket s3:prefix=sagemaker-executor/checkpoints/42-
    job no s3:GetObject object:checkpoints/42/main/x
    job no s3:PutObject object:agents/a
    job no s3:PutObject object:projects/42/x
    job no s3:GetObject object:hosts/key
    job no s3:PutObject object:hosts/key
    job no s3:ListBucket bucket
    job no s3:ListBucket bucket s3:prefix=sagemaker-executor/sessions/
    job no s3:GetObject object:sessions/gitlab-8/x
    job no s3:DeleteObject object:sessions/{place}/x
    job no sagemaker:CreateTrainingJob job:gitlab-7 {create}
    job no sagemaker:DescribeTrainingJob job:gitlab-7
    job no iam:PassRole role:ci-training iam:PassedToService=sagemaker.amazonaws.com
    job no logs:PutLogEvents stream:nightly/algo-1
    job no cloudwatch:PutMetricData * cloudwatch:namespace=Custom
    admin yes s3:PutObject object:sessions/{place}/x
    admin no s3:PutObject object:agents/a
    admin no s3:GetObject object:hosts/key
";

/// The same of the policies with a creator, whose sessions carry tags.
const CREATOR: &str = "
    host yes sts:AssumeRole role:ci-creator sts:RoleSessionName=gitlab-7 {tags}
    host yes sts:TagSession role:ci-creator {tags}
    host yes sts:TagSession role:ci-creator {tags} aws:TagKeys=sme-session,sme-project,sme-protected,sme-checkpoints
    host yes sagemaker:StopTrainingJob job:gitlab-7
    host yes s3:PutObject object:agents/a
    host no sts:AssumeRole role:ci-creator sts:RoleSessionName=gitlab-7
    host no sts:AssumeRole role:ci-creator sts:RoleSessionName=nightly {tags}
    host no sts:TagSession role:ci-creator {tags} aws:TagKeys=sme-session,sme-project,sme-protected,team
    host no sts:TagSession role:ci-creator {tags} aws:RequestTag/sme-session=nightly
    host no sts:TagSession role:ci-creator {tags} aws:RequestTag/sme-project=
    host no sts:TagSession role:ci-creator {tags} aws:RequestTag/sme-protected=maybe
    host no sagemaker:CreateTrainingJob job:gitlab-7 {create}
    host no sagemaker:AddTags job:gitlab-7 sagemaker:TaggingAction=CreateTrainingJob
    host no iam:PassRole role:ci-training iam:PassedToService=sagemaker.amazonaws.com
    admin no sts:AssumeRole role:ci-creator sts:RoleSessionName=gitlab-7 {tags}
    job@gitlab-7 no sts:AssumeRole role:ci-creator sts:RoleSessionName=gitlab-7 {tags}
    creator@gitlab-7 yes sagemaker:CreateTrainingJob job:gitlab-7 {create}
    creator@gitlab-7 yes sagemaker:AddTags job:gitlab-7 sagemaker:TaggingAction=CreateTrainingJob
    creator@gitlab-7 yes iam:PassRole role:ci-training iam:PassedToService=sagemaker.amazonaws.com
    creator@gitlab-7 no sagemaker:CreateTrainingJob job:gitlab-8 {create}
    creator@gitlab-8 no sagemaker:CreateTrainingJob job:gitlab-8 {create}
    creator@gitlab-7 no sagemaker:CreateTrainingJob job:gitlab-7 {create} sagemaker:InstanceTypes=ml.p5.48xlarge
    creator@gitlab-7 no sagemaker:CreateTrainingJob job:gitlab-7 {create} aws:RequestTag/sagemaker-executor:session=
    creator no sagemaker:CreateTrainingJob job:gitlab-7 {create}
    creator@gitlab-7 no iam:PassRole role:admin iam:PassedToService=sagemaker.amazonaws.com
    creator@gitlab-7 no sagemaker:StopTrainingJob job:gitlab-7
    creator@gitlab-7 no s3:GetObject object:sessions/{place}/x
    job@gitlab-7 yes s3:GetObject object:agents/a
    job@gitlab-7 yes s3:GetObject object:projects/42/x
    job@gitlab-7 yes s3:GetObject object:sessions/{place}/x
    job@gitlab-7 yes s3:PutObject object:sessions/{place}/x
    job@gitlab-7 yes s3:ListBucket bucket s3:prefix=sagemaker-executor/sessions/{place}/
    job@gitlab-7 yes logs:PutLogEvents stream:gitlab-7/algo-1
    job@gitlab-7 yes s3:PutObject object:{checkpoints}/x {scope}
    job@gitlab-7 yes s3:DeleteObject object:{checkpoints}/x {scope}
    job@gitlab-7 yes s3:ListBucket bucket s3:prefix=sagemaker-executor/{checkpoints}/ {scope}
    job@gitlab-7 no s3:GetObject object:{checkpoints}/x
    job@gitlab-7 no s3:GetObject object:{checkpoints}/x aws:PrincipalTag/sme-checkpoints=43-0
    job@gitlab-7 no s3:ListBucket bucket s3:prefix=sagemaker-executor/checkpoints/ {scope}
    job@gitlab-7 no s3:DeleteObject object:sessions/{place}/x {scope}
    job@gitlab-7 no s3:GetObject object:sessions/gitlab-8/x
    job@gitlab-7 no s3:GetObject object:sessions/gitlab-77/x
    job@gitlab-8 no s3:PutObject object:sessions/{place}/x
    job@gitlab-7 no s3:GetObject object:projects/43/x
    job@gitlab-7 no s3:PutObject object:projects/42/x
    job@gitlab-7 no s3:PutObject object:agents/a
    job@gitlab-7 no s3:GetObject object:hosts/key
    job@gitlab-7 no s3:ListBucket bucket
    job@gitlab-7 no s3:ListBucket bucket s3:prefix=sagemaker-executor/sessions/gitlab-8/
    job@gitlab-7 no logs:PutLogEvents stream:gitlab-8/algo-1
    job no s3:GetObject object:agents/a
    job no s3:GetObject object:sessions/{place}/x
    job@* no s3:GetObject object:sessions/{place}/x
";

const CREATE: &str = "sagemaker:InstanceTypes=ml.m5.large sagemaker:MaxRuntimeInSeconds=3600 \
                      aws:RequestTag/sagemaker-executor:session=gitlab-7";
const TAGS: &str = "aws:TagKeys=sme-session,sme-project,sme-protected aws:RequestTag/sme-session=gitlab-7 \
                    aws:RequestTag/sme-project=42 aws:RequestTag/sme-protected=true";
/// A session's place, which its job has to know.
const PLACE: &str = "gitlab-7/0123456789abcdef0123456789abcdef";
/// Checkpoints of one scope, which their jobs have to know, and the tag of these jobs.
const CHECKPOINTS: &str = "checkpoints/42-0123456789abcdef0123456789abcdef/main/train";
const SCOPE: &str = "aws:PrincipalTag/sme-checkpoints=42-0123456789abcdef0123456789abcdef";
const ACCOUNT: &str = "123456789012";
const BUCKET: &str = "arn:aws:s3:::example-ci-sagemaker";
const GROUP: &str = "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/sagemaker/TrainingJobs";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runner-config/iam")
}

fn load(path: &Path) -> Document {
    let name = path.file_name().unwrap().to_str().unwrap();
    let kind = match name {
        _ if name.ends_with("-trust.json") => PolicyKind::Trust,
        _ if name.ends_with("bucket-policy.json") || name.ends_with("key-policy.json") => PolicyKind::Resource,
        _ => PolicyKind::Identity,
    };
    let policy = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    Document::parse(kind, &policy).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn arn(of: &str) -> String {
    match of.split_once(':').unwrap_or((of, "")) {
        ("object", key) => format!("{BUCKET}/sagemaker-executor/{key}"),
        ("bucket", _) => BUCKET.to_owned(),
        ("job", name) => format!("arn:aws:sagemaker:eu-west-1:{ACCOUNT}:training-job/{name}"),
        ("role", name) => format!("arn:aws:iam::{ACCOUNT}:role/{name}"),
        ("stream", name) => format!("{GROUP}:log-stream:{name}"),
        ("group", rest) => format!("{GROUP}:{rest}"),
        _ => of.to_owned(),
    }
}

/// The role of a caller, and its policies in a folder.
fn caller(name: &str, folder: &Path) -> (String, Document) {
    let (role, policy) = match name {
        "host" => ("role:ci-runner-host", load(&folder.join("runner-host.json"))),
        "creator" => ("role:ci-creator", load(&folder.join("creator.json"))),
        "job" => ("role:ci-training", load(&folder.join("training-job.json"))),
        _ => {
            let all = json!([{ "Effect": "Allow", "Action": "*", "Resource": "*" }]);
            ("role:admin", document("identity", Some(&all)).unwrap())
        }
    };
    (arn(role), policy)
}

/// Asks the policies of a folder, those of the caller together with that of the bucket or the role.
fn ask(folder: &Path, questions: &str) {
    let bucket = load(&folder.join("bucket-policy.json"));
    let mut wrong = Vec::new();
    let questions = questions.replace("{create}", CREATE).replace("{place}", PLACE).replace("{tags}", TAGS);
    let questions = questions.replace("{checkpoints}", CHECKPOINTS).replace("{scope}", SCOPE);
    for line in questions.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, answer, action, resource, given @ ..] = &words[..] else { panic!("{line}") };
        let (name, session) = name.split_once('@').map_or((*name, None), |(name, session)| (name, Some(session)));
        let (role, identity) = caller(name, folder);
        let mut keys = ConditionKeys::default();
        keys.set("aws:PrincipalArn", [role.clone()]);
        keys.set("aws:SecureTransport", ["true"]);
        if let Some(session) = session {
            keys.set("aws:PrincipalTag/sme-session", [session]);
            keys.set("aws:PrincipalTag/sme-project", ["42"]);
        }
        for (key, value) in given.iter().map(|key| key.split_once('=').unwrap()) {
            keys.set(key, value.split(',').filter(|value| !value.is_empty()));
        }
        let arn_of_session = role.replace(":iam:", ":sts:").replace(":role/", ":assumed-role/") + "/session";
        let principal = Principal { arn: &arn_of_session, role_arn: Some(&role), account: ACCOUNT, service: None };
        let resource = arn(resource);
        let question = Question { action, resource: &resource, keys: &keys };
        let trust = action.starts_with("sts:").then(|| load(&folder.join("creator-trust.json")));
        let of_resource = trust.as_ref().or(resource.starts_with(BUCKET).then_some(&bucket));
        let policies = Policies { identity: &[identity], resource: of_resource, ..Policies::default() };
        let decide = if trust.is_some() { assumes } else { evaluate };
        let verdict = decide(&principal, &question, &policies);
        if (verdict == Verdict::Allowed) != (*answer == "yes") {
            wrong.push(format!("{line}: {verdict:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_engine_knows_all_that_the_policies_say() {
    let mut folders = vec![folder()];
    let mut read = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "json") {
                load(&path);
                read += 1;
            }
        }
    }
    assert!(read >= 4, "{read} policies");
}

#[test]
fn hosts_and_jobs_have_what_they_need_and_no_more() {
    ask(&folder(), PLAIN);
}

#[test]
fn under_a_creator_each_job_has_its_own_session_alone() {
    ask(&folder().join("creator"), CREATOR);
}

#[test]
fn only_sagemaker_for_the_account_assumes_the_role_of_jobs() {
    let plain = load(&folder().join("training-job-trust.json"));
    let creator = load(&folder().join("creator/training-job-trust.json"));
    let role = arn("role:ci-training");
    let verdict = |trust: &Document, action: &str, service: Option<&str>, account: &str| {
        let mut keys = ConditionKeys::default();
        keys.set("aws:SourceAccount", [account]);
        keys.set("aws:SourceArn", [arn("job:gitlab-7").replace(ACCOUNT, account)]);
        let host = "arn:aws:sts::123456789012:assumed-role/ci-runner-host/session";
        let host_role = arn("role:ci-runner-host");
        let (arn, role_arn) = if service.is_some() { ("", None) } else { (host, Some(&*host_role)) };
        let principal = Principal { arn, role_arn, account: ACCOUNT, service };
        let question = Question { action, resource: &role, keys: &keys };
        trusts(trust, &principal, &question) == Verdict::Allowed
    };
    let sagemaker = Some("sagemaker.amazonaws.com");
    for trust in [&plain, &creator] {
        assert!(verdict(trust, "sts:AssumeRole", sagemaker, ACCOUNT));
        assert!(!verdict(trust, "sts:AssumeRole", sagemaker, "999999999999"));
        assert!(!verdict(trust, "sts:AssumeRole", Some("ec2.amazonaws.com"), ACCOUNT));
        assert!(!verdict(trust, "sts:AssumeRole", None, ACCOUNT));
    }
    assert!(verdict(&creator, "sts:TagSession", sagemaker, ACCOUNT));
    assert!(!verdict(&creator, "sts:TagSession", None, ACCOUNT));
    assert!(!verdict(&plain, "sts:TagSession", sagemaker, ACCOUNT));
}
