//! Every documented setting reaches the containers of the compose file under its own name.
//!
//! The lists in `docker-compose.yml` are made of `defaults.toml` of the services; `make generate` writes them.

use std::collections::BTreeSet;

use parlance_harness::devstack::repository;

const BLESS: &str = "PARLANCE_BLESS";
const END: &str = "  # end of generated part\n";
/// What the compose file itself decides, because containers must find each other.
const FIXED: [&str; 8] = [
    "PARLANCE_HTTP_HOST",
    "PARLANCE_HTTP_PORT",
    "PARLANCE_INTERNAL_HOST",
    "PARLANCE_INTERNAL_PORT",
    "PARLANCE_NATS_URL",
    "PARLANCE_NATS_USER",
    "PARLANCE_NATS_PASSWORD",
    "PARLANCE_DATABASE_URL",
];

/// What both services have, and each needs a value of its own for: one name in `.env` would reach both.
const OWN: [&str; 5] = [
    "PARLANCE_NATS_CERT_FILE",
    "PARLANCE_NATS_CREDENTIALS_FILE",
    "PARLANCE_NATS_INBOX_PREFIX",
    "PARLANCE_NATS_KEY_FILE",
    "PARLANCE_SHUTDOWN_GRACE_MS",
];

/// The variables of all settings in a file of defaults.
fn variables(defaults: &str) -> BTreeSet<String> {
    let mut section = String::new();
    let mut found = BTreeSet::new();
    for line in defaults.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = format!("{name}.");
            // A table of names that nobody can list is one setting.
            if name.contains('.') {
                found.insert(variable(name));
            }
        } else if let Some((key, _)) = line.split_once(" = ")
            && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        {
            found.insert(variable(&format!("{section}{key}")));
        }
    }
    found
}

fn variable(setting: &str) -> String {
    format!("PARLANCE_{}", setting.replace('.', "_").to_uppercase())
}

/// The compose file with its lists as they should be.
fn generated(compose: &str) -> String {
    let root = repository();
    let mut text = compose.to_owned();
    for (service, defaults) in [
        ("gateway", "services/gateway/defaults.toml"),
        ("persistence", "services/persistence/src/defaults.toml"),
    ] {
        let defaults = std::fs::read_to_string(root.join(defaults)).unwrap();
        let variables = variables(&defaults);
        assert!(variables.len() > 20, "{service}: {variables:?}");
        let lines: String = variables
            .iter()
            .filter(|name| !FIXED.contains(&name.as_str()) && !OWN.contains(&name.as_str()))
            .map(|name| format!("  {name}:\n"))
            .collect();
        let begin = format!("  # generated: settings of {service} (make generate)\n");
        let (before, rest) = text.split_once(&begin).expect("the beginning of the list");
        let (_, after) = rest.split_once(END).expect("the end of the list");
        text = format!("{before}{begin}{lines}{END}{after}");
    }
    text
}

#[test]
fn the_compose_file_passes_every_setting_on() {
    let file = repository().join("docker-compose.yml");
    let compose = std::fs::read_to_string(&file).unwrap();
    let wanted = generated(&compose);
    if parlance_harness::environment::variable(BLESS).is_some() {
        std::fs::write(&file, &wanted).unwrap();
        return;
    }
    assert!(
        compose == wanted,
        "docker-compose.yml does not pass every setting on: run `make generate`"
    );
    for name in [
        "PARLANCE_JWT_JWKS_URL",
        "PARLANCE_HTTP_TRUSTED_PROXIES",
        "PARLANCE_DIALECT_ORIGINS",
    ] {
        assert!(compose.contains(&format!("\n  {name}:\n")), "{name}");
    }
}

/// What the compose file says itself wins over its lists, so it must ask `.env` first.
#[test]
fn the_compose_file_decides_nothing_that_it_passes_on() {
    let compose = std::fs::read_to_string(repository().join("docker-compose.yml")).unwrap();
    let lines = || compose.lines().map(str::trim);
    let passed: BTreeSet<&str> = lines().filter_map(|line| line.strip_suffix(':')).collect();
    for line in lines().filter(|line| line.starts_with("PARLANCE_")) {
        if let Some((name, value)) = line.split_once(": ")
            && passed.contains(name)
        {
            assert!(value.starts_with(&format!("${{{name}")), "{line}");
        }
    }
}

/// With `:-` an empty value in `.env` would become the one that everybody knows, instead of a refused start.
#[test]
fn an_empty_secret_never_becomes_a_public_one() {
    let root = repository();
    for file in ["docker-compose.yml", "deploy/compose.tls.yml"] {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        assert!(text.contains("-dev-only-"), "{file}");
        for line in text.lines() {
            assert!(!line.contains(":-dev-only-"), "{file}: {line}");
        }
    }
}
