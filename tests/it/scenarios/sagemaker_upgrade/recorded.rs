//! Records what a version of the program writes into the mailbox, for the versions after it to read.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::{Desk, asked, job, other};
use crate::support::proxy::Proxy;
use crate::support::waiting::tell;

/// Output with each kind of escape.
const SCRIPT: &str = r"printf 'plain\tand \033[31mred\033[0m \\ \303\251\360\237\244\226\n'; printf 'progress 1\rprogress 2\n'; echo made >out/file";
/// Folders and files of the mailbox that are recorded.
const KINDS: [&str; 5] = ["open", "orders/", "reports/", "lease.json", "trace/"];

/// Key below the session's root, and the content, of a request that stores an object.
fn stored(request: &[u8], session: &str) -> Option<(String, String)> {
    let text = String::from_utf8_lossy(request);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let path = head.strip_prefix("PUT ")?.split([' ', '?']).next()?;
    let (_, key) = path.split_once(&format!("/sessions/{session}/"))?;
    let (token, rest) = key.split_once('/').unwrap_or(("", key));
    let is_token = token.len() == 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit());
    let key = if is_token { rest } else { key };
    KINDS.iter().any(|kind| key.starts_with(kind)).then(|| (key.to_owned(), body.to_owned()))
}

fn record(program: &Path) -> String {
    let mut desk = Desk::new(&job());
    let emulator = desk.emulator.endpoint.clone();
    let (of_driver, of_agent) = (Proxy::keeping(&emulator), Proxy::keeping(&emulator));
    desk.edit_operator_file(
        &format!("endpoint_url = \"{emulator}\""),
        &format!("endpoint_url = \"{}\"\ncontainer_endpoint_url = \"{}\"", of_driver.url, of_agent.url),
    );
    program.clone_into(&mut desk.program);
    let desk = desk.prepared();
    desk.put("out/input", b"arrived");
    let output: BTreeMap<_, _> = [("000001", "build_script"), ("000002", "after_script")]
        .map(|(run, stage)| {
            let ended = desk.run(stage, SCRIPT);
            (run, ended.passed().out())
        })
        .into();
    desk.run("upload_artifacts_on_success", "true").passed();
    let session = desk.session.clone().unwrap();
    let requests = [of_driver.kept(), of_agent.kept()].concat();
    let messages: BTreeMap<_, _> = requests.iter().filter_map(|request| stored(request, &session)).collect();
    assert!(messages.contains_key("open") && messages.contains_key("reports/algo-1/000001.json"), "{messages:?}");
    desk.close();
    serde_json::to_string_pretty(&json!({"messages": messages, "output": output})).unwrap() + "\n"
}

#[test]
fn messages_of_a_version_are_recorded() {
    let (Some(folder), Some((program, _))) = (asked("UPGRADE_RECORD"), other()) else {
        tell("SKIPPED: a record of the messages of another version: UPGRADE or UPGRADE_RECORD names none");
        return;
    };
    std::fs::write(Path::new(&folder).join("messages.json"), record(&program)).unwrap();
}
