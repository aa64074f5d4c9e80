//! The end of a script's output, for people who look at a job from outside: read from the agent's copy in the bucket, in which masked variables
//! are replaced as in the job log. Reads only, and takes no lock.

use crate::base::node::NodeId;
use crate::cloud::CloudError;
use crate::session::Session;
use crate::session::exchange::StoreExchange;
use crate::session::trace_copy_reader::TraceCopyReader;
use crate::trace::{FrameDecoder, frame_start};

/// Batches that are read at the end: with more a script that writes fast would never be left.
const MOST_BATCHES: u32 = 8;

/// The last lines of one script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastOutput {
    /// Number of the script in the session, from 1.
    pub run: u32,
    /// Text without its line ends; not safe to print as it is.
    pub lines: Vec<String>,
}

/// The last lines of the leader's newest script. `None`: no script has begun, or nothing of its output is in the bucket.
///
/// # Errors
/// Those of the bucket.
pub async fn read(session: &Session<'_>, most: usize) -> Result<Option<LastOutput>, CloudError> {
    let run = session.state().run().map_or_else(|| session.state().runs(), |current| current.run);
    if run == 0 {
        return Ok(None);
    }
    let exchange: StoreExchange = session.exchange();
    let mut reader = TraceCopyReader::new(NodeId::LEADER, run);
    reader.seek(&exchange, u64::MAX, None).await?;
    let (keys, mut decoder) = (session.keys(), None);
    let mut batches = 0;
    while batches < MOST_BATCHES {
        let came = reader
            .read_on(&exchange, &mut |text: &str| {
                batches += 1;
                // The first frame that is there tells where this reading begins.
                if let (None, Some((_, start))) = (&decoder, text.lines().find_map(frame_start)) {
                    decoder = Some(FrameDecoder::resume(run, keys.seal().of_node(NodeId::LEADER), start));
                }
                if let Some(decoder) = &mut decoder {
                    decoder.push_message(text);
                }
            })
            .await?;
        if !came {
            break;
        }
    }
    let Some(mut decoder) = decoder else { return Ok(None) };
    Ok(Some(LastOutput { run, lines: last_lines(&decoder.take(), most) }))
}

/// The last lines of these bytes. A line that was drawn again and again is as it was drawn last.
fn last_lines(bytes: &[u8], most: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let drawn = |line: &str| line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default().to_owned();
    let lines: Vec<_> = text.lines().map(drawn).collect();
    lines.get(lines.len().saturating_sub(most)..).unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_as_they_were_drawn_last() {
        assert_eq!(last_lines(b"a\n10 %\r20 %\r\nb", 2), ["20 %", "b"]);
        assert_eq!(last_lines(b"", 3), Vec::<String>::new());
        assert_eq!(last_lines(b"a\n\xff", 9), ["a", "\u{fffd}"]);
    }
}
