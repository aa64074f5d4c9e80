//! Advice for a token that AWS refuses: the claim, role or setting that does not fit. Pure.

use executor::base::arn::Arn;
use executor::base::human::utc_date;
use executor::cloud::TokenClaims;

/// Hints, in the order in which to look. `now` is this host's clock, in seconds since 1970.
pub(super) fn hints(code: &str, message: &str, role_arn: &str, claims: &TokenClaims, now: u64) -> Vec<String> {
    let TokenClaims { issuer, subject, audience, .. } = claims;
    let said = |words: &str| message.to_lowercase().contains(words);
    let role = Arn::parse(role_arn);
    let account = role.map_or("", |role| role.account);
    let partition = role.map_or("aws", |role| role.partition);
    let provider = issuer.trim_start_matches("https://");
    if code.starts_with("ExpiredToken") {
        return vec![expired(claims, now)];
    }
    if said("not valid yet") || said("nbf") {
        return vec![format!(
            "the clock of GitLab's host, which made the token, is ahead of that of AWS: set it; this host has {}",
            utc_date(now)
        )];
    }
    if code.starts_with("IDPCommunication") || said("verification key") || said("communicate with") {
        return vec![
            format!(
                "AWS reads {issuer}/.well-known/openid-configuration and the keys that it names: let AWS reach them, or publish them \
                 with `sagemaker-executor credentials publish-issuer`"
            ),
            "keys that are published must have that of this token: publish them again after GitLab got another key"
                .to_owned(),
        ];
    }
    if said("audience") {
        return vec![format!(
            "the token's `aud` is `{audience}`: let `id_tokens:` of the job ask for an audience that the identity provider {provider} of \
             the account {account} lists, or add this one to its client ids"
        )];
    }
    if said("provider") {
        return vec![
            format!(
                "the account {account} has no identity provider for `{issuer}`, the `iss` of the token: add it to IAM of that account"
            ),
            "check that `AWS_ROLE_ARN`, `environments.<name>.job_role` or `--role-arn` names a role of the right account".to_owned(),
        ];
    }
    if code.starts_with("AccessDenied") {
        return vec![
            format!(
                "the role does not exist, or its trust policy does not take this token: it must allow `sts:AssumeRoleWithWebIdentity` to \
                 `arn:{partition}:iam::{account}:oidc-provider/{provider}` with `{provider}:aud` = `{audience}` and `{provider}:sub` = `{subject}`; \
                 `sagemaker-executor credentials trust-policy` makes such a policy"
            ),
            "a job of another project, branch, tag or merge request has another `sub`: run the job where the role is meant for, or set \
             `AWS_ROLE_ARN` to the role of its environment"
                .to_owned(),
        ];
    }
    vec![
        format!(
            "check `AWS_ROLE_ARN`, and that the trust policy of this role allows `sts:AssumeRoleWithWebIdentity` to the job's GitLab, with \
             `iss` = `{issuer}`, `aud` = `{audience}` and `sub` = `{subject}`, as the token has them"
        ),
        "let `id_tokens:` of the job make the token; AWS takes those alone that GitLab has signed".to_owned(),
    ]
}

/// A token ends with its job's time limit, so one that AWS finds expired is of an earlier job, or a clock is wrong.
fn expired(claims: &TokenClaims, now: u64) -> String {
    match claims.expires {
        Some(until) if until <= now => format!(
            "the token was good until {}, and it is {} now: GitLab makes it for as long as `timeout:` of its job, so give the job a longer \
             one, and use the token in its own job alone",
            utc_date(until),
            utc_date(now)
        ),
        Some(until) => format!(
            "the token is good until {}, and it is {} by this host's clock: one of the clocks of this host and of GitLab's is wrong, set it",
            utc_date(until),
            utc_date(now)
        ),
        None => "let `id_tokens:` of the job make the token: this one has no `exp`".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    const ROLE: &str = "arn:aws-us-gov:iam::123456789012:role/deploy";

    #[test_case("AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity", &["arn:aws-us-gov:iam::123456789012:oidc-provider/gitlab.example.com", "`gitlab.example.com:sub` = `project_path:g/p:ref_type:branch:ref:topic`", "trust-policy"]; "another subject")]
    #[test_case("InvalidIdentityToken", "Incorrect token audience", &["`aud` is `wrong`", "client ids", "123456789012"]; "another audience")]
    #[test_case("InvalidIdentityToken", "No OpenIDConnect provider found in your account for https://gitlab.example.com", &["no identity provider", "`iss`", "123456789012", "`AWS_ROLE_ARN`"]; "another account")]
    #[test_case("InvalidIdentityToken", "Couldn't retrieve verification key from your identity provider", &["publish-issuer", "https://gitlab.example.com/.well-known/openid-configuration"]; "no key")]
    #[test_case("IDPCommunicationErrorException", "", &["publish-issuer"]; "no answer of GitLab")]
    #[test_case("InvalidIdentityToken", "Token is not valid yet: see its claim nbf", &["clock of GitLab's host"]; "not begun")]
    #[test_case("InvalidIdentityToken", "Provided Token's signature is not valid", &["`AWS_ROLE_ARN`", "GitLab has signed"]; "forged")]
    #[test_case("ExpiredTokenException", "Token expired", &["good until 1970-01-01T00:16:40Z", "`timeout:`"]; "expired")]
    fn a_refusal_names_what_does_not_fit(code: &str, message: &str, expected: &[&str]) {
        let claims = TokenClaims {
            issuer: "https://gitlab.example.com".to_owned(),
            subject: "project_path:g/p:ref_type:branch:ref:topic".to_owned(),
            audience: "wrong".to_owned(),
            expires: Some(1_000),
        };
        let text = hints(code, message, ROLE, &claims, 2_000).join("\n");
        for part in expected {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn a_clock_that_is_off_is_told_apart_from_a_late_job() {
        let claims = TokenClaims { expires: Some(9_000), ..TokenClaims::default() };
        assert!(hints("ExpiredTokenException", "", ROLE, &claims, 2_000)[0].contains("one of the clocks"));
    }
}
