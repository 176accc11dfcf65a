use std::io::{self, Read, Seek, SeekFrom, Write};

use zeroize::{Zeroize, Zeroizing};

use crate::cipher::{Cipher, TAG, random};
use crate::{DataKey, VaultError};

/// Plain bytes of every chunk but the last, which has 1 to as many, or none where the whole stream is empty.
pub const CHUNK: usize = 64 << 10;
const SEALED: usize = CHUNK + TAG;

/// Magic, version 1, chunks of 2 to the 16th bytes, six bytes that are zero.
const HEAD: [u8; 16] = *b"moatseal\x01\x10\0\0\0\0\0\0";
/// The head, then the stream's salt of 32 bytes.
const HEADER: usize = 48;

/// The length in bytes of the sealed stream of so many plain bytes.
#[must_use]
pub fn sealed_length(plain: u64) -> u64 {
    HEADER as u64 + plain + plain.div_ceil(CHUNK as u64).max(1) * TAG as u64
}

fn cipher(key: &DataKey, header: &[u8; HEADER], object: &str) -> Result<Cipher, VaultError> {
    let (head, salt) = header.split_at(HEAD.len());
    Cipher::derive(key.expose(), salt, &[b"moat stream\0", head, object.as_bytes()])
}

/// A chunk's number in 11 bytes, big endian, then 1 for the last chunk and 0 for every other.
fn nonce(index: u64, last: bool) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[3..11].copy_from_slice(&index.to_be_bytes());
    nonce[11] = u8::from(last);
    nonce
}

/// Seals what is written to it, one chunk in memory. [`finish`](Self::finish) writes the last chunk: a stream dropped
/// before that is cut, and a reader refuses it.
pub struct SealWriter<W: Write> {
    inner: W,
    cipher: Cipher,
    chunk: Zeroizing<Vec<u8>>,
    filled: usize,
    index: u64,
    broken: bool,
}

impl<W: Write> SealWriter<W> {
    /// Begins a stream for an object, and writes its header.
    ///
    /// # Errors
    /// [`VaultError::Stream`] where `inner` refuses, [`VaultError::Random`] without random bytes.
    pub fn new(inner: W, key: &DataKey, object: &str) -> Result<Self, VaultError> {
        let mut salt = [0; HEADER - HEAD.len()];
        random(&mut salt)?;
        Self::salted(inner, key, object, &salt)
    }

    /// With a salt that was never used before under this key.
    pub(crate) fn salted(
        mut inner: W,
        key: &DataKey,
        object: &str,
        salt: &[u8; HEADER - HEAD.len()],
    ) -> Result<Self, VaultError> {
        let mut header = [0; HEADER];
        header[..HEAD.len()].copy_from_slice(&HEAD);
        header[HEAD.len()..].copy_from_slice(salt);
        let cipher = cipher(key, &header, object)?;
        inner.write_all(&header).map_err(VaultError::Stream)?;
        Ok(Self { inner, cipher, chunk: Zeroizing::new(vec![0; SEALED]), filled: 0, index: 0, broken: false })
    }

    /// Plain bytes written so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.index * CHUNK as u64 + self.filled as u64
    }

    /// The writer below.
    #[must_use]
    pub fn get_ref(&self) -> &W {
        &self.inner
    }

    /// Seals the last chunk and hands the writer below back, flushed.
    ///
    /// # Errors
    /// Those of the writer below, also where an earlier write had failed.
    pub fn finish(mut self) -> io::Result<W> {
        self.put(true)?;
        self.inner.flush()?;
        Ok(self.inner)
    }

    /// Writes what the caller needs no more: it is sealed where it stands, which spares a copy of everything. What is left
    /// in the buffer is of no use.
    ///
    /// # Errors
    /// Those of the writer below.
    pub fn write_in_place(&mut self, plain: &mut [u8]) -> io::Result<()> {
        let mut left = plain;
        while !left.is_empty() {
            // The last chunk stays open, since only `finish` knows that it is the last.
            if self.filled > 0 || left.len() <= CHUNK {
                let taken = self.write(left)?;
                left = &mut left[taken..];
                continue;
            }
            let (chunk, rest) = left.split_at_mut(CHUNK);
            self.begin_put()?;
            let tag = self.cipher.seal(nonce(self.index, false), chunk)?;
            self.inner.write_all(chunk)?;
            self.inner.write_all(&tag)?;
            (self.index, self.broken) = (self.index + 1, false);
            left = rest;
        }
        Ok(())
    }

    /// Seals and writes the chunk that was filled.
    pub(crate) fn put(&mut self, last: bool) -> io::Result<()> {
        self.begin_put()?;
        let tag = self.cipher.seal(nonce(self.index, last), &mut self.chunk[..self.filled])?;
        self.chunk[self.filled..self.filled + TAG].copy_from_slice(&tag);
        self.inner.write_all(&self.chunk[..self.filled + TAG])?;
        (self.index, self.filled, self.broken) = (self.index + 1, 0, false);
        Ok(())
    }

    /// Marks the stream as broken until a whole chunk is written: nothing must follow one that was written in part.
    fn begin_put(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.broken, true) {
            return Err(io::Error::other("an earlier write to this sealed stream failed: start it again"));
        }
        Ok(())
    }
}

impl<W: Write> Write for SealWriter<W> {
    fn write(&mut self, plain: &[u8]) -> io::Result<usize> {
        if plain.is_empty() {
            return Ok(0);
        }
        // A full chunk waits for the byte that shows that it is not the last one.
        if self.filled == CHUNK {
            self.put(false)?;
        }
        let taken = plain.len().min(CHUNK - self.filled);
        self.chunk[self.filled..self.filled + taken].copy_from_slice(&plain[..taken]);
        self.filled += taken;
        Ok(taken)
    }

    /// Flushes whole chunks; the one being filled stays in memory until it is full or the stream is finished.
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Splits a stream's header off; returns the cipher that it names.
fn begin(header: &[u8; HEADER], key: &DataKey, object: &str) -> Result<Cipher, VaultError> {
    if header.starts_with(&HEAD) { cipher(key, header, object) } else { Err(VaultError::Foreign) }
}

/// Opens a whole sealed stream where it stands in memory, as fast as the cipher goes; returns the plain bytes, which
/// begin where the buffer began. Nothing is returned unless every chunk was proven.
///
/// # Errors
/// Those of [`OpenReader::new`], and [`VaultError::Refused`] where anything was changed, cut, or added.
pub fn open_in_place<'a>(
    key: &DataKey,
    object: &str,
    sealed: &'a mut [u8],
) -> Result<&'a mut [u8], VaultError> {
    let header = sealed.first_chunk().ok_or(VaultError::Refused)?;
    let cipher = begin(header, key, object)?;
    let (mut from, mut to, mut index) = (HEADER, 0, 0);
    loop {
        let chunk = (sealed.len() - from).min(SEALED);
        let last = from + chunk == sealed.len();
        let opened = match chunk {
            TAG if index > 0 => Err(VaultError::Refused),
            _ => cipher.open_towards_front(nonce(index, last), &mut sealed[to..from + chunk], from - to),
        };
        match opened {
            Ok(plain) => (from, to, index) = (from + chunk, to + plain, index + 1),
            Err(error) => {
                sealed[..to].zeroize();
                return Err(error);
            }
        }
        if last {
            return Ok(&mut sealed[..to]);
        }
    }
}

/// Opens a sealed stream, one chunk in memory; hands out only bytes of chunks that were proven. Only a read that
/// returns 0, or [`length`](Self::length), proves that the stream is whole. After a refusal it reads nothing more.
pub struct OpenReader<R> {
    inner: R,
    cipher: Cipher,
    /// A sealed chunk, opened in place, and room for the byte behind it.
    chunk: Zeroizing<Vec<u8>>,
    /// The first byte of the next chunk, which tells that there is one.
    ahead: Option<u8>,
    /// Plain bytes in the chunk, and how many of them were read.
    plain: usize,
    at: usize,
    /// The number of the chunk to read next.
    next: u64,
    /// Whether the chunk before that is the last one.
    last: bool,
    /// Whether it is held here, rather than opened in a caller's buffer.
    held: bool,
    refused: bool,
    length: Option<u64>,
}

impl<R: Read> OpenReader<R> {
    /// Opens a stream that was sealed for the same object under the same key, from its first byte.
    ///
    /// # Errors
    /// [`VaultError::Stream`] where `inner` fails, [`VaultError::Foreign`] where this is no sealed stream of a known
    /// version, [`VaultError::Refused`] where its header is cut. A wrong key or object shows with the first read.
    pub fn new(mut inner: R, key: &DataKey, object: &str) -> Result<Self, VaultError> {
        let mut header = [0; HEADER];
        inner.read_exact(&mut header).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => VaultError::Refused,
            _ => VaultError::Stream(error),
        })?;
        Ok(Self {
            inner,
            cipher: begin(&header, key, object)?,
            chunk: Zeroizing::new(vec![0; SEALED + 1]),
            ahead: None,
            plain: 0,
            at: 0,
            next: 0,
            last: false,
            held: false,
            refused: false,
            length: None,
        })
    }

    /// The reader below.
    #[must_use]
    pub fn get_ref(&self) -> &R {
        &self.inner
    }

    /// Reads and opens the next chunk, to hold it.
    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = std::mem::take(&mut self.chunk);
        let filled = self.fill_into(&mut chunk);
        self.chunk = chunk;
        self.at = 0;
        self.held = true;
        filled
    }

    /// Reads and opens the next chunk in a buffer that has room for a byte more than it is long.
    fn fill_into(&mut self, into: &mut [u8]) -> io::Result<()> {
        // Whatever fails in here leaves a chunk that must not be handed out.
        if std::mem::replace(&mut self.refused, true) {
            return Err(VaultError::Refused.into());
        }
        let into = &mut into[..SEALED + 1];
        let mut got = 0;
        if let Some(first) = self.ahead.take() {
            into[0] = first;
            got = 1;
        }
        while got < into.len() {
            match self.inner.read(&mut into[got..]) {
                Ok(0) => break,
                Ok(read) => got += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.last = got <= SEALED;
        self.ahead = (!self.last).then(|| into[SEALED]);
        let sealed = got.min(SEALED);
        // Only an empty stream has an empty chunk: otherwise one plain text had two sealed forms.
        if sealed < TAG || (sealed == TAG && self.next > 0) {
            return Err(VaultError::Refused.into());
        }
        self.plain = self.cipher.open(nonce(self.next, self.last), &mut into[..sealed])?;
        (self.next, self.refused) = (self.next + 1, false);
        Ok(())
    }
}

impl<R: Read> Read for OpenReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        if self.refused {
            return Err(VaultError::Refused.into());
        }
        if self.at == self.plain && !self.last {
            if into.len() > SEALED {
                (self.held, self.plain, self.at) = (false, 0, 0);
                self.fill_into(into)?;
                self.at = self.plain;
                return Ok(self.plain);
            }
            self.fill()?;
        }
        let taken = into.len().min(self.plain - self.at);
        into[..taken].copy_from_slice(&self.chunk[self.at..self.at + taken]);
        self.at += taken;
        Ok(taken)
    }
}

impl<R: Read + Seek> OpenReader<R> {
    /// The plain bytes of the whole stream, proven by opening its last chunk. The stream must start at the first byte
    /// of `inner`. Leaves the position where it was.
    ///
    /// # Errors
    /// Those of the reader below; `InvalidData` where the stream does not end as it was sealed.
    pub fn length(&mut self) -> io::Result<u64> {
        if let Some(length) = self.length {
            return Ok(length);
        }
        let position = self.position();
        let end = self.inner.seek(SeekFrom::End(0))?.saturating_sub(HEADER as u64);
        self.go_to(end.div_ceil(SEALED as u64).saturating_sub(1))?;
        if !self.last {
            self.refused = true;
            return Err(VaultError::Refused.into());
        }
        let length = self.start() + self.plain as u64;
        self.length = Some(length);
        self.seek(SeekFrom::Start(position))?;
        Ok(length)
    }

    /// Fills `into` with the plain bytes from `offset` on.
    ///
    /// # Errors
    /// Those of the reader below; `InvalidData` where a chunk is refused, `InvalidInput` or `UnexpectedEof` beyond the
    /// end.
    pub fn read_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.seek(SeekFrom::Start(offset))?;
        self.read_exact(into)
    }

    /// Opens the chunk of that number.
    fn go_to(&mut self, index: u64) -> io::Result<()> {
        self.inner.seek(SeekFrom::Start(HEADER as u64 + index * SEALED as u64))?;
        (self.ahead, self.last, self.next) = (None, false, index);
        self.fill()
    }
}

impl<R> OpenReader<R> {
    /// The offset of the chunk held, in plain bytes.
    fn start(&self) -> u64 {
        self.next.saturating_sub(1) * CHUNK as u64
    }

    fn position(&self) -> u64 {
        self.start() + self.at as u64
    }
}

impl<R: Read + Seek> Seek for OpenReader<R> {
    /// Moves within the stream; a place beyond its end is `InvalidInput`.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        if self.refused {
            return Err(VaultError::Refused.into());
        }
        let length = self.length()?;
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => length.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position().checked_add_signed(offset),
        };
        let target = target.filter(|target| *target <= length).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "a place outside of the sealed stream was asked for")
        })?;
        // The end of a stream of whole chunks lies at the end of its last one.
        let index = (target / CHUNK as u64).min(length.saturating_sub(1) / CHUNK as u64);
        if self.next != index + 1 || !self.held {
            self.go_to(index)?;
        }
        self.at = (target - self.start()) as usize;
        Ok(target)
    }
}
