//! The table of the jobs as one screen of a terminal, cut to its lines and columns. Pure.

use comfy_table::{ContentArrangement, Row};

use super::rows::HostJobs;

/// Moves to the top of the terminal.
const HOME: &str = "\x1b[H";
/// Clears the rest of the line.
const END_OF_LINE: &str = "\x1b[K";
/// Clears all below.
const END_OF_SCREEN: &str = "\x1b[J";

/// Draws over what the terminal shows, without a flash of an empty screen. The last line stays free for the cursor: nothing scrolls.
pub(super) fn draw(jobs: &HostJobs, (columns, lines): (u16, u16)) -> String {
    let shown = shown(jobs, (columns, lines));
    let lines = shown.into_iter().map(|line| format!("{line}{END_OF_LINE}\n"));
    format!("{HOME}{}{END_OF_SCREEN}", lines.collect::<String>())
}

fn shown(jobs: &HostJobs, (columns, lines): (u16, u16)) -> Vec<String> {
    let room = usize::from(lines).saturating_sub(1);
    let mut notes = Vec::new();
    if !jobs.unreadable.is_empty() {
        notes.push(format!("{} notes or records cannot be used; `--once` names them", jobs.unreadable.len()));
    }
    let mut table = jobs.table();
    if jobs.jobs.is_empty() {
        notes.insert(0, "No job runs on this host".to_owned());
    } else {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(columns);
        let header = table.header().cloned().map(one_line);
        header.map(|header| table.set_header(header));
        for row in table.row_iter_mut() {
            row.max_height(1);
        }
    }
    let mut drawn: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    if jobs.jobs.is_empty() {
        drawn.clear();
    }
    if drawn.len() + notes.len() > room {
        let kept = room.saturating_sub(notes.len() + 1).max(1);
        let hidden = drawn.len().saturating_sub(kept);
        drawn.truncate(kept);
        if hidden > 0 && !jobs.jobs.is_empty() {
            notes.insert(0, format!("and {hidden} more; `--once` prints all"));
        }
    }
    let all = drawn.into_iter().filter(|line| !line.is_empty()).chain(notes);
    all.map(|line| line.chars().take(columns.into()).collect()).collect()
}

fn one_line(mut row: Row) -> Row {
    row.max_height(1);
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operate::status::rows::JobRow;

    fn jobs(count: u64) -> HostJobs {
        let row = |job| JobRow {
            session: format!("gitlab-231-{job}-abcdef12"),
            job,
            project: format!("a-group/with/many-parts/project-{job}"),
            phase: "waiting for ml.p4d.24xlarge, ml.g5.12xlarge".to_owned(),
            phase_seconds: Some(90),
            elapsed_seconds: Some(4000),
            instances: "4 x ml.p4d.24xlarge, spot".to_owned(),
            cost_words: "known at its end".to_owned(),
            ..JobRow::default()
        };
        HostJobs { jobs: (1..=count).map(row).collect(), unreadable: vec!["one".to_owned()] }
    }

    #[test]
    fn a_screen_holds_what_fits() {
        for (count, size, expected) in
            [(60, (80, 24), 23), (60, (200, 24), 23), (3, (80, 24), 5), (60, (80, 80), 62), (60, (40, 4), 3)]
        {
            let shown = shown(&jobs(count), size);
            assert_eq!(shown.len(), expected, "{size:?} {shown:#?}");
            assert!(shown.iter().all(|line| line.chars().count() <= size.0.into()), "{size:?} {shown:#?}");
            assert!(shown[0].contains("JOB") && shown.last().unwrap().contains("cannot be used"), "{shown:#?}");
        }
        let text = shown(&jobs(60), (80, 24)).join("\n");
        assert!(text.contains("and 40 more; `--once` prints all") && text.contains('…'), "{text}");
        let wide = shown(&jobs(1), (200, 24)).join("\n");
        assert!(wide.contains("ml.g5.12xlarge, 1 min 30 s") && !wide.contains('…'), "{wide}");
        assert_eq!(shown(&HostJobs::default(), (80, 24)), ["No job runs on this host"]);
    }

    #[test]
    fn each_line_is_cleared_to_its_end() {
        assert_eq!(draw(&HostJobs::default(), (80, 24)), "\x1b[HNo job runs on this host\x1b[K\n\x1b[J");
    }
}
