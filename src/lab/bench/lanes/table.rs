//! The figures for all numbers of lanes as lines of text.

use super::{CONSUMERS, DISPATCHERS, Lanes, MEASURED, Point, all_us, cpu_us};
use crate::lab::bench::contender::Role;
use crate::lab::bench::cpu::Footprint;
use crate::lab::bench::run::Measurement;
use crate::lab::numbers::{grouped, median};

impl Lanes {
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![String::new(), "at full load".to_owned()];
        lines.extend(heads("messages/s", "spread"));
        for point in &self.points {
            let (least, most) = point.least_and_most();
            let spread = format!("{}–{}", grouped(least as u64), grouped(most as u64));
            lines.push(self.row(point, &grouped(point.per_s() as u64), &spread, |point| &point.full));
        }
        let rates = self.points.first().map_or(0, |point| point.at_rates.len());
        for at in 0..rates {
            let rate = self.points[0].at_rates[at].0;
            lines.extend([String::new(), format!("at {} messages/s in each lane", grouped(rate))]);
            lines.extend(heads("", ""));
            lines.extend(self.points.iter().map(|point| self.row(point, "", "", |point| &point.at_rates[at].1)));
        }
        lines.extend(self.idle_lines());
        lines.push(String::new());
        lines
    }

    fn row(&self, point: &Point, speed: &str, spread: &str, of: impl Fn(&Point) -> &[Measurement]) -> String {
        let all = |point: &Point| median(of(point).iter().map(all_us));
        let [redis, publishers, dispatchers, consumers] = Role::ALL.map(|role| cpu_us(of(point), role));
        let spent = all(point);
        let first = self.points.first().map_or(spent, all);
        format!(
            "{:>5} {speed:>10} {spread:>19} {redis:>8.2} {publishers:>8.2} {dispatchers:>8.2} {consumers:>8.2} \
             {spent:>8.2} {:>6.2}",
            point.lanes,
            spent / first.max(1e-9),
        )
    }

    fn idle_lines(&self) -> Vec<String> {
        let mut lines = vec![
            String::new(),
            "without load: µs of CPU for each second, and what a process has".to_owned(),
            format!("{:>5} {:>26} {:>26} {:>26}", "", "all of them", "a dispatcher", "a consumer"),
            format!(
                "{:>5} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
                "lanes", "redis", "dispatch", "consume", "threads", "sockets", "MiB", "threads", "sockets", "MiB"
            ),
        ];
        for point in &self.points {
            let cpu: String = MEASURED.iter().map(|role| format!(" {:>8.0}", point.idle_us(*role))).collect();
            let process = |role: Role| {
                let of = |figure: fn(&Footprint) -> u64| point.footprint(role, figure);
                let (threads, sockets) = (of(|found| found.threads), of(|found| found.sockets));
                format!(" {threads:>8.0} {sockets:>8.0} {:>8.1}", of(|found| found.memory_kib) / 1024.0)
            };
            let (dispatcher, consumer) = (process(Role::Dispatchers), process(Role::Consumers));
            lines.push(format!("{:>5}{cpu}{dispatcher}{consumer}", point.lanes));
        }
        if let [first, .., last] = &self.points[..]
            && last.lanes > first.lanes
        {
            let of_lane = |role: Role| {
                let more = last.idle_us(role) - first.idle_us(role);
                more / (last.lanes - first.lanes) as f64
            };
            let [redis, dispatchers, consumers] = MEASURED.map(of_lane);
            lines.push(format!(
                "an idle lane takes {redis:.0} µs/s in Redis, {dispatchers:.0} in {DISPATCHERS} dispatchers and \
                 {consumers:.0} in {CONSUMERS} consumers"
            ));
        }
        lines
    }
}

fn heads(speed: &str, spread: &str) -> [String; 2] {
    [
        format!("{:>5} {speed:>10} {spread:>19} {:>44}", "", "µs of CPU per message"),
        format!(
            "{:>5} {:>10} {:>19} {:>8} {:>8} {:>8} {:>8} {:>8} {:>6}",
            "lanes", "", "", "redis", "publish", "dispatch", "consume", "sum", ""
        ),
    ]
}
