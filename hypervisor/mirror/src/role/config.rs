//! What a board file says about who may serve.

use core::fmt;
use core::time::Duration;

use crate::Side;
use crate::witness::{Boot, Pair};

/// What a board does, without a witness, if it hears nothing of its peer. A dead peer and two dead paths look the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnSilence {
    /// Both boards wait for an operator.
    Hold,
    /// The backup goes on; a primary waits.
    Backup,
    /// Whoever is left goes on. Sound only if the paths never fail together.
    AssumeDead,
}

/// Who decides if neither board hears the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arbiter {
    /// A witness on the LAN.
    Witness,
    /// A rule.
    Rule(OnSilence),
}

/// The configuration of a [`RoleMachine`](crate::RoleMachine). Both boards of a pair have the same, but for side and boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// Which board this is.
    pub side: Side,
    /// The nonce of this start.
    pub boot: Boot,
    /// The pair.
    pub pair: Pair,
    /// Who decides.
    pub arbiter: Arbiter,
    /// The time from one heartbeat to the next.
    pub heartbeat: Duration,
    /// T_dead: a peer of whom nothing was heard for so long is held for dead.
    pub dead: Duration,
    /// How long a primary may release outputs after the heartbeat that was last echoed.
    pub lease: Duration,
    /// How long a frame may take from the look at the lease to the wire.
    pub transmit: Duration,
    /// How long a board that has just started waits for its peer before it tries to serve alone.
    pub start_patience: Duration,
    /// How long an uplink is down before the peer's is used.
    pub uplink_patience: Duration,
    /// How long a switchover may take, each of its two steps.
    pub handover_patience: Duration,
    /// The time from one question to the witness to the next, as long as it does not answer.
    pub witness_retry: Duration,
    /// How long an operator's wish waits for the witness.
    pub force_patience: Duration,
    /// The time from a resynchronisation that failed to the next.
    pub resync_pause: Duration,
}

impl Config {
    /// Usual times for a T_dead: ten heartbeats in it, and a lease of three quarters.
    #[must_use]
    pub fn usual(side: Side, boot: Boot, pair: Pair, arbiter: Arbiter, dead: Duration) -> Self {
        Self {
            side,
            boot,
            pair,
            arbiter,
            heartbeat: dead / 10,
            dead,
            lease: dead.saturating_mul(3) / 4,
            transmit: dead / 50,
            start_patience: dead.saturating_mul(10).max(Duration::from_secs(30)),
            uplink_patience: dead.saturating_mul(2),
            handover_patience: dead.saturating_mul(2),
            witness_retry: dead / 5,
            force_patience: dead.saturating_mul(2).max(Duration::from_secs(2)),
            resync_pause: dead,
        }
    }

    /// How far two boards' clocks may go apart in T_dead: a thousandth, ten times what quartz oscillators of boards do.
    #[must_use]
    pub fn drift(&self) -> Duration {
        self.dead / 1000
    }

    /// A board that did not run for so long does not take its peer's silence for death: it would not have heard it.
    pub(super) fn stall(&self) -> Duration {
        self.dead / 2
    }

    /// Checks that the times go together.
    ///
    /// # Errors
    ///
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), ConfigError> {
        let times = [
            ("heartbeat", self.heartbeat),
            ("lease", self.lease),
            ("witness retry", self.witness_retry),
            ("resync pause", self.resync_pause),
        ];
        if let Some((name, _)) = times.into_iter().find(|(_, time)| time.is_zero()) {
            return Err(ConfigError::Zero(name));
        }
        let gone = self
            .lease
            .saturating_add(self.drift())
            .saturating_add(self.transmit);
        if gone >= self.dead {
            return Err(ConfigError::Lease {
                lease: gone,
                dead: self.dead,
            });
        }
        if self.heartbeat.saturating_mul(3) > self.lease {
            return Err(ConfigError::Heartbeat {
                heartbeat: self.heartbeat,
                lease: self.lease,
            });
        }
        if self.start_patience < self.dead {
            return Err(ConfigError::Start {
                patience: self.start_patience,
                dead: self.dead,
            });
        }
        Ok(())
    }
}

/// What is wrong with a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// The time is 0.
    Zero(&'static str),
    /// A lease, with drift and the time of transmission, is not shorter than T_dead: two boards could serve at once.
    Lease {
        /// All of it.
        lease: Duration,
        /// T_dead.
        dead: Duration,
    },
    /// Two lost heartbeats would end a lease.
    Heartbeat {
        /// The time from one to the next.
        heartbeat: Duration,
        /// The lease.
        lease: Duration,
    },
    /// A board would start alone before its peer could have taken over.
    Start {
        /// How long it waits.
        patience: Duration,
        /// T_dead.
        dead: Duration,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero(name) => write!(f, "the time \"{name}\" is 0"),
            Self::Lease { lease, dead } => write!(
                f,
                "lease, clock drift and transmission take {lease:?}, which is not less than the {dead:?} after which a peer is dead"
            ),
            Self::Heartbeat { heartbeat, lease } => write!(
                f,
                "a lease of {lease:?} is less than three heartbeats of {heartbeat:?}"
            ),
            Self::Start { patience, dead } => write!(
                f,
                "a start alone after {patience:?} is earlier than the {dead:?} after which a peer is dead"
            ),
        }
    }
}

impl core::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_must_go_together() {
        let dead = Duration::from_millis(50);
        let usual = Config::usual(
            Side::A,
            Boot(1),
            Pair(1),
            Arbiter::Rule(OnSilence::Hold),
            dead,
        );
        assert_eq!(usual.check(), Ok(()));
        let with = |change: fn(&mut Config)| {
            let mut config = usual;
            change(&mut config);
            config.check().expect_err("something is wrong")
        };
        assert_eq!(
            with(|c| c.heartbeat = Duration::ZERO),
            ConfigError::Zero("heartbeat")
        );
        // 48.95 + 0.05 + 1 = 50 ms
        assert_eq!(
            with(|c| c.lease = Duration::from_micros(48_950)),
            ConfigError::Lease { lease: dead, dead }
        );
        assert!(matches!(
            with(|c| c.lease = Duration::MAX),
            ConfigError::Lease { .. }
        ));
        assert!(matches!(
            with(|c| c.heartbeat = c.lease / 2),
            ConfigError::Heartbeat { .. }
        ));
        assert!(matches!(
            with(|c| c.start_patience = c.dead / 2),
            ConfigError::Start { .. }
        ));
    }
}
