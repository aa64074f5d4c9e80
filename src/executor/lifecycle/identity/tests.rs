//! The role of an environment, and the variable of the token.

use base64_simd::URL_SAFE_NO_PAD;
use serde_json::json;
use test_case::test_case;

use super::*;
use crate::cloud::Access;
use crate::lifecycle::manifest::Manifest;
use crate::lifecycle::pipeline::Pipeline;

const OWN: &str = "arn:aws:iam::123456789012:role/deploy";
const OTHER: &str = "arn:aws:iam::210987654321:role/deploy";

fn environment(pairs: &[(&str, &str)]) -> Environment {
    Environment::from_pairs(pairs.iter().map(|(name, value)| (name.into(), value.into())))
}

fn target(job_role: Option<&str>, account: Option<&str>, region: Option<&str>) -> ProjectTarget {
    let mut manifest = Manifest::default();
    manifest.target.job_role = job_role.map(str::to_owned);
    manifest.target.account = account.map(str::to_owned);
    manifest.target.region = region.map(str::to_owned);
    ProjectTarget {
        manifest,
        folder: std::path::PathBuf::new(),
        environment: Some("prod".to_owned()),
        pipeline: Pipeline::default(),
        access: Access::default(),
    }
}

fn args(id_token_env: Option<&str>, role_arn: Option<&str>) -> IdentityArgs {
    IdentityArgs { id_token_env: id_token_env.map(str::to_owned), role_arn: role_arn.map(str::to_owned) }
}

#[test_case(Some("arn:aws:iam::123456789012:role/flag"), Some("arn:aws:iam::123456789012:role/manifest"), "arn:aws:iam::123456789012:role/flag"; "the command line first")]
#[test_case(None, Some("arn:aws:iam::123456789012:role/manifest"), "arn:aws:iam::123456789012:role/manifest"; "then the manifest")]
#[test_case(None, None, OWN; "then the variable")]
fn the_role_is_that_of(flag: Option<&str>, manifest: Option<&str>, expected: &str) {
    let (env, args) = (environment(&[("AWS_ROLE_ARN", OWN)]), args(None, flag));
    let target = target(manifest, Some("123456789012"), Some("eu-west-1"));
    assert_eq!(args.role(&env, &target).unwrap(), expected);
}

#[test_case(OTHER, "the account 210987654321", "the account 123456789012")]
#[test_case("arn:aws-cn:iam::123456789012:role/deploy", "the partition aws-cn", "the partition aws ")]
#[test_case("arn:aws:iam::123456789012:user/deploy", "there is no role", "`AWS_ROLE_ARN`")]
#[test_case("arn:aws:iam::1:role/deploy", "there is no role", "`AWS_ROLE_ARN`")]
#[test_case("arn:evil:iam::123456789012:role/deploy", "there is no role", "`AWS_ROLE_ARN`")]
#[test_case("arn:aws:iam::123456789012:role/deploy\n  hint: x", "there is no role", "`AWS_ROLE_ARN`"; "more than one line")]
#[test_case("", "there is no role", "`environments.<name>.job_role`")]
fn a_role_is_refused(role: &str, what: &str, advice: &str) {
    let (env, args) = (environment(&[("AWS_ROLE_ARN", role)]), args(None, None));
    let target = target(None, Some("123456789012"), Some("eu-west-1"));
    let text = crate::base::failure::render(&args.role(&env, &target).unwrap_err().into());
    assert!(text.contains(what) && text.contains(advice), "{text}");
}

#[test]
fn a_token_is_in_one_of_two_variables_or_in_the_named_one() {
    let claims = |issuer: &str| {
        let claims = json!({"iss": issuer}).to_string();
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode_to_string(claims))
    };
    let (first, second, named) = (claims("first"), claims("second"), claims("named"));
    let both = [("AWS_ID_TOKEN", second.as_str()), ("SAGEMAKER_ID_TOKEN", &first), ("OWN", &named)];
    let issuer = |pairs: &[(&str, &str)], name| args(name, None).claims(&environment(pairs))?.issuer();
    assert_eq!(issuer(&both, None).as_deref(), Some("first"));
    assert_eq!(issuer(&both[..1], None).as_deref(), Some("second"));
    assert_eq!(issuer(&both, Some("OWN")).as_deref(), Some("named"));
    assert_eq!(issuer(&both, Some("ABSENT")), None);
}
