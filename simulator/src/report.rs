//! The page of a set of runs: one file that needs no network, for a person to look at.
//!
//! Pictures are SVG, drawn here; colours follow the reader's choice of a light or a dark page. Whatever a scenario or a
//! device chose the words of is escaped by [`markup`].

pub(crate) mod band;
pub(crate) mod chart;
mod coverage_view;
mod fault_view;
pub(crate) mod markup;
pub(crate) mod table;

use std::fmt;

use self::band::{amount, number, over_time, percentile, rate};
use self::chart::{Chart, Moment, Series};
use self::markup::{Text, grouped, span};
use crate::run::{Outcome, Sample};
use crate::set::{SeedFailure, SetReport};

const STYLE: &str = include_str!("report/style.css");

/// Sites that get a picture of their own: a reader compares no more.
const SITES_DRAWN_MAX: usize = 12;
/// Failed seeds that are told one by one.
const FAILURES_TOLD_MAX: usize = 20;

/// Writes the page.
#[must_use]
pub fn page(report: &SetReport) -> String {
    Page { report, runs: report.runs.iter().collect() }.to_string()
}

struct Page<'a> {
    report: &'a SetReport,
    runs: Vec<&'a Outcome>,
}

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = format!("Simulation of {}", self.report.scenario.name);
        open_page(f, &title)?;
        self.head(f, &title)?;
        self.figures(f)?;
        self.failures(f)?;
        if let Some(failed) = self.runs.iter().find(|run| run.violation.is_some()) {
            self.first_failing(f, failed)?;
        }
        if !self.runs.is_empty() {
            self.burn_down(f)?;
            self.sites(f)?;
            self.traffic(f)?;
            self.faults(f)?;
        }
        table::marks(f, self.report)?;
        coverage_view::draw(f, self.report)?;
        table::runs(f, self.report)?;
        close_page(f)
    }
}

/// Opens a page, up to its first heading.
pub(crate) fn open_page(f: &mut fmt::Formatter<'_>, title: &str) -> fmt::Result {
    writeln!(f, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">")?;
    writeln!(f, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")?;
    writeln!(f, "<meta name=\"color-scheme\" content=\"light dark\">")?;
    writeln!(f, "<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>", Text(title))
}

/// Closes a page.
pub(crate) fn close_page(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "</main>\n</body>\n</html>")
}

/// Draws figures, each a name and a value that is markup already.
pub(crate) fn draw_figures<'a>(
    f: &mut fmt::Formatter<'_>,
    figures: impl IntoIterator<Item = (&'a str, String)>,
) -> fmt::Result {
    writeln!(f, "<dl class=\"figures\">")?;
    for (name, value) in figures {
        writeln!(f, "<div><dt>{name}</dt><dd>{value}</dd></div>")?;
    }
    writeln!(f, "</dl>")
}

impl Page<'_> {
    fn head(&self, f: &mut fmt::Formatter<'_>, title: &str) -> fmt::Result {
        let report = self.report;
        writeln!(f, "<header><h1>{}</h1>", Text(title))?;
        writeln!(f, "<p class=\"about\">{}</p>", Text(&report.scenario.about))?;
        let (failed, finished) = (report.failures.len(), report.finished().count());
        let (class, verdict) = if failed > 0 {
            ("bad", format!("{failed} of {finished} seeds failed"))
        } else if finished == 0 {
            ("open", "no seed came to its end".to_owned())
        } else {
            ("good", format!("{finished} of {} seeds hold every invariant and converge", report.seeds_asked))
        };
        let rest = if report.is_partial { "; the set was stopped before its end" } else { "" };
        writeln!(f, "<p class=\"verdict {class}\">{verdict}{rest}</p>")?;
        for unrun in &report.unrun {
            writeln!(f, "<p class=\"verdict bad\">Seed {} could not be run: {}</p>", unrun.seed, Text(&unrun.why))?;
        }
        writeln!(f, "</header>")
    }

    fn figures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.report;
        let seeds = match (self.runs.first(), self.runs.last()) {
            (Some(first), Some(last)) if first.seed != last.seed => format!("{} to {}", first.seed, last.seed),
            (Some(only), _) => only.seed.to_string(),
            (None, _) => "none".to_owned(),
        };
        let virtual_ms = self.runs.iter().map(|run| run.virtual_ms).sum::<u64>();
        let took = report.convergence_ms();
        let percentiles = [5, 50, 95].map(|percent| percentile(&took, percent).map_or_else(|| "-".to_owned(), span));
        let faults: usize = self.runs.iter().map(|run| run.faults.len()).sum();
        let [low, middle, high] = percentiles;
        let figures = [
            ("seeds", seeds),
            ("devices", grouped(u64::from(report.scenario.devices))),
            ("virtual time", span(virtual_ms)),
            ("events", grouped(report.events)),
            ("events a second", grouped(report.events_per_second)),
            ("faults", grouped(u64::try_from(faults).unwrap_or(u64::MAX))),
            ("healed fleet converged after", format!("{middle} <small>median, {low} to {high}</small>")),
            (
                "build",
                format!(
                    "{} <small>{}, {}, {}</small>",
                    Text(&report.build.commit),
                    report.build.arch,
                    report.build.profile,
                    report.engine
                ),
            ),
        ];
        draw_figures(f, figures)
    }

    fn failures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failures = &self.report.failures;
        if failures.is_empty() {
            return Ok(());
        }
        writeln!(f, "<section><h2>What broke</h2>")?;
        failures.iter().take(FAILURES_TOLD_MAX).try_for_each(|failure| draw_failure(f, failure))?;
        if failures.len() > FAILURES_TOLD_MAX {
            writeln!(
                f,
                "<p>{} more seeds failed; the table of runs has them all.</p>",
                failures.len() - FAILURES_TOLD_MAX
            )?;
        }
        writeln!(f, "</section>")
    }

    /// The first failing run, fault by fault: what was wrong when it failed.
    fn first_failing(&self, f: &mut fmt::Formatter<'_>, failed: &Outcome) -> fmt::Result {
        writeln!(f, "<section><h2>Seed {}, up to its failure</h2>", failed.seed)?;
        fault_view::draw_timeline(f, failed, &self.moments(Some(failed)))?;
        writeln!(
            f,
            "<p class=\"note\">Each bar is a fault, from its beginning to its end. The node that failed comes first.</p>"
        )?;
        writeln!(f, "</section>")
    }

    fn burn_down(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let devices = number(u64::from(self.report.scenario.devices));
        let rest = |sample: &Sample| devices - sum(&sample.updated);
        let series = vec![Series { colour: "c1", points: over_time(&self.runs, rest) }];
        let about = "Devices that are not yet healthy on the newest release. A line is the median of the seeds; nine of ten \
            lie in its band. Where a release is bad, devices go back to the one before and stay here.";
        self.section(f, "Rollout burn-down", about, &Chart { top: devices, series, ..self.chart() })
    }

    fn sites(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sites = usize::try_from(self.report.scenario.sites).unwrap_or(usize::MAX);
        writeln!(
            f,
            "<section><h2>Sites</h2><p class=\"note\">Devices of each site that are linked to the server, and whose \
            workload is healthy.</p>"
        )?;
        table::legend(f, &[("c2", "linked"), ("c1", "healthy")])?;
        writeln!(f, "<div class=\"{}\">", if sites > 1 { "pair" } else { "single" })?;
        for site in 0..sites.min(SITES_DRAWN_MAX) {
            let at = |counts: &[usize]| counts.get(site).copied().map_or(0.0, amount);
            let linked = over_time(&self.runs, |sample| at(&sample.linked));
            let healthy = over_time(&self.runs, |sample| at(&sample.healthy));
            let series = vec![Series { colour: "c2", points: linked }, Series { colour: "c1", points: healthy }];
            let top = amount(devices_of_site(self.report, site));
            let chart = Chart { top, series, moments: Vec::new(), ..self.chart() };
            writeln!(f, "<figure><figcaption>site-{site}</figcaption>{chart}</figure>")?;
        }
        writeln!(f, "</div>")?;
        if sites > SITES_DRAWN_MAX {
            writeln!(f, "<p class=\"note\">{} more sites are in the JSON report.</p>", sites - SITES_DRAWN_MAX)?;
        }
        writeln!(f, "</section>")
    }

    fn traffic(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let points = rate(&self.runs, |sample| sample.bytes);
        let series = vec![Series { colour: "c3", points }];
        let frames: u64 = self.runs.iter().filter_map(|run| run.samples.last()).map(|sample| sample.frames).sum();
        let about = format!("Bytes a second in frames between server and devices. {} frames in all.", grouped(frames));
        self.section(f, "Traffic", &about, &Chart { unit: "B", series, ..self.chart() })
    }

    fn faults(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kinds, bars) = fault_view::histogram(&self.runs, self.end_s());
        if kinds.is_empty() {
            return Ok(());
        }
        writeln!(f, "<section><h2>Faults</h2><p class=\"note\">Faults that began, per seed.</p>")?;
        table::legend(f, &kinds.iter().map(|(colour, kind)| (*colour, kind.as_str())).collect::<Vec<_>>())?;
        writeln!(f, "{}</section>", Chart { bars, ..self.chart() })
    }

    fn section(&self, f: &mut fmt::Formatter<'_>, name: &str, about: &str, chart: &Chart) -> fmt::Result {
        writeln!(f, "<section><h2>{name}</h2><p class=\"note\">{}</p>{chart}</section>", Text(about))
    }

    fn chart(&self) -> Chart {
        Chart { end: self.end_s(), top: 1.0, moments: self.moments(None), ..Chart::default() }
    }

    /// The end of what was seen: runs that converge end before their deadline.
    fn end_s(&self) -> u64 {
        let seen = self.runs.iter().filter_map(|run| run.samples.last()).map(|sample| sample.at_s).max();
        seen.unwrap_or(0).max(self.report.scenario.duration.as_secs().min(1)).max(1)
    }

    fn moments(&self, failed: Option<&Outcome>) -> Vec<Moment> {
        let scenario = &self.report.scenario;
        let acts = scenario.acts.iter();
        let mut moments: Vec<Moment> =
            acts.map(|act| Moment { at: act.at.as_secs(), label: act.roll_out.clone(), is_failure: false }).collect();
        moments.push(Moment { at: scenario.duration.as_secs(), label: "healed".to_owned(), is_failure: false });
        let end_s = failed.and_then(|run| run.violation.as_ref()).map(|failure| failure.at_ms / 1000);
        moments.extend(end_s.map(|at| Moment { at, label: "failed".to_owned(), is_failure: true }));
        let end_s = end_s.unwrap_or_else(|| self.end_s());
        moments.retain(|moment| moment.at <= end_s);
        moments.sort_by_key(|moment| moment.at);
        moments
    }
}

fn draw_failure(f: &mut fmt::Formatter<'_>, failure: &SeedFailure) -> fmt::Result {
    let violation = &failure.failure.violation;
    let invariant = match violation.invariant {
        0 => format!("{} does not hold", violation.checker),
        numbered => format!("invariant {numbered} ({}) does not hold", violation.checker),
    };
    writeln!(f, "<article class=\"failure\"><h3>Seed {}: {}</h3>", failure.seed, Text(&invariant))?;
    writeln!(f, "<p>{}</p>", Text(&violation.seen))?;
    let node = if violation.node.is_empty() { "the fleet" } else { violation.node.as_str() };
    writeln!(
        f,
        "<p class=\"note\">On {} at {}, event {}.",
        Text(node),
        span(failure.failure.at_ms),
        grouped(failure.failure.event)
    )?;
    if let Some(device) = &failure.first_diverging {
        writeln!(f, " First diverging device: <strong>{}</strong>.", Text(device))?;
    }
    writeln!(f, "</p><pre>{}\n{}</pre></article>", Text(&failure.replay), Text(&failure.shrink))
}

fn devices_of_site(report: &SetReport, site: usize) -> usize {
    let [devices, sites] =
        [report.scenario.devices, report.scenario.sites].map(|count| usize::try_from(count).unwrap_or(1));
    (site..devices).step_by(sites.max(1)).count()
}

fn sum(counts: &[usize]) -> f64 {
    amount(counts.iter().sum())
}
