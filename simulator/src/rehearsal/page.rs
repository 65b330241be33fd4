//! The page of a rehearsal: one file that needs no network, for who decides whether a rollout is started.

use std::collections::BTreeMap;
use std::fmt;

use super::course::{DeviceCourse, DeviceEnd};
use super::gates::Extent;
use super::summary::{RehearsalReport, Seed, Spread, finished};
use super::{CopiedDevice, Rehearsal};
use crate::fault::Target;
use crate::report::band::{Point, amount, number, percentile};
use crate::report::chart::{Chart, Moment, Series, TimeAxis};
use crate::report::markup::{Text, bytes, grouped, span};
use crate::report::{close_page, draw_figures, open_page, table};
use crate::run::Outcome;
use crate::scenario::Scenario;

/// Points of a chart's time axis.
const POINTS: u32 = 160;
/// Where it begins, in milliseconds.
const FROM_MS: f64 = 100.0;
/// Sites that get a picture of their own: a reader compares no more.
const SITES_DRAWN_MAX: usize = 12;
/// Blocked devices that are named.
const BLOCKED_NAMED_MAX: usize = 50;

/// Writes the page.
#[must_use]
pub fn page(report: &RehearsalReport, scenario: &Scenario, runs: &[Outcome]) -> String {
    let Some(rehearsal) = &scenario.rehearsal else { return String::new() };
    let seeds = finished(runs);
    let until = seeds.iter().map(|seed| seed.rehearsed.until_ms).max().unwrap_or(0);
    let grid = grid(until.max(10_000));
    Page { report, rehearsal, seeds, grid }.to_string()
}

/// Times at which a chart is drawn, evenly apart on its axis.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a time of a chart, rounded to what is seen"
)]
fn grid(end_ms: u64) -> Vec<u64> {
    let factor = (number(end_ms) / FROM_MS).ln();
    let mut grid: Vec<u64> = (0..=POINTS)
        .map(|point| (FROM_MS * (factor * f64::from(point) / f64::from(POINTS)).exp()).round() as u64)
        .collect();
    grid.dedup();
    grid
}

struct Page<'a> {
    report: &'a RehearsalReport,
    rehearsal: &'a Rehearsal,
    seeds: Vec<Seed<'a>>,
    grid: Vec<u64>,
}

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = format!("Rehearsal of {} {}", self.report.workload, self.report.version);
        open_page(f, &title)?;
        self.head(f, &title)?;
        self.figures(f)?;
        self.failures(f)?;
        if !self.seeds.is_empty() {
            self.waves(f)?;
            self.burn_down(f)?;
            self.sites(f)?;
            self.traffic(f)?;
        }
        self.late(f)?;
        self.blocked(f)?;
        self.assumed(f)?;
        self.runs(f)?;
        close_page(f)
    }
}

impl Page<'_> {
    fn head(&self, f: &mut fmt::Formatter<'_>, title: &str) -> fmt::Result {
        let report = self.report;
        writeln!(f, "<header><h1>{}</h1>", Text(title))?;
        writeln!(
            f,
            "<p class=\"about\">Plan {}, carried out on a copy of {} devices in {} seeds.</p>",
            Text(&report.plan_id),
            grouped(count(report.devices)),
            grouped(count(report.seeds))
        )?;
        let (class, verdict) = self.verdict();
        writeln!(f, "<p class=\"verdict {class}\">{}</p>", Text(&verdict))?;
        if let Some(advice) = &report.advice {
            writeln!(f, "<p>{}</p>", Text(advice))?;
        }
        for unrun in &report.unrun {
            writeln!(
                f,
                "<p class=\"verdict bad\">Seed {} could not be rehearsed: {}</p>",
                unrun.seed,
                Text(&unrun.why)
            )?;
        }
        writeln!(f, "</header>")
    }

    fn verdict(&self) -> (&'static str, String) {
        let report = self.report;
        let rest = if report.is_partial { "; it was stopped before its end" } else { "" };
        if !report.failures.is_empty() {
            return (
                "bad",
                format!(
                    "{} of {} seeds broke an invariant of fleetd itself",
                    report.failures.len(),
                    report.seeds_asked
                ),
            );
        }
        let (seeds, good) = (report.seeds, report.seeds_with("succeeded"));
        let reason = report.ends.iter().find(|end| !end.reason.is_empty());
        let reason = reason.map_or_else(String::new, |end| format!(": {}", end.reason));
        match good {
            _ if seeds == 0 => ("open", format!("No seed came to its end{rest}")),
            all if all == seeds => ("good", format!("The rollout succeeds in all of {seeds} seeds{rest}")),
            0 if report.seeds_with("failed") + report.seeds_with("halted") == seeds => {
                ("bad", format!("The rollout fails in all of {seeds} seeds{reason}{rest}"))
            }
            some => ("open", format!("The rollout succeeds in {some} of {seeds} seeds{reason}{rest}")),
        }
    }

    fn figures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.report;
        let never = || format!("never <small>{}% have it</small>", report.update.percent);
        let within = |time: Option<u64>| time.map_or_else(never, span);
        let devices = |spread: Spread| shown(spread, &grouped);
        let mut figures = vec![
            (
                "get the release",
                format!("{} <small>of {}</small>", devices(report.update.healthy), grouped(count(report.assigned()))),
            ),
            ("half have it after", within(report.update.median_ms)),
            ("95% have it after", within(report.update.p95_ms)),
            ("the rollout ends after", report.ended_ms.map_or_else(|| "-".to_owned(), |ended| shown(ended, &span))),
            ("follow later", devices(report.update.following)),
            ("blocked", grouped(count(report.counts.blocked))),
            ("traffic", shown(report.traffic.total_bytes, &bytes)),
            ("busiest minute", shown(report.traffic.busiest_minute_bytes, &bytes)),
        ];
        if report.update.silent.high > 0 {
            figures.push(("went silent at work", devices(report.update.silent)));
        }
        if let Some(bad) = &report.bad {
            figures.push(("ran it badly", devices(bad.ran)));
            figures.push(("went back", devices(bad.restored)));
            figures.push((
                "and were back after",
                bad.exposed_ms.map_or_else(|| "-".to_owned(), |exposed| shown(exposed, &span)),
            ));
            figures.push(("most at once", devices(bad.at_once)));
        }
        draw_figures(f, figures)
    }

    fn failures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failure in &self.report.failures {
            let (violation, device) = (&failure.failure.violation, failure.device.as_deref().unwrap_or("the fleet"));
            writeln!(f, "<article class=\"failure\"><h3>Seed {}: {}</h3>", failure.seed, Text(&violation.checker))?;
            writeln!(
                f,
                "<p>{}</p><p class=\"note\">On {}, after {}.</p>",
                Text(&violation.seen),
                Text(device),
                span(failure.failure.at_ms)
            )?;
            writeln!(f, "<pre>{}</pre></article>", Text(&failure.replay))?;
        }
        Ok(())
    }

    fn burn_down(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let assigned = amount(self.report.assigned());
        let rest = self.over_time(|seed| steps(seed, updated_ms, -1, assigned));
        let mut series = vec![Series { colour: "c1", points: rest }];
        let mut legend = vec![("c1", "have not got the release yet")];
        if self.report.bad.is_some() {
            series.push(Series { colour: "c5", points: self.over_time(runs_badly) });
            legend.push(("c5", "run it badly"));
        }
        let about =
            "Devices over time after the start. A line is the median of the seeds, nine of ten lie in its band.";
        writeln!(f, "<section><h2>Rollout burn-down</h2><p class=\"note\">{about}</p>")?;
        table::legend(f, &legend)?;
        writeln!(f, "{}</section>", Chart { top: assigned, series, moments: self.moments(), ..self.chart() })
    }

    fn waves(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.report;
        let reach = report.halts.reach.map_or_else(String::new, |reach| {
            let [ran, crashed] = [reach.ran, reach.crashed].map(|extent| worst(extent, &grouped));
            format!(" The release ran on {ran} devices by then, and crashed on {crashed} of them.")
        });
        let about = format!("The rollout halted in {} of {} seeds.{reach}", report.halts.seeds, report.seeds);
        writeln!(
            f,
            "<section><h2>Waves and gates</h2><p class=\"note\">{}</p><table><thead><tr><th>wave</th><th>devices</th><th>\
             halts in</th><th></th><th>ran on by then</th><th>takes</th><th>passed after</th></tr></thead><tbody>",
            Text(&about)
        )?;
        for wave in &report.waves {
            let share = 100.0 * amount(wave.halted) / amount(wave.began.max(1));
            let ran = wave.reach.map_or_else(|| "-".to_owned(), |reach| worst(reach.ran, &grouped));
            let [takes, passed] = [wave.takes_ms, wave.passed_at_ms]
                .map(|extent| extent.map_or_else(|| "-".to_owned(), |extent| worst(extent, &span)));
            writeln!(
                f,
                "<tr><td class=\"count\">{}</td><td class=\"count\">{}</td><td class=\"count\">{} of {}</td><td><span \
                 class=\"share\"><i style=\"width:{share:.0}%\"></i></span></td><td class=\"count\">{ran}</td><td class=\
                 \"count\">{takes}</td><td class=\"count\">{passed}</td></tr>",
                wave.wave,
                grouped(count(wave.devices)),
                wave.halted,
                wave.began
            )?;
        }
        writeln!(f, "</tbody></table></section>")
    }

    fn sites(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sites: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        let Some(first) = self.seeds.first() else { return Ok(()) };
        for course in &first.rehearsed.devices {
            let site = self.device(course.device).map_or("", |device| device.site.as_str());
            sites.entry(site).or_default().push(course.device);
        }
        if sites.len() < 2 {
            return Ok(());
        }
        let mut by_size: Vec<_> = sites.into_iter().collect();
        by_size.sort_by_key(|(site, devices)| (std::cmp::Reverse(devices.len()), *site));
        writeln!(f, "<section><h2>Sites</h2><p class=\"note\">Devices of each site that are to get the release.</p>")?;
        table::legend(f, &[("c2", "can be reached"), ("c1", "have the release")])?;
        writeln!(f, "<div class=\"pair\">")?;
        for (site, devices) in by_size.iter().take(SITES_DRAWN_MAX) {
            let is_here = |number: usize| devices.binary_search(&number).is_ok();
            let has_it = self
                .over_time(|seed| steps(seed, |course| updated_ms(course).filter(|_| is_here(course.device)), 1, 0.0));
            let linked = self.over_time(|seed| reachable(seed, &is_here, amount(devices.len())));
            let series = vec![Series { colour: "c2", points: linked }, Series { colour: "c1", points: has_it }];
            // Four steps of whole devices.
            let top = amount(devices.len().next_multiple_of(4));
            let chart = Chart { top, series, ..self.chart() };
            let name = if site.is_empty() { "(no site)" } else { site };
            writeln!(f, "<figure><figcaption>{}</figcaption>{chart}</figure>", Text(name))?;
        }
        writeln!(f, "</div>")?;
        if by_size.len() > SITES_DRAWN_MAX {
            writeln!(f, "<p class=\"note\">{} smaller sites are not drawn.</p>", by_size.len() - SITES_DRAWN_MAX)?;
        }
        writeln!(f, "</section>")
    }

    fn traffic(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let carried = self.over_time(|seed| {
            let slot_ms = seed.rehearsed.slot_ms;
            let mut all = 0.0;
            let slots = seed.rehearsed.traffic_bytes.iter();
            slots
                .map(|(slot, bytes)| {
                    all += number(*bytes);
                    ((slot + 1) * slot_ms, all)
                })
                .collect()
        });
        let busiest = self.report.traffic.busiest_minute_at_ms;
        let about = format!(
            "Bytes between the server and devices since the start, artifacts with their real size. The busiest minute \
             begins {} after the start and carries {}.",
            span(busiest.median),
            bytes(self.report.traffic.busiest_minute_bytes.median)
        );
        let chart = Chart { unit: "B", series: vec![Series { colour: "c3", points: carried }], ..self.chart() };
        writeln!(f, "<section><h2>Traffic</h2><p class=\"note\">{}</p>{chart}</section>", Text(&about))
    }

    fn late(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let late: Vec<_> = self.report.late.iter().collect();
        if late.is_empty() || self.seeds.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "<section><h2>Who is late</h2><p class=\"note\">The devices that have the release last, or in the fewest \
             seeds.</p><table><thead><tr><th>device</th><th>site</th><th>has it in</th><th></th><th>median</th>\
             <th>away for</th></tr></thead><tbody>"
        )?;
        for device in late {
            let share = 100.0 * amount(device.seeds) / amount(device.of.max(1));
            let [median, away] =
                [device.median_ms, device.away_ms].map(|time| time.map_or_else(|| "-".to_owned(), span));
            writeln!(
                f,
                "<tr><td>{}</td><td>{}</td><td class=\"count\">{} of {}</td><td><span class=\"share\"><i \
                 style=\"width:{share:.0}%\"></i></span></td><td class=\"count\">{median}</td><td class=\"count\">{away}\
                 </td></tr>",
                Text(&device.name),
                Text(&device.site),
                device.seeds,
                device.of
            )?;
        }
        writeln!(f, "</tbody></table></section>")
    }

    fn blocked(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blocked = &self.report.blocked;
        if blocked.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "<section><h2>Blocked</h2><p class=\"note\">The plan leaves these out, and no seed touched them.</p><table>\
             <thead><tr><th>device</th><th>site</th><th>by</th><th>why</th></tr></thead><tbody>"
        )?;
        for device in blocked.iter().take(BLOCKED_NAMED_MAX) {
            let (name, site, by, reason) =
                (Text(&device.name), Text(&device.site), Text(&device.by), Text(&device.reason));
            writeln!(f, "<tr><td>{name}</td><td>{site}</td><td>{by}</td><td>{reason}</td></tr>")?;
        }
        writeln!(f, "</tbody></table>")?;
        if blocked.len() > BLOCKED_NAMED_MAX {
            writeln!(f, "<p class=\"note\">{} more are in the JSON report.</p>", blocked.len() - BLOCKED_NAMED_MAX)?;
        }
        writeln!(f, "</section>")
    }

    fn assumed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let assumed = &self.report.assumed;
        let [fast, slow] = assumed.latency_ms;
        let [low, high] = assumed.loss;
        let link = assumed.bandwidth.map_or_else(
            || "links without a limit".to_owned(),
            |rate| format!("{} a second on each link", bytes(rate)),
        );
        let away = amount(self.report.counts.offline);
        let lines = [
            format!(
                "Looked at for at most {}; frames take {fast} to {slow} ms one way; {low} to {high} of them are lost and sent again; {link}.",
                span(assumed.for_ms)
            ),
            format!(
                "{} of the devices that can be reached go away at a drawn time; the release crashes on {}.",
                assumed.offline, assumed.fail
            ),
            format!(
                "{away} devices are away now. Half of the seeds bring a device back within as long as it has been away."
            ),
            "At the end of each seed all are linked again, and each had to follow.".to_owned(),
        ];
        let approval =
            assumed.approve_after_ms.map(|after| format!("A wave that asks is approved after {}.", span(after)));
        writeln!(f, "<section><h2>What was assumed</h2><ul class=\"note\">")?;
        lines.iter().chain(&approval).try_for_each(|line| writeln!(f, "<li>{}</li>", Text(line)))?;
        writeln!(f, "</ul></section>")
    }

    fn runs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.report.runs.is_empty() {
            return Ok(());
        }
        let build = &self.report.build;
        writeln!(
            f,
            "<section><h2>Seeds</h2><p class=\"note\">Build {}, {}, {}.</p><details><summary>{} seeds</summary><table>\
             <thead><tr><th>seed</th><th>rollout</th><th>after</th><th>updated</th><th>follow</th><th>went back</th>\
             <th>traffic</th><th>trace</th></tr></thead><tbody>",
            Text(&build.commit),
            Text(&build.arch),
            Text(&build.profile),
            self.report.runs.len()
        )?;
        for run in &self.report.runs {
            let class = if ["failed", "halted"].contains(&run.phase.as_str()) { "never" } else { "" };
            let ended = run.ended_ms.map_or_else(|| "-".to_owned(), span);
            writeln!(
                f,
                "<tr class=\"{class}\"><td class=\"count\">{}</td><td>{}</td><td class=\"count\">{ended}</td><td class=\
                 \"count\">{}</td><td class=\"count\">{}</td><td class=\"count\">{}</td><td class=\"count\">{}</td><td>\
                 <code>{}</code></td></tr>",
                run.seed,
                Text(&run.phase),
                run.healthy,
                run.following,
                run.restored,
                bytes(run.traffic_bytes),
                Text(&run.trace)
            )?;
        }
        writeln!(f, "</tbody></table></details></section>")
    }

    fn device(&self, number: usize) -> Option<&CopiedDevice> {
        self.rehearsal.devices.get(number)
    }

    fn chart(&self) -> Chart {
        Chart { axis: TimeAxis::Logarithmic, end: self.grid.last().copied().unwrap_or(1), top: 1.0, ..Chart::default() }
    }

    fn moments(&self) -> Vec<Moment> {
        let ended = self.report.ended_ms.map(|ended| ended.median);
        let failed = self.report.seeds_with("failed") + self.report.seeds_with("halted");
        let is_failure = failed * 2 > self.report.seeds;
        let label = if is_failure { "failed" } else { "rollout ends" };
        ended.map(|at| Moment { at, label: label.to_owned(), is_failure }).into_iter().collect()
    }

    /// A quantity that changes in steps, over all seeds.
    fn over_time(&self, steps: impl Fn(&Seed<'_>) -> Vec<(u64, f64)>) -> Vec<Point> {
        let of_seeds: Vec<Vec<f64>> = self.seeds.iter().map(|seed| sampled(&steps(seed), &self.grid)).collect();
        let at = self.grid.iter().enumerate();
        at.filter_map(|(index, at)| {
            let mut values: Vec<f64> = of_seeds.iter().filter_map(|values| values.get(index).copied()).collect();
            values.sort_by(f64::total_cmp);
            let [low, middle, high] = [5, 50, 95].map(|percent| percentile(&values, percent));
            Some(Point { at: *at, low: low?, middle: middle?, high: high? })
        })
        .collect()
    }
}

fn updated_ms(course: &DeviceCourse) -> Option<u64> {
    course.end_ms.filter(|_| course.end == DeviceEnd::Healthy)
}

/// A count that changes by one for each device at its time.
fn steps(seed: &Seed<'_>, at_ms: impl Fn(&DeviceCourse) -> Option<u64>, by: i8, from: f64) -> Vec<(u64, f64)> {
    let mut times: Vec<u64> = seed.rehearsed.devices.iter().filter_map(at_ms).collect();
    times.sort_unstable();
    let mut value = from;
    let counted = times.into_iter().map(|at| {
        value += f64::from(by);
        (at, value)
    });
    std::iter::once((0, from)).chain(counted).collect()
}

/// How many devices run a release that crashes.
fn runs_badly(seed: &Seed<'_>) -> Vec<(u64, f64)> {
    let bad = seed.rehearsed.devices.iter().filter(|course| course.is_bad);
    let changes = bad.flat_map(|course| {
        let over = course.end_ms.filter(|_| course.ran_ms.is_some() && course.end.is_final());
        [course.ran_ms.map(|at| (at, 1.0)), over.map(|at| (at, -1.0))].into_iter().flatten()
    });
    summed(changes.collect(), 0.0)
}

/// How many of a site's devices can be reached.
fn reachable(seed: &Seed<'_>, is_here: &dyn Fn(usize) -> bool, all: f64) -> Vec<(u64, f64)> {
    let mut changes = Vec::new();
    for fault in &seed.outcome.faults {
        let Target::Device(number) = fault.on else { continue };
        if is_here(number) {
            let at = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
            changes.extend([(at(fault.at), -1.0), (at(fault.at.saturating_add(fault.lasting)), 1.0)]);
        }
    }
    summed(changes, all)
}

/// Changes in order of time, each with what it makes of the value.
fn summed(mut changes: Vec<(u64, f64)>, from: f64) -> Vec<(u64, f64)> {
    changes.sort_by_key(|(at, _)| *at);
    let mut value = from;
    let counted = changes.into_iter().map(|(at, change)| {
        value += change;
        (at, value)
    });
    std::iter::once((0, from)).chain(counted).collect()
}

/// The values that hold at the times of a grid.
fn sampled(steps: &[(u64, f64)], grid: &[u64]) -> Vec<f64> {
    let value_at = |at: &u64| {
        let before = steps.partition_point(|(time, _)| time <= at);
        before.checked_sub(1).and_then(|index| steps.get(index)).map_or(0.0, |(_, value)| *value)
    };
    grid.iter().map(value_at).collect()
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// A number in many seeds, with the worst where that is another.
fn worst(Extent { median, worst }: Extent, told: &dyn Fn(u64) -> String) -> String {
    let [median, worst] = [median, worst].map(told);
    if median == worst { median } else { format!("{median} (at worst {worst})") }
}

/// A number in many seeds, with its band where it has one.
fn shown(spread: Spread, told: &dyn Fn(u64) -> String) -> String {
    let [low, median, high] = [spread.low, spread.median, spread.high].map(told);
    if low == high { median } else { format!("{median} <small>{low} to {high}</small>") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_goes_from_the_first_tenth_of_a_second_to_the_end() {
        let grid = grid(3_600_000);
        assert_eq!((grid.first(), grid.last()), (Some(&100), Some(&3_600_000)));
        assert!(grid.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn a_count_holds_until_it_changes() {
        let steps = summed(vec![(500, -1.0), (200, -1.0)], 3.0);
        assert_eq!(sampled(&steps, &[100, 200, 499, 500, 900]), [3.0, 2.0, 2.0, 1.0, 1.0]);
    }
}
