//! The process by the names that Prometheus' own clients use, read from `/proc`. Elsewhere than on Linux there are none.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

#[derive(Debug)]
pub(super) struct Process {
    /// What `/proc` counts time in: ticks a second.
    ticks: f64,
    page: f64,
}

/// What `/proc/self/stat` tells, in seconds and bytes.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu: f64,
    threads: f64,
    /// After the machine's start.
    started: f64,
    virtual_memory: f64,
    resident_memory: f64,
}

impl Process {
    pub(super) fn new() -> Self {
        Self { ticks: rustix::param::clock_ticks_per_second() as f64, page: rustix::param::page_size() as f64 }
    }

    fn parse(&self, stat: &str) -> Option<Stat> {
        // The second field is the program's name, which may hold anything; what comes after its bracket are numbers.
        let (_, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<f64>().ok(); // by the numbers of proc(5)
        Some(Stat {
            cpu: (number(14)? + number(15)?) / self.ticks,
            threads: number(20)?,
            started: number(22)? / self.ticks,
            virtual_memory: number(23)?,
            resident_memory: number(24)? * self.page,
        })
    }
}

/// Seconds since 1970 at the machine's start.
fn booted() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(stat) = fs::read_to_string("/proc/self/stat").ok().and_then(|stat| self.parse(&stat)) else {
            return Ok(());
        };
        encoder
            .encode_descriptor("process_cpu", "Processor time used", Some(&Unit::Seconds), MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, f64>(&stat.cpu, None)?;
        let open = fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64);
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.map(|limit| limit as f64);
        let gauges = [
            ("process_resident_memory", "Memory that is in use", Some(Unit::Bytes), Some(stat.resident_memory)),
            ("process_virtual_memory", "Memory that is reserved", Some(Unit::Bytes), Some(stat.virtual_memory)),
            ("process_threads", "Threads", None, Some(stat.threads)),
            ("process_open_fds", "Open files and sockets", None, open),
            ("process_max_fds", "How many may be open", None, limit),
            (
                "process_start_time",
                "When the process was started, since 1970",
                Some(Unit::Seconds),
                booted().map(|booted| booted + stat.started),
            ),
        ];
        for (name, help, unit, value) in gauges {
            if let Some(value) = value {
                encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_have_any_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 9 0 1000 4096 3 18446744073709551615";
        let process = Process { ticks: 100.0, page: 4096.0 };
        let expected = Stat { cpu: 2.0, threads: 9.0, started: 10.0, virtual_memory: 4096.0, resident_memory: 12288.0 };
        assert_eq!(process.parse(stat), Some(expected));
        assert_eq!(process.parse(""), None);
    }
}
