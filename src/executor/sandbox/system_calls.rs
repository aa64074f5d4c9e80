//! System calls that no program of a host stage may make, and their filter in the kernel.

use std::collections::BTreeMap;

use anyhow::Context as _;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as ArgLen, SeccompCmpOp as Op, SeccompCondition as Condition,
    SeccompFilter, SeccompRule as Rule,
};

/// `open_tree_attr` of Linux 6.15, which `libc` does not name yet.
const OPEN_TREE_ATTR: i64 = 467;
/// Calls that reach kernel interfaces which git and the runner's helper do not need.
const REFUSED: &[i64] = &[
    // Keys of the host's user.
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    // Mounts, and views of the file system.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    OPEN_TREE_ATTR,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_quotactl,
    // Namespaces.
    libc::SYS_unshare,
    libc::SYS_setns,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Large parts of the kernel that have often been broken.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // The machine itself.
    libc::SYS_acct,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_settimeofday,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
];

/// Calls whose arguments lie in memory, where a filter cannot read them. Programs fall back to older calls when these do not exist.
const ABSENT: &[i64] = &[libc::SYS_clone3, libc::SYS_openat2];
/// Calls that set a mode, with the argument that holds it.
#[cfg(target_arch = "x86_64")]
const SET_MODE: &[(i64, u8)] = &[
    (libc::SYS_chmod, 1),
    (libc::SYS_fchmod, 1),
    (libc::SYS_fchmodat, 2),
    (libc::SYS_fchmodat2, 2),
    (libc::SYS_mknod, 1),
    (libc::SYS_mknodat, 2),
    (libc::SYS_creat, 1),
];
#[cfg(not(target_arch = "x86_64"))]
const SET_MODE: &[(i64, u8)] =
    &[(libc::SYS_fchmod, 1), (libc::SYS_fchmodat, 2), (libc::SYS_fchmodat2, 2), (libc::SYS_mknodat, 2)];
/// Calls that set a mode when they create a file, with the arguments of their flags and of the mode.
#[cfg(target_arch = "x86_64")]
const CREATE: &[(i64, u8, u8)] = &[(libc::SYS_open, 1, 2), (libc::SYS_openat, 2, 3)];
#[cfg(not(target_arch = "x86_64"))]
const CREATE: &[(i64, u8, u8)] = &[(libc::SYS_openat, 2, 3)];
/// A program with this bit runs as its owner, whoever starts it, also outside the sandbox.
const SET_USER_ID: u64 = libc::S_ISUID as u64;

/// `TIOCSTI` types into a terminal.
const TYPE_INTO_TERMINAL: u64 = 0x5412;
/// `AF_UNIX`, `AF_INET`, `AF_INET6`, `AF_NETLINK`. The others do not belong to the network namespace, or nothing uses them.
const FAMILIES: [u64; 4] = [1, 2, 10, 16];
/// From this number on, calls of x86-64 are those of its form with short pointers.
#[cfg(target_arch = "x86_64")]
const SHORT_POINTERS: u32 = 0x4000_0000;

/// Refuses the calls for this process and all that it starts, for ever. Other architectures than this program's are killed. `unix_sockets`:
/// programs may make such sockets.
pub(super) fn refuse(unix_sockets: bool) -> anyhow::Result<()> {
    let absent = filter(ABSENT.iter().map(|call| (*call, Vec::new())).collect(), libc::ENOSYS)?;
    let refused = filter(rules(unix_sockets)?, libc::EPERM)?;
    for program in [absent, refused, no_short_pointers()] {
        if !program.is_empty() {
            seccompiler::apply_filter_all_threads(&program).context("failed to install the filter of system calls")?;
        }
    }
    Ok(())
}

fn rules(unix_sockets: bool) -> anyhow::Result<BTreeMap<i64, Vec<Rule>>> {
    let mut rules: BTreeMap<i64, Vec<Rule>> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let new_user = u64::from(libc::CLONE_NEWUSER.cast_unsigned());
    let new_namespace = Condition::new(0, ArgLen::Qword, Op::MaskedEq(new_user), new_user)?;
    rules.insert(libc::SYS_clone, vec![Rule::new(vec![new_namespace])?]);
    let typing = Condition::new(1, ArgLen::Dword, Op::Eq, TYPE_INTO_TERMINAL)?;
    rules.insert(libc::SYS_ioctl, vec![Rule::new(vec![typing])?]);
    let other = |but: &[u64]| {
        let conditions = but.iter().map(|family| Condition::new(0, ArgLen::Dword, Op::Ne, *family));
        anyhow::Ok(vec![Rule::new(conditions.collect::<Result<_, _>>()?)?])
    };
    let families = if unix_sockets { &FAMILIES[..] } else { &FAMILIES[1..] };
    rules.insert(libc::SYS_socket, other(families)?);
    rules.insert(libc::SYS_socketpair, other(&FAMILIES[..1])?);
    // A lease delays every other program that opens the file.
    let lease = Condition::new(1, ArgLen::Dword, Op::Eq, u64::from(libc::F_SETLEASE.cast_unsigned()))?;
    rules.insert(libc::SYS_fcntl, vec![Rule::new(vec![lease])?]);
    let of_another = Condition::new(0, ArgLen::Dword, Op::Ne, 0)?;
    rules.insert(libc::SYS_prlimit64, vec![Rule::new(vec![of_another])?]);
    let bits = |argument, bits: u64| Condition::new(argument, ArgLen::Dword, Op::MaskedEq(bits), bits);
    for (call, mode) in SET_MODE {
        rules.insert(*call, vec![Rule::new(vec![bits(*mode, SET_USER_ID)?])?]);
    }
    for (call, flags, mode) in CREATE {
        let creating = [libc::O_CREAT, libc::O_TMPFILE].map(|flag| u64::from(flag.cast_unsigned()));
        let rule = |flag| anyhow::Ok(Rule::new(vec![bits(*flags, flag)?, bits(*mode, SET_USER_ID)?])?);
        rules.insert(*call, creating.into_iter().map(rule).collect::<Result<_, _>>()?);
    }
    Ok(rules)
}

fn filter(rules: BTreeMap<i64, Vec<Rule>>, error: i32) -> anyhow::Result<BpfProgram> {
    let action = SeccompAction::Errno(error.cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, std::env::consts::ARCH.try_into()?)?;
    Ok(filter.try_into()?)
}

/// The crate compares whole numbers of calls, so this range has a program of its own.
#[cfg(target_arch = "x86_64")]
fn no_short_pointers() -> BpfProgram {
    use seccompiler::sock_filter as Step;
    // `BPF_LD | BPF_W | BPF_ABS`, `BPF_JMP | BPF_JGE | BPF_K` and `BPF_RET | BPF_K`.
    const LOAD: u16 = 0x20;
    const JUMP_FROM: u16 = 0x35;
    const RETURN: u16 = 0x06;
    let step = |code, jt, jf, k| Step { code, jt, jf, k };
    vec![
        step(LOAD, 0, 0, 0),
        step(JUMP_FROM, 0, 1, SHORT_POINTERS),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned()),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

#[cfg(not(target_arch = "x86_64"))]
fn no_short_pointers() -> BpfProgram {
    BpfProgram::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_can_be_compiled() {
        assert!(!filter(rules(true).unwrap(), libc::EPERM).unwrap().is_empty());
    }
}
