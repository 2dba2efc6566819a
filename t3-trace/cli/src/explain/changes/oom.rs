//! Reports of the kernel's OOM killer: invoker, cgroup, victim, free swap and the table of tasks.
//!
//! Format: Linux `mm/oom_kill.c` (`dump_header`, `dump_tasks`, `__oom_kill_process`). The table has
//! no parent of a process. Its memory is in pages, whose size is that of the victim's line.

use crate::explain::facts::Timed;

/// Limit of reports.
const REPORTS: usize = 8;
/// Limit of processes per report.
const LARGEST: usize = 5;
/// Page sizes of Linux, in KiB; the first is used if the victim's line does not show it.
const PAGES: [u64; 3] = [4, 16, 64];

/// One report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Time of its first line in milliseconds since the epoch.
    pub at_ms: i64,
    /// Process whose allocation failed.
    pub invoker: Option<String>,
    /// cgroup at its limit; `None` if the whole host was out of memory.
    pub cgroup: Option<String>,
    /// PID and name of the killed process.
    pub victim: Option<(u32, String)>,
    /// Free swap of the host in bytes.
    pub swap_free: Option<u64>,
    /// Swap of the host in bytes.
    pub swap_total: Option<u64>,
    /// Largest processes, the largest first.
    pub largest: Vec<Task>,
}

/// A process of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Process ID.
    pub pid: u32,
    /// Name (comm).
    pub name: String,
    /// Resident memory in bytes.
    pub rss: u64,
}

/// Whether a kernel line can be a part of a report.
#[must_use]
pub fn is_part(line: &str) -> bool {
    line.starts_with('[')
        || line.contains("oom-killer: ")
        || line.starts_with("oom-kill:")
        || line.contains("ut of memory: Killed process ")
        || line.trim_start().starts_with("Free swap")
        || line.trim_start().starts_with("Total swap")
}

/// Returns the reports in lines of the kernel, in their order.
#[must_use]
pub fn reports(lines: &[Timed<String>]) -> Vec<Report> {
    let mut all: Vec<Report> = Vec::new();
    let mut open: Option<(Report, Option<Columns>)> = None;
    for line in lines {
        let text = line.what.as_str();
        if let Some((invoker, _)) = text.split_once(" invoked oom-killer: ") {
            all.extend(open.take().map(|(report, _)| report));
            let invoker = Some(invoker.to_owned());
            open = Some((Report { at_ms: line.at_ms, invoker, ..Report::default() }, None));
        } else if let Some((report, columns)) = &mut open
            && report.take(text, columns)
        {
            all.extend(open.take().map(|(report, _)| report));
        }
        if all.len() >= REPORTS {
            return all;
        }
    }
    all.extend(open.map(|(report, _)| report));
    all
}

impl Report {
    /// Reads a line; true for the last one.
    fn take(&mut self, line: &str, columns: &mut Option<Columns>) -> bool {
        let line = line.trim();
        if let Some(read) = Columns::parse(line) {
            *columns = Some(read);
        } else if let Some(task) = columns.as_ref().and_then(|columns| columns.task(line)) {
            let at = self.largest.partition_point(|other| other.rss >= task.rss);
            self.largest.insert(at, task);
            self.largest.truncate(LARGEST);
        } else if let Some(values) = line.strip_prefix("oom-kill:") {
            self.cgroup = value(values, "oom_memcg=").map(str::to_owned);
        } else if let Some(size) = line.strip_prefix("Free swap") {
            self.swap_free = kib(size);
        } else if let Some(size) = line.strip_prefix("Total swap") {
            self.swap_total = kib(size);
        } else if let Some((_, rest)) = line.split_once("ut of memory: Killed process ") {
            self.victim = victim(rest);
            self.scale(rest);
            return true;
        }
        false
    }

    /// Sets the page size by which the table and the victim's line agree.
    fn scale(&mut self, victim_line: &str) {
        let kinds = ["anon-rss:", "file-rss:", "shmem-rss:"];
        let sizes =
            kinds.iter().filter_map(|kind| value(victim_line, kind)?.strip_suffix("kB")?.parse::<u64>().ok());
        let kib = sizes.fold(0_u64, u64::saturating_add);
        let pid = self.victim.as_ref().map(|(pid, _)| *pid);
        let pages = self.largest.iter().find(|task| Some(task.pid) == pid).map_or(0, |task| task.rss);
        let apart = |page: &u64| pages.saturating_mul(*page).abs_diff(kib);
        let page = if pages == 0 || kib == 0 {
            PAGES[0]
        } else {
            *PAGES.iter().min_by_key(|page| apart(page)).unwrap_or(&PAGES[0])
        };
        for task in &mut self.largest {
            task.rss = task.rss.saturating_mul(page).saturating_mul(1024);
        }
    }
}

/// Positions of the columns, which differ between versions of the kernel.
#[derive(Debug)]
struct Columns {
    rss: usize,
    name: usize,
}

impl Columns {
    /// `[  pid  ]   uid  tgid total_vm      rss rss_anon ... oom_score_adj name`.
    fn parse(line: &str) -> Option<Self> {
        let rest = line.strip_prefix('[')?.split_once(']').filter(|(pid, _)| pid.trim() == "pid")?.1;
        let names: Vec<&str> = rest.split_whitespace().collect();
        let at = |name: &str| names.iter().position(|other| *other == name);
        Some(Self { rss: at("rss")?, name: at("name")? })
    }

    /// A row; the name is the last column and can have blanks.
    fn task(&self, line: &str) -> Option<Task> {
        let (pid, mut rest) = line.strip_prefix('[')?.split_once(']')?;
        let pid = pid.trim().parse().ok()?;
        let mut rss = None;
        for column in 0..self.name {
            let (word, after) = rest.trim_start().split_once(' ')?;
            word.parse::<i64>().ok()?;
            if column == self.rss {
                rss = word.parse().ok();
            }
            rest = after;
        }
        Some(Task { pid, name: rest.trim().to_owned(), rss: rss? })
    }
}

/// `2619 (node) total-vm:...`: PID and name, which can have brackets.
fn victim(rest: &str) -> Option<(u32, String)> {
    let (pid, rest) = rest.split_once(' ')?;
    let (name, _) = rest.strip_prefix('(')?.rsplit_once(") total-vm:")?;
    Some((pid.parse().ok()?, name.to_owned()))
}

/// The value of a key, up to a comma or a blank.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let (_, after) = text.split_once(key)?;
    after.split([',', ' ']).next().filter(|value| !value.is_empty())
}

/// `  = 2097148kB` in bytes.
fn kib(text: &str) -> Option<u64> {
    let kib: u64 = text.trim_start_matches([' ', '=']).strip_suffix("kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Rows of Linux 6.1 and, with other columns, of 6.8.
    const OLD: &str = "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name\n\
        [   2619]  1001  2619  1234567   988000  9876543        0             0 node\n\
        [   2700]  1001  2700   200000    51200   543210        0             0 tsserver a b\n\
        [   2701]  1001  2701      100       10    43210        0             0 sh";
    const NEW: &str = "[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtables_bytes swapents oom_score_adj name\n\
        [   2701]  1001  2701      100       10        5        5         0    43210        0             0 sh\n\
        [   2700]  1001  2700   200000    51200    51100      100         0   543210        0             0 tsserver a b\n\
        [   2619]  1001  2619  1234567   988000   980000     8000         0  9876543        0             0 node";

    fn report(table: &str, scope: &str) -> String {
        format!(
            "systemd[1]: unrelated\nnode invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0\n\
             Free swap  = 1024kB\nTotal swap = 2048kB\nTasks state (memory values in pages):\n{table}\n\
             oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/{scope},task_memcg=/x,task=node,pid=2619,uid=1001\n\
             Memory cgroup out of memory: Killed process 2619 (node (a)) total-vm:4938268kB, anon-rss:3920000kB, \
             file-rss:32000kB, shmem-rss:0kB, UID:1001 pgtables:9644kB oom_score_adj:0"
        )
    }

    fn read(text: &str) -> Vec<Report> {
        let lines = text.lines().enumerate();
        reports(&lines.map(|(n, line)| Timed { at_ms: n as i64, what: line.to_owned() }).collect::<Vec<_>>())
    }

    #[test]
    fn a_report_has_cgroup_victim_swap_and_the_largest_processes() {
        for table in [OLD, NEW] {
            let all = read(&report(table, ",oom_memcg=/t3.slice/t3-serve@ann.service"));
            let mib = |pid, name: &str, pages: u64| Task { pid, name: name.to_owned(), rss: pages * 4096 };
            let expected = Report {
                at_ms: 1,
                invoker: Some("node".to_owned()),
                cgroup: Some("/t3.slice/t3-serve@ann.service".to_owned()),
                victim: Some((2619, "node (a)".to_owned())),
                swap_free: Some(1 << 20),
                swap_total: Some(2 << 20),
                largest: vec![
                    mib(2619, "node", 988_000),
                    mib(2700, "tsserver a b", 51_200),
                    mib(2701, "sh", 10),
                ],
            };
            assert_eq!(all, [expected]);
        }
    }

    #[test]
    fn the_page_size_follows_from_the_victim() {
        let large = report(NEW, "").replace("3920000kB", "15776000kB");
        assert_eq!(read(&large)[0].largest[0].rss, 988_000 * 16 * 1024);
        assert_eq!(read(&large)[0].cgroup, None);
    }

    #[test]
    fn several_and_incomplete_reports_are_kept_apart() {
        let one = report(OLD, "");
        let all = read(&format!("{}\n{one}\n{one}", one.lines().take(3).collect::<Vec<_>>().join("\n")));
        let victims: Vec<_> = all.iter().map(|report| report.victim.is_some()).collect();
        assert_eq!(victims, [false, true, true]);
        assert_eq!(read(&vec![one.as_str(); 20].join("\n")).len(), REPORTS);
        assert!(read("[   2701]  1001 x").is_empty());
    }

    #[test]
    fn the_lines_of_a_report_are_selected() {
        for line in report(NEW, ",oom_memcg=/x")
            .lines()
            .filter(|line| !line.contains("unrelated") && !line.starts_with("Tasks"))
        {
            assert!(is_part(line), "{line}");
        }
        assert!(!is_part("usb 1-1: new device"));
    }

    proptest! {
        #[test]
        fn any_lines_are_read(lines in prop::collection::vec(prop::sample::select(vec![
            "a invoked oom-killer: x", "[  pid  ] rss name", "[ 1] 5 b", "[ 1] x b", "Free swap = 9kB", "oom-kill:oom_memcg=",
            "Out of memory: Killed process 1 (b) total-vm:1kB, anon-rss:20kB", "[", "ut of memory: Killed process ",
        ]), 0..12)) {
            prop_assert!(read(&lines.join("\n")).iter().all(|report| report.largest.len() <= LARGEST));
        }
    }
}
