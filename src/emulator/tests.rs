//! Each service before requests that nobody known has signed, and before those of the user and of a job's role.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use test_case::test_case;

use super::authorization::RoleSession;
use super::{Credentials, Emulator, EmulatorConfig, Unsigned};

/// Another user of the machine; no account of that id needs to exist.
const ANOTHER_USER: &str = "1500";

/// A request before it is signed.
#[derive(Debug, Clone)]
struct Sent {
    method: &'static str,
    path: &'static str,
    query: &'static str,
    service: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    body: &'static str,
    time: SystemTime,
}

fn json(service: &'static str, target: &'static str, body: &'static str) -> Sent {
    let headers = vec![("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target)];
    Sent { method: "POST", path: "/", query: "", service, headers, body, time: SystemTime::now() }
}

fn sagemaker() -> Sent {
    json("sagemaker", "SageMaker.ListTrainingJobs", "{}")
}

fn logs() -> Sent {
    json("logs", "Logs_20140328.DescribeLogGroups", "{}")
}

fn tagging() -> Sent {
    json(
        "sagemaker",
        "SageMaker.ListTags",
        r#"{"ResourceArn": "arn:aws:sagemaker:us-east-1:000000000000:training-job/none"}"#,
    )
}

fn sts() -> Sent {
    let headers = vec![("content-type", "application/x-www-form-urlencoded")];
    Sent { headers, body: "Action=GetCallerIdentity&Version=2011-06-15", ..json("sts", "", "") }
}

/// The signature brings the header that S3 needs.
fn to_s3(method: &'static str, path: &'static str, query: &'static str) -> Sent {
    Sent { method, path, query, headers: Vec::new(), ..json("s3", "", "") }
}

fn s3() -> Sent {
    Sent { body: "Param1=value1", ..to_s3("PUT", "/bucket/key", "") }
}

fn own() -> Sent {
    Sent { method: "PUT", path: "/_emulator/faults", headers: Vec::new(), ..json("emulator", "", "{}") }
}

struct Running {
    runtime: tokio::runtime::Runtime,
    emulator: Emulator,
    _folder: tempfile::TempDir,
}

impl Running {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut config = EmulatorConfig::new(folder.path()).without_delays();
        config.buckets.push("bucket".to_owned());
        let emulator = runtime.block_on(Emulator::start(config)).unwrap();
        Self { runtime, emulator, _folder: folder }
    }

    fn host(&self) -> &str {
        self.emulator.endpoint().strip_prefix("http://").unwrap()
    }

    fn sign(&self, sent: &Sent, credentials: &Credentials) -> Vec<(&'static str, String)> {
        let headers = [&[("host", self.host())], &sent.headers[..]].concat();
        credentials.sign(&Unsigned {
            method: sent.method,
            path: sent.path,
            query: sent.query,
            headers: &headers,
            body: sent.body.as_bytes(),
            service: sent.service,
            region: "us-east-1",
            time: sent.time,
        })
    }

    /// Sends a request with further headers; status and body of the answer.
    fn send(&self, sent: &Sent, added: &[(&'static str, String)]) -> (u16, String) {
        let reply = self.exchange(sent, added).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Sends a request with further headers; everything that comes until the connection ends.
    fn exchange(&self, sent: &Sent, added: &[(&'static str, String)]) -> std::io::Result<String> {
        use std::fmt::Write as _;
        let mut stream = TcpStream::connect(self.host()).unwrap();
        let query = if sent.query.is_empty() { String::new() } else { format!("?{}", sent.query) };
        let mut request = format!("{} {}{query} HTTP/1.1\r\nhost: {}\r\n", sent.method, sent.path, self.host());
        for (name, value) in
            sent.headers.iter().map(|(name, value)| (*name, (*value).to_owned())).chain(added.iter().cloned())
        {
            let _ = write!(request, "{name}: {value}\r\n");
        }
        let _ = write!(request, "content-length: {}\r\nconnection: close\r\n\r\n{}", sent.body.len(), sent.body);
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        Ok(reply)
    }

    fn signed(&self, sent: &Sent, credentials: &Credentials) -> (u16, String) {
        self.send(sent, &self.sign(sent, credentials))
    }
}

/// The credentials that a container gets.
fn role_of(served: &serde_json::Value) -> Credentials {
    let text = |name: &str| served[name].as_str().unwrap().to_owned();
    Credentials {
        access_key_id: text("AccessKeyId"),
        secret_access_key: text("SecretAccessKey"),
        session_token: Some(text("Token")),
    }
}

/// Which error answers a request without signature, with a signature that does not hold, of another time, with another key.
struct Codes(&'static str, &'static str, &'static str, &'static str);

const JSON: Codes = Codes(
    "MissingAuthenticationTokenException",
    "InvalidSignatureException",
    "InvalidSignatureException",
    "UnrecognizedClientException",
);
const QUERY: Codes =
    Codes("MissingAuthenticationToken", "SignatureDoesNotMatch", "SignatureDoesNotMatch", "InvalidClientTokenId");
const S3: Codes = Codes("AccessDenied", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "InvalidAccessKeyId");

#[test_case(&sagemaker(), &JSON; "sagemaker")]
#[test_case(&tagging(), &JSON; "tagging")]
#[test_case(&logs(), &JSON; "logs")]
#[test_case(&sts(), &QUERY; "sts")]
#[test_case(&s3(), &S3; "s3")]
#[test_case(&own(), &JSON; "the emulator's own paths")]
fn a_service_takes_what_the_user_has_signed_and_nothing_else(sent: &Sent, codes: &Codes) {
    let running = Running::start();
    let user = running.emulator.credentials().clone();
    let refused = |(status, body): (u16, String), code: &str| {
        assert!((400..500).contains(&status) && body.contains(code), "{code}: {status} {body}");
        assert!(!body.contains(&user.secret_access_key), "{body}");
    };
    let (status, body) = running.signed(sent, &user);
    // A resource that is not there is an answer too.
    assert!(status == 200 || body.contains("Could not find resource"), "{status} {body}");

    refused(running.send(sent, &[]), codes.0);
    let wrong = Credentials { secret_access_key: "test".to_owned(), ..user.clone() };
    refused(running.signed(sent, &wrong), codes.1);
    // The body of an object is the next test's.
    let mut changed = sent.clone();
    if sent.service == "s3" {
        changed.path = "/bucket/other";
    } else {
        changed.body = r#"{"changed": 1}"#;
    }
    refused(running.send(&changed, &running.sign(sent, &user)), codes.1);
    for minutes in [16, 60 * 24] {
        let (old, new) = (sent.time - Duration::from_mins(minutes), sent.time + Duration::from_mins(minutes));
        for time in [old, new] {
            refused(running.signed(&Sent { time, ..sent.clone() }, &user), codes.2);
        }
    }
    let another = Running::start();
    refused(running.signed(sent, another.emulator.credentials()), codes.3);
    let token = Credentials { session_token: Some("token".to_owned()), ..user.clone() };
    let code = if codes.0 == S3.0 { "InvalidToken" } else { codes.3 };
    refused(running.signed(sent, &token), code);
    let scope = Sent { service: "iam", ..sent.clone() };
    refused(running.signed(&scope, &user), codes.1);
}

#[test]
fn a_changed_body_of_an_object_is_refused_and_not_stored() {
    let running = Running::start();
    let user = running.emulator.credentials();
    let sent = s3();
    let (status, body) = running.send(&Sent { body: "Param1=value2", ..sent.clone() }, &running.sign(&sent, user));
    assert!((400..500).contains(&status), "{status} {body}");
    let (status, body) = running.signed(&to_s3("GET", sent.path, ""), user);
    assert!(status == 404 && body.contains("NoSuchKey"), "{status} {body}");
}

/// `s3s` would verify the other signature instead of the header that names the caller.
#[test]
fn s3_takes_one_signature_of_version_4_and_no_other() {
    let running = Running::start();
    let user = running.emulator.credentials();
    let key = &user.access_key_id;
    let sent = s3();
    let signed = running.sign(&sent, user);
    for query in ["AWSAccessKeyId=x&Signature=y&Expires=9999999999", "X-Amz-Signature=00"] {
        let (status, body) = running.send(&Sent { query, ..sent.clone() }, &signed);
        assert!(status == 400 && body.contains("AuthorizationHeaderMalformed"), "{query}: {status} {body}");
    }
    let (status, body) = running.send(&sent, &[("authorization", format!("AWS {key}:c2ln"))]);
    assert!(status == 400 && body.contains("AuthorizationHeaderMalformed"), "{status} {body}");
    for kind in ["multipart/form-data; boundary=x", "Multipart/Form-Data; boundary=x"] {
        let form = Sent { method: "POST", path: "/bucket", headers: vec![("content-type", kind)], ..sent.clone() };
        let (status, body) = running.signed(&form, user);
        assert!(status == 403 && body.contains("Missing Authentication Token"), "{kind}: {status} {body}");
    }
}

#[test]
fn a_role_has_a_key_of_its_own_until_its_job_ends() {
    let running = Running::start();
    let keys = &running.emulator.shared.keys;
    let path = keys.place(of_job()).unwrap();
    let open = |path: &str| -> (u16, String) {
        let mut stream = TcpStream::connect(running.host()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    };
    assert_eq!(open("/v2/credentials/").0, 404);
    assert_eq!(open("/v2/credentials/job").0, 404);
    let (status, served) = open(&path);
    assert_eq!(status, 200, "{served}");
    let served: serde_json::Value = serde_json::from_str(&served).unwrap();
    let role = role_of(&served);
    let (status, body) = running.signed(&sts(), &role);
    assert!(status == 200 && body.contains(":assumed-role/"), "{status} {body}");
    assert_eq!(running.signed(&s3(), &role).0, 200);
    let without = Credentials { session_token: None, ..role.clone() };
    let of_the_user =
        Credentials { secret_access_key: running.emulator.credentials().secret_access_key.clone(), ..role.clone() };
    for (credentials, code) in [(without, "InvalidClientTokenId"), (of_the_user, "SignatureDoesNotMatch")] {
        let (status, body) = running.signed(&sts(), &credentials);
        assert!(status == 403 && body.contains(code), "{status} {body}");
    }
    let (status, body) = running.signed(&own(), &role);
    assert!(status == 400 && body.contains("AccessDeniedException"), "{status} {body}");
    keys.revoke(&path);
    assert_eq!(open(&path).0, 404);
    for (sent, code) in [(sts(), "InvalidClientTokenId"), (s3(), "InvalidAccessKeyId"), (logs(), "UnrecognizedClient")]
    {
        let (status, body) = running.signed(&sent, &role);
        assert!((400..500).contains(&status) && body.contains(code), "{status} {body}");
    }
}

/// The session of a job's containers.
fn of_job() -> RoleSession {
    let role = RoleSession::new("arn:aws:iam::000000000000:role/emulator", "AROA1", "SageMaker");
    RoleSession { job: Some("job".to_owned()), ..role }
}

const ROLE: &str = "arn:aws:sts::000000000000:assumed-role/emulator/SageMaker";
const JOB: &str = "arn:aws:sagemaker:us-east-1:000000000000:training-job/gitlab-1";
const GROUP: &str = "arn:aws:logs:us-east-1:000000000000:log-group:/aws/sagemaker/TrainingJobs:log-stream:";

fn copy_of(path: &'static str, query: &'static str, source: &'static str) -> Sent {
    Sent { headers: vec![("x-amz-copy-source", source)], ..to_s3("PUT", path, query) }
}

#[test]
fn a_role_may_call_nothing_of_sagemaker_and_no_more_of_the_logs_than_its_policy_grants() {
    let running = Running::start();
    let keys = &running.emulator.shared.keys;
    let role = role_of(&keys.served(&keys.place(of_job()).unwrap()).unwrap());
    let create = r#"{"TrainingJobName": "gitlab-1", "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
        "RoleArn": "arn:aws:iam::000000000000:role/test", "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 5},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60}}"#;
    let named = r#"{"TrainingJobName": "gitlab-1"}"#;
    let tagged = r#"{"ResourceArn": "arn:aws:sagemaker:us-east-1:000000000000:training-job/gitlab-1", "Tags": [], "TagKeys": ["a"]}"#;
    let all = JOB.replace("gitlab-1", "*");
    let of_group = r#"{"logGroupName": "/aws/sagemaker/TrainingJobs", "logStreamName": "gitlab-1/algo-1-1"}"#;
    let stream = format!("{GROUP}gitlab-1/algo-1-1");
    let groups = "arn:aws:logs:us-east-1:000000000000:log-group::log-stream:";
    for (operation, request, resource) in [
        ("SageMaker.CreateTrainingJob", create, JOB),
        ("SageMaker.DescribeTrainingJob", named, JOB),
        ("SageMaker.StopTrainingJob", named, JOB),
        ("SageMaker.UpdateTrainingJob", named, JOB),
        ("SageMaker.DeleteTrainingJob", named, JOB),
        ("SageMaker.ListTrainingJobs", "{}", &all),
        ("SageMaker.AddTags", tagged, JOB),
        ("SageMaker.ListTags", tagged, JOB),
        ("SageMaker.DeleteTags", tagged, JOB),
        ("Logs_20140328.GetLogEvents", of_group, &stream),
        ("Logs_20140328.FilterLogEvents", r#"{"logGroupName": "/aws/sagemaker/TrainingJobs"}"#, GROUP),
        ("Logs_20140328.DescribeLogGroups", "{}", groups),
        ("Logs_20140328.DeleteLogGroup", r#"{"logGroupName": "/aws/sagemaker/TrainingJobs"}"#, GROUP),
        ("Logs_20140328.DeleteLogStream", of_group, &stream),
    ] {
        let service = if operation.starts_with("Logs") { "logs" } else { "sagemaker" };
        let (status, body) = running.signed(&json(service, operation, request), &role);
        let error: serde_json::Value = serde_json::from_str(&body).unwrap();
        let action = format!("{service}:{}", operation.split_once('.').unwrap().1);
        let message = format!(
            "User: {ROLE} is not authorized to perform: {action} on resource: {resource} because no identity-based policy \
             allows the {action} action"
        );
        assert_eq!((status, &error["__type"]), (400, &"AccessDeniedException".into()), "{operation}: {body}");
        assert_eq!(error["message"], message);
    }
    let (status, body) = running.signed(&sagemaker(), running.emulator.credentials());
    assert!(status == 200 && !body.contains("gitlab-1"), "no job was made: {body}");
    let events =
        r#"{"logGroupName": "group", "logStreamName": "stream", "logEvents": [{"timestamp": 1, "message": "x"}]}"#;
    for (operation, request) in [
        ("CreateLogGroup", r#"{"logGroupName": "group"}"#),
        ("CreateLogStream", r#"{"logGroupName": "group", "logStreamName": "stream"}"#),
        ("DescribeLogStreams", r#"{"logGroupName": "group"}"#),
        ("PutLogEvents", events),
    ] {
        let target = format!("Logs_20140328.{operation}").leak();
        let (status, body) = running.signed(&json("logs", target, request), &role);
        assert_eq!(status, 200, "{operation}: {body}");
    }
}

#[test]
fn a_role_may_read_write_list_and_delete_objects_and_nothing_else_of_s3() {
    let running = Running::start();
    let keys = &running.emulator.shared.keys;
    let role = role_of(&keys.served(&keys.place(of_job()).unwrap()).unwrap());
    let user = running.emulator.credentials();
    let upload = "partNumber=1&uploadId=none";
    let parts =
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>x</ETag></Part></CompleteMultipartUpload>";
    for (sent, expected) in [
        (Sent { body: "content", ..to_s3("PUT", "/bucket/key", "") }, 200),
        (to_s3("GET", "/bucket/key", ""), 200),
        (to_s3("HEAD", "/bucket/key", ""), 200),
        (copy_of("/bucket/copy", "", "/bucket/key"), 200),
        (to_s3("GET", "/bucket", "list-type=2"), 200),
        (to_s3("GET", "/bucket", ""), 200),
        (to_s3("POST", "/bucket/large", "uploads"), 200),
        (to_s3("PUT", "/bucket/large", upload), 404),
        (Sent { body: parts, ..to_s3("POST", "/bucket/large", "uploadId=none") }, 404),
        (to_s3("DELETE", "/bucket/large", "uploadId=none"), 404),
    ] {
        let (status, body) = running.signed(&sent, &role);
        assert_eq!(status, expected, "{sent:?}: {body}");
        assert!(status == 200 || body.contains("NoSuchUpload"), "{sent:?}: {body}");
    }
    let (bucket, key) = ("arn:aws:s3:::bucket", "arn:aws:s3:::bucket/key");
    for (sent, action, resource) in [
        (to_s3("DELETE", "/bucket/key", "versionId=null"), "DeleteObjectVersion", key),
        (copy_of("/bucket/key", "", "/bucket/key?versionId=null"), "GetObjectVersion", key),
        (to_s3("GET", "/bucket/key", "versionId=null"), "GetObjectVersion", key),
        (to_s3("GET", "/bucket/key", "version%49d=null"), "GetObjectVersion", key),
        (to_s3("GET", "/bucket/key", "uploadId=none"), "ListMultipartUploadParts", key),
        (to_s3("GET", "/bucket", "uploads"), "ListBucketMultipartUploads", bucket),
        (to_s3("GET", "/bucket", "versions"), "ListBucketVersions", bucket),
        (to_s3("GET", "/bucket", "versioning"), "GetBucketVersioning", bucket),
        (to_s3("PUT", "/bucket", "versioning"), "PutBucketVersioning", bucket),
        (to_s3("GET", "/bucket", "lifecycle"), "GetLifecycleConfiguration", bucket),
        (to_s3("PUT", "/bucket", "lifecycle"), "PutLifecycleConfiguration", bucket),
        (to_s3("DELETE", "/bucket", "lifecycle"), "PutLifecycleConfiguration", bucket),
        (to_s3("GET", "/bucket", "location"), "GetBucketLocation", bucket),
        (to_s3("PUT", "/other", ""), "CreateBucket", "arn:aws:s3:::other"),
        (to_s3("DELETE", "/bucket", ""), "DeleteBucket", bucket),
        (to_s3("GET", "/", ""), "ListAllMyBuckets", "*"),
    ] {
        let (status, body) = running.signed(&sent, &role);
        let message =
            format!("User: {ROLE} is not authorized to perform: s3:{action} on resource: \"{resource}\" because");
        let body = body.replace("&quot;", "\"");
        assert!(status == 403 && body.contains("<Code>AccessDenied</Code>"), "{sent:?}: {status} {body}");
        assert!(body.contains(&message), "{sent:?}: {body}");
    }
    let head = |path, query| running.signed(&to_s3("HEAD", path, query), &role).0;
    assert_eq!((head("/bucket", ""), head("/bucket/key", "versionId=null")), (200, 403));
    let (status, body) = running.signed(&to_s3("GET", "/bucket/key", ""), user);
    assert_eq!((status, body.as_str()), (200, "content"));
    // Checkpoints that the container deleted are deleted in S3.
    assert_eq!(running.signed(&to_s3("DELETE", "/bucket/key", ""), &role).0, 204);
}

#[test]
fn another_local_user_cannot_read_the_credentials() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can become another user");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // Open, so that the file's own mode is what protects it.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let credentials = super::credentials::AccessKeys::new(&std::collections::BTreeMap::new(), "000000000000").unwrap();
    credentials.write(folder.path()).unwrap();
    let read = |name: &str| {
        let ids = [format!("--reuid={ANOTHER_USER}"), format!("--regid={ANOTHER_USER}")];
        let mut command = Command::new("setpriv");
        command.args(ids).arg("--clear-groups").arg("cat").arg(folder.path().join(name));
        command.stdout(Stdio::null()).stderr(Stdio::piped()).output()
    };
    std::fs::write(folder.path().join("open"), "x").unwrap();
    std::fs::set_permissions(folder.path().join("open"), std::fs::Permissions::from_mode(0o644)).unwrap();
    match read("open") {
        Ok(output) if output.status.success() => {}
        other => return eprintln!("SKIPPED: setpriv does not work here: {other:?}"),
    }
    let output = read("credentials").unwrap();
    assert!(
        !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("Permission denied"),
        "{output:?}"
    );
}

#[test_case("before", false; "before the operation")]
#[test_case("within", true; "in the middle of the answer")]
#[test_case("after", true; "after the operation")]
fn a_connection_ends_or_is_reset_as_the_plan_says(point: &str, is_stored: bool) {
    let running = Running::start();
    let user = running.emulator.credentials().clone();
    let put = Sent { body: "content", ..to_s3("PUT", "/bucket/key", "") };
    let list = to_s3("GET", "/bucket", "list-type=2");
    // The answer to `put` has no body that could break off.
    let (hit, operation) = if point == "within" { (&list, "ListObjectsV2") } else { (&put, "PutObject") };
    for reset in [false, true] {
        if point == "within" {
            assert_eq!(running.signed(&put, &user).0, 200);
        }
        let rule = serde_json::json!({"operation": operation, "count": 1, "drop": point, "reset": reset});
        running.emulator.shared.faults.set(serde_json::from_value(serde_json::json!({"calls": [rule]})).unwrap());
        match running.exchange(hit, &running.sign(hit, &user)) {
            Ok(reply) => assert!(!reset && !reply.contains("</ListBucketResult>"), "{point}: {reply}"),
            Err(error) => assert!(reset && error.kind() == std::io::ErrorKind::ConnectionReset, "{point}: {error}"),
        }
        let (status, listed) = running.signed(&list, &user);
        assert_eq!((status, listed.contains("<Key>key</Key>")), (200, is_stored), "{listed}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The emulator's own end follows; its tasks are on this runtime.
        self.emulator.shared.shutdown.cancel();
        self.runtime.block_on(async {
            self.emulator.shared.tasks.close();
            self.emulator.shared.tasks.wait().await;
        });
    }
}
