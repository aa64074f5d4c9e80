//! How a container ends: by SIGTERM, by SIGKILL, with its background processes, and with the future that runs it.

use super::*;

#[test]
fn sigterm_reaches_pid_1_and_nobody_else() {
    in_containers(async {
        let child = "sh -c 'trap \"echo child got it\" TERM; echo ready; while :; do sleep 0.05; done'";
        let script = format!("trap 'echo caught; exit 3' TERM; {child} & while :; do sleep 0.05; done");
        let bench = Bench::new(ContainerImage::Host, &script);
        let (container, mut receiver) = bench.start().await;
        let container = tokio::task::spawn(container);
        read_until(&mut receiver, "ready").await;
        bench.stop.cancel();
        let said = read_until(&mut receiver, "caught").await;
        assert_eq!(container.await.unwrap().unwrap().code, 3);
        let rest = receiver.recv().await.unwrap_or_default();
        assert!(!format!("{said}{}", String::from_utf8_lossy(&rest)).contains("child got it"));
    });
}

#[test]
fn a_container_that_ignores_sigterm_is_killed_after_the_grace() {
    in_containers(async {
        let mut bench = Bench::new(ContainerImage::Host, "sleep 1000 & wait");
        bench.grace = Duration::from_millis(50);
        bench.stop.cancel();
        assert_eq!(bench.run().await.code, 137);
    });
}

#[test]
fn kill_ends_it_at_once() {
    in_containers(async {
        let bench = Bench::new(ContainerImage::Host, "trap '' TERM; echo ready; while :; do sleep 1; done");
        let (container, mut receiver) = bench.start().await;
        let container = tokio::task::spawn(container);
        read_until(&mut receiver, "ready").await;
        bench.kill.cancel();
        assert_eq!(container.await.unwrap().unwrap().code, 137);
    });
}

#[test]
fn kill_before_the_start_is_no_error() {
    in_containers(async {
        let bench = Bench::new(ContainerImage::Host, "sleep 1000");
        bench.kill.cancel();
        assert_eq!(bench.run().await.code, 137);
    });
}

/// A number of seconds for `sleep` that no other process of this machine sleeps for.
fn long_time(kind: u32) -> String {
    format!("9876{kind}.{}", std::process::id())
}

/// Whether some process of this machine has the word on its command line.
fn lives(word: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .any(|line| String::from_utf8_lossy(&line).split('\0').any(|argument| argument == word))
}

#[test]
fn processes_left_in_the_background_end_with_the_container() {
    in_containers(async {
        let bench = Bench::new(
            ContainerImage::Host,
            &format!("setsid sleep {} </dev/null & sleep 0.05; echo done", long_time(1)),
        );
        let ended = bench.run().await;
        assert_eq!((ended.code, ended.output.as_str()), (0, "done\n"));
        assert!(!lives(&long_time(1)));
    });
}

#[test]
fn dropping_the_future_kills_the_container() {
    in_containers(async {
        let bench = Bench::new(ContainerImage::Host, &format!("echo ready; exec sleep {}", long_time(2)));
        let (container, mut receiver) = bench.start().await;
        let container = tokio::task::spawn(container);
        read_until(&mut receiver, "ready").await;
        let appears = async {
            while !lives(&long_time(2)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, appears).await.expect("the program runs");
        container.abort();
        let ends = async {
            while lives(&long_time(2)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ends).await.expect("the program ends");
    });
}
