//! A network namespace with a veth link, for a client with a link that can fail. Removed on drop.

use std::{
    fs::File,
    net::Ipv4Addr,
    os::fd::OwnedFd,
    process::{Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
};

use crate::{
    error::{Attempt, Result, TestError},
    prerequisite, sys,
};

/// Addresses of all links: for tests between networks (RFC 2544), so nothing else uses them.
pub(super) const NETWORK: &str = "198.18.0.0/15";

static COUNT: AtomicU8 = AtomicU8::new(0);

/// A namespace with one link to the namespace of the test.
#[derive(Debug)]
pub struct Netns {
    namespace: OwnedFd,
    link: String,
    /// Address of the near end, which the client connects to.
    pub near: Ipv4Addr,
    /// Address of the client.
    pub far: Ipv4Addr,
}

impl Netns {
    /// Creates one.
    pub fn new() -> Result<Self> {
        prerequisite::root()?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = new_namespace()?;
        let process = std::process::id();
        let (link, peer) = (format!("t3t{process}n{number}"), format!("t3t{process}f{number}"));
        let octet = u8::try_from(process % 250).unwrap_or(0);
        let (near, far) =
            (Ipv4Addr::new(198, 18, octet, number * 4 + 1), Ipv4Addr::new(198, 18, octet, number * 4 + 2));
        let netns = Self { namespace, link, near, far };
        let near_end = &netns.link;
        netns.ip(&format!("link add name {near_end} type veth peer name {peer}"))?;
        netns.give(&peer)?;
        netns.ip(&format!("addr add {near}/30 dev {near_end}"))?;
        netns.ip(&format!("link set dev {near_end} up"))?;
        netns.ip_inside(&format!("addr add {far}/30 dev {peer}"))?;
        netns.ip_inside(&format!("link set dev {peer} up"))?;
        Ok(netns)
    }

    /// Descriptor for [`crate::client::Config::namespace`].
    pub fn descriptor(&self) -> Result<OwnedFd> {
        self.namespace.try_clone().attempt(|| "duplicate a descriptor".to_owned())
    }

    /// Cuts the link without a signal to either side. The near end stays up, so that the kernel
    /// does not notice.
    pub fn cut(&self) -> Result<()> {
        // Taking the link down would remove carrier and route, and not every kernel has nftables.
        // Without the far address nothing replies; the pinned neighbour entry keeps sending
        // possible.
        self.pin_neighbour()?;
        let peer = self.peer();
        self.ip_inside(&format!("addr flush dev {peer}"))?;
        self.ip_inside(&format!("link set dev {peer} arp off"))
    }

    /// Takes the near end, on the side of dispatch, down or up.
    pub fn set_near_link(&self, is_up: bool) -> Result<()> {
        let state = if is_up { "up" } else { "down" };
        self.ip(&format!("link set dev {} {state}", self.link))
    }

    /// Removes the address of the near end.
    pub fn remove_near_address(&self) -> Result<()> {
        self.ip(&format!("addr del {}/30 dev {}", self.near, self.link))
    }

    /// Checks that this host can drop packets, by netem or nftables.
    pub fn can_lose(&self) -> Result<()> {
        self.drop_some(0)
    }

    /// Drops this percentage of the packets in each direction: by netem, or by nftables if the
    /// kernel has no netem.
    pub fn lose(&self, percent: u8) -> Result<()> {
        // Lost ARP would cause "no route to host", which cannot happen with a remote client, so the
        // neighbour entries are pinned.
        let (near, far, peer) = (self.near, self.far, self.peer());
        self.ip(&format!("neigh replace {far} dev {} nud permanent", self.link))?;
        self.ip_inside(&format!("neigh replace {near} dev {peer} nud permanent"))?;
        self.drop_some(percent)
    }

    fn drop_some(&self, percent: u8) -> Result<()> {
        let (link, peer) = (&self.link, self.peer());
        let netem = |device: &str| format!("qdisc replace dev {device} root netem loss {percent}%");
        if run(Command::new("tc"), &netem(link)).is_ok() {
            return run(self.inside("tc")?, &netem(&peer));
        }
        // nft rejects a comparison that is always true.
        let some = if percent < 100 { format!("numgen random mod 100 < {percent} ") } else { String::new() };
        // On ingress of either end, so that the sender gets no error.
        let rules = |device: &str| {
            format!(
                "add table netdev {device} ; delete table netdev {device} ; add table netdev {device} ; \
                 add chain netdev {device} lossy {{ type filter hook ingress device {device} priority 0 ; }} ; \
                 add rule netdev {device} lossy {some}drop"
            )
        };
        run(Command::new("nft"), &rules(link))?;
        run(self.inside("nft")?, &rules(&peer))
    }

    fn pin_neighbour(&self) -> Result<()> {
        let (far, link) = (self.far, &self.link);
        self.ip(&format!("neigh replace {far} lladdr 02:00:00:00:00:01 dev {link} nud permanent"))
    }

    fn peer(&self) -> String {
        self.link.replacen('n', "f", 1)
    }

    fn give(&self, peer: &str) -> Result<()> {
        // `ip link set netns` expects a process id of the namespace.
        let mut holder = Command::new("sleep");
        holder.arg("60").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        sys::in_namespace(&mut holder, self.descriptor()?);
        sys::dies_with_us(&mut holder);
        let mut holder = holder.spawn().attempt(|| "start sleep in the namespace".to_owned())?;
        let given = self.ip(&format!("link set dev {peer} netns {}", holder.id()));
        let _ = holder.kill();
        let _ = holder.wait();
        given
    }

    fn ip(&self, arguments: &str) -> Result<()> {
        run(Command::new("ip"), arguments)
    }

    fn ip_inside(&self, arguments: &str) -> Result<()> {
        run(self.inside("ip")?, arguments)
    }

    fn inside(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(program);
        sys::in_namespace(&mut command, self.descriptor()?);
        Ok(command)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = self.ip(&format!("link del dev {}", self.link));
        // Rules outlive a link. An error means that there are none.
        let _ = run(Command::new("nft"), &format!("delete table netdev {}", self.link));
    }
}

pub(super) fn run(mut command: Command, arguments: &str) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.args(arguments.split(' ')).stdin(Stdio::null()).output();
    let output = output.attempt(|| format!("run {program} {arguments} (is iproute2 installed?)"))?;
    if output.status.success() {
        return Ok(());
    }
    let got = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(TestError::Unexpected { what: format!("success of `{program} {arguments}`"), got })
}

/// A new namespace, made by a short-lived thread and kept alive by the descriptor.
fn new_namespace() -> Result<OwnedFd> {
    let made = std::thread::spawn(|| {
        sys::new_net().attempt(|| "make a network namespace".to_owned())?;
        let path = "/proc/thread-self/ns/net";
        File::open(path).map(OwnedFd::from).attempt(|| format!("open {path}"))
    });
    made.join().unwrap_or_else(|_| {
        Err(TestError::Unexpected {
            what: "a network namespace".to_owned(),
            got: "its thread has ended".to_owned(),
        })
    })
}
