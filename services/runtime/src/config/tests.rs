//! The three layers together, from maps and throw-away files instead of the process's own.

use std::io::Write;

use serde::Deserialize;
use tempfile::NamedTempFile;

use super::*;

const DEFAULTS: &str = r#"
# Name of this replica.
instance = ""

[http]
# Port for clients.
port = 4004
hosts = ["127.0.0.1"]

[http.limits]
content_bytes = 65536
ratio = 0.5

[bus]
url = "nats://127.0.0.1:4222"

[jwt]
secret = ""
strict = true
mode = "jit"
token_mode = "jit"

# Dialect of each origin.
[origins]
"#;

const ALIASES: &[(&str, &str)] = &[("PORT", "http.port"), ("NATS_URL", "bus.url")];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    instance: String,
    http: Http,
    bus: Bus,
    jwt: Jwt,
    origins: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Http {
    port: u16,
    hosts: Vec<String>,
    limits: Limits,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    content_bytes: u32,
    ratio: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bus {
    url: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Jwt {
    secret: secrecy::SecretString,
    strict: bool,
    mode: Mode,
    token_mode: Mode,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Jit,
    Strict,
}

impl Validate for Settings {
    fn validate(&self) -> Result<(), Invalid> {
        in_range(
            "http.limits.content_bytes",
            self.http.limits.content_bytes,
            1..=1_048_576,
        )?;
        not_empty("bus.url", &self.bus.url, "the URL of the bus")?;
        one_of("instance", &self.instance, &["", "a", "b"])
    }
}

fn sources(env: &[(&str, &str)]) -> Sources {
    let env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Sources {
        defaults: DEFAULTS,
        file: None,
        env,
        aliases: ALIASES,
    }
}

fn file(content: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

fn load_env(env: &[(&str, &str)]) -> Result<Settings, String> {
    load(&sources(env)).map_err(|error| error.to_string())
}

fn refused_env(env: &[(&str, &str)]) -> String {
    load_env(env).unwrap_err()
}

fn load_file(content: &str, env: &[(&str, &str)]) -> Result<Settings, String> {
    let file = file(content);
    let sources = Sources {
        file: Some(file.path().to_owned()),
        ..sources(env)
    };
    let shown = file.path().display().to_string();
    load(&sources).map_err(|error| error.to_string().replace(&shown, "FILE"))
}

#[test]
fn defaults_alone_are_enough() {
    let settings = load_env(&[]).unwrap();
    assert_eq!(settings.http.port, 4004);
    assert_eq!(settings.http.hosts, ["127.0.0.1"]);
    assert_eq!(settings.jwt.mode, Mode::Jit);
    assert_eq!(settings.jwt.token_mode, Mode::Jit);
    assert!(settings.jwt.strict && settings.origins.is_empty());
    assert!((settings.http.limits.ratio - 0.5).abs() < f64::EPSILON);
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let content = "[http]\nport = 1\n[http.limits]\nratio = 1\n[jwt]\nmode = \"strict\"\n";
    let settings = load_file(content, &[("PARLANCE_HTTP_PORT", "2")]).unwrap();
    assert_eq!(settings.http.port, 2);
    assert_eq!(settings.jwt.mode, Mode::Strict);
    assert_eq!(settings.http.limits.content_bytes, 65536);
    assert!((settings.http.limits.ratio - 1.0).abs() < f64::EPSILON);
}

#[test]
fn variables_take_the_type_of_the_default() {
    let settings = load_env(&[
        ("PARLANCE_INSTANCE", "a"),
        ("PARLANCE_HTTP_HOSTS", "::1, 10.0.0.1,"),
        ("PARLANCE_HTTP_LIMITS_CONTENT_BYTES", " 10 "),
        ("PARLANCE_HTTP_LIMITS_RATIO", "1"),
        ("PARLANCE_JWT_SECRET", "12345"),
        ("PARLANCE_JWT_STRICT", "false"),
        (
            "PARLANCE_ORIGINS",
            "https://chat.example.org:8443=inbox, https://b.example=threads",
        ),
    ])
    .unwrap();
    assert_eq!(settings.instance, "a");
    assert_eq!(settings.http.hosts, ["::1", "10.0.0.1"]);
    assert_eq!(settings.http.limits.content_bytes, 10);
    assert_eq!(
        secrecy::ExposeSecret::expose_secret(&settings.jwt.secret),
        "12345"
    );
    assert!(!settings.jwt.strict);
    assert_eq!(settings.origins["https://chat.example.org:8443"], "inbox");
    assert_eq!(settings.origins.len(), 2);
}

#[test]
fn a_free_form_table_may_stand_in_the_file() {
    let content = "[origins]\n\"https://chat.example.org\" = \"inbox\"\n";
    let settings = load_file(content, &[("PARLANCE_ORIGINS", "null=native")]).unwrap();
    assert_eq!(settings.origins["https://chat.example.org"], "inbox");
    assert_eq!(settings.origins["null"], "native");
}

#[test]
fn an_alias_works_and_the_full_name_wins_over_it() {
    assert_eq!(load_env(&[("PORT", "5")]).unwrap().http.port, 5);
    let both = load_env(&[("PORT", "5"), ("PARLANCE_HTTP_PORT", "6")]).unwrap();
    assert_eq!(both.http.port, 6);
    let line = refused_env(&[("PORT", "http")]);
    let expected = "bad configuration: http.port = \"http\" (from the environment variable PORT): must be a whole number";
    assert_eq!(line, expected);
}

#[test]
fn a_value_of_the_wrong_type_names_variable_value_and_type() {
    let line = refused_env(&[("PARLANCE_JWT_STRICT", "yes")]);
    let expected = "bad configuration: jwt.strict = \"yes\" \
                    (from the environment variable PARLANCE_JWT_STRICT): must be true or false";
    assert_eq!(line, expected);
    let line = load_file("[http]\nport = \"4004\"", &[]).unwrap_err();
    let expected = "bad configuration: http.port = \"4004\" (from the file FILE): must be a whole number";
    assert_eq!(line, expected);
    for (variable, value) in [
        ("PARLANCE_HTTP_LIMITS_RATIO", "NaN"),
        ("PARLANCE_HTTP_PORT", ""),
        ("PARLANCE_HTTP_PORT", "99999999999999999999"),
        ("PARLANCE_ORIGINS", "no-equals-sign"),
    ] {
        assert!(
            refused_env(&[(variable, value)]).contains(variable),
            "{variable}={value}"
        );
    }
}

#[test]
fn a_value_that_the_field_cannot_hold_names_its_origin() {
    let line = refused_env(&[("PARLANCE_HTTP_PORT", "70000")]);
    assert!(line.contains("http.port = \"70000\""), "{line}");
    assert!(line.contains("PARLANCE_HTTP_PORT"), "{line}");
    let line = load_file("[jwt]\nmode = \"always\"", &[]).unwrap_err();
    assert!(
        line.contains("jwt.mode = \"always\" (from the file FILE)"),
        "{line}"
    );
    assert!(line.contains("jit") && line.contains("strict"), "{line}");
    assert!(refused_env(&[("PARLANCE_HTTP_LIMITS_CONTENT_BYTES", "-1")]).contains("-1"));
}

#[test]
fn a_value_out_of_range_names_its_origin_and_the_range() {
    let line = refused_env(&[("PARLANCE_HTTP_LIMITS_CONTENT_BYTES", "0")]);
    let expected = "bad configuration: http.limits.content_bytes = \"0\" \
                    (from the environment variable PARLANCE_HTTP_LIMITS_CONTENT_BYTES): \
                    must be within 1 and 1048576";
    assert_eq!(line, expected);
    let line = load_file("[bus]\nurl = \"\"", &[]).unwrap_err();
    assert_eq!(
        line,
        "bad configuration: bus.url (from the file FILE): must be the URL of the bus"
    );
    let line = refused_env(&[("PARLANCE_INSTANCE", "c")]);
    assert!(line.ends_with("must be one of , a, b"), "{line}");
}

#[test]
fn an_unknown_key_in_the_file_is_refused_with_the_known_ones() {
    let line = load_file("[http]\nprot = 1", &[]).unwrap_err();
    let expected = "bad configuration: http.prot (from the file FILE): \
                    is not a setting; known here: http.hosts, http.port, http.limits";
    assert_eq!(line, expected);
    let line = load_file("[web]\nport = 1", &[]).unwrap_err();
    assert!(
        line.contains("web (from the file FILE): is not a setting"),
        "{line}"
    );
    assert!(load_file("http = 3", &[]).unwrap_err().contains("http"));
}

#[test]
fn an_unknown_variable_in_a_known_section_is_refused_and_any_other_ignored() {
    let line = refused_env(&[("PARLANCE_JWT_SECRETS", "canary-value")]);
    let expected = "bad configuration: PARLANCE_JWT_SECRETS: is not a setting; known here: \
                    PARLANCE_JWT_MODE, PARLANCE_JWT_SECRET, PARLANCE_JWT_STRICT, PARLANCE_JWT_TOKEN_MODE";
    assert_eq!(line, expected);
    let others = [
        ("PARLANCE_STORE_URL", "x"),
        ("PARLANCE_GATEWAYS", "y"),
        ("HTTP_PORT", "z"),
    ];
    assert!(load_env(&others).is_ok());
}

#[test]
fn secrets_never_reach_an_error_line() {
    const CANARY: &str = "canary-7f3a";
    let quoted = format!("\"{CANARY}\"");
    let with_user = format!("nats://ann:{CANARY}@bus");
    let lines = [
        load_file(&format!("[jwt]\nsecret = [{quoted}]"), &[]).unwrap_err(),
        load_file(&format!("[jwt]\nsecret = {quoted}\nstrict ="), &[]).unwrap_err(),
        load_file(&format!("[jwt]\nsecret = \"{CANARY}"), &[]).unwrap_err(),
        load_file(&format!("[http]\nport = \"{with_user}\""), &[]).unwrap_err(),
        refused_env(&[("PARLANCE_HTTP_PORT", &with_user)]),
        refused_env(&[("PARLANCE_JWT_SECRET_KEY", CANARY)]),
        refused_env(&[("PARLANCE_JWT_TOKEN_MODE", CANARY)]),
        refused_env(&[("PARLANCE_JWT_SECRET", CANARY), ("PARLANCE_HTTP_PORT", "x")]),
        Invalid::new("jwt.secret", CANARY, "longer").to_string(),
        Invalid::new("bus.url", with_user, "reachable").to_string(),
    ];
    for line in lines {
        assert!(!line.contains(CANARY), "{line}");
        assert!(!line.contains('\n'), "{line}");
    }
}

#[test]
fn a_file_that_cannot_be_read_or_parsed_is_named() {
    let missing = Sources {
        file: Some("/nonexistent/parlance.toml".into()),
        ..sources(&[])
    };
    let line = load::<Settings>(&missing).unwrap_err().to_string();
    assert!(
        line.contains("/nonexistent/parlance.toml") && line.contains("PARLANCE_CONFIG"),
        "{line}"
    );
    let line = load_file("[http]\nport = = 3", &[]).unwrap_err();
    assert!(
        line.contains("(from the file FILE)") && line.contains("line 2"),
        "{line}"
    );
}

#[test]
fn mistakes_in_the_defaults_are_found() {
    let with = |defaults| Sources {
        defaults,
        aliases: &[],
        ..sources(&[])
    };
    let line = load::<Settings>(&with("[a]\nb_c = 1\n[a_b]\nc = 2"))
        .unwrap_err()
        .to_string();
    assert!(line.contains("shares its environment variable"), "{line}");
    let line = load::<Settings>(&with("[a]\nb = [1]")).unwrap_err().to_string();
    assert!(line.contains("a.b"), "{line}");
    let stray = Sources {
        aliases: &[("X", "no.such")],
        ..sources(&[])
    };
    let line = load::<Settings>(&stray).unwrap_err().to_string();
    assert!(line.contains("no.such") && line.contains('X'), "{line}");
    let missing = load::<Settings>(&with("instance = \"\""))
        .unwrap_err()
        .to_string();
    assert!(
        missing.contains("origins") || missing.contains("missing"),
        "{missing}"
    );
}

#[test]
fn the_file_comes_from_its_variable() {
    let sources = Sources::from_process(DEFAULTS, ALIASES);
    assert_eq!(sources.file.is_some(), sources.env.contains_key(FILE_VARIABLE));
    assert!(sources.env.contains_key("PATH"));
}
