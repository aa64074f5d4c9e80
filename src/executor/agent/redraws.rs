//! Thins the redraws of progress bars: of a line that is written again and again after a carriage return, a few updates a second stay. Pure.
//!
//! A redraw is the text from one carriage return to the next, and is left out only when another one of the same line follows it. So the
//! last state of a line stays, and so does every line without a carriage return inside. A bar that moves the cursor by escape sequences is
//! no redraw: its lines end. GitLab's section markers stay, with the redraw behind them that GitLab needs to know them.

use std::time::{Duration, Instant};

/// A longer text is no progress bar.
const LONGEST: usize = 4 << 10;
/// Texts that begin and end a section of GitLab's log.
const MARKERS: [&[u8]; 2] = [b"section_start:", b"section_end:"];
/// Bytes before a piece of output that can be the beginning of a marker.
const MARKER_HEAD: usize = 13;

/// The state between two pieces of output.
#[derive(Debug)]
pub(super) struct Redraws {
    /// Shortest time between two updates; zero keeps all.
    interval: Duration,
    /// When an update was last passed on.
    passed: Option<Instant>,
    /// The newest redraw, which has its carriage return at its start and was not passed on.
    held: Vec<u8>,
    /// The last byte was a carriage return: alone it begins a redraw, before a newline it is part of the line's end.
    after_return: bool,
    /// The last bytes of the current redraw or line.
    recent: Vec<u8>,
    /// The current redraw or line has a marker of a section.
    has_marker: bool,
}

impl Redraws {
    /// `rate`: updates that stay in a second; 0 keeps all.
    pub(super) fn new(rate: u32) -> Self {
        let interval = Duration::from_secs(1).checked_div(rate).unwrap_or_default();
        Self { interval, passed: None, held: Vec::new(), after_return: false, recent: Vec::new(), has_marker: false }
    }

    /// Appends to `kept` what stays of `bytes`.
    pub(super) fn push(&mut self, mut bytes: &[u8], now: Instant, kept: &mut Vec<u8>) {
        if self.interval.is_zero() {
            kept.extend_from_slice(bytes);
            return;
        }
        while let Some(first) = bytes.first() {
            if std::mem::take(&mut self.after_return) {
                if *first == b'\n' {
                    kept.append(&mut self.held);
                    kept.push(b'\r');
                    self.forget();
                } else {
                    self.begin(now, kept);
                }
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
            let (text, rest) = bytes.split_at(end);
            self.add(text, kept);
            match rest.first() {
                Some(b'\r') => self.after_return = true,
                Some(newline) => {
                    kept.append(&mut self.held);
                    kept.push(*newline);
                    self.forget();
                }
                None => {}
            }
            bytes = rest.get(1..).unwrap_or_default();
        }
    }

    /// When [`pass`](Self::pass) has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.passed.filter(|_| !self.held.is_empty()).map(|passed| passed + self.interval)
    }

    /// Passes the held redraw on when its time has come: the bar may not move any more.
    pub(super) fn pass(&mut self, now: Instant, kept: &mut Vec<u8>) {
        if self.due().is_some_and(|due| due <= now) {
            kept.append(&mut self.held);
            self.passed = Some(now);
        }
    }

    /// Passes everything on, at the end of the output.
    pub(super) fn finish(&mut self, kept: &mut Vec<u8>) {
        kept.append(&mut self.held);
        kept.extend(std::mem::take(&mut self.after_return).then_some(b'\r'));
    }

    /// Begins a redraw, which takes the place of the held one.
    fn begin(&mut self, now: Instant, kept: &mut Vec<u8>) {
        self.held.clear();
        if self.forget() {
            kept.push(b'\r');
        } else if self.passed.is_none_or(|passed| now >= passed + self.interval) {
            self.passed = Some(now);
            kept.push(b'\r');
        } else {
            self.held.push(b'\r');
        }
    }

    /// Begins to look for markers anew; `true` when there was one.
    fn forget(&mut self) -> bool {
        self.recent.clear();
        std::mem::take(&mut self.has_marker)
    }

    fn look(&mut self, text: &[u8]) {
        self.recent.extend_from_slice(text);
        let has = |marker: &[u8]| self.recent.windows(marker.len()).any(|window| window == marker);
        self.has_marker = self.has_marker || MARKERS.into_iter().any(has);
        self.recent.drain(..self.recent.len().saturating_sub(MARKER_HEAD));
    }

    fn add(&mut self, text: &[u8], kept: &mut Vec<u8>) {
        self.look(text);
        if self.held.is_empty() {
            kept.extend_from_slice(text);
            return;
        }
        self.held.extend_from_slice(text);
        if self.held.len() > LONGEST || self.has_marker {
            kept.append(&mut self.held);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that are passed on of pieces that arrive at these milliseconds. The held redraw is passed on whenever it is due.
    fn kept(rate: u32, pieces: &[(u64, &str)]) -> String {
        let start = Instant::now();
        let (mut redraws, mut kept) = (Redraws::new(rate), Vec::new());
        for (at, piece) in pieces {
            let now = start + Duration::from_millis(*at);
            if let Some(due) = redraws.due().filter(|due| *due <= now) {
                redraws.pass(due, &mut kept);
            }
            redraws.push(piece.as_bytes(), now, &mut kept);
        }
        redraws.finish(&mut kept);
        String::from_utf8(kept).unwrap()
    }

    #[test]
    fn a_bar_keeps_an_update_a_second_and_its_last_state() {
        let bar = [(0, "\r 0%"), (100, "\r10%"), (200, "\r20%"), (1100, "\r30%"), (1200, "\r40%"), (1300, "\n")];
        assert_eq!(kept(1, &bar), "\r 0%\r20%\r40%\n");
        assert_eq!(kept(0, &bar), "\r 0%\r10%\r20%\r30%\r40%\n");
        // The return at the end of each update.
        assert_eq!(kept(1, &[(0, " 0%\r"), (100, "10%\r"), (200, "20%\r"), (300, "30%\r")]), " 0%\r10%\r30%\r");
    }

    #[test]
    fn the_newest_state_of_a_bar_that_stands_still_is_shown() {
        let start = Instant::now();
        let (mut redraws, mut kept) = (Redraws::new(2), Vec::new());
        redraws.push(b"\r1%\r2%\r3", start, &mut kept);
        assert_eq!((kept.as_slice(), redraws.due()), (b"\r1%".as_slice(), Some(start + Duration::from_millis(500))));
        redraws.pass(start + Duration::from_millis(499), &mut kept);
        assert_eq!(kept, b"\r1%");
        redraws.pass(start + Duration::from_millis(500), &mut kept);
        redraws.push(b"%\n", start + Duration::from_secs(1), &mut kept);
        assert_eq!((kept.as_slice(), redraws.due()), (b"\r1%\r3%\n".as_slice(), None));
    }

    /// GitLab knows a marker by the `\r\x1b[0K` behind it.
    #[test]
    fn markers_of_sections_stay() {
        let text = "\r1%\r\u{1b}[0Ksection_start:1:a[collapsed=true]\r\u{1b}[0Khead\n\
            x\rsection_end:2:a\r\u{1b}[0K\u{1b}[0Ksection_start:2:b\r\u{1b}[0Kb\r\u{1b}[0Ksection_end:3:b\r\u{1b}[0K\r\u{1b}[0Kend\n";
        for size in 1..text.len() {
            let pieces: Vec<_> =
                text.as_bytes().chunks(size).map(|piece| (0, std::str::from_utf8(piece).unwrap())).collect();
            let kept = kept(1, &pieces);
            for marker in ["start:1:a[collapsed=true]", "end:2:a", "start:2:b", "end:3:b"] {
                assert!(kept.contains(&format!("section_{marker}\r\u{1b}[0K")), "pieces of {size}: {kept:?}");
            }
        }
        assert_eq!(
            kept(1, &[(0, "\r1%\r2%\r3%\rsection_end:1:a\r\u{1b}[0K\r4%\r5%\n")]),
            "\r1%\rsection_end:1:a\r\u{1b}[0K\r5%\n"
        );
    }

    #[test]
    fn lines_that_end_stay_as_they_are() {
        let text = "a\nb\r\n\r\nc\r\r\n\n\u{1b}[Ad\n\u{1b}[2Ae\nlast";
        for size in 1..text.len() {
            let pieces: Vec<_> =
                text.as_bytes().chunks(size).map(|piece| (0, std::str::from_utf8(piece).unwrap())).collect();
            assert_eq!(kept(1, &pieces), text, "pieces of {size}");
        }
        // Text printed beside a bar is part of its last state.
        assert_eq!(kept(1, &[(0, "\r1%\r2%\r3%loss=1\nnext\n")]), "\r1%\r3%loss=1\nnext\n");
        let long = format!("\r1\r{}\r2\n", "x".repeat(LONGEST));
        assert_eq!(kept(1, &[(0, &long)]), long);
    }

    /// Six hours of ten updates a second, on a simulated clock, with ordinary lines in between.
    #[test]
    fn a_night_of_a_bar_fits_into_the_log() {
        let start = Instant::now();
        let (mut redraws, mut kept, mut ordinary, mut last) =
            (Redraws::new(1), Vec::new(), String::new(), String::new());
        for update in 0..6 * 3600 * 10_u64 {
            let now = start + Duration::from_millis(update * 100);
            if let Some(due) = redraws.due().filter(|due| *due <= now) {
                redraws.pass(due, &mut kept);
            }
            last = format!(
                "\r{:3}%|{:<60}| {update}/216000 [1:23:45<4:36:15,  9.98it/s, loss=0.{update:06}]",
                update / 2160,
                "#".repeat(30)
            );
            redraws.push(last.as_bytes(), now, &mut kept);
            if update % 600 == 599 {
                let line = format!("epoch {} \t loss=0.{update:06} \u{1b}[32mok\u{1b}[0m\r\n", update / 600);
                redraws.push(format!("\n{line}").as_bytes(), now, &mut kept);
                ordinary.push_str(&line);
                assert!(kept.ends_with(format!("{last}\n{line}").as_bytes()));
            }
        }
        redraws.finish(&mut kept);
        assert!(kept.len() < 4 << 20, "{} bytes", kept.len());
        let text = String::from_utf8(kept).unwrap();
        assert!(text.contains(&last));
        let lines: String = text.split_inclusive('\n').filter(|line| line.starts_with("epoch ")).collect();
        assert_eq!(lines, ordinary);
    }
}
