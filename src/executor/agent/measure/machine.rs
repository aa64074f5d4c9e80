//! Reads the use of the machine: cores, memory, network, and the volume. A container with limits of its own is measured by these.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::protocol::measurements::Gauge;

/// Where the kernel's files and the volume are.
#[derive(Debug, Clone)]
pub(super) struct MachineFiles {
    pub(super) proc: PathBuf,
    pub(super) cgroup: PathBuf,
    pub(super) volume: PathBuf,
}

/// Counters that only differences of tell something.
#[derive(Debug, Clone, Copy)]
struct Counters {
    taken: Instant,
    /// Busy time and all time.
    cpu: Option<(f64, f64)>,
    /// Microseconds of the control group, and the number of cores it may use.
    quota: Option<(f64, f64)>,
    /// Received and sent bytes.
    network: Option<(f64, f64)>,
}

/// Gives the use since its last reading.
pub(super) struct Machine {
    files: MachineFiles,
    before: Counters,
}

impl Machine {
    pub(super) fn new(files: MachineFiles, now: Instant) -> Self {
        let before = files.counters(now);
        Self { files, before }
    }

    /// The gauges that can be read, at most one value each.
    pub(super) fn read(&mut self, now: Instant) -> Vec<(Gauge, f64)> {
        let (before, after) = (self.before, self.files.counters(now));
        self.before = after;
        let seconds = now.saturating_duration_since(before.taken).as_secs_f64();
        let mut values = Vec::new();
        values.extend(cpu(before, after, seconds).map(|percent| (Gauge::Cpu, percent)));
        if let (Some((received, sent)), Some((received_now, sent_now)), true) =
            (before.network, after.network, seconds > 0.0)
        {
            values.push((Gauge::Received, ((received_now - received) / seconds).max(0.0)));
            values.push((Gauge::Sent, ((sent_now - sent) / seconds).max(0.0)));
        }
        values.extend(self.files.memory().map(|percent| (Gauge::Memory, percent)));
        values.extend(self.files.disk().map(|percent| (Gauge::Disk, percent)));
        values
    }
}

fn cpu(before: Counters, after: Counters, seconds: f64) -> Option<f64> {
    if let (Some((used, _)), Some((used_now, cores))) = (before.quota, after.quota) {
        return percent(used_now - used, seconds * cores * 1e6);
    }
    let ((busy, all), (busy_now, all_now)) = (before.cpu?, after.cpu?);
    percent(busy_now - busy, all_now - all)
}

fn percent(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| (part / whole * 100.0).clamp(0.0, 100.0))
}

impl MachineFiles {
    fn counters(&self, taken: Instant) -> Counters {
        Counters { taken, cpu: self.cpu(), quota: self.quota(), network: self.network() }
    }

    /// From `cpu  user nice system idle iowait irq softirq steal ...`.
    fn cpu(&self) -> Option<(f64, f64)> {
        let text = read(&self.proc.join("stat"))?;
        let numbers: Vec<f64> =
            text.lines().next()?.split_whitespace().skip(1).take(8).map(number).collect::<Option<_>>()?;
        let all: f64 = numbers.iter().sum();
        Some((all - numbers.get(3)? - numbers.get(4)?, all))
    }

    /// `None` without a quota of the control group, of version 2 or 1.
    fn quota(&self) -> Option<(f64, f64)> {
        let of_2 = || {
            let text = read(&self.cgroup.join("cpu.max"))?;
            let (quota, period) = text.trim().split_once(' ')?;
            let used = field(&read(&self.cgroup.join("cpu.stat"))?, "usage_usec")?;
            Some((used, number(quota)? / number(period)?))
        };
        let of_1 = || {
            let value = |name: &str| number(read(&self.cgroup.join("cpu").join(name))?.trim());
            let used = number(read(&self.cgroup.join("cpuacct/cpuacct.usage"))?.trim())?;
            Some((used / 1e3, value("cpu.cfs_quota_us")? / value("cpu.cfs_period_us")?))
        };
        of_2().or_else(of_1).filter(|(_, cores)| *cores > 0.0 && cores.is_finite())
    }

    /// Sum over all interfaces but the loopback.
    fn network(&self) -> Option<(f64, f64)> {
        let text = read(&self.proc.join("net/dev"))?;
        let (mut received, mut sent) = (0.0, 0.0);
        for (name, counters) in text.lines().filter_map(|line| line.split_once(':')) {
            let counters: Vec<f64> = counters.split_whitespace().filter_map(number).collect();
            if name.trim() != "lo" {
                received += counters.first()?;
                sent += counters.get(8)?;
            }
        }
        Some((received, sent))
    }

    fn memory(&self) -> Option<f64> {
        let text = read(&self.proc.join("meminfo"))?;
        let kib = |name: &str| field(&text, name);
        let all = kib("MemTotal:")?;
        match self.memory_of_group() {
            // Without a limit, version 1 tells a number larger than any machine.
            Some((used, limit)) if limit < all * 1024.0 => percent(used, limit),
            _ => percent(all - kib("MemAvailable:")?, all),
        }
    }

    /// Used bytes without the page cache that is not in use, and the limit.
    fn memory_of_group(&self) -> Option<(f64, f64)> {
        let of = |limit: &str, used: &str, stat: &str, cache: &str| {
            let value = |name: &str| number(read(&self.cgroup.join(name))?.trim());
            let limit = value(limit)?;
            Some((value(used)? - field(&read(&self.cgroup.join(stat))?, cache)?, limit))
        };
        of("memory.max", "memory.current", "memory.stat", "inactive_file").or_else(|| {
            let [limit, used] = ["memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"];
            of(limit, used, "memory/memory.stat", "total_inactive_file")
        })
    }

    fn disk(&self) -> Option<f64> {
        let stat = rustix::fs::statvfs(&self.volume).ok()?;
        let (used, free) = (stat.f_blocks.saturating_sub(stat.f_bfree), stat.f_bavail);
        // As `df` has it: blocks that only root may use do not count.
        #[expect(clippy::cast_precision_loss, reason = "a percentage needs no more")]
        percent(used as f64, used.saturating_add(free) as f64)
    }
}

/// A small file of the kernel.
fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok()
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(name))?;
    number(line.split_whitespace().nth(1)?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Scene {
        dir: tempfile::TempDir,
    }

    impl Scene {
        fn new() -> Self {
            let scene = Self { dir: tempfile::tempdir().unwrap() };
            scene.write("proc/meminfo", "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 250 kB\n");
            scene.machine_at(0, 0, 0);
            scene
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn machine_at(&self, busy: u64, idle: u64, bytes: u64) {
            self.write("proc/stat", &format!("cpu  {busy} 0 0 {idle} 0 0 0 0 7 7\ncpu0 1 1 1\n"));
            let columns = "0 0 0 0 0 0 0";
            let net = format!(
                "Inter-|   Receive\n face |bytes\n    lo: 999 {columns} 999 {columns}\n  eth0: {bytes} {columns} {} {columns}\n",
                bytes * 2
            );
            self.write("proc/net/dev", &net);
        }

        fn machine(&self, now: Instant) -> Machine {
            let at = |name: &str| self.dir.path().join(name);
            Machine::new(MachineFiles { proc: at("proc"), cgroup: at("cgroup"), volume: at("") }, now)
        }
    }

    fn value(values: &[(Gauge, f64)], gauge: Gauge) -> Option<f64> {
        values.iter().find(|(of, _)| *of == gauge).map(|(_, value)| *value)
    }

    #[test]
    fn the_machine_is_measured_between_two_readings() {
        let (scene, now) = (Scene::new(), Instant::now());
        let mut machine = scene.machine(now);
        scene.machine_at(30, 70, 1000);
        let values = machine.read(now + Duration::from_secs(10));
        assert_eq!(value(&values, Gauge::Cpu), Some(30.0));
        assert_eq!(value(&values, Gauge::Memory), Some(75.0));
        assert_eq!((value(&values, Gauge::Received), value(&values, Gauge::Sent)), (Some(100.0), Some(200.0)));
        assert!(value(&values, Gauge::Disk).is_some_and(|disk| (0.0..=100.0).contains(&disk)));
        let idle = machine.read(now + Duration::from_secs(20));
        assert_eq!((value(&idle, Gauge::Cpu), value(&idle, Gauge::Received)), (None, Some(0.0)));
    }

    #[test]
    fn a_container_with_limits_is_measured_by_them() {
        for version in [2, 1] {
            let (scene, now) = (Scene::new(), Instant::now());
            let used = |seconds: u64| {
                if version == 2 {
                    scene.write("cgroup/cpu.stat", &format!("usage_usec {}\nuser_usec 1\n", seconds * 1_000_000));
                } else {
                    scene.write("cgroup/cpuacct/cpuacct.usage", &format!("{}\n", seconds * 1_000_000_000));
                }
            };
            if version == 2 {
                scene.write("cgroup/cpu.max", "200000 100000\n");
                scene.write("cgroup/memory.max", "512000\n");
                scene.write("cgroup/memory.current", "300000\n");
                scene.write("cgroup/memory.stat", "anon 1\ninactive_file 44000\n");
            } else {
                scene.write("cgroup/cpu/cpu.cfs_quota_us", "200000\n");
                scene.write("cgroup/cpu/cpu.cfs_period_us", "100000\n");
                scene.write("cgroup/memory/memory.limit_in_bytes", "512000\n");
                scene.write("cgroup/memory/memory.usage_in_bytes", "300000\n");
                scene.write("cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 44000\n");
            }
            used(0);
            let mut machine = scene.machine(now);
            used(5);
            let values = machine.read(now + Duration::from_secs(10));
            assert_eq!(value(&values, Gauge::Cpu), Some(25.0), "version {version}");
            assert_eq!(value(&values, Gauge::Memory), Some(50.0), "version {version}");
        }
    }

    #[test]
    fn a_group_without_limits_is_the_machine() {
        let (scene, now) = (Scene::new(), Instant::now());
        scene.write("cgroup/cpu.max", "max 100000\n");
        scene.write("cgroup/cpu.stat", "usage_usec 1\n");
        scene.write("cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        scene.write("cgroup/memory/memory.usage_in_bytes", "1\n");
        scene.write("cgroup/memory/memory.stat", "total_inactive_file 0\n");
        let mut machine = scene.machine(now);
        scene.machine_at(50, 50, 0);
        let values = machine.read(now + Duration::from_secs(1));
        assert_eq!((value(&values, Gauge::Cpu), value(&values, Gauge::Memory)), (Some(50.0), Some(75.0)));
    }

    #[test]
    fn without_the_kernels_files_nothing_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let nowhere = dir.path().join("nowhere");
        let files = MachineFiles { proc: nowhere.clone(), cgroup: nowhere.clone(), volume: nowhere };
        assert_eq!(Machine::new(files, Instant::now()).read(Instant::now() + Duration::from_secs(1)), []);
    }
}
