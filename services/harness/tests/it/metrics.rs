//! Reads what processes count.

use parlance_harness::devstack::process::Process;

/// The sum over all series of this metric; nothing where there is none.
pub async fn gauge(process: &Process, name: &str) -> anyhow::Result<Option<f64>> {
    labelled(process, name, "").await
}

/// The same, 0 where there is none.
pub async fn metric(process: &Process, name: &str) -> anyhow::Result<f64> {
    Ok(gauge(process, name).await?.unwrap_or_default())
}

/// The sum over all processes of the series of this metric that have this label; 0 where there is none.
pub async fn sum(processes: &[Process], name: &str, label: &str) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for process in processes {
        sum += labelled(process, name, label).await?.unwrap_or_default();
    }
    Ok(sum)
}

async fn labelled(process: &Process, name: &str, label: &str) -> anyhow::Result<Option<f64>> {
    let text = reqwest::get(format!("{}/metrics", process.internal_url()))
        .await?
        .text()
        .await?;
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let own = rest.starts_with([' ', '{']) && rest.contains(label);
        own.then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
    });
    Ok(values.reduce(|sum, value| sum + value))
}
