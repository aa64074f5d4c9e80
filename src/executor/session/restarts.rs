//! Part of the session record about starts of the container after the first, as after an interruption of a spot instance: which
//! scripts' files are gone with the earlier container. Pure.
//!
//! Orders are numbered in the order of their sending, so a number says what came before what. 0: none.

use serde::{Deserialize, Serialize};

/// Orders and scripts that a restart of the container made void.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Restarts {
    /// How often the leader's container was started again.
    pub leader: u32,
    /// Number of the last order to run a script that a restarted agent had carried out before.
    pub after: u32,
    /// Number of the last order to fetch the project.
    pub project: u32,
    /// Number of the order to run the first script that has ended.
    pub ended: u32,
    /// [`Self::leader`] of the agent that has sent the results.
    pub collected: u32,
}

impl Restarts {
    /// A restarted agent has no project, and no order to fetch it that it will read.
    pub fn lacks_project(&self) -> bool {
        self.after > 0 && self.after >= self.project
    }

    /// The files of a script that has ended are gone.
    pub fn lost_files(&self) -> bool {
        self.ended > 0 && self.after >= self.ended
    }

    /// Takes note that the script of this order has ended.
    pub fn script_ended(&mut self, order: u32) {
        if self.ended == 0 {
            self.ended = order;
        }
    }

    /// Takes note that the script of this order runs again: its files do not count.
    pub fn script_repeated(&mut self, order: u32) {
        if self.ended == order {
            self.ended = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_takes_the_files_of_the_scripts_before_it() {
        let known = Restarts { after: 2, project: 1, ..Restarts::default() };
        assert!(known.lacks_project() && !known.lost_files(), "the script of order 2 has not ended");
        let known = Restarts { project: 3, ..known };
        assert!(!known.lacks_project(), "sent again");
        let mut known = Restarts { ended: 2, ..known };
        assert!(known.lost_files());
        known.script_repeated(2);
        known.script_ended(4);
        known.script_ended(6);
        assert_eq!((known.ended, known.lost_files()), (4, false), "it has run again in the new container");
        known.after = 5;
        assert!(known.lost_files());
    }

    #[test]
    fn a_session_without_a_restart_lacks_nothing() {
        assert!(!Restarts::default().lacks_project() && !Restarts { ended: 2, ..Restarts::default() }.lost_files());
    }
}
