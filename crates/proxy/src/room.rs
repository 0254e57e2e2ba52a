//! How many bytes of requests' bodies are held at once.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use farthing_listener::Inbound;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Problem;
use crate::call::MAX_REQUEST_BYTES;

/// What all bodies that are held may have together, in bytes.
pub(crate) const BODY_MEMORY: usize = 256 * 1024 * 1024;
/// In which room is counted.
const PIECE: usize = 1024;

/// Room for bodies.
#[derive(Debug, Clone)]
pub(crate) struct Room(Arc<Semaphore>);

/// The room of a body that is held, so that it can be shown again with a payment. Given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Room {
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes / PIECE)))
    }

    /// Reads a body to its end.
    pub async fn read(&self, mut body: Inbound) -> Result<(Bytes, Place), Problem> {
        let (mut read, mut place) = (BytesMut::new(), None::<OwnedSemaphorePermit>);
        while let Some(frame) = body.frame().await {
            // It broke off, or came too slowly: nobody waits for an answer to half a question.
            let Ok(frame) = frame else { return Err(Problem::BodyBroken) };
            // Spec: RFC 9110 section 6.5.1: trailers may be left out.
            let Ok(data) = frame.into_data() else { continue };
            let long = read.len().saturating_add(data.len());
            if long > MAX_REQUEST_BYTES {
                return Err(Problem::BodyTooLarge);
            }
            let pieces = long.div_ceil(PIECE);
            let more = pieces.saturating_sub(place.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
            if more > 0 {
                let more = u32::try_from(more).map_err(|_| Problem::BodyTooLarge)?;
                let more = self.0.clone().try_acquire_many_owned(more).map_err(|_| Problem::NoRoom)?;
                match &mut place {
                    Some(place) => place.merge(more),
                    None => place = Some(more),
                }
            }
            read.extend_from_slice(&data);
        }
        Ok((read.freeze(), Place { _permit: place }))
    }
}
