//! The embedded emulator as a child process, one for each world that needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use emulator::{Credentials, Unsigned};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::used_statements;
use super::waiting::{pause, poll};

/// The bucket of the tests' operator file.
pub(crate) const BUCKET: &str = "ci-bucket";

/// Time after a job's last driver call within which its leftovers must be gone.
const GONE_WITHIN: Duration = Duration::from_secs(30);

/// A running emulator; ended with the value.
pub(crate) struct Emulator {
    child: Child,
    data_dir: PathBuf,
    pub(crate) endpoint: String,
    credentials: Credentials,
    /// Those of the driver.
    of_driver: Credentials,
    /// The region of the test's own requests.
    region: &'static str,
    /// Objects were deleted as by a lifecycle rule.
    expired: AtomicBool,
    /// The accounts of `--iam`.
    accounts: Vec<Value>,
}

impl Emulator {
    /// Starts without delays of the job's phases; CloudWatch keeps its delay of some seconds. `args` come last and override.
    pub(crate) fn start(data_dir: &Path, args: &[String]) -> Self {
        let ready = data_dir.with_extension("endpoint");
        let delay = |name: &str| {
            let set = args.iter().any(|arg| arg == name);
            if set { Vec::new() } else { vec![name.to_owned(), "0s".to_owned()] }
        };
        let child = Command::new(super::program::executor())
            .args(["emulator", "--listen", "127.0.0.1:0", "--bucket", BUCKET])
            .args(
                ["--starting-delay", "--downloading-delay", "--training-delay", "--uploading-delay"]
                    .map(delay)
                    .concat(),
            )
            .args(args)
            .arg("--data-dir")
            .arg(data_dir)
            .arg("--ready-file")
            .arg(&ready)
            .env_clear()
            .env("PATH", super::waiting::search_path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("the emulator is this package's binary");
        let endpoint = poll(Duration::from_mins(1), || std::fs::read_to_string(&ready).ok());
        let endpoint = endpoint.expect("the emulator gets ready").trim().to_owned();
        let credentials = Credentials::read(data_dir).expect("the emulator made credentials");
        let of_driver = credentials.clone();
        Self {
            child,
            data_dir: data_dir.to_owned(),
            endpoint,
            credentials,
            of_driver,
            region: "us-east-1",
            expired: AtomicBool::new(false),
            accounts: used_statements::accounts(args),
        }
    }

    /// Sends the test's own requests to another region.
    pub(crate) fn in_region(mut self, region: &'static str) -> Self {
        self.region = region;
        self
    }

    /// Variables of the driver's environment.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        environment(&self.of_driver)
    }

    /// The same variables for the account's administrator.
    pub(crate) fn of_administrator(&self) -> Vec<(String, String)> {
        environment(&self.credentials)
    }

    /// Gives the driver the key of a user or role.
    pub(crate) fn call_driver_as(&mut self, profile: &str) {
        self.of_driver = Credentials::read_profile(&self.data_dir, profile).expect("the emulator made a key");
    }

    pub(crate) fn put_bucket_policy(&self, policy: &Value) {
        let (status, text) = self.request("PUT", &format!("/{BUCKET}?policy="), "s3", &[], &policy.to_string());
        assert!((200..300).contains(&status), "{status} {text}");
    }

    /// Puts a setting of the bucket, which the name in the query is for.
    pub(crate) fn put_bucket_setting(&self, name: &str, body: &str) {
        let (status, text) = self.request("PUT", &format!("/{BUCKET}?{name}="), "s3", &[], body);
        assert!((200..300).contains(&status), "{status} {text}");
    }

    /// Switches the bucket's versioning on.
    pub(crate) fn keep_versions(&self) {
        let body = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Status>Enabled</Status>\
                    </VersioningConfiguration>";
        let (status, text) = self.request("PUT", &format!("/{BUCKET}?versioning="), "s3", &[], body);
        assert_eq!(status, 200, "{text}");
    }

    /// Allowed and denied actions of a role so far.
    pub(crate) fn decided(&self, role: &str) -> Value {
        self.decided_of(&format!("arn:aws:iam::000000000000:role/{role}"))
    }

    /// As [`Emulator::decided`], of a role of any account.
    pub(crate) fn decided_of(&self, arn: &str) -> Value {
        let (_, body) = self.own_request("GET", "/_emulator/iam", "");
        let mut all: Value = serde_json::from_str(&body).expect("decisions are JSON");
        all[arn].take()
    }

    /// Replaces the fault plan; `{}` ends all faults.
    pub(crate) fn set_faults(&self, plan: &Value) {
        let (status, body) = self.own_request("PUT", "/_emulator/faults", &plan.to_string());
        assert_eq!(status, 200, "{body}");
    }

    /// Takes away the instances of the spot job that lives, as soon as its containers run.
    pub(crate) fn interrupt(&self) {
        self.strike("interrupt");
    }

    /// Hits the job that lives with `interrupt`, `kill` or `host-failure`, as soon as its containers run.
    pub(crate) fn strike(&self, fault: &str) {
        let hit = poll(Duration::from_mins(1), || {
            let jobs = self.live_jobs();
            let name = jobs.first()?.split(' ').next()?.trim_matches('"');
            let (status, _) = self.own_request("POST", &format!("/_emulator/{fault}/{name}"), "");
            (status == 200).then_some(())
        });
        assert!(hit.is_some(), "no job runs that {fault} can hit: {:?}", self.live_jobs());
    }

    /// As [`Emulator::strike`], unless no containers run.
    pub(crate) fn strike_if_running(&self, fault: &str) {
        for job in self.live_jobs() {
            let name = job.split(' ').next().unwrap_or_default().trim_matches('"');
            self.own_request("POST", &format!("/_emulator/{fault}/{name}"), "");
        }
    }

    /// As [`Emulator::strike`], when the job's output has the text.
    pub(crate) fn strike_after(&self, text: &str, fault: &str) {
        let is_told = poll(Duration::from_mins(3), || self.log_text().contains(text).then_some(()));
        assert!(is_told.is_some(), "no {text} in {}", self.log_text());
        self.strike(fault);
    }

    /// Deletes objects, as a lifecycle rule does.
    pub(crate) fn expire(&self, prefix: &str) {
        let (status, body) = self.own_request("DELETE", &format!("/_emulator/objects/{BUCKET}/{prefix}"), "");
        assert!(status == 200 && !body.contains(":0}"), "{prefix}: {body}");
        self.expired.store(true, Ordering::Relaxed);
    }

    /// Makes objects this many seconds older; returns their number.
    pub(crate) fn age(&self, prefix: &str, seconds: u64) -> u64 {
        let (status, body) =
            self.own_request("POST", &format!("/_emulator/age/{BUCKET}/{prefix}?seconds={seconds}"), "");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).expect("the answer is JSON")["aged"].as_u64().unwrap_or_default()
    }

    /// Requests so far of one operation, also those that were refused.
    pub(crate) fn requests(&self, operation: &str) -> u64 {
        self.all_requests().get(operation).copied().unwrap_or_default()
    }

    /// Requests so far of each operation.
    pub(crate) fn all_requests(&self) -> BTreeMap<String, u64> {
        let (_, body) = self.own_request("GET", "/_emulator/requests", "");
        serde_json::from_str(&body).expect("counts are JSON")
    }

    /// Every training job as `DescribeTrainingJob` shows it, newest first.
    pub(crate) fn jobs(&self) -> Vec<Value> {
        let list = self.call("SageMaker.ListTrainingJobs", &json!({"MaxResults": 100}));
        let summaries = list["TrainingJobSummaries"].as_array().expect("a list has summaries").clone();
        let describe = |job: &Value| {
            self.call("SageMaker.DescribeTrainingJob", &json!({"TrainingJobName": job["TrainingJobName"]}))
        };
        summaries.iter().map(describe).collect()
    }

    /// Training jobs that have not ended: name and status.
    pub(crate) fn live_jobs(&self) -> Vec<String> {
        let live = |job: &Value| {
            let status = job["TrainingJobStatus"].as_str().unwrap_or("without status").to_owned();
            let ended = ["Completed", "Failed", "Stopped"].contains(&status.as_str());
            (!ended).then(|| format!("{} {status}", job["TrainingJobName"]))
        };
        self.jobs().iter().filter_map(live).collect()
    }

    /// `StopTrainingJob`, as from the console.
    pub(crate) fn stop_job(&self, name: &str) {
        self.call("SageMaker.StopTrainingJob", &json!({"TrainingJobName": name}));
    }

    /// All that CloudWatch shows of all training jobs.
    pub(crate) fn log_text(&self) -> String {
        const GROUP: &str = "/aws/sagemaker/TrainingJobs";
        let mut text = String::new();
        // Before the first output of a container there is no group.
        let groups = self.call("Logs_20140328.DescribeLogGroups", &json!({"logGroupNamePrefix": GROUP}));
        if groups["logGroups"].as_array().is_none_or(Vec::is_empty) {
            return text;
        }
        let streams = self.call("Logs_20140328.DescribeLogStreams", &json!({"logGroupName": GROUP}));
        for stream in streams["logStreams"].as_array().into_iter().flatten() {
            let mut token = Value::Null;
            loop {
                let mut request =
                    json!({"logGroupName": GROUP, "logStreamName": stream["logStreamName"], "startFromHead": true});
                if !token.is_null() {
                    request["nextToken"] = token.clone();
                }
                let page = self.call("Logs_20140328.GetLogEvents", &request);
                for event in page["events"].as_array().into_iter().flatten() {
                    text.push_str(event["message"].as_str().unwrap_or_default());
                    text.push('\n');
                }
                if page["nextForwardToken"] == token {
                    break;
                }
                token = page["nextForwardToken"].clone();
            }
        }
        text
    }

    /// Records of sessions that the host should not keep. The record of a training job that was requested and may still appear
    /// stays; then this calls `sweep`, after which no such job may exist.
    pub(crate) fn left_records(&self, sessions: &Path, sweep: impl FnOnce()) -> Vec<String> {
        let names = || -> Vec<String> {
            let entries = std::fs::read_dir(sessions).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        };
        let may_appear = |id: &str| {
            let text = std::fs::read_to_string(sessions.join(format!("{id}.json"))).unwrap_or_default();
            let record = serde_json::from_str::<Value>(&text).unwrap_or_default();
            record["creating"] == true || !record["leaving"].is_null()
        };
        let id = |name: &String| name.split('.').next().unwrap_or_default().to_owned();
        let stays = |name: &String| {
            may_appear(&id(name)) && [format!("{}.json", id(name)), format!("{}.closing", id(name))].contains(name)
        };
        let mut found = names();
        // A driver that was killed while it looked at such a session leaves its lock.
        if !found.is_empty() && found.iter().all(|name| may_appear(&id(name))) {
            self.set_faults(&json!({}));
            // A job whose agents have left ends by itself.
            poll(GONE_WITHIN, || self.live_jobs().is_empty().then_some(()));
            sweep();
            let jobs: Vec<_> = self.jobs().iter().map(|job| job["TrainingJobName"].to_string()).collect();
            let has_job = |name: &String| jobs.contains(&format!("\"{}\"", id(name)));
            found = names().into_iter().filter(|name| has_job(name) || !stays(name)).collect();
        }
        found
    }

    /// Keys of the bucket, from the emulator's journal of it.
    pub(crate) fn objects(&self) -> Vec<String> {
        let journal = self.data_dir.join("s3").join(BUCKET).join("index.jsonl");
        let mut keys = BTreeSet::new();
        for line in std::fs::read_to_string(&journal).expect("the bucket has a journal").lines() {
            let record: Value = serde_json::from_str(line).expect("the journal holds JSON");
            let key = record["key"].as_str().expect("a record has a key").to_owned();
            if record["object"].is_null() {
                keys.remove(&key);
            } else {
                keys.insert(key);
            }
        }
        keys.into_iter().collect()
    }

    /// Keys of the packs that stay for later jobs of the project.
    pub(crate) fn project_packs(&self) -> Vec<String> {
        self.objects().into_iter().filter(|key| key.starts_with("sagemaker-executor/projects/")).collect()
    }

    /// The file that holds the object.
    pub(crate) fn object_file(&self, key: &str) -> PathBuf {
        let bucket = self.data_dir.join("s3").join(BUCKET);
        let journal = std::fs::read_to_string(bucket.join("index.jsonl")).expect("the bucket has a journal");
        let mut records =
            journal.lines().map(|line| serde_json::from_str::<Value>(line).expect("the journal holds JSON"));
        let last = records.rfind(|record| record["key"] == key).expect("the object is there");
        bucket.join("data").join(last["object"]["segments"][0]["file"].as_str().expect("it has a body"))
    }

    /// Keys below the executor's prefix of sessions, which cleanup must delete.
    pub(crate) fn session_objects(&self) -> Vec<String> {
        self.objects().into_iter().filter(|key| key.starts_with("sagemaker-executor/sessions/")).collect()
    }

    /// Processes that descend from the emulator: those of its containers.
    pub(crate) fn container_processes(&self) -> Vec<String> {
        let all: Vec<(u32, u32, String)> =
            processes().filter_map(|pid| Some((pid, parent(pid)?, command(pid)))).collect();
        let mut family = BTreeSet::from([self.child.id()]);
        loop {
            let before = family.len();
            family.extend(
                all.iter().filter(|(_, parent, _)| family.contains(parent)).map(|(pid, ..)| *pid).collect::<Vec<_>>(),
            );
            if family.len() == before {
                break;
            }
        }
        let inside = all.into_iter().filter(|(pid, ..)| family.contains(pid) && *pid != self.child.id());
        inside.map(|(pid, _, command)| format!("{pid} {command}")).collect()
    }

    /// Checks once all jobs are over that no job runs, no object of a session is stored, and no secret was shown.
    pub(crate) fn is_left_clean(&self, secrets: &[String]) {
        self.set_faults(&json!({}));
        let left = || {
            let (jobs, objects, processes) = (self.live_jobs(), self.session_objects(), self.container_processes());
            let clean = jobs.is_empty() && objects.is_empty() && processes.is_empty();
            (!clean).then(|| format!("training jobs {jobs:?}\nobjects {objects:?}\nprocesses {processes:?}"))
        };
        let mut last = None;
        poll(GONE_WITHIN, || {
            last = left();
            last.is_none().then_some(())
        });
        assert_eq!(last, None, "something is left behind in AWS");
        let jobs = self.jobs();
        if !jobs.is_empty() && !self.expired.load(Ordering::Relaxed) {
            let objects = self.objects();
            assert!(objects.iter().any(|key| key.contains("/agents/")), "the journal is not read: {objects:?}");
        }
        let shown = format!("{}\n{}", json!(jobs), self.log_text());
        for secret in secrets {
            assert!(!shown.contains(secret.as_str()), "{secret:?} is readable in AWS:\n{shown}");
        }
    }

    /// Creates another bucket, in any region.
    pub(crate) fn create_bucket(&self, name: &str, region: &str) {
        let body = format!(
            "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><LocationConstraint>{region}\
             </LocationConstraint></CreateBucketConfiguration>"
        );
        let (status, text) = self.request("PUT", &format!("/{name}"), "s3", &[], &body);
        assert_eq!(status, 200, "{text}");
    }

    /// `PutObject` by whoever may write there.
    pub(crate) fn put_object(&self, key: &str, body: &[u8]) {
        let body = std::str::from_utf8(body).expect("the tests store text");
        let (status, text) = self.request("PUT", &format!("/{BUCKET}/{key}"), "s3", &[], body);
        assert_eq!(status, 200, "{key}: {text}");
    }

    /// `GetObject`; `None` when there is none.
    pub(crate) fn get_object(&self, key: &str) -> Option<String> {
        let (status, text) = self.request("GET", &format!("/{BUCKET}/{key}"), "s3", &[], "");
        (status == 200).then_some(text)
    }

    /// `InvokeEndpoint`.
    pub(crate) fn invoke(&self, endpoint: &str, content_type: &str, body: &str) -> (u16, String) {
        let path = format!("/endpoints/{endpoint}/invocations");
        self.request("POST", &path, "sagemaker", &[("content-type", content_type)], body)
    }

    /// One awsJson call; tried again while it is throttled.
    pub(crate) fn call(&self, target: &str, body: &Value) -> Value {
        let answer = poll(Duration::from_secs(30), || {
            let service = match target.split(['.', '_']).next() {
                Some("SageMaker") => "sagemaker",
                Some("secretsmanager") => "secretsmanager",
                Some("AmazonEC2ContainerRegistry") => "ecr",
                _ => "logs",
            };
            let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target)];
            let (status, text) = self.request("POST", "/", service, &headers, &body.to_string());
            if text.contains("ThrottlingException") {
                pause(Duration::from_millis(200));
                return None;
            }
            assert_eq!(status, 200, "{target}: {text}");
            Some(if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("an answer is JSON") })
        });
        answer.expect("a quota fills again")
    }

    /// A request to the emulator's own paths.
    fn own_request(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        self.request(method, path, "emulator", &[], body)
    }

    /// A session of a role with tags, begun by the administrator.
    pub(crate) fn role_session(&self, role: &str, tags: &[(&str, &str)]) -> Credentials {
        use std::fmt::Write as _;
        let mut form = format!(
            "Action=AssumeRole&Version=2011-06-15&RoleSessionName=other&RoleArn=arn:aws:iam::000000000000:role/{role}"
        );
        for (index, (name, value)) in tags.iter().enumerate() {
            let number = index + 1;
            let _ = write!(form, "&Tags.member.{number}.Key={name}&Tags.member.{number}.Value={value}");
        }
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let (status, reply) = self.request("POST", "/", "sts", &headers, &form);
        assert_eq!(status, 200, "{reply}");
        let member = |name: &str| {
            let (_, rest) = reply.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("{name}: {reply}"));
            rest.split('<').next().unwrap_or_default().to_owned()
        };
        Credentials {
            access_key_id: member("AccessKeyId"),
            secret_access_key: member("SecretAccessKey"),
            session_token: Some(member("SessionToken")),
        }
    }

    /// A request signed for the service by the administrator.
    fn request(&self, method: &str, path: &str, service: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        self.request_as(&self.credentials, method, path, service, headers, body)
    }

    /// A request with the key of somebody else.
    pub(crate) fn request_as(
        &self,
        key: &Credentials,
        method: &str,
        path: &str,
        service: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, String) {
        use std::fmt::Write as _;
        use std::io::{Read as _, Write as _};
        let address = self.endpoint.strip_prefix("http://").expect("the emulator speaks plain HTTP");
        let given = [&[("host", address)], headers].concat();
        let unsigned = Unsigned {
            method,
            path: path.split('?').next().unwrap_or_default(),
            query: path.split_once('?').map_or("", |(_, query)| query),
            headers: &given,
            body: body.as_bytes(),
            service,
            region: self.region,
            time: SystemTime::now(),
        };
        let mut headers = String::new();
        for (name, value) in key.sign(&unsigned) {
            let _ = write!(headers, "{name}: {value}\r\n");
        }
        for (name, value) in given {
            let _ = write!(headers, "{name}: {value}\r\n");
        }
        let mut stream = std::net::TcpStream::connect(address).expect("the emulator listens");
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
        .expect("the emulator reads");
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).expect("the emulator answers");
        let reply = String::from_utf8_lossy(&reply);
        let (head, body) = reply.split_once("\r\n\r\n").expect("a reply has a head");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a reply has a status");
        (status, body.to_owned())
    }
}

/// All three variables, the secret key last, so that they replace those of other credentials; the token is empty without a session.
fn environment(credentials: &Credentials) -> Vec<(String, String)> {
    let Credentials { access_key_id, secret_access_key, session_token } = credentials.clone();
    let named = [
        ("AWS_SESSION_TOKEN", session_token.unwrap_or_default()),
        ("AWS_ACCESS_KEY_ID", access_key_id),
        ("AWS_SECRET_ACCESS_KEY", secret_access_key),
    ];
    named.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

/// Ids of the processes that can be seen.
pub(crate) fn processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc is there").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// `None` when it has ended, also for a zombie.
fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (state != "Z").then_some(parent)
}

/// The command line of a process, for people.
pub(crate) fn command(pid: u32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ")
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let is_running = matches!(self.child.try_wait(), Ok(None));
        if !self.accounts.is_empty() && is_running && !std::thread::panicking() {
            used_statements::record(&self.accounts, || self.own_request("GET", "/_emulator/statements", "").1);
        }
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        if poll(Duration::from_secs(15), || self.child.try_wait().ok().flatten()).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// SageMaker's whole text for a quota in use or without instances.
pub(crate) fn quota_text(instance_type: &str, limit: u32) -> String {
    format!(
        "The account-level service limit '{instance_type} for training job usage' is {limit} Instances, with current utilization of {limit} \
         Instances and a request delta of 1 Instances. Please use AWS Service Quotas to request an increase for this quota. If AWS Service \
         Quotas is not available, contact AWS support to request an increase for this quota."
    )
}
