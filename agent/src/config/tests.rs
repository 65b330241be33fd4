use std::fs;

use clap::{Args as _, FromArgMatches as _};

use super::*;

const TOKEN: &str = "flt1_secret-in-a-test";

struct Home {
    directory: tempfile::TempDir,
    arguments: ConfigArguments,
    environment: Environment,
}

impl Home {
    /// A device with this configuration file, which every test names so that none reads the machine's own.
    fn with_file(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.toml");
        fs::write(&path, text).unwrap();
        let arguments = ConfigArguments { config: Some(path), ..ConfigArguments::default() };
        Self { directory, arguments, environment: Environment::new() }
    }

    fn set(&mut self, variable: &str, value: &str) {
        self.environment.insert(variable.to_owned(), value.to_owned());
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn read(&self) -> Result<Config, ConfigError> {
        Config::read(&self.arguments, &self.environment)
    }

    fn failure(&self) -> String {
        self.read().unwrap_err().to_string().replace(&self.directory.path().display().to_string(), "DIR")
    }

    fn origin(&self, key: &str) -> String {
        let shown = self.read().unwrap().show();
        let setting = shown.into_iter().find(|setting| setting.key == key).unwrap();
        setting.origin.to_string().replace(&self.directory.path().display().to_string(), "DIR")
    }
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() {
    let mut home = Home::with_file("");
    assert_eq!(home.read().unwrap().data_directory.value, Path::new(DEFAULT_DATA_DIRECTORY));
    assert_eq!(home.origin("data-directory"), "default");
    home.write("agent.toml", "# a comment\ndata-directory = \"/from-file\"\n");
    assert_eq!(home.origin("data-directory"), "file DIR/agent.toml:2 data-directory");
    home.set("FLEETD_AGENT_DATA_DIRECTORY", "/from-environment");
    assert_eq!(home.read().unwrap().data_directory.value, Path::new("/from-environment"));
    assert_eq!(home.origin("data-directory"), "environment FLEETD_AGENT_DATA_DIRECTORY");
    home.arguments.data_directory = Some("/from-flag".into());
    assert_eq!(home.read().unwrap().data_directory.value, Path::new("/from-flag"));
    assert_eq!(home.origin("data-directory"), "flag --data-directory");
}

#[test]
fn every_key_of_the_file_is_read() {
    let home = Home::with_file(
        "data-directory = '/d'\nrun-directory = '/r'\nlog-level = 'debug'\nspool-bytes-max = 8_388_608\n\
         servers = ['a.example:4433', '[::1]:4433']\nnetwork = 'lan'\ntimezone = 'Europe/Berlin'\nenroll-token = 'flt1_secret-in-a-test'\n",
    );
    let config = home.read().unwrap();
    assert_eq!(config.spool_bytes_max.value, 8 << 20);
    assert_eq!(config.servers.value, ["a.example:4433", "[::1]:4433"]);
    assert_eq!(config.network.value, Network::Lan);
    assert_eq!(config.timezone.value, Some("Europe/Berlin".parse().unwrap()));
    assert_eq!(config.log_level.value, "debug");
    assert_eq!(config.enroll_token.value.as_ref().map(Secret::reveal), Some(TOKEN));
    assert_eq!(config.socket.value, Path::new("/r/agent.sock"), "the socket follows the run directory");
}

#[test]
fn a_wrong_file_is_named_with_its_line_and_key_and_what_is_expected() {
    let case = |text: &str| Home::with_file(text).failure();
    assert_eq!(
        case("\nspool-bytes-max = \"many\"\n"),
        "DIR/agent.toml:2: spool-bytes-max is a text, expected a number of bytes without quotes"
    );
    assert_eq!(case("log-level = 3\n"), "DIR/agent.toml:1: log-level is a number, expected a text in quotes");
    assert_eq!(case("network = 'wifi'"), "DIR/agent.toml:1: network is a text, expected \"nat\" or \"lan\"");
    assert_eq!(
        case("timezone = 'Mars/Olympus'"),
        "DIR/agent.toml:1: timezone is a text, expected a time zone in quotes, as in \"Europe/Berlin\""
    );
    assert!(case("\n\nspol-bytes = 1\n").starts_with("DIR/agent.toml:3: unknown key \"spol-bytes\"; expected one of "));
    assert!(case("data-directory = \"/d\"\nlog-level = \n").starts_with("DIR/agent.toml:2: log-level: "));
    assert!(case("log-level = 'info\n").starts_with("DIR/agent.toml:1: log-level: "));
    assert!(case("log-level = 'a'\nservers = [\n  'a:1',\n").contains(": servers: "));
    assert!(case("log-level = 'a'\nlog-level = 'b'\n").starts_with("DIR/agent.toml:2: log-level: "));
    let in_table = case("[workload.coffee.environment]\nROAST = dark\n");
    assert!(in_table.starts_with("DIR/agent.toml:2: workload.coffee.environment.ROAST: "), "{in_table}");
    let nameless = case("what is this\n");
    assert!(nameless.starts_with("DIR/agent.toml:1: ") && !nameless.contains("=:"), "{nameless}");
    assert!(case("[agent]\nlog-level = 'info'").starts_with("DIR/agent.toml:1: unknown key \"agent\""));
    assert_eq!(
        case("data-directory = 'relative'"),
        "file DIR/agent.toml:1 data-directory is \"relative\", expected an absolute path"
    );
    assert!(case("servers = ['no-port']").contains("expected host:port"));
    assert!(case("spool-bytes-max = 1").contains("expected at least 1048576"));
}

#[test]
fn a_path_of_a_flag_is_from_where_the_caller_stands() {
    let flags = ["--data-directory", "./data", "--run-directory", "run", "--socket", "/run/a.sock"];
    let command = ConfigArguments::augment_args(clap::Command::new("agent").no_binary_name(true));
    let mut home = Home::with_file("");
    let matches = command.try_get_matches_from(flags).unwrap();
    let config = home.arguments.config.take();
    home.arguments = ConfigArguments { config, ..ConfigArguments::from_arg_matches(&matches).unwrap() };
    let (read, here) = (home.read().unwrap(), std::env::current_dir().unwrap());
    assert_eq!((read.data_directory.value, read.run_directory.value), (here.join("data"), here.join("run")));
    assert_eq!(read.socket.value, Path::new("/run/a.sock"));
}

#[test]
fn a_file_that_was_asked_for_has_to_be_there() {
    let home = Home::with_file("");
    fs::remove_file(home.directory.path().join("agent.toml")).unwrap();
    assert_eq!(home.failure(), "DIR/agent.toml cannot be read");
    assert!(
        matches!(home.read(), Err(ConfigError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound)
    );
}

#[test]
fn a_wrong_variable_is_named() {
    let mut home = Home::with_file("");
    home.set("FLEETD_AGENT_SPOOL_BYTES_MAX", "lots");
    assert_eq!(home.failure(), "environment FLEETD_AGENT_SPOOL_BYTES_MAX is \"lots\", expected a number of bytes");
}

#[test]
fn a_token_comes_from_the_nearest_place_and_is_never_printed() {
    let mut home = Home::with_file("");
    assert!(!home.read().unwrap().has_token());
    let expect = |home: &Home, origin: &str| {
        let config = home.read().unwrap();
        assert_eq!(config.enroll_token.value.as_ref().map(Secret::reveal), Some(TOKEN));
        assert_eq!(home.origin("enroll-token"), origin);
        let printed = format!("{config:?} {:?}", config.show());
        assert!(!printed.contains(TOKEN), "{printed}");
    };
    let token_file = home.write("token", &format!("{TOKEN}\n"));
    home.write("agent.toml", &format!("enroll-token-file = '{}'", token_file.display()));
    expect(&home, "file DIR/agent.toml:1 enroll-token-file");
    let credentials = home.directory.path().join("credentials");
    fs::create_dir(&credentials).unwrap();
    fs::write(credentials.join("enroll-token"), TOKEN).unwrap();
    home.set("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap());
    expect(&home, "credential DIR/credentials/enroll-token");
    home.set("FLEETD_AGENT_ENROLL_TOKEN", TOKEN);
    expect(&home, "environment FLEETD_AGENT_ENROLL_TOKEN");
    home.arguments.enroll_token_file = Some(token_file);
    expect(&home, "flag --enroll-token-file");
}

#[test]
fn two_tokens_of_one_place_and_an_empty_token_file_are_errors() {
    let mut home = Home::with_file("enroll-token = 'a'\nenroll-token-file = 'b'\n");
    assert!(matches!(home.read(), Err(ConfigError::TwoTokens { .. })));
    let empty = home.write("empty", " \n");
    home.arguments.enroll_token_file = Some(empty);
    assert_eq!(home.failure(), "the token file DIR/empty (from flag --enroll-token-file) cannot be used: it is empty");
}

#[test]
fn a_workload_is_given_what_its_table_says_and_nobody_is_shown_it() {
    let home = Home::with_file(&format!(
        "log-level = 'debug'\n\n[workload.coffee.environment]\nROAST = 'dark'\nPASSWORD = '{TOKEN}'\n\n\
         [workload.tea.environment]\nROAST = ''\n"
    ));
    let config = home.read().unwrap();
    let given = |workload: &str, name: &str| {
        let variables = config.environments.get(&workload.parse().unwrap())?;
        Some(variables.get(name)?.value.reveal().to_owned())
    };
    assert_eq!(given("coffee", "ROAST").as_deref(), Some("dark"));
    assert_eq!(given("coffee", "PASSWORD").as_deref(), Some(TOKEN));
    assert_eq!(given("tea", "ROAST").as_deref(), Some(""));
    assert_eq!(given("tea", "PASSWORD"), None);
    let key = "workload.coffee.environment.PASSWORD";
    assert_eq!(home.origin(key), format!("file DIR/agent.toml:5 {key}"));
    let printed = format!("{config:?} {:?}", config.show());
    assert!(!printed.contains(TOKEN) && !printed.contains("dark"), "{printed}");
}

#[test]
fn a_wrong_table_of_a_workload_is_named_with_its_line_and_key() {
    let case = |text: &str| Home::with_file(text).failure();
    assert_eq!(
        case("[workload.coffee.environment]\nROAST = 3\n"),
        "DIR/agent.toml:2: workload.coffee.environment.ROAST is a number, expected a text in quotes"
    );
    assert!(
        case("[workload.coffee]\nenv = 'x'\n").starts_with("DIR/agent.toml:2: unknown key \"workload.coffee.env\"")
    );
    assert_eq!(case("workload = 'coffee'\n"), "DIR/agent.toml:1: workload is a text, expected a table");
    let name = case("[workload.'Black Coffee'.environment]\n");
    assert!(name.starts_with("DIR/agent.toml:1: workload.Black Coffee is no workload's name"), "{name}");
    let secret = case(&format!("[workload.coffee.environment]\nPASSWORD = ['{TOKEN}']\n"));
    assert!(!secret.contains(TOKEN), "{secret}");
}

#[test]
fn a_secret_at_the_wrong_place_is_not_told() {
    let failure = Home::with_file(&format!("servers = '{TOKEN}'\n")).failure();
    assert!(!failure.contains(TOKEN), "{failure}");
}
