//! Takes the place of a new session: random bits in its keys, a random key for its messages, and the object that tells the agents.

use anyhow::Context as _;

use crate::base::seal::SealKey;
use crate::protocol::keys::{SessionPlace, Token};
use crate::session::Session;
use crate::session::event::SessionEvent;
use crate::session::state::Creation;

impl Session<'_> {
    /// Takes a place, unless the session has one. A session whose training job may live without one keeps to the keys of the
    /// version that did so: its agent knows no others.
    pub fn take_place(&mut self) -> anyhow::Result<()> {
        let may_have_agents = self.state.creation() != Creation::None || self.state.orders() > 0;
        if self.state.place().is_some() || may_have_agents {
            return Ok(());
        }
        let place = SessionPlace { token: Token::new(random()?), key: SealKey::new(random()?) };
        self.apply(SessionEvent::PlaceTaken(&place))
    }
}

pub(super) fn random<const BYTES: usize>() -> anyhow::Result<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).context("failed to get random bytes of the kernel")?;
    Ok(bytes)
}
