//! How `start.sh` starts the agent in images with different shells and tools, and what it says where it cannot.

use super::*;

async fn starts_the_agent(root: ContainerImage) {
    let bench = Bench::new(root, "").with_channel(&fake_agent());
    let ended = bench.run().await;
    assert_eq!((ended.code, ended.output.as_str()), (41, "agent"), "the agent is PID 1 with its argument");
}

#[test]
fn the_agent_starts_in_the_host_image() {
    in_containers(starts_the_agent(ContainerImage::Host));
}

#[test]
fn the_agent_starts_in_an_image_of_busybox() {
    let Some(root) = busybox_root() else { return };
    in_containers(starts_the_agent(ContainerImage::Root(root.path().to_owned())));
}

#[test]
fn the_agent_starts_in_an_image_that_is_one_file() {
    let Some(root) = root_of(&[("/usr/bin/busybox", "bin/sh")]) else { return };
    in_containers(starts_the_agent(ContainerImage::Root(root.path().to_owned())));
}

#[test]
fn an_image_that_cannot_start_the_agent_says_what_it_lacks() {
    let Some(root) = dash_root() else { return };
    in_containers(async {
        let bench = Bench::new(ContainerImage::Root(root.path().to_owned()), "").with_channel(&fake_agent());
        let ended = bench.run().await;
        assert_eq!(ended.code, 126);
        assert!(ended.output.contains("install `coreutils` or `busybox` in the image"), "{}", ended.output);
        assert_eq!(ended.output.lines().count(), 1, "{}", ended.output);
        assert_eq!(fs::read_to_string(bench.ml().join("output/failure")).unwrap(), ended.output);
    });
}

#[test]
fn a_missing_agent_is_named() {
    in_containers(async {
        let bench = Bench::new(ContainerImage::Host, "").with_channel(&fake_agent());
        fs::remove_file(bench.ml().join("input/data/agent").join(bootstrap::BINARY)).unwrap();
        let ended = bench.run().await;
        assert_eq!(ended.code, 126);
        assert!(ended.output.contains("/sagemaker-executor is missing"), "{}", ended.output);
    });
}

#[test]
fn a_channel_that_cannot_be_changed_is_copied() {
    in_containers(async {
        let mut bench = Bench::new(ContainerImage::Host, "").with_channel(&fake_agent());
        let programs = bench.ml().join("programs");
        fs::create_dir(&programs).unwrap();
        let refusing = "#!/bin/sh\ncase $* in *input/data*) exit 1 ;; esac\nexec /bin/chmod \"$@\"\n";
        for name in ["chmod", "busybox"] {
            fs::write(programs.join(name), refusing).unwrap();
            fs::set_permissions(programs.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        bench.spec.environment.insert("PATH".into(), "/opt/ml/programs:/usr/bin:/bin".into());
        let ended = bench.run().await;
        assert_eq!((ended.code, ended.output.as_str()), (41, "agent"));
        let channel = fs::metadata(bench.ml().join("input/data/agent").join(bootstrap::BINARY)).unwrap();
        assert_eq!(channel.permissions().mode() & 0o111, 0);
    });
}

#[test]
fn an_agent_that_cannot_be_executed_is_told_by_every_shell() {
    in_containers(async {
        for shell in ["/bin/sh", "/bin/bash", "/usr/bin/busybox"] {
            if !Path::new(shell).exists() {
                eprintln!("SKIPPED: {shell} is missing on this machine");
                continue;
            }
            let mut bench = Bench::new(ContainerImage::Host, "").with_channel(b"#!/no/such/interpreter\n");
            bench.spec.entrypoint = vec![shell.into()];
            if shell.ends_with("busybox") {
                bench.spec.entrypoint.push("sh".into());
            }
            let ended = bench.run().await;
            assert_eq!(ended.code, 126, "{shell}: {}", ended.output);
            let failure = fs::read_to_string(bench.ml().join("output/failure")).unwrap();
            assert!(failure.contains("/sagemaker-executor cannot be executed"), "{shell}: {failure}");
        }
    });
}
