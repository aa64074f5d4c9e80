//! A merge request whose own `.gitlab-ci.yml` asks for the role of production.

use super::event::Event;
use super::play;
use super::schedule::JobState;
use super::site::Site;
use super::training::commit;

/// Anybody who may push a branch can write it.
const PIPELINE: &str = "stages: [deploy]
workflow:
  rules:
    - when: always
grab:
  stage: deploy
  environment: {name: production, action: access}
  id_tokens:
    SAGEMAKER_ID_TOKEN: {aud: sts.amazonaws.com}
  script:
    - exported=$(sagemaker-executor credentials export)
    - eval \"$exported\"
    - echo \"role $AWS_ROLE_ARN, session $AWS_ROLE_SESSION_NAME\"
    - test -r \"$AWS_WEB_IDENTITY_TOKEN_FILE\"
";

/// The job has the ARN of the role and a token that GitLab signed. AWS decides by the branch in it.
fn production_is_for_main(site: &Site) {
    let files = [(".gitlab-ci.yml".to_owned(), PIPELINE.to_owned())];
    let sha = commit(site, "main", &files);
    let mut of_main = site.pipeline(&Event::Push { branch: "main" }, &sha);
    of_main.run();
    assert_eq!(of_main.in_state(JobState::Failed), Vec::<&str>::new(), "{}", of_main.told());
    of_main.job("grab").outcome.shows("role arn:aws:iam::000000000000:role/production, session gitlab-");

    let sha = commit(site, "topic", &[files[0].clone(), ("README.md".to_owned(), "A change\n".to_owned())]);
    let mut of_request = site.pipeline(&Event::MergeRequest { number: 7, branch: "topic", title: "Change" }, &sha);
    of_request.run();
    assert_eq!(of_request.in_state(JobState::Failed), ["grab"], "{}", of_request.told());
    let outcome = &of_request.job("grab").outcome;
    outcome.failed("script_failure", Some(2)).shows("AccessDenied").shows(":ref_type:branch:ref:topic");
}

#[test]
fn a_merge_request_gets_no_role_of_production() {
    play("a_merge_request_gets_no_role_of_production", production_is_for_main);
}
