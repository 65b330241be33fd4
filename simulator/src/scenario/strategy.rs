//! How a rollout of a scenario goes about its devices.

use std::time::Duration;

use fleetd_actors::rollout::strategy::{DEADLINE_DEFAULT, FailureBudget, Priority, Strategy, WaveSize};
use fleetd_actors::selector::Selector;
use fleetd_actors::window::{Blackout, Terms, VETO_LIMIT_DEFAULT, Window};
use serde::{Deserialize, Serialize};

/// How a rollout goes about its devices, as a scenario file says it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActStrategy {
    /// The waves, each as the command line takes it: `2`, `10%`, `rest`.
    pub waves: Vec<String>,
    /// Time between two waves.
    #[serde(with = "crate::span::maybe", default, skip_serializing_if = "Option::is_none")]
    pub bake: Option<Duration>,
    /// Time that a wave has.
    #[serde(with = "crate::span::maybe", default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Duration>,
    /// How many devices may fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failed: Option<u32>,
    /// How many of a hundred reached ones may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failed_percent: Option<u32>,
    /// How many may be at work at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<u32>,
    /// How many of one site may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable_per_site: Option<u32>,
    /// The devices that go before all waves, by their labels: `site=site-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<String>,
    /// Somebody has to approve each wave but the first, and does so this long after it is waited for.
    #[serde(with = "crate::span::maybe", default, skip_serializing_if = "Option::is_none")]
    pub approve_after: Option<Duration>,
    /// How long a device may put its switch off.
    #[serde(with = "crate::span::maybe", default, skip_serializing_if = "Option::is_none")]
    pub veto_limit: Option<Duration>,
    /// Times in which devices switch, by the clock of each: `0 2 * * * 3h`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<String>,
    /// How urgent it is, from 0 to 9.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// Devices of a site switch together, once so many of a hundred are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site_quorum: Option<u32>,
    /// Days on which none does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blackouts: Vec<String>,
}

impl ActStrategy {
    fn terms(&self) -> Result<Terms, String> {
        let windows = self.windows.iter().map(|window| window.parse::<Window>().map_err(|error| error.to_string()));
        let blackouts = self.blackouts.iter().map(|days| days.parse::<Blackout>().map_err(|error| error.to_string()));
        Ok(Terms {
            windows: windows.collect::<Result<_, _>>()?,
            blackouts: blackouts.collect::<Result<_, _>>()?,
            veto_limit: self.veto_limit.unwrap_or(VETO_LIMIT_DEFAULT),
            ..Terms::default()
        })
    }

    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it, in words for people.
    pub fn read(&self) -> Result<Strategy, String> {
        let waves = self.waves.iter().map(|wave| wave.parse::<WaveSize>().map_err(|error| error.to_string()));
        let canary = self.canary.as_ref().map(|labels| labels.parse::<Selector>().map_err(|error| error.to_string()));
        let default = Strategy::default();
        let strategy = Strategy {
            canary: canary.transpose()?,
            waves: waves.collect::<Result<_, _>>()?,
            bake: self.bake.unwrap_or_default(),
            deadline: self.deadline.unwrap_or(DEADLINE_DEFAULT),
            budget: match (self.max_failed, self.max_failed_percent) {
                (None, None) => default.budget,
                (count, percent) => FailureBudget { count, percent },
            },
            unavailable_max: self.max_unavailable,
            unavailable_per_site_max: self.max_unavailable_per_site,
            approve_waves: self.approve_after.is_some(),
            terms: self.terms()?,
            priority: match self.priority {
                Some(number) => Priority::new(number).ok_or_else(|| format!("{number} is no priority"))?,
                None => Priority::default(),
            },
            site_quorum: self.site_quorum,
        };
        strategy.check().map_err(|error| error.to_string())?;
        Ok(strategy)
    }
}
