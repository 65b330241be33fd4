//! How a rollout goes about its devices.

use std::time::Duration;

use fleetd_actors::rollout::strategy::{FailureBudget, Priority, Strategy, WaveSize};
use fleetd_actors::window::{Blackout, ParseTermsError, Terms, Window};
use fleetd_proto::fleetd::rollout::v1 as rollout;
use fleetd_proto::fleetd::rollout::v1::wave_size::Size;

use super::super::call_error::CallError;
use super::targets;

/// Reads how a rollout is to go about its devices. What makes no sense for them is refused by the planning.
pub(crate) fn read(strategy: Option<&rollout::Strategy>) -> Result<Strategy, CallError> {
    let (Some(asked), default) = (strategy, Strategy::default()) else { return Ok(Strategy::default()) };
    let waves = asked.waves.iter().map(wave).collect::<Result<Vec<_>, _>>()?;
    let budget = FailureBudget { count: asked.failed_max, percent: asked.failed_percent_max };
    let is_budgeted = budget.count.or(budget.percent).is_some();
    let limit = |max: u32| (max > 0).then_some(max);
    Ok(Strategy {
        canary: targets::selector(&asked.canary_selector)?,
        waves: if waves.is_empty() { default.waves } else { waves },
        bake: span(asked.bake.as_ref(), "bake")?.unwrap_or(default.bake),
        deadline: span(asked.deadline.as_ref(), "deadline")?.unwrap_or(default.deadline),
        approve_waves: asked.approve_waves,
        budget: if is_budgeted { budget } else { default.budget },
        unavailable_max: limit(asked.unavailable_max),
        unavailable_per_site_max: limit(asked.unavailable_per_site_max),
        terms: terms(asked)?,
        priority: priority(asked.priority)?,
        site_quorum: limit(asked.site_quorum_percent),
    })
}

fn priority(asked: Option<u32>) -> Result<Priority, CallError> {
    let Some(number) = asked else { return Ok(Priority::default()) };
    let cause = || format!("{number} is more than {}", Priority::MAX);
    Priority::new(number).ok_or_else(|| CallError::Invalid { field: "priority", cause: cause() })
}

/// Reads when devices are to switch.
fn terms(asked: &rollout::Strategy) -> Result<Terms, CallError> {
    let default = Terms::default();
    let zone = match asked.window_zone.as_str() {
        "" => default.zone,
        zone => zone.parse().map_err(ParseTermsError::Zone)?,
    };
    let windows = asked.windows.iter().map(|window| window.parse::<Window>());
    let windows: Result<Vec<_>, _> = windows.collect();
    let blackouts: Result<Vec<_>, _> = asked.blackouts.iter().map(|days| days.parse::<Blackout>()).collect();
    Ok(Terms {
        zone,
        windows: windows.map_err(ParseTermsError::Window)?,
        blackouts: blackouts.map_err(ParseTermsError::Blackout)?,
        veto_limit: span(asked.veto_limit.as_ref(), "veto_limit")?.unwrap_or(default.veto_limit),
    })
}

fn wave(size: &rollout::WaveSize) -> Result<WaveSize, CallError> {
    match size.size {
        Some(Size::Count(count)) => Ok(WaveSize::Count(count)),
        Some(Size::Percent(percent)) => Ok(WaveSize::Percent(percent)),
        Some(Size::Rest(true)) => Ok(WaveSize::Rest),
        Some(Size::Rest(false)) | None => Err(CallError::Missing { field: "waves" }),
    }
}

fn span(span: Option<&prost_types::Duration>, field: &'static str) -> Result<Option<Duration>, CallError> {
    let Some(span) = span else { return Ok(None) };
    let read = Duration::try_from(*span).map_err(|error| CallError::Invalid { field, cause: error.to_string() })?;
    // A plan is saved in whole milliseconds.
    Ok(Some(Duration::from_millis(u64::try_from(read.as_millis()).unwrap_or(u64::MAX))))
}

/// A strategy as the API shows it.
pub(crate) fn show(strategy: &Strategy) -> rollout::Strategy {
    let wave = |size: &WaveSize| rollout::WaveSize {
        size: Some(match size {
            WaveSize::Count(count) => Size::Count(*count),
            WaveSize::Percent(percent) => Size::Percent(*percent),
            WaveSize::Rest => Size::Rest(true),
        }),
    };
    rollout::Strategy {
        canary_selector: strategy.canary.as_ref().map(ToString::to_string).unwrap_or_default(),
        waves: strategy.waves.iter().map(wave).collect(),
        bake: prost_types::Duration::try_from(strategy.bake).ok(),
        deadline: prost_types::Duration::try_from(strategy.deadline).ok(),
        approve_waves: strategy.approve_waves,
        failed_max: strategy.budget.count,
        failed_percent_max: strategy.budget.percent,
        unavailable_max: strategy.unavailable_max.unwrap_or(0),
        unavailable_per_site_max: strategy.unavailable_per_site_max.unwrap_or(0),
        windows: strategy.terms.windows.iter().map(ToString::to_string).collect(),
        window_zone: if strategy.terms.is_bounded() { strategy.terms.zone.to_string() } else { String::new() },
        blackouts: strategy.terms.blackouts.iter().map(ToString::to_string).collect(),
        veto_limit: prost_types::Duration::try_from(strategy.terms.veto_limit).ok(),
        priority: Some(strategy.priority.number().into()),
        site_quorum_percent: strategy.site_quorum.unwrap_or(0),
    }
}
