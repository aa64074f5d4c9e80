//! Images with their own user, environment or small root. Needs root, and no bubblewrap.

use emulator::host::{ContainerImage, Isolation, Namespace, Profile, User};

use super::Bench;

/// Runs the script in the host's root with this profile; nothing, loudly, where only an ordinary user is at hand.
fn output_with(profile: Profile, script: &str) -> Option<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let scratch = tempfile::tempdir().unwrap();
        let isolation = Isolation::detect(scratch.path()).await.unwrap();
        if isolation.overlay != Some(Namespace::Mount) || isolation.unshare != Some(Namespace::Mount) {
            eprintln!("SKIPPED: images with a user or a small root need root and overlay file systems");
            return None;
        }
        let mut bench = Bench::new(ContainerImage::Host, script);
        bench.spec.profile = profile;
        let ended = bench.run().await;
        assert_eq!(ended.code, 0, "{}", ended.output);
        Some(ended.output)
    })
}

#[test]
fn an_image_has_its_user_and_its_environment() {
    let profile = Profile {
        user: Some(User { uid: 1000, gid: 1001 }),
        environment: [("OWN", "of the image"), ("HOME", "/srv")].map(|(key, value)| (key.into(), value.into())).into(),
        ..Profile::default()
    };
    let script = "echo $(id -u):$(id -g) $$ $OWN $HOME; touch /opt/ml/output/x 2>/dev/null || echo no output; \
        mkdir /var/lib/x 2>/dev/null || echo no lib; touch /tmp/x && echo a tmp; grep CapEff /proc/self/status";
    let Some(output) = output_with(profile, script) else { return };
    let expected = "1000:1001 1 of the image /srv\nno output\nno lib\na tmp\nCapEff:\t0000000000000000\n";
    assert_eq!(output, expected);
}

#[test]
fn a_small_root_leaves_room_in_the_volume() {
    let profile = Profile { root_size: Some(8 << 20), ..Profile::default() };
    let script = "fill() { head -c 16777216 /dev/zero 2>/dev/null >$1/f && echo $1 takes it; }; \
        fill /srv || echo full; rm /srv/f; fill /var/lib; rm -f /var/lib/f; fill /tmp; fill /opt/ml/output";
    let Some(output) = output_with(profile, script) else { return };
    assert_eq!(output, "full\n/tmp takes it\n/opt/ml/output takes it\n");
}
