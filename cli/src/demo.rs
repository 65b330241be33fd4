//! The demo: a whole fleet on this machine, told as a story that checks itself.
//!
//! A server and three agents run as processes of this very program, in a directory of their own. Everything is asked
//! for and seen through the public API, or done by the commands that an operator has; besides, the demo only starts
//! and stops processes, and cuts the UDP proxy that is an agent's one link. A step that is not seen in time ends it.
//!
//! Where to start reading: [`step`] (what there is to see), [`act`] (how each step is done), [`fleet`] (how it is
//! seen), [`stage`] (what runs, and how all of it ends).

mod act;
mod coffee;
mod failure;
mod fleet;
mod operator;
mod stage;
mod step;
mod story;
mod sweep;
mod udp_proxy;

use std::path::PathBuf;

pub use failure::{DemoError, StepError};
pub use step::Step;

use crate::output::Output;
use act::{Devices, Server};
use fleet::Fleet;
use stage::Stage;
use story::Story;

/// How to play it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The program that serves, that operates and that runs on the devices: this one.
    pub program: PathBuf,
    /// Leaves everything running at the end.
    pub keep: bool,
}

/// Plays the demo. When it ends, or its future is dropped, nothing of it is left, unless it ended well and is to be
/// kept.
///
/// # Errors
/// [`DemoError`] names the step that was not seen.
pub async fn run(options: &Options, output: &Output) -> Result<(), DemoError> {
    let story = Story::new(output);
    let stage = Stage::set_up(&options.program).map_err(|source| DemoError {
        step: Step::Serve,
        last_words: String::new(),
        source: StepError::File { path: std::env::temp_dir(), verb: "used", source },
    })?;
    let (server, devices) = play(&stage, &story).await?;
    if options.keep {
        keep(stage, &story, &server, devices).await
    } else {
        story.end("That was all of it; every process ends now, and nothing is left behind.");
        Ok(())
    }
}

async fn play(stage: &Stage, story: &Story<'_>) -> Result<(Server, Devices), DemoError> {
    let server = show(stage, story, Step::Serve, act::serve(stage, story)).await?;
    let fleet = &Fleet { client: server.client.clone(), story };
    let devices = show(stage, story, Step::Enrol, act::enrol(stage, fleet, &server)).await?;
    show(stage, story, Step::Delegate, act::delegate(stage, fleet, &server)).await?;
    show(stage, story, Step::PushFirst, act::push(stage, fleet, "1.0.0")).await?;
    show(stage, story, Step::RolloutFirst, act::roll_out_first(fleet, "1.0.0")).await?;
    let mark = coffee::mark("1.0.0");
    show(stage, story, Step::Logs, fleet.read_lines(&devices.devices, None, &mark, 2)).await?;
    show(stage, story, Step::Cut, act::cut(fleet, &devices)).await?;
    let rollout = show(stage, story, Step::RolloutSecond, async {
        act::push(stage, fleet, "1.1.0").await?;
        act::roll_out_second(fleet, &devices, "1.1.0").await
    });
    let rollout = rollout.await?;
    show(stage, story, Step::Converge, act::converge(fleet, &devices, &rollout)).await?;
    let crashing = show(stage, story, Step::RolloutCrashing, async {
        act::push(stage, fleet, coffee::CRASHING).await?;
        act::roll_out_crashing(fleet, coffee::CRASHING).await
    });
    crashing.await?;
    show(stage, story, Step::Restored, act::restored(fleet, "1.1.0")).await?;
    Ok((server, devices))
}

/// Plays one step, against its deadline, as long as every process lives.
async fn show<T>(
    stage: &Stage,
    story: &Story<'_>,
    step: Step,
    action: impl Future<Output = Result<T, StepError>>,
) -> Result<T, DemoError> {
    story.open(step);
    let seen = tokio::select! {
        biased;
        casualty = stage.casualty() => Err(casualty),
        () = tokio::time::sleep(step.deadline()) => {
            Err(StepError::Expired { awaited: story.awaited(), waited_seconds: step.deadline().as_secs() })
        }
        seen = action => seen,
    };
    let seen = seen.map_err(|source| DemoError { step, last_words: stage.last_words(), source })?;
    story.close();
    Ok(seen)
}

/// Leaves everything running, with links that need no proxy, and says how to go on.
async fn keep(stage: Stage, story: &Story<'_>, server: &Server, devices: Devices) -> Result<(), DemoError> {
    for number in 0..devices.devices.len() {
        let agent = act::agent_name(number);
        stage.stop(&agent);
        // It is enrolled and needs no token; what it runs does not notice that its agent was away.
        let restarted = match act::configure(&stage, &agent, None, server.sync_address).await {
            Ok(()) => act::start_agent(&stage, &agent),
            Err(error) => Err(error),
        };
        restarted.map_err(|source| DemoError { step: Step::Restored, last_words: stage.last_words(), source })?;
    }
    let (program, directory) = (stage.program().display().to_string(), stage.directory().display().to_string());
    let name = devices.devices.first().map(|device| device.name.as_str()).unwrap_or_default();
    let mut text = format!("All of it goes on in {directory}. Play with it:\n");
    let config = stage.config_directory().display().to_string();
    let commands = [
        "device list".to_owned(),
        format!("device why {name}"),
        format!("logs {name}/coffee -f"),
        "rollout list".to_owned(),
        format!("device stop {name}/coffee"),
    ];
    for command in commands {
        text.push_str(&format!("  FLEETD_CONFIG_DIR={config} {program} {command}\n"));
    }
    text.push_str(&format!("End it:\n  pkill -9 -f {directory}; sleep 1; rm -r {directory}"));
    story.end(&text);
    stage.keep();
    Ok(())
}
