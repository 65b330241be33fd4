//! `cargo xtask fuzz`: runs one fuzz target for long, led by the coverage that its inputs reach.
//!
//! A target is a test like any other, in which `bolero::check!` names it; a plain `cargo test` runs its corpus and some
//! random inputs. Here it is built once more, by the same stable compiler, with counters at every edge of the code and
//! with libFuzzer, which `bolero` brings as source: nothing needs to be installed but a C++ compiler. What is found is
//! kept below `target/fuzz`; `--reduce` takes over into the repository the fewest inputs that reach as much.

mod control;
mod target;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;

use self::target::{TARGETS, Target};
use crate::ci::root;

/// Where targets are built, and where what they find is kept.
const BUILD: &str = "target/fuzz/build";
const FOUND: &str = "target/fuzz/corpus";
const LOGS: &str = "target/fuzz/log";
/// What makes the compiler count edges, and hand what is compared to libFuzzer.
///
/// # Source
/// `cargo-bolero` 0.13, `src/libfuzzer.rs` and `src/project.rs`.
const FLAGS: [&str; 8] = [
    "--cfg fuzzing",
    "--cfg fuzzing_libfuzzer",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-sanitizer-coverage-stack-depth",
];
/// Seconds after which one input counts as one that hangs.
const INPUT_SECONDS_MAX: u32 = 10;
/// Memory of the whole process: no decoder may make much of little.
const MEMORY_MIB_MAX: u32 = 1500;
/// Time between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(20);
/// Inputs of one target in the repository, and bytes of each: tests run them all, every time.
const CORPUS_FILES_MAX: usize = 40;
const CORPUS_FILE_BYTES_MAX: u64 = 4 << 10;

/// Lists the targets, or runs one, or takes over what it has found.
///
/// # Errors
/// When there is no such target, it does not build, or an input failed.
pub(crate) fn run(name: Option<&str>, list: bool, duration: &str, reduce: bool) -> anyhow::Result<()> {
    let Some(name) = name.filter(|_| !list) else {
        for target in &TARGETS {
            println!("{:<14} {:<22} {}", target.name, target.package, target.what);
        }
        return Ok(());
    };
    let known = || TARGETS.map(|target| target.name).join(", ");
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.with_context(|| format!("there is no target `{name}`; the targets are: {}", known()))?;
    let seconds = self::duration(duration)?.as_secs();
    let program = build(target)?;
    let found = root().join(FOUND).join(target.name);
    let committed = root().join(target.folder());
    for folder in [&found, &committed.join("corpus"), &committed.join("crashes"), &root().join(LOGS)] {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let outcome =
        if reduce { take_over(target, &program, &found, &committed) } else { look(target, &program, &found, seconds) };
    // Git keeps no empty folders, and neither does a run that found nothing.
    let _ = fs::remove_dir(committed.join("crashes"));
    outcome
}

/// Reads a duration as people write it: `90s`, `20m`, `2h`.
pub(crate) fn duration(duration: &str) -> anyhow::Result<Duration> {
    let (number, unit) = duration.split_at(duration.find(|c: char| !c.is_ascii_digit()).unwrap_or(duration.len()));
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => anyhow::bail!("`{duration}` is no duration: write 90s, 20m or 2h"),
    };
    let number: u64 = number.parse().with_context(|| format!("`{duration}` is no duration"))?;
    let seconds = number.checked_mul(unit).filter(|seconds| *seconds > 0);
    seconds.map(Duration::from_secs).context("the duration is nothing, or too long")
}

/// Builds the binary that has the target, and returns its path.
fn build(target: &Target) -> anyhow::Result<PathBuf> {
    let host = Command::new("rustc").arg("-vV").output().context("ask rustc for its host")?;
    let host = String::from_utf8(host.stdout)?;
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc does not name its host")?;
    let mut cargo = Command::new("cargo");
    // With `--target`, build scripts and macros are built without the flags.
    cargo.args(["test", "--no-run", "--profile", "fuzz", "--target", host, "--target-dir", BUILD]);
    cargo.args(["--package", target.package, "--message-format", "json-render-diagnostics"]).args(target.binary());
    cargo.args(target.features());
    cargo.env("RUSTFLAGS", FLAGS.join(" ")).env("BOLERO_FUZZER", "libfuzzer").current_dir(root());
    let output = cargo.stderr(Stdio::inherit()).output().context("run cargo")?;
    anyhow::ensure!(output.status.success(), "`{}` does not build for fuzzing", target.package);
    let messages = cargo_metadata::Message::parse_stream(output.stdout.as_slice());
    let programs = messages.filter_map(|message| match message {
        Ok(cargo_metadata::Message::CompilerArtifact(artifact)) if artifact.profile.test => artifact.executable,
        _ => None,
    });
    programs.last().map(Into::into).context("cargo built no test")
}

/// A run of the target under libFuzzer, with these arguments.
fn fuzzer(target: &Target, program: &Path, arguments: &[String]) -> Command {
    let mut fuzzer = Command::new(program);
    fuzzer.args([target.test, "--exact", "--nocapture", "--quiet", "--test-threads", "1"]);
    fuzzer.env("BOLERO_TEST_NAME", target.test).env("BOLERO_LIBTEST_HARNESS", "1");
    let limits = [
        format!("-timeout={INPUT_SECONDS_MAX}"),
        format!("-rss_limit_mb={MEMORY_MIB_MAX}"),
        format!("-max_len={}", target.bytes_max),
    ];
    let arguments: Vec<&str> = arguments.iter().chain(&limits).map(String::as_str).collect();
    fuzzer.env("BOLERO_LIBFUZZER_ARGS", arguments.join(" ")).current_dir(root());
    fuzzer
}

/// Looks for inputs that reach what none has reached, and for one that fails.
fn look(target: &Target, program: &Path, found: &Path, seconds: u64) -> anyhow::Result<()> {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let log_path = root().join(LOGS).join(format!("{}-{since_1970}.log", target.name));
    let crashes = root().join(target.folder()).join("crashes");
    let arguments = [
        found.display().to_string(),
        root().join(target.folder()).join("corpus").display().to_string(),
        format!("-artifact_prefix={}/", crashes.display()),
        format!("-max_total_time={seconds}"),
        "-print_final_stats=1".to_owned(),
    ];
    let mut child = fuzzer(target, program, &arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut log = File::create(&log_path).with_context(|| format!("write {}", log_path.display()))?;
    let mut progress = Progress::default();
    for line in BufReader::new(child.stderr.take().context("the target says nothing")?).lines() {
        let line = line?;
        writeln!(log, "{line}")?;
        progress.take(&line);
    }
    let status = child.wait()?;
    println!("{}: {progress}; log: {}", target.name, log_path.display());
    anyhow::ensure!(
        status.success(),
        "an input of `{}` failed; it is in {}, from where tests run it from now on",
        target.name,
        crashes.display()
    );
    Ok(())
}

/// How a run is coming along, by libFuzzer's lines (`#4096 NEW cov: 310 ft: 702 corp: 61/4096b …`).
#[derive(Default)]
struct Progress {
    executions: u64,
    /// Edges that were reached by what was there before, and are reached now.
    edges_first: Option<u64>,
    edges: u64,
    corpus: String,
    printed: Option<Instant>,
}

impl Progress {
    fn take(&mut self, line: &str) {
        if let Some(executions) = line.strip_prefix("stat::number_of_executed_units: ") {
            self.executions = executions.trim().parse().unwrap_or(self.executions);
        }
        let mut words = line.split_whitespace();
        let Some(executions) = words.next().and_then(|word| word.strip_prefix('#')) else { return };
        let words: Vec<&str> = words.collect();
        let value_of = |name: &str| {
            let mut pairs = words.iter().zip(words.iter().skip(1));
            pairs.find(|(word, _)| **word == name).map(|(_, value)| *value)
        };
        let Some(edges) = value_of("cov:").and_then(|edges| edges.parse().ok()) else { return };
        self.executions = executions.parse().unwrap_or(self.executions);
        self.edges = edges;
        if words.first() == Some(&"INITED") {
            self.edges_first = Some(edges);
        }
        self.corpus = value_of("corp:").unwrap_or_default().to_owned();
        if self.printed.is_none_or(|printed| printed.elapsed() >= PROGRESS_EVERY) {
            self.printed = Some(Instant::now());
            println!("{self}");
        }
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { executions, edges, edges_first, corpus, .. } = self;
        let new = edges.saturating_sub(edges_first.unwrap_or(*edges));
        write!(f, "{executions} executions, {edges} edges, {new} of them new, corpus {corpus}")
    }
}

/// Replaces the committed corpus by the fewest inputs that reach all edges that any of them and of those found reach.
fn take_over(target: &Target, program: &Path, found: &Path, committed: &Path) -> anyhow::Result<()> {
    let control = root().join(LOGS).join(format!("{}-merge", target.name));
    let (nothing, corpus) = (root().join(FOUND).join(format!("{}-merge", target.name)), committed.join("corpus"));
    let _ = fs::remove_file(&control);
    fs::create_dir_all(&nothing)?;
    let arguments = [
        "-set_cover_merge=1".to_owned(),
        format!("-merge_control_file={}", control.display()),
        nothing.display().to_string(),
        found.display().to_string(),
        corpus.display().to_string(),
    ];
    let status = fuzzer(target, program, &arguments).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    anyhow::ensure!(status.success(), "`{}` fails on what it has found; run it to see on what", target.name);
    let inputs = control::read(&fs::read_to_string(&control)?);
    let small = |path: &Path| fs::metadata(path).is_ok_and(|file| file.len() <= CORPUS_FILE_BYTES_MAX);
    let chosen = control::cover(inputs.into_iter().filter(|input| small(&input.path)).collect(), CORPUS_FILES_MAX);
    let mut contents = BTreeSet::new();
    for path in &chosen {
        contents.insert(fs::read(path)?);
    }
    fs::remove_dir_all(&corpus)?;
    fs::create_dir_all(&corpus)?;
    for (number, content) in contents.iter().enumerate() {
        fs::write(corpus.join(format!("{number:02}")), content)?;
    }
    fs::remove_dir_all(&nothing)?;
    println!("{}: {} inputs in {}", target.name, contents.len(), corpus.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(duration("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("20m").unwrap(), Duration::from_secs(1200));
        for wrong in ["", "20", "m", "0m", "1d", "99999999999999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn progress_is_read_off_the_lines_of_the_fuzzer() {
        let mut progress = Progress::default();
        progress.take("#12\tINITED cov: 300 ft: 400 corp: 9/80b exec/s: 0 rss: 37Mb");
        progress.take("#4096\tNEW    cov: 310 ft: 702 corp: 61/4096b lim: 80 exec/s: 400 rss: 37Mb L: 7/80 MS: 1");
        progress.take("stat::number_of_executed_units: 5000");
        assert_eq!(progress.to_string(), "5000 executions, 310 edges, 10 of them new, corpus 61/4096b");
    }
}
