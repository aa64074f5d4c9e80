//! The socket between the driver and the first process of the sandbox: it hands the driver its listening sockets once, and the driver
//! asks for the end of the script. When the driver is gone it closes.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv,
    recvmsg, sendmsg,
};

/// The first process has started the script.
const STARTED: &[u8] = b"S";
/// The first process ends the script, because there are too many processes.
pub(super) const PROCESSES: &[u8] = b"P";
/// The driver asks the script to end.
pub(super) const END: &[u8] = b"E";
/// Most sockets that one message of the kernel can carry, less a few.
pub(super) const MOST_LISTENERS: usize = 200;

/// Tells the driver that the script runs, and hands over the listeners.
pub(super) fn send_started(socket: &OwnedFd, listeners: &[TcpListener]) -> io::Result<()> {
    let borrowed: Vec<_> = listeners.iter().map(TcpListener::as_fd).collect();
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_LISTENERS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(io::Error::other("too many listeners"));
    }
    sendmsg(socket, &[IoSlice::new(STARTED)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Takes the listeners; `None` when the other side ended before it started the script.
pub(super) fn receive_started(socket: &tokio::net::UnixStream) -> io::Result<Option<Vec<TcpListener>>> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_LISTENERS))];
    let (mut control, mut byte) = (RecvAncillaryBuffer::new(&mut space), [0]);
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let sockets = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => sockets.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    Ok(Some(sockets.map(TcpListener::from).collect()))
}

/// Whether the first process, which has ended, said that there were too many processes.
pub(super) fn has_too_many_processes(socket: &tokio::net::UnixStream) -> bool {
    let mut byte = [0];
    recv(socket, &mut byte, RecvFlags::DONTWAIT).is_ok() && byte == PROCESSES
}
