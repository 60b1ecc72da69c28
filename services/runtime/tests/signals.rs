//! The signals of a real process. A file of its own, since the signal reaches every test beside it.

use std::process::ExitCode;
use std::time::Duration;

use parlance_runtime::lifecycle::Lifecycle;
use rustix::process::{Signal, getpid, kill_process};

#[tokio::test]
async fn sigterm_then_sigint_end_the_process_early_but_cleanly() {
    let life = Lifecycle::new();
    let (soft, hard) = (life.soft(), life.hard());
    life.spawn("slow", {
        let hard = hard.clone();
        async move {
            hard.cancelled().await;
            Ok(())
        }
    });
    let signals = async {
        kill_process(getpid(), Signal::TERM).unwrap();
        soft.cancelled().await;
        assert!(!hard.is_cancelled());
        kill_process(getpid(), Signal::INT).unwrap();
    };
    // `run` is polled first: it listens by the time the first signal is sent.
    let both = async { tokio::join!(biased; life.run(Duration::from_secs(60)), signals) };
    let (code, ()) = tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
}
