//! How a rollout is to go about its devices, as it is said on the command line.

use std::time::Duration;

use clap::Args;
use fleetd_proto::fleetd::rollout::v1 as api;
use fleetd_proto::fleetd::rollout::v1::wave_size::Size;

use crate::command::value;

/// In which waves a rollout goes about its devices, and when it stops itself.
#[derive(Args, Debug)]
pub struct StrategyArgs {
    /// A wave: so many devices (12), a share of all (10%), or the rest; said once for each, and one of all without
    #[arg(long = "wave", value_name = "N|P%|rest", value_parser = wave)]
    pub waves: Vec<api::WaveSize>,
    /// Devices that go before all others, by their labels
    #[arg(long, value_name = "SELECTOR", value_parser = value::selector)]
    pub canary: Option<String>,
    /// Time that must pass after a wave before the next one begins
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub bake: Option<Duration>,
    /// Time that a wave has: who has begun and not ended by then has failed [default: 24h]
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub deadline: Option<Duration>,
    /// How many devices may fail before it stops itself: a number, a share of those reached, or both, the stricter one
    /// counts [default: 0]
    #[arg(long, value_name = "N|P%")]
    pub max_failed: Vec<Bound>,
    /// How many devices may be at work at the same time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_unavailable: Option<u32>,
    /// How many devices of one site may be
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_unavailable_per_site: Option<u32>,
    /// A time in which devices may switch: five fields of a cron expression and a length ('0 2 * * * 3h'); said once for
    /// each
    #[arg(long = "window", value_name = "CRON LENGTH")]
    pub windows: Vec<String>,
    /// By whose clock windows open and days are counted: each device's own, utc, or a zone's (Europe/Berlin)
    /// [default: device]
    #[arg(long, value_name = "device|utc|ZONE")]
    pub window_zone: Option<String>,
    /// Days on which no device switches (2026-12-24, or 2026-12-24..2026-12-26); said once for each range
    #[arg(long = "blackout", value_name = "DAY[..DAY]")]
    pub blackouts: Vec<String>,
    /// How long a device may put its switch off in all, once it could; 0s for not at all [default: 24h]
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub veto_limit: Option<Duration>,
    /// How urgent it is, from 0 to 9: it takes devices over from unfinished rollouts of the workload that are no more urgent
    /// [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=9))]
    pub priority: Option<u32>,
    /// Have the devices of each site switch together, once so many of them are ready, or not at all where there are fewer
    /// when the wave's time is over [share without one: 100%]
    #[arg(long, value_name = "P%", num_args = 0..=1, require_equals = true, default_missing_value = "100%",
        value_parser = quorum, conflicts_with_all = ["max_unavailable", "max_unavailable_per_site"])]
    pub site_atomic: Option<u32>,
    /// Have somebody approve each wave but the first
    #[arg(long)]
    pub approve_waves: bool,
}

/// How many may fail: a number of devices, or a share.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// So many.
    Count(u32),
    /// So many of a hundred.
    Percent(u32),
}

impl std::str::FromStr for Bound {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = |_| format!("{text:?} is neither a number of devices (3) nor a share (2%)");
        match text.strip_suffix('%') {
            Some(percent) => percent.parse().map(Self::Percent).map_err(unknown),
            None => text.parse().map(Self::Count).map_err(unknown),
        }
    }
}

/// Reads how many devices a wave takes.
fn wave(text: &str) -> Result<api::WaveSize, String> {
    if text == "rest" {
        return Ok(api::WaveSize { size: Some(Size::Rest(true)) });
    }
    let bound = text.parse::<Bound>();
    let bound = bound.map_err(|_| format!("{text:?} is neither a number of devices (12), a share (10%) nor rest"))?;
    let size = match bound {
        Bound::Count(count) => Size::Count(count),
        Bound::Percent(percent) => Size::Percent(percent),
    };
    Ok(api::WaveSize { size: Some(size) })
}

/// Reads how many of a hundred devices of a site have to be ready.
fn quorum(text: &str) -> Result<u32, String> {
    let percent = text.strip_suffix('%').and_then(|percent| percent.parse().ok());
    percent
        .filter(|percent| (1..=100).contains(percent))
        .ok_or_else(|| format!("{text:?} is no share of a site from 1% to 100%"))
}

impl From<StrategyArgs> for api::Strategy {
    fn from(asked: StrategyArgs) -> Self {
        let span = |span: Option<Duration>| span.and_then(|span| prost_types::Duration::try_from(span).ok());
        let counts = asked.max_failed.iter().filter_map(|bound| match bound {
            Bound::Count(count) => Some(*count),
            Bound::Percent(_) => None,
        });
        let percents = asked.max_failed.iter().filter_map(|bound| match bound {
            Bound::Percent(percent) => Some(*percent),
            Bound::Count(_) => None,
        });
        Self {
            canary_selector: asked.canary.unwrap_or_default(),
            waves: asked.waves,
            bake: span(asked.bake),
            deadline: span(asked.deadline),
            approve_waves: asked.approve_waves,
            failed_max: counts.min(),
            failed_percent_max: percents.min(),
            unavailable_max: asked.max_unavailable.unwrap_or(0),
            unavailable_per_site_max: asked.max_unavailable_per_site.unwrap_or(0),
            windows: asked.windows,
            window_zone: asked.window_zone.unwrap_or_default(),
            blackouts: asked.blackouts,
            veto_limit: span(asked.veto_limit),
            priority: asked.priority,
            site_quorum_percent: asked.site_atomic.unwrap_or(0),
        }
    }
}
