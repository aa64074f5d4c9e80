//! Jobs and objects of others with the names of a session.

use super::*;

/// Somebody else's job with the session's next name costs it neither its end nor its own job's.
#[tokio::test(start_paused = true)]
async fn another_job_with_a_name_of_the_session_keeps_none_of_its_own_alive() {
    for has_objects in [true, false] {
        let account = Account::new();
        let host = account.host(Duration::ZERO);
        let dead = account.session(DEAD, LEASE).await;
        let other = job_name(&id(DEAD), 2);
        dead.create_as(example_spec(&other)).await;
        if !has_objects {
            account.memory.objects.expire(&dead.keys.open());
        }
        tokio::time::sleep(HOUR * 25).await;
        // A job that cannot be stopped keeps its proof.
        account.memory.jobs.plan([Fault::new("stop", 1, When::Before, CloudErrorKind::Denied)]);
        assert!(!host.sweep(None, false).await.1);
        assert_eq!(account.objects(DEAD), usize::from(has_objects));
        account.memory.jobs.plan([]);
        let told = host.swept().await;
        assert!(told.contains("; another training job with its name is not the session's and goes on"), "{told}");
        assert!(account.is_stopped(DEAD) && !account.is_stopped(&other) && account.objects(DEAD) == 0);
        assert!(host.swept().await.contains("Nothing is left over"));
    }
}

/// Its agent lies below `<prefix>/agents` too.
#[tokio::test(start_paused = true)]
async fn a_job_of_a_longer_prefix_is_left_alone() {
    let hash = "0123456789abcdef0123456789abcdef";
    for (folder, is_own) in [
        (format!("agents/{hash}/"), true),
        (format!("agents/agents/{hash}/"), false),
        (format!("agents/{hash}/agents/{hash}/"), false),
        (format!("agents/{hash}"), false),
        ("agents/".to_owned(), false),
    ] {
        let account = Account::new();
        let host = account.host(Duration::ZERO);
        let keeper = account.open(DEAD, LEASE).await;
        let mut spec = of_executor(DEAD);
        spec.channels[0].source = ChannelSource::S3 { uri: format!("s3://memory/{folder}"), is_sharded: false };
        keeper.create_as(TrainingJobSpec { tags: keeper.tags(), ..spec }).await;
        account.memory.objects.expire(&keeper.keys.open());
        tokio::time::sleep(HOUR * 25).await;
        host.swept().await;
        assert_eq!(account.is_stopped(DEAD), is_own, "{folder}");
    }
}

/// Any job of the role can store `open` objects below any session.
#[tokio::test(start_paused = true)]
async fn many_open_objects_of_others_hide_no_proof() {
    let account = Account::new();
    let host = account.host(Duration::ZERO);
    let forge = |range: std::ops::Range<u32>| {
        for number in range {
            let key = SealKey::new([7; 32]);
            let open = keys::Open { version: 2, key, lease_seconds: Some(900), job_key: None };
            let body = serde_json::to_vec(&open).unwrap();
            account.memory.objects.insert(&format!("sessions/{DEAD}/{number:032x}/open"), body);
        }
    };
    // Some before the driver's own, and more behind it.
    forge(0..100);
    tokio::time::sleep(HOUR).await;
    let _dead = account.session(DEAD, LEASE).await;
    tokio::time::sleep(HOUR).await;
    forge(100..300);
    tokio::time::sleep(HOUR * 5).await;
    let told = host.swept().await;
    assert!(told.contains("Ended gitlab-1-2-abcdef12") && account.is_stopped(DEAD), "{told}");
    assert_eq!(account.objects(DEAD), 0);
}

/// More jobs than the list shows: the sweep says that it did not see all.
#[tokio::test(start_paused = true)]
async fn a_list_that_is_cut_is_told() {
    let account = Account::new();
    let host = account.host(Duration::ZERO);
    account.memory.jobs.cut_lists();
    let (told, is_whole) = host.sweep(None, false).await;
    assert!(!is_whole && told.contains("too many training jobs") && !told.contains("Nothing"), "{told}");
}
