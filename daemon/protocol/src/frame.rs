use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of JSON that one frame holds at most.
pub const MAX_FRAME: usize = 256 << 20;

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The stream ended inside a frame.
    #[error("the connection ended inside a frame")]
    Torn,
    /// The length prefix exceeds [`MAX_FRAME`].
    #[error("a frame of {0} bytes was announced, at most {MAX_FRAME} are allowed")]
    TooLong(usize),
    /// The bytes are no message of the expected kind. Holds the place, never the content.
    #[error("a frame holds no known message (byte {column})")]
    Message {
        /// Where parsing stopped.
        column: usize,
    },
    /// The other side is not who was expected.
    #[error("expected {expected}, found {found}: install both programs from one release")]
    Peer {
        /// Who should have answered.
        expected: String,
        /// Who did.
        found: String,
    },
}

/// A frame's bytes: u32 little-endian length, then JSON.
fn encode(message: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message).map_err(|error| FrameError::Io(error.into()))?;
    let length = bytes.len() - 4;
    if length > MAX_FRAME {
        return Err(FrameError::TooLong(length));
    }
    bytes[..4]
        .copy_from_slice(&u32::try_from(length).map_err(|_| FrameError::TooLong(length))?.to_le_bytes());
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(bytes).map_err(|error| FrameError::Message { column: error.column() })
}

fn length(prefix: [u8; 4]) -> Result<usize, FrameError> {
    let length = u32::from_le_bytes(prefix) as usize;
    if length > MAX_FRAME { Err(FrameError::TooLong(length)) } else { Ok(length) }
}

fn torn(error: io::Error) -> FrameError {
    if error.kind() == io::ErrorKind::UnexpectedEof { FrameError::Torn } else { FrameError::Io(error) }
}

/// Writes one message.
///
/// # Errors
/// [`FrameError`] where the stream fails or the message is too long.
pub async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
) -> Result<(), FrameError> {
    stream.write_all(&encode(message)?).await?;
    Ok(stream.flush().await?)
}

/// Reads one message; `None` where the stream ends before it begins.
///
/// # Errors
/// [`FrameError`] where the stream fails, ends within the frame, or holds no such message.
pub async fn read<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<T>, FrameError> {
    let mut prefix = [0; 4];
    if stream.read(&mut prefix[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut prefix[1..]).await.map_err(torn)?;
    let mut bytes = vec![0; length(prefix)?];
    stream.read_exact(&mut bytes).await.map_err(torn)?;
    decode(&bytes).map(Some)
}

/// [`write`] on a blocking stream.
///
/// # Errors
/// As [`write`].
pub fn write_blocking(stream: &mut impl Write, message: &impl Serialize) -> Result<(), FrameError> {
    stream.write_all(&encode(message)?)?;
    Ok(stream.flush()?)
}

/// [`read`] on a blocking stream.
///
/// # Errors
/// As [`read`].
pub fn read_blocking<T: DeserializeOwned>(stream: &mut impl Read) -> Result<Option<T>, FrameError> {
    let mut prefix = [0; 4];
    if stream.read(&mut prefix[..1])? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut prefix[1..]).map_err(torn)?;
    let mut bytes = vec![0; length(prefix)?];
    stream.read_exact(&mut bytes).map_err(torn)?;
    decode(&bytes).map(Some)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{FrameError, encode, read_blocking, write_blocking};

    proptest! {
        #[test]
        fn what_is_written_is_read_and_a_cut_is_told(texts in proptest::collection::vec(".{0,40}", 1..5), cut in 1_usize..64) {
            let mut bytes = Vec::new();
            for text in &texts {
                write_blocking(&mut bytes, text).unwrap();
            }
            let mut stream = bytes.as_slice();
            for text in &texts {
                let read: Option<String> = read_blocking(&mut stream).unwrap();
                prop_assert_eq!(read.as_ref(), Some(text));
            }
            let end: Option<String> = read_blocking(&mut stream).unwrap();
            prop_assert_eq!(end, None);

            let one = encode(&texts[0]).unwrap();
            let mut short = &one[..cut.min(one.len() - 1)];
            let read = read_blocking::<String>(&mut short);
            prop_assert!(matches!(read, Err(FrameError::Torn)));
        }
    }

    #[test]
    fn a_foreign_or_huge_frame_is_refused_without_its_content() {
        let bytes = [0xff; 8];
        let mut huge = bytes.as_slice();
        assert!(matches!(read_blocking::<String>(&mut huge), Err(FrameError::TooLong(_))));
        let mut foreign = encode(&"secret".to_owned()).unwrap();
        foreign[4] = b'{';
        let mut stream = foreign.as_slice();
        let error = read_blocking::<String>(&mut stream).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
}
