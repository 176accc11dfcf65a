use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moat_contracts::Attempt;
use moat_protocol::engine::{FromEngine, ToEngine};
use moat_protocol::{FrameError, Hello, read_blocking, write_blocking};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

/// The exit code for a connection that ended.
const LOST: i32 = 3;

/// Messages that may wait for the job: `moatd` is held back beyond them.
const WAITING: usize = 64;

/// How long `moatd` may take to close its side after the last message.
const FAREWELL: Duration = Duration::from_secs(10);

/// Takes a socket that was open when the engine started.
pub(crate) fn inherited(fd: i32) -> io::Result<UnixStream> {
    let socket = if fd == 0 {
        // Standard input belongs to the standard library; a copy of it is ours.
        io::stdin().as_fd().try_clone_to_owned()?
    } else {
        #[allow(unsafe_code)]
        // SAFETY: only asks the system what the number is; a number that is not open is told as an error.
        let borrowed = (fd > 2).then(|| unsafe { BorrowedFd::borrow_raw(fd) });
        let borrowed = borrowed.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        rustix::net::getsockname(borrowed)?;
        #[allow(unsafe_code)]
        // SAFETY: the socket was opened by whoever started this process and handed over by its number.
        unsafe {
            OwnedFd::from_raw_fd(fd)
        }
    };
    rustix::net::getsockname(&socket)?;
    Ok(UnixStream::from(socket))
}

/// Connects to a socket in the file system.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path)
}

/// The connection to `moatd`, read by a thread of its own once the job is known, so that a stop or an end is seen at once
/// whatever the job is doing.
#[derive(Debug)]
pub(crate) struct Link {
    stream: Arc<Mutex<UnixStream>>,
    /// Until the thread has it.
    reader: Option<(UnixStream, SyncSender<ToEngine>)>,
    inbox: Receiver<ToEngine>,
    stop: Arc<AtomicBool>,
    finished: Arc<AtomicBool>,
}

impl Link {
    /// Greets `moatd` and takes the job from it.
    pub(crate) fn greet(mut stream: UnixStream) -> Result<(Self, ToEngine), FrameError> {
        write_blocking(&mut stream, &Hello::of("moat-engine"))?;
        read_blocking::<Hello>(&mut stream)?.ok_or(FrameError::Torn)?.expect("moatd")?;
        let job = read_blocking::<ToEngine>(&mut stream)?.ok_or(FrameError::Torn)?;
        let (sender, inbox) = sync_channel(WAITING);
        let (stop, finished) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let reader = Some((stream.try_clone()?, sender));
        Ok((Self { stream: Arc::new(Mutex::new(stream)), reader, inbox, stop, finished }, job))
    }

    /// The connections with the other engines of a run, which `moatd` sends after the job. To be called before
    /// [`Link::listen`].
    pub(crate) fn peers(&self, job: &ToEngine) -> io::Result<Vec<UnixStream>> {
        match (job, &self.reader) {
            (ToEngine::Train(job), Some((stream, _))) if job.processes > 1 => received(stream, job.processes),
            _ => Ok(Vec::new()),
        }
    }

    /// Starts the thread that reads.
    pub(crate) fn listen(&mut self) -> io::Result<()> {
        let Some((reader, sender)) = self.reader.take() else { return Ok(()) };
        let (stopped, done) = (self.stop.clone(), self.finished.clone());
        let thread = std::thread::Builder::new().name("moatd".to_owned());
        thread.spawn(move || listen(reader, &sender, &stopped, &done))?;
        Ok(())
    }

    /// Something that says what the canary found, from a thread of its own, until the job's last word was said.
    pub(crate) fn canary(&self) -> impl FnMut(Vec<Attempt>) + Send + 'static {
        let (stream, finished) = (self.stream.clone(), self.finished.clone());
        move |attempts| {
            let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
            if !finished.load(Ordering::SeqCst)
                && let Err(error) = write_blocking(&mut *stream, &FromEngine::Canary(attempts))
            {
                lost(&error.to_string());
            }
        }
    }

    /// True once `moatd` asked to stop.
    pub(crate) fn stop(&self) -> Arc<AtomicBool> {
        self.stop.clone()
    }

    /// The next message.
    pub(crate) fn receive(&self) -> ToEngine {
        match self.inbox.recv() {
            Ok(message) => message,
            // The reader ends the process itself unless the job is finished, and then nothing is received any more.
            Err(_) => lost("it ended"),
        }
    }

    /// Says something.
    pub(crate) fn send(&mut self, message: &FromEngine) {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = write_blocking(&mut *stream, message) {
            lost(&error.to_string());
        }
    }

    /// Says the last thing, and waits until `moatd` has heard it: closing at once would break its writing of what it
    /// was still about to say.
    pub(crate) fn finish(self, last: &FromEngine) {
        {
            let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
            self.finished.store(true, Ordering::SeqCst);
            if let Err(error) = write_blocking(&mut *stream, last) {
                lost(&error.to_string());
            }
            // A socket that is closed already was heard.
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
        while self.inbox.recv_timeout(FAREWELL).is_ok() {}
    }
}

/// The sockets that come with one byte, at most so many (unix(7), `SCM_RIGHTS`).
fn received(stream: &UnixStream, most: usize) -> io::Result<Vec<UnixStream>> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(most))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let taken = rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
    if taken.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let sockets = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
        _ => None,
    });
    Ok(sockets.flatten().map(UnixStream::from).collect())
}

fn listen(mut stream: UnixStream, inbox: &SyncSender<ToEngine>, stop: &AtomicBool, finished: &AtomicBool) {
    loop {
        let reason = match read_blocking::<ToEngine>(&mut stream) {
            Ok(Some(message)) => {
                if message == ToEngine::Stop {
                    stop.store(true, Ordering::SeqCst);
                }
                if inbox.send(message).is_err() {
                    return;
                }
                continue;
            }
            Ok(None) => "moatd closed it".to_owned(),
            Err(error) => error.to_string(),
        };
        if finished.load(Ordering::SeqCst) {
            return;
        }
        lost(&reason);
    }
}

/// Without `moatd` there is nobody to work for. Everything on disk is complete under its name at any moment, so the
/// process may end here.
fn lost(reason: &str) -> ! {
    eprintln!("moat-engine: lost the connection to moatd: {reason}");
    std::process::exit(LOST)
}
