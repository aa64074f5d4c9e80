//! Makes a [`CloudError`] from a failed AWS call: its kind, and a hint.
//!
//! The kind is chosen from the code string, the HTTP status and the message, because most codes that AWS sends are not
//! in the service models. The text keeps AWS's code and message; it never holds a header, a body or a credential.

use std::error::Error;
use std::sync::Arc;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use executor::cloud::{CloudError, CloudErrorKind, Parameter, SettingsFile};

use super::renewal::Renewal;
use super::settings::Names;

/// End of the error of a call that was refused for its time.
const SET_CLOCK: &str = "; set the clock of the host: AWS refuses requests that are some minutes early or late";

/// The context of a call for its errors: operation, resource, and the IAM action that allows it.
#[derive(Debug, Clone)]
pub(super) struct AwsCall {
    /// `create training job gitlab-231-...`.
    pub(super) operation: String,
    pub(super) action: &'static str,
    /// The resource of the action: `training job gitlab-231-...`.
    pub(super) resource: String,
    /// Names of the settings to change.
    names: &'static Names,
    /// The credentials of the call, which are read again when AWS refuses them.
    renewal: Option<Arc<Renewal>>,
}

impl AwsCall {
    pub(super) fn new(verb: &str, resource: impl Into<String>, action: &'static str) -> Self {
        let resource = resource.into();
        let names = Names::of(SettingsFile::Operator);
        Self { operation: format!("{verb} {resource}"), action, resource, names, renewal: None }
    }

    /// For a client whose credentials are read again when AWS refuses them.
    pub(super) fn renewing(self, renewal: &Arc<Renewal>) -> Self {
        Self { renewal: Some(Arc::clone(renewal)), ..self }
    }

    /// For a caller whose settings are in this file.
    pub(super) fn of(self, settings: SettingsFile) -> Self {
        Self { names: Names::of(settings), ..self }
    }

    /// The error of a call that AWS refused, or that did not reach it.
    pub(super) fn failed<E>(&self, error: &SdkError<E, HttpResponse>) -> CloudError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let status = error.raw_response().map(|response| response.status().as_u16());
        match error {
            // A successful reply that the SDK could not parse: its own text would repeat the body.
            SdkError::ServiceError(_) if error.code().is_none() && status.is_some_and(|status| status < 300) => {
                self.error(CloudErrorKind::Other, "the call succeeded, but the reply is not one that AWS sends")
            }
            SdkError::ServiceError(_) => self.refused(error.code(), status, error.message().unwrap_or_default()),
            SdkError::ResponseError(_) => {
                let status = status.map_or_else(|| "no status".to_owned(), |status| format!("HTTP {status}"));
                self.error(CloudErrorKind::Transient, format!("the reply is not one that AWS sends ({status})"))
            }
            SdkError::TimeoutError(_) => {
                self.error(CloudErrorKind::Transient, "no reply within the time limit".to_owned())
            }
            SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) => self.unsent(error),
            _ => self.error(CloudErrorKind::Other, causes(error).join(": ")),
        }
    }

    /// As [`AwsCall::failed`], for a request of which AWS may refuse one parameter.
    pub(super) fn refused_request<E>(&self, error: &SdkError<E, HttpResponse>) -> CloudError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let failed = self.failed(error);
        let parameter = error.message().filter(|_| failed.kind == CloudErrorKind::Invalid).and_then(parameter);
        CloudError { kind: parameter.map_or(failed.kind, CloudErrorKind::Refused), ..failed }
    }

    /// The error of a reply with this code and message; also for errors inside a successful reply.
    pub(super) fn refused(&self, code: Option<&str>, status: Option<u16>, message: &str) -> CloudError {
        let kind = classify(code, status, message);
        let mut text = match (code, message) {
            (Some(code), "") => code.to_owned(),
            (Some(code), message) => format!("{code}: {message}"),
            (None, "") => format!("HTTP {}", status.unwrap_or_default()),
            (None, message) => message.to_owned(),
        };
        let mut action = self.action;
        if let CloudErrorKind::Denied | CloudErrorKind::Unauthenticated = kind {
            if is_clock(code.unwrap_or_default(), message) {
                text.push_str(SET_CLOCK);
            } else if kind == CloudErrorKind::Unauthenticated {
                if let Some(renewal) = &self.renewal {
                    renewal.ask();
                }
                text.push_str("; AWS does not accept the credentials: ");
                text.push_str(self.names.refused_credentials);
            } else {
                action = denied_action(message).unwrap_or(self.action);
                text.push_str("; the credentials in use need `");
                text.push_str(action);
                text.push_str("` on ");
                text.push_str(if action == self.action {
                    self.resource.as_str()
                } else {
                    "the resource that AWS names"
                });
                if action == "s3:GetObject" {
                    text.push_str(" (without `s3:ListBucket` on the bucket, S3 answers so for absent objects too)");
                }
            }
        }
        match code.unwrap_or_default() {
            "NoSuchBucket" => text.extend(["; set ", self.names.bucket, " to a bucket that exists"]),
            "InvalidBucketName" => text.extend(["; set ", self.names.bucket, " to a bucket's name alone"]),
            code if code.starts_with("KMS.") => {
                text.extend(["; set ", self.names.key, " to an enabled key of the bucket's region"]);
            }
            "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
                text.extend(["; set ", self.names.region, " to the region of ", self.names.bucket]);
            }
            _ => {}
        }
        CloudError { kind, operation: self.operation.clone(), message: text, action }
    }

    pub(super) fn error(&self, kind: CloudErrorKind, message: impl Into<String>) -> CloudError {
        CloudError { kind, operation: self.operation.clone(), message: message.into(), action: self.action }
    }

    /// A body that did not arrive whole, or not as its checksum says.
    pub(super) fn broke_off(&self, error: &(dyn Error + 'static)) -> CloudError {
        self.error(
            CloudErrorKind::Transient,
            format!("the transfer of the body was interrupted: {}", causes(error).join(": ")),
        )
    }

    /// The request never left: no credentials, no connection, or it could not be built.
    fn unsent(&self, error: &(dyn Error + 'static)) -> CloudError {
        let causes = causes(error);
        let said = |text: &str| causes.iter().any(|cause| cause.contains(text));
        // A credential provider's own text may hold the output of a command, so it is not repeated.
        if said("credential") {
            if let Some(refusal) = self.renewal.as_ref().and_then(|renewal| renewal.refusal()) {
                return self.error(CloudErrorKind::Unauthenticated, refusal);
            }
            let (kind, what) = if said("was not enabled") || said("no providers") {
                (CloudErrorKind::Unauthenticated, "no AWS credentials were found")
            } else if said("not properly configured") {
                (
                    CloudErrorKind::Unauthenticated,
                    "the AWS profile or credential source is not configured as AWS expects",
                )
            } else {
                (CloudErrorKind::Transient, "the AWS credentials could not be loaded")
            };
            let hint = self.names.absent_credentials;
            return self.error(kind, format!("{what}; {hint}"));
        }
        if said("invalid peer certificate") {
            let setting = self.names.ca_bundle;
            let hint = format!("set {setting} to a PEM file with the authority that signs for this endpoint");
            return self.error(CloudErrorKind::Other, format!("{}; {hint}", causes.join(": ")));
        }
        if said("(Connect)") {
            let (region, endpoint) = (self.names.region, self.names.endpoint);
            let hint = format!(
                "check {region} and {endpoint}, and that this host reaches the service: a route, DNS, or a VPC endpoint"
            );
            return self.error(CloudErrorKind::Transient, format!("{}; {hint}", causes.join(": ")));
        }
        let kind = if said("failed to construct") { CloudErrorKind::Invalid } else { CloudErrorKind::Transient };
        self.error(kind, causes.join(": "))
    }
}

/// Classifies an error by the caller's possible reaction. Each error of a service goes through here.
pub(super) fn classify(code: Option<&str>, status: Option<u16>, message: &str) -> CloudErrorKind {
    let code = code.unwrap_or_default();
    let status = status.unwrap_or_default();
    if message.contains("Rate exceeded") || is_throttling_code(code) || status == 429 {
        return CloudErrorKind::Throttled;
    }
    if is_credential_code(code) {
        return CloudErrorKind::Unauthenticated;
    }
    if code.starts_with("AccessDenied") || code == "NotAuthorized" {
        return CloudErrorKind::Denied;
    }
    if message.contains("CapacityError") || message.contains("Insufficient capacity") || code.contains("Capacity") {
        return CloudErrorKind::Capacity;
    }
    match code {
        "ResourceInUse"
        | "ResourceInUseException"
        | "ResourceAlreadyExistsException"
        | "PreconditionFailed"
        | "BucketAlreadyOwnedByYou" => CloudErrorKind::Exists,
        // The text of a quota says `If AWS Service Quotas is not available, ...`.
        "ResourceLimitExceeded" if message.contains("requested resource") => CloudErrorKind::Invalid,
        "ResourceLimitExceeded"
        | "ServiceQuotaExceededException"
        | "LimitExceeded"
        | "AccountLimitExceededException" => CloudErrorKind::Quota,
        "ResourceNotFound"
        | "ResourceNotFoundException"
        | "ObjectNotFoundException"
        | "NoSuchKey"
        | "NoSuchBucket"
        | "NoSuchUpload"
        | "NotFound" => CloudErrorKind::NotFound,
        "ValidationException" | "ValidationError" if is_absent_job(message) => CloudErrorKind::NotFound,
        // `InvalidObjectState`: an archived object; its 403 is not one of permissions.
        "InvalidObjectState" | "ValidationException" | "ValidationError" => CloudErrorKind::Invalid,
        "RequestTimeout"
        | "RequestTimeoutException"
        | "InternalError"
        | "InternalFailure"
        | "InternalServerError"
        | "InternalServerException"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "OperationAborted"
        | "ConcurrentUpdateException"
        | "ConcurrentModificationException"
        | "ConditionalRequestConflict" => CloudErrorKind::Transient,
        _ => match status {
            403 | 401 => CloudErrorKind::Denied,
            404 => CloudErrorKind::NotFound,
            412 => CloudErrorKind::Exists,
            500..=599 => CloudErrorKind::Transient,
            300..=499 => CloudErrorKind::Invalid,
            _ => CloudErrorKind::Other,
        },
    }
}

/// The parameter of `CreateTrainingJob` that a refusal names. Constraints of the service's model read `Value '...' at
/// 'resourceConfig.instanceType' failed to satisfy constraint: ...`; other refusals are free text.
fn parameter(message: &str) -> Option<Parameter> {
    if message.contains("validation error") {
        let places = message.split("' at '").skip(1).filter_map(|rest| rest.split('\'').next());
        return places.filter_map(|place| place.rsplit('.').next()).find_map(|name| match name {
            "instanceType" => Some(Parameter::InstanceType),
            "trainingImage" => Some(Parameter::Image),
            "roleArn" => Some(Parameter::Role),
            "kmsKeyId" | "volumeKmsKeyId" => Some(Parameter::Key),
            "subnets" | "securityGroupIds" => Some(Parameter::Network),
            _ => None,
        });
    }
    // An ARN or an image counts as one word; of a path like `ResourceConfig.InstanceType` the last name counts.
    let trimmed = message.split_whitespace().map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()));
    let words: Vec<_> = trimmed.filter_map(|word| word.rsplit('.').next()).collect();
    let has = |names: &[&str]| words.iter().any(|word| names.iter().any(|name| word.eq_ignore_ascii_case(name)));
    let has_pair = |first: &str, second: &str| {
        words.windows(2).any(|pair| pair[0].eq_ignore_ascii_case(first) && pair[1].eq_ignore_ascii_case(second))
    };
    // A key or a network that does not fit an instance type is named together with it.
    if has(&["KMS", "KmsKeyId", "VolumeKmsKeyId"]) {
        Some(Parameter::Key)
    } else if has(&["Subnet", "Subnets", "SecurityGroupIds"])
        || has_pair("security", "group")
        || has_pair("security", "groups")
    {
        Some(Parameter::Network)
    } else if has(&["InstanceType"]) || has_pair("instance", "type") {
        Some(Parameter::InstanceType)
    } else if has(&["TrainingImage", "image", "repository"]) {
        Some(Parameter::Image)
    } else if has(&["RoleArn", "role"]) {
        Some(Parameter::Role)
    } else {
        None
    }
}

/// SageMaker has no job of this name; it says so with a `ValidationException`.
fn is_absent_job(message: &str) -> bool {
    ["Requested resource not found", "Could not find job", "Could not find training job"]
        .iter()
        .any(|text| message.contains(text))
}

fn is_throttling_code(code: &str) -> bool {
    matches!(
        code,
        "Throttling"
            | "ThrottlingException"
            | "ThrottledException"
            | "RequestThrottled"
            | "RequestThrottledException"
            | "TooManyRequestsException"
            | "RequestLimitExceeded"
            | "LimitExceededException"
            | "SlowDown"
            | "503 SlowDown"
            | "BandwidthLimitExceeded"
    )
}

/// Whether the code says that AWS does not know, or no longer accepts, the credentials.
fn is_credential_code(code: &str) -> bool {
    matches!(
        code,
        "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "InvalidAccessKeyId"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch"
            | "IncompleteSignature"
            | "IncompleteSignatureException"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "InvalidToken"
            | "RequestExpired"
            | "RequestTimeTooSkewed"
    )
}

/// The call was refused for its time. It had no effect, and the client signs the next one by the time of the refusal.
pub(super) fn is_of_clock(error: &CloudError) -> bool {
    error.kind == CloudErrorKind::Unauthenticated && error.message.contains(SET_CLOCK)
}

/// The request's time is not AWS's: S3 has a code for it, the other services a text.
fn is_clock(code: &str, message: &str) -> bool {
    code == "RequestTimeTooSkewed"
        || ["Signature expired", "Signature not yet current"].iter().any(|text| message.contains(text))
}

/// The IAM action that AWS names, if it differs from that of the call: "not authorized to perform: iam:PassRole on".
fn denied_action(message: &str) -> Option<&'static str> {
    const NAMED: [&str; 11] = [
        "iam:PassRole",
        "iam:CreateServiceLinkedRole",
        "cloudwatch:DescribeAlarms",
        "sagemaker:AddTags",
        "kms:CreateGrant",
        "kms:GenerateDataKey",
        "kms:DescribeKey",
        "kms:Decrypt",
        "kms:Encrypt",
        "s3:ListBucket",
        "sts:TagSession",
    ];
    let (_, rest) = message.split_once("to perform: ")?;
    let action = rest.split_whitespace().next()?;
    NAMED.into_iter().find(|named| *named == action)
}

/// The texts of an error and its sources, without duplicates.
fn causes(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        let text = cause.to_string();
        if !texts.iter().any(|said| said.contains(&text)) {
            texts.push(text);
        }
        next = cause.source();
    }
    texts
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case(Some("ValidationException"), 400, "Requested resource not found." => CloudErrorKind::NotFound; "describe of an unknown job")]
    #[test_case(Some("ValidationException"), 400, "Could not find job to update with name: x" => CloudErrorKind::NotFound; "update of an unknown job")]
    #[test_case(Some("ValidationException"), 400, "1 validation error detected: Value 'ml.x' at 'resourceConfig.instanceType'" => CloudErrorKind::Invalid; "bad enum")]
    #[test_case(Some("ValidationException"), 400, "The request was rejected because the training job is in status Stopped." => CloudErrorKind::Invalid; "stop of a finished job")]
    #[test_case(Some("ResourceNotFound"), 400, "" => CloudErrorKind::NotFound; "listed but unused code")]
    #[test_case(Some("ResourceNotFoundException"), 400, "The specified log stream does not exist." => CloudErrorKind::NotFound; "absent log stream")]
    #[test_case(Some("ResourceInUse"), 400, "Training job names must be unique within an AWS account and region" => CloudErrorKind::Exists; "taken name")]
    #[test_case(Some("ResourceLimitExceeded"), 400, "The account-level service limit 'ml.g5.xlarge for training job usage' is 1 Instances, with current utilization of 1 Instances and a request delta of 1 Instances. Please use AWS Service Quotas to request an increase for this quota. If AWS Service Quotas is not available, contact AWS support to request an increase for this quota." => CloudErrorKind::Quota; "quota in use")]
    #[test_case(Some("ResourceLimitExceeded"), 400, "The requested resource training-job/ml.p2.xlarge is not available in this region" => CloudErrorKind::Invalid; "type not in region")]
    #[test_case(Some("ObjectNotFoundException"), 400, "No scalable target found" => CloudErrorKind::NotFound; "absent scalable target")]
    #[test_case(Some("ConcurrentUpdateException"), 400, "" => CloudErrorKind::Transient; "two changes of a scalable target")]
    #[test_case(Some("ThrottlingException"), 400, "Rate exceeded" => CloudErrorKind::Throttled; "throttled")]
    #[test_case(Some("Throttling"), 400, "" => CloudErrorKind::Throttled; "older throttling code")]
    #[test_case(Some("TooManyRequestsException"), 429, "" => CloudErrorKind::Throttled; "too many requests")]
    #[test_case(Some("SlowDown"), 503, "Please reduce your request rate." => CloudErrorKind::Throttled; "s3 slow down")]
    #[test_case(Some("SomethingNew"), 400, "Rate exceeded" => CloudErrorKind::Throttled; "throttled by text")]
    #[test_case(Some("AccessDeniedException"), 400, "User: arn is not authorized" => CloudErrorKind::Denied; "json denial")]
    #[test_case(Some("AccessDenied"), 403, "Access Denied" => CloudErrorKind::Denied; "s3 denial")]
    #[test_case(None, 403, "" => CloudErrorKind::Denied; "head denial has no body")]
    #[test_case(Some("InvalidObjectState"), 403, "The operation is not valid for the object's storage class" => CloudErrorKind::Invalid; "archived")]
    #[test_case(Some("ExpiredTokenException"), 400, "The security token included in the request is expired" => CloudErrorKind::Unauthenticated; "expired")]
    #[test_case(None, 404, "" => CloudErrorKind::NotFound; "head of an absent object")]
    #[test_case(Some("PreconditionFailed"), 412, "" => CloudErrorKind::Exists; "if none match")]
    #[test_case(Some("ConditionalRequestConflict"), 409, "" => CloudErrorKind::Transient; "conflicting writers")]
    #[test_case(Some("InternalFailure"), 500, "" => CloudErrorKind::Transient; "internal")]
    #[test_case(None, 502, "" => CloudErrorKind::Transient; "gateway")]
    #[test_case(Some("CapacityError"), 400, "Unable to provision requested ML compute capacity" => CloudErrorKind::Capacity; "capacity code")]
    #[test_case(Some("ValidationException"), 400, "CapacityError: Unable to provision requested ML compute capacity." => CloudErrorKind::Capacity; "capacity text")]
    #[test_case(Some("UnheardOf"), 400, "no" => CloudErrorKind::Invalid; "other 4xx")]
    #[test_case(None, 0, "" => CloudErrorKind::Other; "nothing known")]
    fn a_reply_has_a_kind(code: Option<&str>, status: u16, message: &str) -> CloudErrorKind {
        classify(code, (status > 0).then_some(status), message)
    }

    #[test_case("1 validation error detected: Value 'ml.q1.large' at 'resourceConfig.instanceType' failed to satisfy constraint: Member must satisfy enum value set: [ml.m5.large]" => Some(Parameter::InstanceType); "type that is none")]
    #[test_case("1 validation error detected: Value 'ml.x' at 'resourceConfig.instanceGroups.1.member.instanceType' failed to satisfy constraint" => Some(Parameter::InstanceType); "type in a group")]
    #[test_case("1 validation error detected: Value '' at 'algorithmSpecification.trainingImage' failed to satisfy constraint: Member must satisfy regular expression pattern: .*" => Some(Parameter::Image); "image that matches no pattern")]
    #[test_case("2 validation errors detected: Value 'x' at 'trainingJobName' failed to satisfy constraint: y; Value 'role' at 'roleArn' failed to satisfy constraint: z" => Some(Parameter::Role); "second of two")]
    #[test_case("1 validation error detected: Value 'my image role' at 'tags.1.member.value' failed to satisfy constraint" => None; "value that holds the words")]
    #[test_case("1 validation error detected: Value '0' at 'resourceConfig.volumeSizeInGB' failed to satisfy constraint" => None; "another parameter")]
    #[test_case("Invalid image URI pytorch:2.4. Please provide a valid Amazon Elastic Container Registry path of the Docker image to run." => Some(Parameter::Image); "image of another registry")]
    #[test_case("Cannot find repository: train in registry ID: 123456789012. Please check if your ECR repository and image exist and role arn:aws:iam::123456789012:role/x has proper pull permissions for SageMaker: ecr:BatchCheckLayerAvailability, ecr:BatchGetImage, ecr:GetDownloadUrlForLayer" => Some(Parameter::Image); "repository that is not there")]
    #[test_case("Cannot find repository: train in registry ID: 123456789012 Please check if your ECR repository exists and role arn:aws:iam::123456789012:role/x has proper pull permissions for SageMaker: ecr:BatchCheckLayerAvailability, ecr:BatchGetImage, ecr:GetDownloadUrlForLayer" => Some(Parameter::Image); "repository that is not there, in older words")]
    #[test_case("Could not assume role arn:aws:iam::123456789012:role/image-builder. Please ensure that the role exists and allows principal 'sagemaker.amazonaws.com' to assume the role." => Some(Parameter::Role); "role that does not trust")]
    #[test_case("RoleArn: Cross-account pass role is not allowed." => Some(Parameter::Role); "role of another account")]
    #[test_case("The instance type ml.p3.2xlarge does not support the requested volume size" => Some(Parameter::InstanceType); "type in words")]
    #[test_case("InstanceType ml.trn1.2xlarge is not supported for Training." => Some(Parameter::InstanceType); "type by its name")]
    #[test_case("ResourceConfig.InstanceType cannot be used with EnableManagedSpotTraining." => Some(Parameter::InstanceType); "type by its path")]
    #[test_case("The whole console did damage to the images' imagery" => None; "words that hold the names of parameters")]
    #[test_case("Subnets: subnet-1 is not in any whole zone; see the console" => Some(Parameter::Network); "subnets")]
    #[test_case("The security group sg-1 does not exist" => Some(Parameter::Network); "security group")]
    #[test_case("1 validation error detected: Value 'my key' at 'outputDataConfig.kmsKeyId' failed to satisfy constraint" => Some(Parameter::Key); "key that matches no pattern")]
    #[test_case("VolumeKmsKeyId is not supported for instance type ml.g5.xlarge" => Some(Parameter::Key); "key of a type with local storage")]
    #[test_case("The request is not possible; see the console" => None; "nothing of these")]
    fn a_refusal_names_a_parameter(message: &str) -> Option<Parameter> {
        parameter(message)
    }

    #[test]
    fn a_denial_names_the_action_and_the_resource() {
        let call = AwsCall::new("create", "training job gitlab-1", "sagemaker:CreateTrainingJob");
        let error = call.refused(Some("AccessDeniedException"), Some(400), "not authorized");
        assert_eq!(
            error.to_string(),
            "failed to create training job gitlab-1: AccessDeniedException: not authorized; the credentials in use need \
             `sagemaker:CreateTrainingJob` on training job gitlab-1"
        );
        let error = call.refused(
            Some("AccessDeniedException"),
            Some(400),
            "User: arn:aws:sts::1:x is not authorized to perform: iam:PassRole on resource: arn:aws:iam::1:role/train",
        );
        assert_eq!(error.action, "iam:PassRole");
    }

    /// An error with a chain of causes, as the transport makes them.
    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Cause {
        text: &'static str,
        source: Option<Box<Cause>>,
    }

    fn unsent(text: &'static str) -> CloudError {
        let source = Some(Box::new(Cause { text, source: None }));
        AwsCall::new("get", "object s3://b/k", "s3:GetObject").unsent(&Cause { text: "dispatch failure", source })
    }

    #[test_case("no providers in chain provided credentials" => (CloudErrorKind::Unauthenticated, "no AWS credentials were found"))]
    #[test_case("the credentials provider was not properly configured" => (CloudErrorKind::Unauthenticated, "the AWS profile or credential source is not configured as AWS expects"))]
    #[test_case("an error occurred while loading credentials: hunter2" => (CloudErrorKind::Transient, "the AWS credentials could not be loaded"))]
    fn credentials_that_cannot_be_had_are_told_without_repeating_their_source(
        text: &'static str,
    ) -> (CloudErrorKind, &'static str) {
        let error = unsent(text);
        assert!(!error.message.contains("hunter2"), "{error}");
        let (what, hint) = error.message.split_once("; ").unwrap();
        assert!(hint.contains("`AWS_ACCESS_KEY_ID`"), "{error}");
        (error.kind, String::leak(what.to_owned()))
    }

    #[test]
    fn a_stranger_at_the_endpoint_is_no_passing_fault() {
        let error = unsent("invalid peer certificate: UnknownIssuer");
        assert_eq!(error.kind, CloudErrorKind::Other);
        assert!(error.message.contains("`aws.ca_bundle`"), "{error}");
        assert_eq!(unsent("connection refused").kind, CloudErrorKind::Transient);
    }

    #[test]
    fn a_missing_bucket_is_named_as_the_operators_setting() {
        let call = AwsCall::new("put", "object s3://gone/a", "s3:PutObject");
        let error = call.refused(Some("NoSuchBucket"), Some(404), "The specified bucket does not exist");
        assert!(error.message.contains("`storage.bucket`"), "{error}");
    }
}
