//! Reads the use of the GPUs from `nvidia-smi`, which the GPU driver puts into each container beside its libraries.
//!
//! Not from those libraries: this program is static, and a static program can load them only where the image has the very C library
//! that it was built with.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{ChildStdout, Command};

use crate::base::process::ProcessGroup;

const PROGRAM: &str = "nvidia-smi";
/// Directories of the program where `PATH` does not name them.
const DIRS: [&str; 3] = ["/usr/bin", "/usr/local/nvidia/bin", "/usr/local/bin"];
const QUERY: &str = "--query-gpu=index,utilization.gpu,memory.used,memory.total,name";
/// Longest line that is read.
const LINE: u64 = 1 << 10;

/// The GPUs together at one time.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct GpuReading {
    /// Of the first one.
    pub(super) name: String,
    /// Use of each in percent.
    pub(super) busy: Vec<f64>,
    /// Used memory in percent.
    pub(super) memory: Option<f64>,
}

/// The program that tells the use of the GPUs again and again; dropped, it ends.
pub(super) struct GpuWatch {
    _group: ProcessGroup,
    output: BufReader<ChildStdout>,
    line: Vec<u8>,
    round: Round,
}

impl GpuWatch {
    /// `None` where there is no such program. It gets `variables` alone.
    pub(super) fn start(path: &str, variables: &[(String, String)], every: Duration) -> Option<Self> {
        let program = find(path)?;
        let mut command = Command::new(&program);
        command
            .args([QUERY, "--format=csv,noheader,nounits"])
            .arg(format!("--loop-ms={}", every.as_millis()))
            .env_clear()
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let started = ProcessGroup::spawn(command);
        let mut group = started.inspect_err(|error| tracing::info!("the GPUs are not measured: {error:#}")).ok()?;
        let output = BufReader::new(group.take_stdout()?);
        Some(Self { _group: group, output, line: Vec::new(), round: Round::default() })
    }

    /// The next reading, also when earlier calls were dropped before their end; `None` when the program has ended.
    pub(super) async fn next(&mut self) -> Option<GpuReading> {
        loop {
            match self.line().await {
                Ok(Some(line)) => {
                    if let Some(reading) = self.round.push(&line) {
                        return Some(reading);
                    }
                }
                Ok(None) | Err(_) => return self.round.end(),
            }
        }
    }

    /// Loses nothing when it is dropped before its end.
    async fn line(&mut self) -> io::Result<Option<String>> {
        let room = LINE.saturating_sub(self.line.len() as u64);
        (&mut self.output).take(room).read_until(b'\n', &mut self.line).await?;
        let line = std::mem::take(&mut self.line);
        Ok((!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned()))
    }
}

fn find(path: &str) -> Option<PathBuf> {
    let dirs = path.split(':').filter(|dir| dir.starts_with('/')).chain(DIRS);
    let mut programs = dirs.map(|dir| Path::new(dir).join(PROGRAM));
    programs.find(|program| program.is_file())
}

/// The lines of one reading, one for each GPU.
#[derive(Default)]
struct Round {
    name: String,
    last_index: u32,
    busy: Vec<f64>,
    used: f64,
    total: f64,
}

impl Round {
    /// Adds a line; the first of another reading gives the one before.
    fn push(&mut self, line: &str) -> Option<GpuReading> {
        let mut fields = line.trim_end().splitn(5, ',').map(str::trim);
        let index = fields.next()?.parse().ok()?;
        let busy: f64 = fields.next()?.parse().ok().filter(|busy| (0.0..=100.0).contains(busy))?;
        // `[N/A]` where a part of a GPU is used.
        let [used, total] = [fields.next()?, fields.next()?].map(|text| text.parse().unwrap_or(0.0));
        let complete = if !self.busy.is_empty() && index <= self.last_index { self.end() } else { None };
        if self.busy.is_empty() {
            fields.next().unwrap_or_default().clone_into(&mut self.name);
        }
        self.last_index = index;
        self.busy.push(busy);
        self.used += used;
        self.total += total;
        complete
    }

    fn end(&mut self) -> Option<GpuReading> {
        let Self { name, busy, used, total, .. } = std::mem::take(self);
        let memory = (total > 0.0 && total.is_finite()).then(|| (used / total * 100.0).clamp(0.0, 100.0));
        (!busy.is_empty()).then_some(GpuReading { name, busy, memory })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_lines_of_a_reading_are_one() {
        let mut round = Round::default();
        assert_eq!(round.push("0, 90, 8000, 24000, NVIDIA A10G\n"), None);
        assert_eq!(round.push("1, 10, 4000, 24000, NVIDIA A10G"), None);
        let both = GpuReading { name: "NVIDIA A10G".to_owned(), busy: vec![90.0, 10.0], memory: Some(25.0) };
        assert_eq!(round.push("0, 0, [N/A], [N/A], MIG, odd"), Some(both));
        let part = GpuReading { name: "MIG, odd".to_owned(), busy: vec![0.0], memory: None };
        assert_eq!((round.end(), round.end()), (Some(part), None));
    }

    #[test]
    fn what_is_no_reading_is_left_out() {
        let mut round = Round::default();
        for line in ["", "No devices were found", "0, [N/A], 1, 1, x", "0, 1e9, 1, 1, x", "0, 5", "-1, 5, 1, 1, x"] {
            assert_eq!(round.push(line), None, "{line}");
        }
        assert_eq!(round.end(), None);
    }

    /// Also a program that never ends a line.
    #[tokio::test]
    async fn the_program_is_read_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join(PROGRAM);
        let script = "#!/bin/sh\necho 0, 40, 1, 4, A10G \"$1\"\necho 0, 60, 1, 4, A10G \"$X\"; /usr/bin/head -c 100000 /dev/zero\n";
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().display().to_string();
        let mut watch = GpuWatch::start(&path, &[("X".to_owned(), "y".to_owned())], Duration::from_secs(10)).unwrap();
        let first = watch.next().await.unwrap();
        assert_eq!((first.busy, first.name), (vec![40.0], format!("A10G {QUERY}")));
        let second = watch.next().await.unwrap();
        assert_eq!((second.busy, second.name.as_str()), (vec![60.0], "A10G y"));
        assert_eq!(watch.next().await, None);
    }
}
