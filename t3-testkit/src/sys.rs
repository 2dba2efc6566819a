//! System calls for child processes between fork and exec, namespaces and signals.
//!
//! Between fork and exec only async-signal-safe calls are allowed, so everything that the closures
//! need is allocated before.

#![expect(
    unsafe_code,
    reason = "mount, setns, prctl and kill have to be called as system calls between fork and exec"
)]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
    ptr::null,
    time::{Duration, Instant},
};

/// A process that was sent SIGSTOP has stopped long before.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The child gets a private mount namespace with these bind mounts, `(source, target)`, in order.
pub fn with_private_mounts(command: &mut Command, binds: Vec<(CString, CString)>) {
    let step = move || {
        // SAFETY: plain system calls on memory that was allocated before the fork and lives in the
        // closure.
        unsafe {
            check(libc::unshare(libc::CLONE_NEWNS))?;
            let private = libc::MS_REC | libc::MS_PRIVATE;
            check(libc::mount(null(), c"/".as_ptr(), null(), private, null()))?;
            for (source, target) in &binds {
                check(libc::mount(source.as_ptr(), target.as_ptr(), null(), libc::MS_BIND, null()))?;
            }
        }
        Ok(())
    };
    // SAFETY: the closure calls only async-signal-safe functions and allocates nothing.
    unsafe { command.pre_exec(step) };
}

/// The child starts in the namespace of the descriptor (a file of `/proc/PID/ns`).
pub fn in_namespace(command: &mut Command, namespace: OwnedFd) {
    let step = move || {
        // SAFETY: setns on a descriptor that the closure owns.
        unsafe { check(libc::setns(namespace.as_raw_fd(), 0)) }
    };
    // SAFETY: the closure calls one async-signal-safe function and allocates nothing.
    unsafe { command.pre_exec(step) };
}

/// The child gets the descriptor as number 3, the first of `sd_listen_fds(3)`.
pub fn passes_first(command: &mut Command, descriptor: OwnedFd) {
    let step = move || {
        // SAFETY: dup2 of a descriptor that the closure owns; the copy has no close-on-exec flag,
        // which dup2 leaves set only if both numbers are equal.
        unsafe {
            if descriptor.as_raw_fd() == 3 {
                check(libc::fcntl(3, libc::F_SETFD, 0))
            } else {
                check(libc::dup2(descriptor.as_raw_fd(), 3))
            }
        }
    };
    // SAFETY: the closure calls only async-signal-safe functions and allocates nothing.
    unsafe { command.pre_exec(step) };
}

/// Moves the calling thread alone into a mount namespace.
pub fn enter_mounts(namespace: &OwnedFd) -> io::Result<()> {
    // SAFETY: unshare and setns affect the calling thread only; the caller keeps the descriptor
    // open. A thread that shares its file system attributes cannot enter a mount namespace.
    unsafe {
        check(libc::unshare(libc::CLONE_FS))?;
        check(libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNS))
    }
}

/// The kernel kills the child when the thread that started it ends, so that an aborted test leaves
/// nothing behind.
pub fn dies_with_us(command: &mut Command) {
    let step = || {
        // SAFETY: prctl with constant arguments.
        unsafe { check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL)) }
    };
    // SAFETY: the closure calls one async-signal-safe function and allocates nothing.
    unsafe { command.pre_exec(step) };
}

/// The child, and all threads and processes that it starts, run on these CPUs.
pub fn pinned(command: &mut Command, cpus: rustix::thread::CpuSet) {
    let step = move || rustix::thread::sched_setaffinity(None, &cpus).map_err(io::Error::from);
    // SAFETY: the closure calls one async-signal-safe function and allocates nothing.
    unsafe { command.pre_exec(step) };
}

/// The child moves itself into a cgroup before exec, through an open descriptor of `cgroup.procs`.
pub fn in_cgroup(command: &mut Command, procs: OwnedFd) {
    let step = move || {
        // SAFETY: write of one constant byte ("0" means the writer) to a descriptor that the
        // closure owns.
        let written = unsafe { libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) };
        if written == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: the closure calls one async-signal-safe function and allocates nothing.
    unsafe { command.pre_exec(step) };
}

/// Moves the calling thread, and its future sockets, into a network namespace.
pub fn enter_net(namespace: &OwnedFd) -> io::Result<()> {
    // SAFETY: setns on a descriptor that the caller keeps open.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })
}

/// Moves the calling thread into a new network namespace.
pub fn new_net() -> io::Result<()> {
    // SAFETY: unshare of the network namespace affects the calling thread only.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) })
}

/// Sends a signal. After SIGSTOP, waits until each thread of the process has stopped: kill(2)
/// returns while they still run.
pub fn signal(pid: u32, signal: i32) -> io::Result<()> {
    let process = libc::pid_t::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: kill has no memory effects.
    check(unsafe { libc::kill(process, signal) })?;
    let until = Instant::now() + STOP_TIMEOUT;
    while signal == libc::SIGSTOP && !is_stopped(pid) {
        if Instant::now() > until {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("process {pid} does not stop")));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Whether each thread of a process is stopped or has ended (proc_pid_stat(5)).
fn is_stopped(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        matches!(state, None | Some('T' | 't' | 'Z' | 'X'))
    })
}

/// Sends a signal to the process group of `leader`.
pub fn signal_group(leader: u32, signal: i32) -> io::Result<()> {
    let group = libc::pid_t::try_from(leader).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: killpg has no memory effects.
    check(unsafe { libc::killpg(group, signal) })
}

/// Maps memory without using it, except for one page, so that a core dump contains all of it. It is
/// never unmapped.
pub fn map_sparse(bytes: usize) -> io::Result<()> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new private mapping at an address of the kernel's choice; only its first byte is
    // written.
    unsafe {
        let memory = libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0);
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        memory.cast::<u8>().write_volatile(1);
    }
    Ok(())
}

/// Raises a signal in this process with its default action, also when a handler is set (SIGSEGV has
/// one in Rust programs).
pub fn die_of(signal: i32) -> ! {
    // SAFETY: resets the action to the default and raises; pause returns only if the signal is not
    // fatal.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::kill(libc::getpid(), signal);
        loop {
            libc::pause();
        }
    }
}

/// Ends this thread alone, as pthread_exit does: also the first one, which a process can outlive.
pub fn end_thread() -> ! {
    // SAFETY: a system call with constant arguments that does not return; nothing is on the stack
    // that another thread uses.
    unsafe {
        libc::syscall(libc::SYS_exit, 0);
    }
    unreachable!("the thread has ended")
}

/// Gives the whole process to a user, permanently, in a group with the same number.
///
/// # Errors
/// As `setresuid`.
pub fn become_user(uid: u32) -> io::Result<()> {
    become_member(uid, uid)
}

/// Gives the whole process to a user and a group, permanently.
///
/// # Errors
/// As `setresuid`.
pub fn become_member(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: system calls without memory; glibc applies them to all threads.
    unsafe {
        check(libc::setgroups(0, null()))?;
        check(libc::setresgid(gid, gid, gid))?;
        check(libc::setresuid(uid, uid, uid))
    }
}

/// Listens with a socket that belongs to another user, as one of that user's processes would.
///
/// # Errors
/// As `bind`, and without the right to change the user.
pub fn listen_as(uid: u32, address: &str) -> io::Result<std::net::TcpListener> {
    let address = address.to_owned();
    let listen = move || {
        // The number counts for this thread only (setfsuid(2)), and a socket gets it as owner.
        // SAFETY: system calls without memory.
        unsafe {
            libc::setfsuid(uid);
            if libc::setfsuid(u32::MAX) != libc::c_int::try_from(uid).unwrap_or(-1) {
                return Err(io::Error::from_raw_os_error(libc::EPERM));
            }
        }
        std::net::TcpListener::bind(address)
    };
    std::thread::spawn(listen).join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
}

#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// User of this process.
#[must_use]
pub fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}
