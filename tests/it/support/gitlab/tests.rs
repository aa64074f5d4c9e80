//! Tests of the double over a plain socket: the requests it must refuse, and the content of its replies.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::super::job::{Job, Trigger};
use super::{GitLab, JobStatus};

/// Sends one request with a job token and returns the whole reply.
fn ask(gitlab: &GitLab, request: &str, token: &str, headers: &str, body: &str) -> String {
    let host = gitlab.url().trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).unwrap();
    let length = body.len();
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: {host}\r\nJOB-TOKEN: {token}\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply.to_lowercase()
}

#[test]
fn a_trace_grows_only_at_its_end_and_only_with_the_token() {
    let gitlab = GitLab::start();
    let id = gitlab.enqueue(&Job::new().script(["true"]).when_trace_contains("stop here", Trigger::Cancel));
    let token = gitlab.question(id, |record| record.token.clone());
    let patch = |token: &str, range: &str, body: &str| {
        ask(&gitlab, &format!("PATCH /api/v4/jobs/{id}/trace"), token, &format!("Content-Range: {range}\r\n"), body)
    };
    assert!(patch("wrong", "0-4", "hello").starts_with("http/1.1 403"));
    let reply = patch(&token, "0-4", "hello");
    assert!(reply.starts_with("http/1.1 202") && reply.contains("job-status: running"), "{reply}");
    assert!(reply.contains("x-gitlab-trace-update-interval: 1") && reply.contains("range: 0-5"), "{reply}");
    let reply = patch(&token, "9-10", "xx");
    assert!(reply.starts_with("http/1.1 416") && reply.contains("range: 0-5"), "{reply}");
    assert!(patch(&token, "5-5", "xx").starts_with("http/1.1 400"), "the range must fit the body");
    assert!(patch(&token, "5-13", "stop here").contains("job-status: canceling"));
    gitlab.set_status(id, JobStatus::Canceled);
    assert!(patch(&token, "14-14", "!").contains("job-status: canceled"));
    assert_eq!(gitlab.question(id, |record| record.trace.bytes().to_vec()), b"hellostop here!");
}

#[test]
fn jobs_go_out_once_and_only_to_the_runner() {
    let gitlab = GitLab::start();
    gitlab.enqueue(&Job::new().script(["true"]));
    let request =
        |token: &str| ask(&gitlab, "POST /api/v4/jobs/request", "", "", &format!("{{\"token\":\"{token}\"}}"));
    assert!(request("wrong").starts_with("http/1.1 403"));
    assert!(request(super::RUNNER_TOKEN).starts_with("http/1.1 201"));
    assert!(request(super::RUNNER_TOKEN).starts_with("http/1.1 204"));
}

#[test]
fn git_asks_for_the_job_token() {
    let gitlab = GitLab::start();
    let reply = ask(&gitlab, "GET /ml/churn.git/info/refs?service=git-upload-pack", "", "", "");
    assert!(reply.starts_with("http/1.1 401") && reply.contains("www-authenticate: basic"), "{reply}");
}
