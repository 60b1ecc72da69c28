//! The health check of both programs, asked as a container's engine does: as a process with the service's settings.

use std::process::Output;

use parlance_harness::Stack;
use parlance_harness::devstack::process::Process;
use parlance_harness::devstack::service::Kind;
use tokio::process::Command;

/// Asks the replica that runs with this internal address.
async fn ask(kind: Kind, replica: &Process, arguments: &[&str]) -> Output {
    let port = replica.internal_url().rsplit(':').next().unwrap();
    Command::new(kind.binary().unwrap())
        .arg("healthcheck")
        .args(arguments)
        .env_clear()
        .env("PARLANCE_INTERNAL_HOST", "0.0.0.0")
        .env("PARLANCE_INTERNAL_PORT", port)
        .env("PARLANCE_JWT_SECRET", "a secret that no token needs here")
        .output()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_lives_without_nats_but_is_not_ready_and_a_dead_one_does_neither() {
    let stack = Stack::builder().start().await.unwrap();
    let replicas = [
        (Kind::Gateway, stack.gateway(0)),
        (Kind::Persistence, stack.persistence(0)),
    ];
    for (kind, replica) in replicas {
        for arguments in [&[] as &[&str], &["--ready"]] {
            let output = ask(kind, replica, arguments).await;
            assert!(output.status.success(), "{kind:?}: {output:?}");
            assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
        }
    }
    stack.nats().kill();
    for (kind, replica) in replicas {
        let unready = || async { !ask(kind, replica, &["--ready"]).await.status.success() };
        let within = std::time::Duration::from_secs(20);
        parlance_harness::eventually::eventually(within, "unready without NATS", unready)
            .await
            .unwrap();
        let output = ask(kind, replica, &[]).await;
        assert!(output.status.success(), "{kind:?}: {output:?}");
    }
    for (kind, replica) in replicas {
        replica.kill();
        let output = ask(kind, replica, &[]).await;
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(
            told.lines().count() == 1 && told.contains("no answer") && told.contains("/livez"),
            "{told}"
        );
    }
}
