//! URL, base64 or bytes -> pixels -> patches: everything that fetches and decodes pictures.

use bytes::Bytes;

/// Where a picture comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// An http(s) URL, a `data:` URL, or bare base64.
    Text(String),
    /// The file itself.
    File(Bytes),
}

use std::sync::Arc;

use crate::engine::Picture;
use crate::error::Error;

pub struct Media;

impl Media {
    pub async fn pictures(&self, _: &[Source]) -> Result<Vec<Arc<Picture>>, Error> {
        todo!()
    }
}
