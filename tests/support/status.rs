//! What `oncecast status` shows.

use oncecast::lab::Cluster;

use super::programs::programs;

/// What `oncecast status` shows, and its exit code: 0, or 3 if something needs attention.
pub fn status(redis_url: &str) -> (String, i32) {
    let mut command = programs().command("oncecast").expect("the program is built");
    let output = command.args(["status", "--redis-url", redis_url]).output().expect("it runs");
    match output.status.code() {
        Some(code @ (0 | 3)) => (String::from_utf8_lossy(&output.stdout).into_owned(), code),
        _ => panic!("oncecast status: {output:?}"),
    }
}

/// Fails unless `oncecast status` shows a gap with this reason, and this count.
pub fn assert_status_shows_gap(cluster: &Cluster, reason: &str, count: &str) {
    // The exit code does not matter here.
    let (shown, _) = status(&cluster.redis_url());
    let many = match count {
        "unknown" => "how many are missing, if any, is unknown".to_owned(),
        count => format!("messages: {count}"),
    };
    let is_it = |line: &str| line.contains(&format!(" {reason}, ")) && line.ends_with(&many);
    assert!(shown.lines().any(is_it), "{reason} {count} is not in\n{shown}");
}
