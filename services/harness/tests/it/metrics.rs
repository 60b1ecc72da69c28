//! Reads what processes count.

use parlance_harness::devstack::process::Process;

/// The sum over all series of this metric; nothing where there is none.
pub async fn gauge(process: &Process, name: &str) -> anyhow::Result<Option<f64>> {
    let text = reqwest::get(format!("{}/metrics", process.internal_url()))
        .await?
        .text()
        .await?;
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let own = rest.starts_with(' ') || rest.starts_with('{');
        own.then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
    });
    Ok(values.reduce(|sum, value| sum + value))
}

/// The sum over all processes of the series of this metric that have this label; 0 where there is none.
pub async fn sum(processes: &[Process], name: &str, label: &str) -> f64 {
    let mut sum = 0.0;
    for process in processes {
        let text = reqwest::get(format!("{}/metrics", process.internal_url()));
        let text = text.await.unwrap().text().await.unwrap();
        let series = text
            .lines()
            .filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
        sum += series
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>();
    }
    sum
}
