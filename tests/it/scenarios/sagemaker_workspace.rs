//! The transfer of the project: the content that a second job sends, chunks that vanish or are damaged, and a kill in the middle.

use rustix::process::Signal;
use serde_json::json;

use super::sagemaker_desk::{Desk, SYSTEM_FAILURE};
use crate::support::job::Job;
use crate::support::waiting::poll;

const CHECK: &str = "find . -type f | sort | xargs cksum";

/// Bytes without any pattern.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn with_project(desk: &Desk) {
    desk.put("data/large", &noise(1, 9 << 20));
    for number in 0..100 {
        desk.put(&format!("src/{number}"), &noise(100 + number, 2000));
    }
}

/// What `CHECK` prints on the host.
fn expected(desk: &Desk) -> String {
    let output = std::process::Command::new("sh").args(["-c", CHECK]).current_dir(desk.project()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_second_job_of_the_project_sends_what_changed() {
    let job = Job::new().script(["true"]);
    let mut desk = Desk::new(&job).prepared();
    with_project(&desk);
    let first = desk.run("build_script", CHECK);
    first.passed().says("Project: 101 files, 9.2 MiB (9.2 MiB sent) in ");
    assert_eq!(first.out(), expected(&desk), "{first}");
    desk.cleanup().passed();
    desk.is_left_clean();
    let packs = desk.emulator.project_packs();
    assert!(!packs.is_empty());

    desk.next_job(&job, 4712);
    desk.put("src/7", b"changed");
    let second = desk.run("build_script", CHECK);
    second.passed();
    let little = regex::Regex::new(r"Project: 101 files, 9\.2 MiB \((\d+ B|\d\.\d KiB) sent\) in ").unwrap();
    assert!(little.is_match(&second.stderr), "{second}");
    assert_eq!(second.out(), expected(&desk), "{second}");
    let now = desk.emulator.project_packs();
    assert!(now.len() == packs.len() + 1 && packs.iter().all(|pack| now.contains(pack)), "{packs:?}\n{now:?}");
    desk.close();
}

#[test]
fn chunks_that_vanish_before_the_container_has_them_are_sent_again() {
    let job = Job::new().script(["true"]);
    let desk = Desk::new(&job).prepared();
    with_project(&desk);
    // Nobody reads while the project is sent.
    desk.emulator.set_faults(&json!({"calls": [{"operation": "GetObject", "error": "SlowDown", "status": 503}]}));
    let mut run = desk.start_run("build_script", CHECK);
    run.until("Project: 101 files");
    desk.emulator.expire("sagemaker-executor/projects/");
    desk.emulator.set_faults(&json!({}));
    let ended = run.end();
    ended.passed().says("parts of the project have vanished from the bucket and are sent again");
    assert_eq!(ended.out(), expected(&desk), "{ended}");
    desk.close();
}

#[test]
fn a_wrong_chunk_is_told_by_name_and_the_next_job_is_not_hit() {
    let job = Job::new().script(["true"]);
    let mut desk = Desk::new(&job).prepared();
    with_project(&desk);
    desk.run("build_script", CHECK).passed();
    desk.cleanup().passed();
    let bent: Vec<String> = desk.emulator.project_packs();
    for pack in &bent {
        let file = desk.emulator.object_file(pack);
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[100] ^= 1;
        std::fs::write(file, bytes).unwrap();
    }
    desk.next_job(&job, 4712);
    let failed = desk.run("build_script", CHECK);
    failed.with_code(SYSTEM_FAILURE).says("the chunk ").says(" is damaged");
    desk.cleanup().passed();
    let left = desk.emulator.project_packs();
    assert!(left.len() < bent.len(), "the pack was not dropped: {left:?}");
    for (id, _) in (4713..).zip(&left) {
        // One pack a job, if there are more.
        desk.next_job(&job, id);
        desk.run("build_script", CHECK);
        desk.cleanup().passed();
    }
    desk.next_job(&job, 4800);
    let mended = desk.run("build_script", CHECK);
    mended.passed();
    assert_eq!(mended.out(), expected(&desk), "{mended}");
    desk.close();
}

#[test]
fn a_kill_while_the_project_is_sent_costs_what_was_under_way() {
    let job = Job::new().script(["true"]);
    let desk = Desk::new(&job).prepared();
    with_project(&desk);
    // Some packs pass, then the store takes nothing more.
    desk.emulator.set_faults(&json!({"calls": [
        {"operation": "PutObject", "from": 5, "error": "SlowDown", "status": 503}
    ]}));
    let run = desk.start_run("build_script", CHECK);
    let stored = poll(std::time::Duration::from_mins(1), || {
        let packs = desk.emulator.project_packs();
        (!packs.is_empty() && desk.emulator.requests("PutObject") > 8).then_some(packs)
    });
    run.signal(Signal::KILL);
    assert_eq!(run.end().code, None);
    desk.emulator.set_faults(&json!({}));
    let stored = stored.expect("packs are stored");
    let modified = |key: &String| std::fs::metadata(desk.emulator.object_file(key)).unwrap().modified().unwrap();
    let before: Vec<_> = stored.iter().map(modified).collect();
    let ended = desk.run("build_script", CHECK);
    ended.passed();
    assert_eq!(ended.out(), expected(&desk), "{ended}");
    assert_eq!(stored.iter().map(modified).collect::<Vec<_>>(), before, "what was stored was not stored again");
    desk.close();
}
