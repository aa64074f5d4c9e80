//! Messages survive their journey, those of other versions are understood, and hostile ones are refused.

use super::*;
use crate::base::seal::SealKey;
use crate::protocol::project::Rule;

const NODE: NodeId = NodeId::LEADER;

fn keys() -> SessionKeys {
    SessionKeys::new("k", Seal::Keyed(SealKey::new([7; 32])))
}

/// The JSON text of a message.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap().split_once('\n').unwrap().1
}

/// A report as any writer that knows the key may store it.
fn sealed(text: &str) -> Vec<u8> {
    let tag = keys().seal().tag(Label::report(NODE, 1), text.as_bytes()).unwrap();
    format!("{tag}\n{text}").into_bytes()
}

#[test]
fn a_message_survives_the_journey() {
    let order = Order::Cancel { run: 3 };
    let bytes = encode_order(&keys(), 7, &order);
    assert_eq!(decode_order(&keys(), 7, &bytes).unwrap(), order);
    assert_eq!(text(&bytes), r#"{"version":2,"seq":7,"body":{"cancel":{"run":3}}}"#);
    let lease = encode_lease(&keys(), 9);
    assert_eq!((decode_lease(&keys(), &lease), text(&lease)), (Some(9), r#"{"version":2,"beat":9}"#));
}

#[test]
fn a_message_of_another_session_place_or_direction_is_forged() {
    let (keys, ready) = (keys(), Report::Bye { reason: ByeReason::Finished });
    let other = SessionKeys::new("k", Seal::Keyed(SealKey::new([8; 32])));
    let without = SessionKeys::new("k", Seal::Absent);
    let sealed = encode_report(&keys, NODE, 2, &ready);
    assert_eq!(decode_report(&keys, NODE, 2, &sealed).unwrap(), ready);
    let mut bent = sealed.clone();
    *bent.last_mut().unwrap() ^= 1;
    for (bytes, node, seq) in [
        (encode_report(&other, NODE, 2, &ready), NODE, 2),
        (encode_report(&without, NODE, 2, &ready), NODE, 2),
        (sealed.clone(), NODE, 3),
        (sealed.clone(), NodeId::at(1), 2),
        (encode_order(&keys, 2, &Order::Finish { collect: false }), NODE, 2),
        (bent, NODE, 2),
        (b"\n".to_vec(), NODE, 2),
        (Vec::new(), NODE, 2),
    ] {
        let refused = decode_report(&keys, node, seq, &bytes);
        assert_eq!(refused, Err(MailboxError::Forged(keys.report(node, seq))));
    }
    assert_eq!(decode_order(&keys, 2, &sealed), Err(MailboxError::Forged("k/orders/000002.json".into())));
    assert_eq!(decode_lease(&keys, &encode_lease(&other, 1)), None);
}

#[test]
fn a_session_without_a_key_has_the_messages_of_the_version_that_began_it() {
    let without = SessionKeys::new("k", Seal::Absent);
    let bytes = encode_order(&without, 7, &Order::Cancel { run: 3 });
    assert_eq!(String::from_utf8(bytes).unwrap(), r#"{"version":1,"seq":7,"body":{"cancel":{"run":3}}}"#);
    let report = br#"{"version":1,"seq":1,"body":{"started":{"run":2}}}"#;
    assert_eq!(decode_report(&without, NODE, 1, report).unwrap(), Report::Started { run: 2, order: 0 });
    assert_eq!(encode_lease(&without, 9), br#"{"version":1,"beat":9}"#);
    let next = br#"{"version":2,"seq":1,"body":{"started":{"run":2}}}"#;
    assert_eq!(decode_report(&without, NODE, 1, next), Err(MailboxError::Version(without.report(NODE, 1), 2)));
}

/// Driver and agent may be of different versions, so none of these may change.
#[test]
fn messages_are_as_documented() {
    let body = |bytes: Vec<u8>| serde_json::from_str::<serde_json::Value>(text(&bytes)).unwrap()["body"].to_string();
    let trees = Trees { project: "/b/p".into(), tmp: "/b/p.tmp".into(), host: None };
    let rule = Rule { include: vec!["out".into()], ..Rule::default() };
    let selection = Selection { rules: vec![rule], ..Selection::default() };
    let workspace = Order::Workspace(WorkspaceOrder {
        attempt: 1,
        packs: "projects/1-0/packs".into(),
        trees,
        selection,
        stage: None,
    });
    let run = Order::Run(RunOrder {
        run: 1,
        stage: "step_script".into(),
        script: "00ff".into(),
        masks: vec!["m".into()],
        mask_prefixes: vec!["glpat-".into()],
        grace: 10,
        live_copy: false,
        metrics: vec![MetricDefinition { name: "loss".into(), regex: "(x)".into() }],
        progress_rate: 1,
        keep_on_failure: 60,
        variables: [("DB".to_owned(), "m".to_owned())].into(),
        samples: true,
    });
    let orders = [workspace, run, Order::Finish { collect: true }];
    insta::assert_snapshot!(orders.map(|order| body(encode_order(&keys(), 1, &order))).join("\n"), @r#"
    {"workspace":{"attempt":1,"packs":"projects/1-0/packs","selection":{"every_node":false,"everything":false,"nested_repositories":false,"outside_links":false,"rules":[{"exclude":[],"follow":false,"include":["out"],"untracked":false,"variables":[]}]},"trees":{"project":"/b/p","tmp":"/b/p.tmp"}}}
    {"run":{"grace":10,"keep_on_failure":60,"live_copy":false,"mask_prefixes":["glpat-"],"masks":["m"],"metrics":[{"name":"loss","regex":"(x)"}],"progress_rate":1,"run":1,"samples":true,"script":"00ff","stage":"step_script","variables":{"DB":"m"}}}
    {"finish":{"collect":true}}
    "#);
    let exit = ExitReport {
        has_model: false,
        code: 1,
        bytes: 2,
        hash: "h".into(),
        canceled: false,
        at: 3,
        ran: None,
        copy: Some(4),
    };
    let reports = [
        Report::Ready {
            agent: "0.1.0".into(),
            nodes: vec!["algo-1".into()],
            restarts: 1,
            after: 4,
            checkpoints: Some(CheckpointFolder { files: 3, bytes: 70 }),
        },
        Report::Received { summary: "s".into() },
        Report::Missing { attempt: 1 },
        Report::Damaged { pack: "p".into(), chunk: "c".into() },
        Report::Started { run: 1, order: 2 },
        Report::Kept { run: 1, code: 2, bytes: 4, until: 3, release: "/r".into() },
        Report::Exited { run: 1, exit },
        Report::Collected { summary: "s".into(), restarts: 1 },
        Report::Failed { order: "o".into(), reason: "r".into(), by_job: true },
        Report::Bye { reason: ByeReason::LeaseExpired },
    ];
    insta::assert_snapshot!(reports.map(|report| body(encode_report(&keys(), NODE, 1, &report))).join("\n"), @r#"
    {"ready":{"after":4,"agent":"0.1.0","checkpoints":{"bytes":70,"files":3},"nodes":["algo-1"],"restarts":1}}
    {"received":{"summary":"s"}}
    {"missing":{"attempt":1}}
    {"damaged":{"chunk":"c","pack":"p"}}
    {"started":{"order":2,"run":1}}
    {"kept":{"bytes":4,"code":2,"release":"/r","run":1,"until":3}}
    {"exited":{"exit":{"at":3,"bytes":2,"canceled":false,"code":1,"copy":4,"has_model":false,"hash":"h"},"run":1}}
    {"collected":{"restarts":1,"summary":"s"}}
    {"failed":{"by_job":true,"order":"o","reason":"r"}}
    {"bye":{"reason":"lease_expired"}}
    "#);
}

#[test]
fn fields_of_a_newer_writer_are_ignored_and_a_newer_version_is_refused() {
    let newer = r#"{"version":2,"seq":1,"from":"x","body":{"started":{"run":2,"pid":9}}}"#;
    assert_eq!(decode_report(&keys(), NODE, 1, &sealed(newer)).unwrap(), Report::Started { run: 2, order: 0 });
    let next = r#"{"version":3,"seq":1,"body":{"unheard":{}}}"#;
    let refused = decode_report(&keys(), NODE, 1, &sealed(next));
    assert_eq!(refused, Err(MailboxError::Version(keys().report(NODE, 1), 3)));
    let bye = r#"{"version":2,"seq":1,"body":{"bye":{"reason":"tired"}}}"#;
    assert_eq!(decode_report(&keys(), NODE, 1, &sealed(bye)).unwrap(), Report::Bye { reason: ByeReason::Other });
}

#[test]
fn what_an_older_writer_does_not_tell_has_a_cautious_meaning() {
    let run = r#"{"run":1,"stage":"x","masks":[],"mask_prefixes":[],"grace":1}"#;
    let run: RunOrder = serde_json::from_str(run).unwrap();
    assert!(run.live_copy && run.script.is_empty() && run.metrics.is_empty());
    let exit = br#"{"code":0,"bytes":0,"hash":"","canceled":false}"#;
    let exit: ExitReport = serde_json::from_slice(exit).unwrap();
    assert_eq!((exit.at, exit.copy), (0, None));
}

#[test]
fn a_wrong_number_or_form_names_the_key_and_not_the_content() {
    let second = r#"{"version":2,"seq":2,"body":{"started":{"run":2}}}"#;
    let refused = decode_report(&keys(), NODE, 1, &sealed(second));
    assert_eq!(refused, Err(MailboxError::Number(keys().report(NODE, 1), 2)));
    let odd = sealed(r#"{"version":2,"seq":1,"body":{"run":{"masks":["s3cret"]}}}"#);
    let error = decode_report(&keys(), NODE, 1, &odd).unwrap_err();
    assert!(!error.to_string().contains("s3cret"));
    let run = RunOrder {
        run: 1,
        stage: "x".into(),
        script: String::new(),
        masks: vec!["s3cret".into()],
        mask_prefixes: vec![],
        grace: 1,
        live_copy: true,
        ..RunOrder::default()
    };
    assert!(!format!("{:?}", Order::Run(run)).contains("s3cret"));
}
