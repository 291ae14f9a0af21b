//! A form (multipart/form-data): files, which are pictures and videos, and the fields of a request as texts.

use std::future::ready;

use actix_multipart::{Field, Multipart, MultipartError};
use actix_web::error::PayloadError;
use actix_web::http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use serde_json::{Map, Value};
use tokio::runtime::Handle;

use crate::error::Error;
use crate::http::json::refuse;
use crate::media::{Medium, Source};

/// Parts of one form.
const MAX_PARTS: usize = 256;

/// Names of parts that hold a file.
const FILE_NAMES: [&str; 9] = ["image", "images", "image[]", "images[]", "video", "videos", "file", "files", "inputs"];

/// What a form holds.
pub(super) struct Form {
    /// Texts under their names; one that reads as JSON is that.
    pub(super) fields: Map<String, Value>,
    /// In their order.
    pub(super) files: Vec<Medium>,
}

/// Reads a form that has arrived whole. To be called where blocking is allowed, within a runtime.
pub(super) fn read(content_type: &str, body: Bytes) -> Result<Form, Error> {
    let mut headers = HeaderMap::new();
    let content_type = HeaderValue::from_str(content_type).map_err(|error| malformed(&error))?;
    headers.insert(CONTENT_TYPE, content_type);
    let multipart = Multipart::new(&headers, stream::once(ready(Ok::<Bytes, PayloadError>(body))));
    Handle::current().block_on(read_parts(multipart))
}

async fn read_parts(mut multipart: Multipart) -> Result<Form, Error> {
    let mut form = Form { fields: Map::new(), files: Vec::new() };
    let mut num_parts = 0;
    while let Some(field) = multipart.next().await {
        let field = field.map_err(|error: MultipartError| malformed(&error))?;
        num_parts += 1;
        if num_parts > MAX_PARTS {
            return Err(Error::invalid(format!("the form has more than {MAX_PARTS} parts, the most that are read")));
        }
        form.add(field).await?;
    }
    Ok(form)
}

impl Form {
    async fn add(&mut self, mut field: Field) -> Result<(), Error> {
        let name = field.name().unwrap_or_default().to_owned();
        let (is_file, is_video) = (is_file(&field), is_video(&name, &field));
        let mut content = BytesMut::new();
        while let Some(chunk) = field.next().await {
            content.extend_from_slice(&chunk.map_err(|error| malformed(&error))?);
        }
        if is_file {
            if !FILE_NAMES.contains(&name.as_str()) {
                return Err(refuse(&name, &format!("is no name for a file; there are {}", FILE_NAMES.join(", "))));
            }
            let source = Source::File(content.freeze());
            self.files.push(if is_video { Medium::Video(source.into()) } else { Medium::Picture(source) });
            return Ok(());
        }
        let text = String::from_utf8(content.to_vec()).map_err(|_| refuse(&name, "is a text that is not UTF-8"))?;
        if self.fields.insert(name.clone(), value(text)).is_some() {
            return Err(refuse(&name, "stands twice in the form"));
        }
        Ok(())
    }
}

/// Browsers and curl name a file; others at least say what it is.
fn is_file(field: &Field) -> bool {
    let has_file_name = field.content_disposition().is_some_and(|disposition| disposition.get_filename().is_some());
    let is_binary = field
        .content_type()
        .is_some_and(|kind| kind.type_() == "image" || kind.type_() == "video" || kind.subtype() == "octet-stream");
    has_file_name || is_binary
}

/// A video by the type of its part, or where that says nothing by its name.
fn is_video(name: &str, field: &Field) -> bool {
    let kind = field.content_type().map(|kind| kind.type_().as_str().to_owned());
    match kind.as_deref() {
        Some("video") => true,
        Some("image") => false,
        _ => name.starts_with("video"),
    }
}

/// What a text stands for: an object, a list, a number, true, false or null; any other text is itself.
fn value(text: String) -> Value {
    let scalar_or_more = serde_json::from_str(&text).ok().filter(|value: &Value| !value.is_string());
    scalar_or_more.unwrap_or(Value::String(text))
}

fn malformed(problem: &dyn std::fmt::Display) -> Error {
    Error::invalid(format!("the form (multipart/form-data) cannot be read: {problem}"))
}
