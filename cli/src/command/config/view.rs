//! Configurations as people read them.

use fleetd_proto::fleetd::configuration::v1::Configuration;

use crate::command::wording;
use crate::output::{Moment, bytes, table};

/// Draws configurations.
#[must_use]
pub fn configurations(configurations: &[Configuration], now: Moment) -> String {
    let rows = configurations.iter().map(|found| {
        let values = found.values.iter().map(|value| &value.name);
        let files = found.files.iter().map(|file| &file.name);
        let fills = values.chain(files).map(String::as_str).collect::<Vec<_>>().join(" ");
        let pushed = wording::moment(found.created_at.as_ref()).relative(now);
        [found.workload.clone(), found.name.clone(), fills, pushed]
    });
    table(["WORKLOAD", "NAME", "FILLS", "PUSHED"], rows)
}

/// Draws one configuration.
#[must_use]
pub fn configuration(found: &Configuration, now: Moment) -> String {
    let state = if found.complete { "" } else { " (incomplete)" };
    let mut text = format!("{} {}{state}\n", found.workload, found.name);
    let pushed = wording::moment(found.created_at.as_ref()).relative(now);
    text.push_str(&format!("  {:<11} {}\n", "digest", found.digest));
    text.push_str(&format!("  {:<11} {pushed} by {}\n", "pushed", wording::or_dash(&found.created_by)));
    for value in &found.values {
        text.push_str(&format!("  {:<11} {:?}\n", value.name, value.value));
    }
    for file in &found.files {
        text.push_str(&format!("  {:<11} {} {}\n", file.name, file.digest, bytes(file.size_bytes)));
    }
    text
}
