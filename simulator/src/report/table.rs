//! The page's tables and legends.

use std::fmt;

use super::band::amount;
use super::markup::{Text, grouped, span};
use crate::run::Outcome;
use crate::set::SetReport;

/// Runs that are shown without being asked for.
const RUNS_OPEN_MAX: usize = 40;

/// What colours mean.
pub(crate) fn legend(f: &mut fmt::Formatter<'_>, entries: &[(&str, &str)]) -> fmt::Result {
    write!(f, "<p class=\"legend\">")?;
    for (colour, label) in entries {
        write!(f, "<span><i class=\"{colour}\"></i>{}</span>", Text(label))?;
    }
    writeln!(f, "</p>")
}

/// The marks, those that no seed reached first.
pub(crate) fn marks(f: &mut fmt::Formatter<'_>, report: &SetReport) -> fmt::Result {
    if report.marks.is_empty() && report.never_reached.is_empty() {
        return Ok(());
    }
    writeln!(
        f,
        "<section><h2>Marks</h2><p class=\"note\">What ought to happen in some run of a set. A set in which \
        one never did proves less than it seems.</p><table><thead><tr><th>mark</th><th>seeds</th><th></th>\
        <th>times</th></tr></thead><tbody>"
    )?;
    for mark in &report.never_reached {
        writeln!(
            f,
            "<tr class=\"never\"><td>{}</td><td class=\"count\">never</td><td></td><td></td></tr>",
            Text(mark)
        )?;
    }
    let all = amount(report.runs.len().max(1));
    for mark in &report.marks {
        let share = 100.0 * amount(mark.seeds) / all;
        let bar = format!("<span class=\"share\"><i style=\"width:{share:.0}%\"></i></span>");
        let (name, seeds, count) = (Text(&mark.mark), mark.seeds, grouped(mark.count));
        writeln!(
            f,
            "<tr><td>{name}</td><td class=\"count\">{seeds}</td><td>{bar}</td><td class=\"count\">{count}</td></tr>"
        )?;
    }
    writeln!(f, "</tbody></table></section>")
}

/// Every run.
pub(crate) fn runs(f: &mut fmt::Formatter<'_>, report: &SetReport) -> fmt::Result {
    if report.runs.is_empty() {
        return Ok(());
    }
    let open = if report.runs.len() <= RUNS_OPEN_MAX { " open" } else { "" };
    writeln!(
        f,
        "<section><h2>Runs</h2><details{open}><summary>{} seeds</summary><table><thead><tr><th>seed</th>\
        <th>verdict</th><th>converged after</th><th>devices</th><th>faults</th><th>events</th><th>trace</th></tr></thead>\
        <tbody>",
        report.runs.len()
    )?;
    report.runs.iter().try_for_each(|run| row(f, run))?;
    writeln!(f, "</tbody></table></details></section>")
}

fn row(f: &mut fmt::Formatter<'_>, run: &Outcome) -> fmt::Result {
    let (class, verdict) = match &run.violation {
        Some(failure) => ("never", failure.violation.checker.as_str()),
        None if run.is_partial => ("open", "stopped"),
        None => ("", "holds"),
    };
    let took = run.converged_after_ms.map_or_else(|| "-".to_owned(), span);
    let share = format!("{}/{}", run.converged, run.devices);
    writeln!(
        f,
        "<tr class=\"{class}\"><td class=\"count\">{}</td><td>{}</td><td class=\"count\">{took}</td><td class=\"count\">\
        {share}</td><td class=\"count\">{}</td><td class=\"count\">{}</td><td><code>{}</code></td></tr>",
        run.seed,
        Text(verdict),
        grouped(u64::try_from(run.faults.len()).unwrap_or(u64::MAX)),
        grouped(run.events),
        Text(&run.trace)
    )
}
