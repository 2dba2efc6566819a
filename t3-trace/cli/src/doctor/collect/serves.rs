//! Facts of serves: listener on each port of the routing table, its cgroup and limits.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Component, Path, PathBuf},
};

use serde::Deserialize;
use t3_trace_host::{
    cgroup,
    proc::{self, net, stat},
};

use super::super::facts::{Cgroups, Level, Listener, Serve, TableError};

/// Fields of a route that are needed; t3-dispatch checks the rest.
#[derive(Debug, Deserialize)]
struct Route {
    os_user: String,
    port: u16,
}

pub(super) fn read(table: &Path, cgroups: &Cgroups, dispatch: Option<u32>) -> Result<Vec<Serve>, TableError> {
    let text = fs::read_to_string(table)
        .map_err(|error| TableError::Unreadable(format!("cannot read {}: {error}", table.display())))?;
    let none =
        |error| TableError::Malformed(format!("cannot parse routing table {}: {error}", table.display()));
    let users = users(&text).map_err(none)?;
    let listeners = net::listeners(dispatch.unwrap_or_else(std::process::id));
    let listeners: Vec<_> = listeners.filter(|row| users.contains_key(&row.local.port())).collect();
    let inodes: HashSet<u64> = listeners.iter().map(|row| row.inode).collect();
    let holders = proc::holders(&inodes);
    let serve = |(port, user): (u16, String)| serve(user, port, &listeners, &holders, cgroups);
    Ok(users.into_iter().map(serve).collect())
}

/// Port to user; several logins may have the same port.
fn users(table: &str) -> serde_json::Result<BTreeMap<u16, String>> {
    let routes: BTreeMap<String, Route> = serde_json::from_str(table)?;
    Ok(routes.into_values().map(|route| (route.port, route.os_user)).collect())
}

fn serve(
    user: String,
    port: u16,
    listeners: &[net::Row],
    holders: &HashMap<u64, Vec<u32>>,
    cgroups: &Cgroups,
) -> Serve {
    let of_port = || listeners.iter().filter(|row| row.local.port() == port);
    let mut sockets = of_port().filter(|row| accepts(row.local.ip())).peekable();
    let listens = sockets.peek().is_some();
    let pid = sockets.find_map(|row| holders.get(&row.inode)?.first().copied());
    let process = match pid.and_then(|pid| Some((pid, stat::read(pid)?))) {
        Some((pid, stat)) => Listener::Process { pid, comm: crate::present::text::safe(&stat.comm) },
        None if listens => Listener::Unknown,
        None => of_port().next().map_or(Listener::Absent, |row| Listener::Elsewhere(row.local.ip())),
    };
    let membership = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/cgroup")).ok());
    let path = membership.as_deref().and_then(cgroup::path_of);
    let dir = |path: &str| Some(cgroups.v2.as_ref()?.join(path.trim_start_matches('/')));
    let dir = path.and_then(dir);
    Serve {
        user: crate::present::text::safe(&user),
        port,
        process,
        unit: path.and_then(unit_of),
        levels: dir.as_deref().map(|dir| levels(dir, cgroups)).unwrap_or_default(),
        oom_group: dir
            .as_ref()
            .and_then(|dir| fs::read_to_string(dir.join("memory.oom.group")).ok())
            .map(|text| text.trim() == "1"),
        pressure: dir.as_ref().map(|dir| fs::read_to_string(dir.join("memory.pressure")).is_ok()),
    }
}

/// Whether a socket that listens on this address accepts the connections of t3-dispatch.
fn accepts(ip: IpAddr) -> bool {
    ip.is_unspecified() || ip == IpAddr::V4(Ipv4Addr::LOCALHOST)
}

/// Unit of a cgroup: the innermost part of its path with a unit name.
fn unit_of(path: &str) -> Option<String> {
    let parts: Vec<_> = Path::new(path).components().collect();
    let names = parts.into_iter().rev().filter_map(|part| match part {
        Component::Normal(name) => name.to_str(),
        _ => None,
    });
    let is_unit = |name: &&str| name.ends_with(".service") || name.ends_with(".scope");
    names.into_iter().find(is_unit).map(crate::present::text::safe)
}

/// Limits of a cgroup and its ancestors without the root, which has none. Empty without the memory
/// controller.
fn levels(dir: &Path, cgroups: &Cgroups) -> Vec<Level> {
    let root = cgroups.v2.as_deref();
    let up = dir.ancestors().take_while(|dir| Some(*dir) != root).map(Path::to_path_buf);
    let read = |dir: PathBuf| {
        let name = crate::present::text::safe(&dir.file_name()?.to_string_lossy());
        let limit = |file: &str| fs::read_to_string(dir.join(file)).ok();
        Some(Level { name, high: number(&limit("memory.high")?), max: number(&limit("memory.max")?) })
    };
    up.map_while(read).collect()
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_unit_counts() {
        for (path, unit) in [
            ("/system.slice/system-t3\\x2dserve.slice/t3-serve@ann.service", Some("t3-serve@ann.service")),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/t3.service/child", Some("t3.service")),
            ("/user.slice/user-1000.slice/session-3.scope", Some("session-3.scope")),
            ("/", None),
            ("/docker/abc", None),
        ] {
            assert_eq!(unit_of(path).as_deref(), unit, "{path}");
        }
    }

    #[test]
    fn logins_with_the_same_port_are_one_serve() {
        let text = r#"{"ann@x.org": {"os_user": "ann", "port": 3773, "note": 1}, "ann": {"os_user": "ann", "port": 3773}, "bob": {"os_user": "bob", "port": 3774}}"#;
        assert_eq!(
            users(text).unwrap().into_iter().collect::<Vec<_>>(),
            [(3773, "ann".to_owned()), (3774, "bob".to_owned())]
        );
        assert!(users(r#"{"ann": {"port": 1}}"#).is_err());
    }

    #[test]
    fn limits_of_all_ancestors_are_read() {
        let root = tempfile::tempdir().unwrap();
        let unit = root.path().join("a.slice/u.service");
        fs::create_dir_all(&unit).unwrap();
        for (dir, high, max) in
            [(unit.clone(), "max", "1073741824"), (root.path().join("a.slice"), "4096", "max")]
        {
            fs::write(dir.join("memory.high"), high).unwrap();
            fs::write(dir.join("memory.max"), max).unwrap();
        }
        let cgroups = Cgroups { v2: Some(root.path().to_owned()), v1: Vec::new() };
        let level = |name: &str, high, max| Level { name: name.to_owned(), high, max };
        assert_eq!(
            levels(&unit, &cgroups),
            [level("u.service", None, Some(1 << 30)), level("a.slice", Some(4096), None)]
        );
        fs::remove_file(unit.join("memory.max")).unwrap();
        assert_eq!(levels(&unit, &cgroups), [], "unknown without the controller");
    }

    #[test]
    fn a_listener_is_found_and_a_free_port_has_none() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join("dispatch.json");
        fs::write(
            &table,
            format!(r#"{{"a": {{"os_user": "ann", "port": {port}}}, "b": {{"os_user": "bob", "port": 1}}}}"#),
        )
        .unwrap();
        let serves = read(&table, &Cgroups::default(), None).unwrap();
        let of = |wanted: u16| serves.iter().find(|serve| serve.port == wanted).unwrap();
        assert!(matches!(of(port).process, Listener::Process { pid, .. } if pid == std::process::id()));
        assert_eq!(of(1).process, Listener::Absent);
        let other = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
        let port = other.local_addr().unwrap().port();
        fs::write(&table, format!(r#"{{"a": {{"os_user": "ann", "port": {port}}}}}"#)).unwrap();
        let serves = read(&table, &Cgroups::default(), None).unwrap();
        assert_eq!(serves[0].process, Listener::Elsewhere("127.0.0.2".parse().unwrap()));
        let missing = read(&folder.path().join("none"), &Cgroups::default(), None);
        assert!(matches!(missing, Err(TableError::Unreadable(why)) if why.contains("none")));
        fs::write(&table, "[]").unwrap();
        assert!(matches!(read(&table, &Cgroups::default(), None), Err(TableError::Malformed(_))));
    }
}
