//! What the documentation of several routes needs: messages as they are read, and objects joined from parts.
//!
//! Bodies are read leniently and by hand, so what may stand in them is described by types that exist for the document only.

use utoipa::ToSchema;
use utoipa::openapi::schema::{AdditionalProperties, Object};
use utoipa::openapi::{RefOr, Schema};

/// A message of a conversation.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `messages` reads")]
pub(super) struct Message {
    /// Which roles there are is for the checkpoint's chat template to say: usually system, user, assistant and tool.
    #[schema(examples("user"))]
    role: String,
    content: Option<Content>,
}

/// A text, or texts, pictures and videos in their order.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what `messages` reads")]
pub(super) enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// A part of a message. The type may be left out where the field says it.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what `messages` reads")]
pub(super) enum Part {
    Text(TextPart),
    Picture(Box<PicturePart>),
    Video(Box<VideoPart>),
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `messages` reads")]
pub(super) struct TextPart {
    #[schema(inline)]
    r#type: Option<TextType>,
    text: String,
}

#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes what `messages` reads")]
enum TextType {
    Text,
    InputText,
    OutputText,
}

/// A picture, in one of the fields.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `messages` reads")]
pub(super) struct PicturePart {
    #[schema(inline)]
    r#type: Option<PictureType>,
    image: Option<Picture>,
    image_url: Option<Picture>,
    url: Option<Picture>,
    base64: Option<Picture>,
    data: Option<Picture>,
    #[schema(inline)]
    detail: Option<Detail>,
    /// Bounds on the area of the resized picture, in pixels. Default: the request's, else the checkpoint's.
    #[schema(minimum = 1)]
    min_pixels: Option<u64>,
    #[schema(minimum = 1)]
    max_pixels: Option<u64>,
}

/// `low`: at most 512 x 512 pixels. The others: as the checkpoint says.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes what `messages` reads")]
enum Detail {
    Low,
    High,
    Auto,
    Original,
}

#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes what `messages` reads")]
enum PictureType {
    Image,
    ImageUrl,
    InputImage,
}

/// A video, in one of the fields: a file, or a list of frames.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `messages` reads")]
pub(super) struct VideoPart {
    #[schema(inline)]
    r#type: Option<VideoType>,
    video: Option<Video>,
    video_url: Option<Video>,
    url: Option<Video>,
    base64: Option<Video>,
    data: Option<Video>,
    frames: Option<Vec<Picture>>,
    /// Of a file: frames to sample per second (default: the checkpoint's, 2). Of a list: how many frames are one second.
    #[schema(exclusive_minimum = 0.0)]
    fps: Option<f64>,
    /// Another name of `fps`.
    #[schema(exclusive_minimum = 0.0)]
    sample_fps: Option<f64>,
    /// Frames to spread over the video, in place of a file's `fps`.
    #[schema(minimum = 2)]
    num_frames: Option<u32>,
    /// Another name of `num_frames`.
    #[schema(minimum = 2)]
    nframes: Option<u32>,
    /// Where the part of a file that is read begins, in seconds.
    #[schema(minimum = 0.0)]
    video_start: Option<f64>,
    /// Where it ends, in seconds.
    #[schema(exclusive_minimum = 0.0)]
    video_end: Option<f64>,
    /// Bounds on the area of a resized frame, in pixels.
    #[schema(minimum = 1)]
    min_pixels: Option<u64>,
    #[schema(minimum = 1)]
    max_pixels: Option<u64>,
    /// A bound on the area of all resized frames together, in pixels.
    #[schema(minimum = 1)]
    total_pixels: Option<u64>,
}

#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes what `messages` reads")]
enum VideoType {
    Video,
    VideoUrl,
    InputVideo,
}

/// A file (an http(s) URL, a `data:` URL, or base64), or a list of frames.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what `messages` reads")]
pub(super) enum Video {
    Text(String),
    Url(PictureUrl),
    Frames(Vec<Picture>),
}

/// An http(s) URL, a `data:` URL, or base64.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what `messages` reads")]
pub(super) enum Picture {
    Text(String),
    Url(PictureUrl),
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `messages` reads")]
pub(super) struct PictureUrl {
    url: String,
    #[schema(inline)]
    detail: Option<Detail>,
    #[schema(minimum = 1)]
    min_pixels: Option<u64>,
    #[schema(minimum = 1)]
    max_pixels: Option<u64>,
}

/// One value or a list of them.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what is read by hand")]
pub(super) enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

/// What an object may have beside its own fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    /// They are refused.
    Refused,
    /// They have no effect.
    Ignored,
}

/// One object with the fields of all `parts`.
pub(super) fn joined(parts: impl IntoIterator<Item = RefOr<Schema>>, others: Others) -> Object {
    let mut joined = Object::new();
    for part in parts {
        let RefOr::T(Schema::Object(part)) = part else { unreachable!("Invariant: parts are objects") };
        joined.properties.extend(part.properties);
        joined.required.extend(part.required);
        joined.description = joined.description.or(part.description);
    }
    joined.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(others == Others::Ignored)));
    joined
}
