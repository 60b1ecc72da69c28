//! What the settings refuse before a port is bound, and the forms a key may come in.

use std::io::Write;

use parlance_runtime::config::{Sources, Validate};

use super::*;

#[test]
fn settings_that_cannot_work_are_named() {
    let (rsa, ec) = (Issuer::rsa(), Issuer::ec());
    let refused = |change: &dyn Fn(&mut JwtSettings)| {
        let mut changed = settings();
        change(&mut changed);
        let invalid = changed.validate().unwrap_err();
        assert!(!invalid.to_string().contains("short-canary"), "{invalid}");
        invalid.key
    };
    assert_eq!(refused(&|_| {}), "jwt.secret");
    assert_eq!(
        refused(&|s| s.secret = SecretString::from("short-canary")),
        "jwt.secret"
    );
    assert_eq!(
        refused(&|s| s.secret = rsa.public_pem.clone().into()),
        "jwt.secret"
    );
    let both = |s: &mut JwtSettings| {
        s.secret = SecretString::from(SECRET);
        s.jwks_url = "https://id.example.org/keys".to_owned();
    };
    assert_eq!(refused(&both), "jwt.secret");
    for junk in [
        "x",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    ] {
        assert_eq!(refused(&|s| s.public_key = junk.to_owned()), "jwt.public_key");
    }
    assert_eq!(
        refused(&|s| s.public_key = ec.private_pem.clone()),
        "jwt.public_key"
    );
    assert_eq!(
        refused(&|s| s.public_key_file = "/nonexistent".to_owned()),
        "jwt.public_key_file"
    );
    for url in [
        "id.example.org",
        "ftp://id.example.org/keys",
        "file:///etc/passwd",
        "http://",
    ] {
        assert_eq!(refused(&|s| s.jwks_url = url.to_owned()), "jwt.jwks_url");
    }
    let unfit = |s: &mut JwtSettings| {
        *s = with_key(&rsa);
        s.algorithms = vec!["HS256".to_owned()];
    };
    assert_eq!(refused(&unfit), "jwt.algorithms");
    for name in ["none", "RS999", ""] {
        let unknown = |s: &mut JwtSettings| {
            *s = with_secret();
            s.algorithms = vec![name.to_owned()];
        };
        assert_eq!(refused(&unknown), "jwt.algorithms");
    }
    assert_eq!(refused(&|s| s.leeway_seconds = 61), "jwt.leeway_seconds");
    assert_eq!(
        refused(&|s| s.not_before_wait_seconds = 61),
        "jwt.not_before_wait_seconds"
    );
    assert_eq!(
        refused(&|s| s.jwks_refresh_seconds = 1),
        "jwt.jwks_refresh_seconds"
    );
    for claims in [Vec::new(), vec!["sub".to_owned(), String::new()]] {
        assert_eq!(
            refused(&|s| s.subject_claims.clone_from(&claims)),
            "jwt.subject_claims"
        );
    }
    assert_eq!(refused(&|s| s.audience = vec![String::new()]), "jwt.audience");
}

#[tokio::test]
async fn a_key_may_stand_in_a_file_or_on_one_line() {
    let issuer = Issuer::ed();
    let token = issuer.sign(&good_claims());
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(issuer.public_pem.as_bytes()).unwrap();
    let from_file = JwtSettings {
        public_key_file: file.path().display().to_string(),
        ..settings()
    };
    assert!(check(&from_file, &token).await.is_ok());
    let on_one_line = JwtSettings {
        public_key: issuer.public_pem.replace('\n', "\\n"),
        ..settings()
    };
    assert!(check(&on_one_line, &token).await.is_ok());
}

#[test]
fn the_defaults_lack_nothing_but_a_key() {
    #[derive(Debug, Deserialize)]
    struct Section {
        jwt: JwtSettings,
    }
    impl Validate for Section {
        fn validate(&self) -> Result<(), Invalid> {
            self.jwt.validate()
        }
    }
    let load = |env: &[(&str, &str)]| {
        let env = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let sources = Sources {
            defaults: include_str!("../../../defaults.toml"),
            file: None,
            env: env.collect(),
            aliases: &[],
        };
        parlance_runtime::config::load::<Section>(&sources)
    };
    assert_eq!(load(&[]).unwrap_err().key(), "jwt.secret");
    let loaded = load(&[
        ("PARLANCE_JWT_SECRET", SECRET),
        ("PARLANCE_JWT_ALGORITHMS", "HS256,HS512"),
    ])
    .unwrap();
    assert_eq!(loaded.jwt.keys().unwrap().1, [Algorithm::HS256, Algorithm::HS512]);
    assert!(!format!("{:?}", loaded.jwt).contains(SECRET));
}
